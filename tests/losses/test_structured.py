"""Losses whose terms depend on other pairs, rows or classes: what test_pair_losses.py does not test for all losses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from simjax.core import InputError, _blocks
from tests.losses.cases import (
    D,
    M,
    N,
    assert_gradient_equals_slope,
    assert_no_nan,
    cosine,
    euclidean,
    float32,
    loss_named,
    mean,
    mean_above_zero,
    rows,
)
from tests.losses.oracles import ORACLES, lifted_structure, signal_to_noise_contrastive
from tests.slow import mostly_slow


@pytest.mark.parametrize(
    ("name", "kind"),
    mostly_slow(
        [
            (name, kind)
            for name in ("n_pairs", "instance")
            for kind in ("classes, some ignored", "function", "matrix without groups")
        ],
        ("n_pairs", "matrix without groups"),
    ),
)
def test_losses_of_groups_equal_loops(random, name, kind):
    ids, x = np.array([2, 0, 1, 2, 3, 0, 0, 1, 4, 4, 2]), random.normal(size=(N, D))
    groups = ids[:, None] == ids
    known, no_groups = (ids != 4)[:, None] & (ids != 4), np.isin(abs(np.arange(N)[:, None] - np.arange(N)), (0, 3))
    labels, positive, negative = {
        "classes, some ignored": (pairs.by_class(ids, ignore=(4,)), groups & known, ~groups & known),
        "function": (pairs.by_function(jnp.equal, ids), groups, ~groups),
        "matrix without groups": (pairs.by_matrix(no_groups), no_groups, ~no_groups),
    }[kind]
    if name == "n_pairs":
        positive, negative = positive & ~np.eye(N, dtype=bool), negative & ~np.eye(N, dtype=bool)
    expected = ORACLES[name](x, x, positive, negative)
    assert expected > 0
    np.testing.assert_allclose(loss_named(name)(float32(x), labels, block_size=4), expected, rtol=2e-5)


@pytest.mark.slow
def test_margin_loss_of_mined_triplets(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    d, same = euclidean(x, x), labels[:, None] == labels
    triplets = [
        (d[i, a], d[i, b])
        for i, (p, q) in enumerate(rows(same & ~np.eye(N, dtype=bool), ~same))
        for a in p
        for b in q
        if 0 < d[i, b] - d[i, a] <= 0.2
    ]
    assert triplets
    mined = mining.triplet_margin(float32(x), labels, kind="semi_hard")
    expected = mean_above_zero([max(0, a - 1) for a, _ in triplets] + [max(0, 1.4 - b) for _, b in triplets])
    found = losses.margin_loss(float32(x), mined, block_size=4)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.slow
def test_counts_that_are_not_saved_are_computed_again(random, monkeypatch):
    monkeypatch.setattr(_blocks, "rows_per_block", lambda n, row_bytes: 4)
    x, labels = float32(random.normal(size=(13, 3))), random.integers(0, 4, 13)

    def compute():
        jax.clear_caches()
        value_and_grad = jax.jit(jax.value_and_grad(lambda x: losses.margin_loss(x, mining.semi_hard(x, labels))))
        return value_and_grad(x), str(jax.make_jaxpr(value_and_grad)(x))

    saved, program = compute()
    monkeypatch.setattr(_blocks, "SAVED_BYTES", 0)
    recomputed, other_program = compute()
    assert program != other_program
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), saved, recomputed)


@pytest.mark.slow
def test_lifted_structure_of_mined_pairs(random):
    """A miner selects a few columns of each row, but a positive also has a row."""
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)

    @jax.jit
    def compute(x, labels):
        mined, ids = mining.batch_hard(x, labels), jnp.arange(N)
        return losses.lifted_structure_loss(x, mined, block_size=4), mined.masks(ids[:, None], ids[None])

    found, (positive, negative) = jax.tree.map(np.asarray, compute(float32(x), labels))
    np.testing.assert_allclose(found, lifted_structure(x, x, positive, negative), rtol=2e-5)
    with pytest.raises(InputError, match="got a relation that a miner returned"):
        jax.eval_shape(lambda x, labels: mining.pair_margin(x, labels).transposed(), float32(x), labels)


@pytest.mark.slow
def test_similarities_and_distances_agree(random):
    """The cosine distance is 1 - cos, so losses with margins at the same place are equal."""
    x, labels = float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    margins = {
        "lifted_structure": (
            {"positive_margin": 0.1, "negative_margin": 0.7},
            {"positive_margin": 0.9, "negative_margin": 0.3},
        ),
        "margin": ({"beta": 0.8}, {"beta": 0.2}),
        "threshold_consistent_margin": ({"positive_margin": 0.1, "negative_margin": 0.5}, {}),
    }

    @jax.jit
    def compute(x, labels):
        def of_both(name):
            loss, (of_distance, of_similarity) = loss_named(name), margins[name]
            by_distance = loss(x, labels, measure="cosine_distance", **of_distance)
            return by_distance, loss(x, labels, measure="cosine", **of_similarity)

        return {name: of_both(name) for name in margins}

    for name, (by_distance, by_similarity) in compute(x, labels).items():
        np.testing.assert_allclose(by_distance, by_similarity, rtol=1e-5, err_msg=name)


def test_intra_pair_variance_of_a_distance(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    d, same = euclidean(x, x), labels[:, None] == labels
    near, far = d[same & ~np.eye(N, dtype=bool)], d[~same]
    expected = mean(np.maximum(0, near - 1.2 * mean(near)) ** 2) + mean(np.maximum(0, 0.9 * mean(far) - far) ** 2)
    options = {"positive_eps": 0.2, "negative_eps": 0.1, "measure": "normalized_euclidean"}
    found = jax.jit(functools.partial(losses.intra_pair_variance_loss, **options))(float32(x), labels)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.slow
def test_beta_of_each_class_is_that_of_the_row(random):
    """Values, with and without the regularizer, and the gradient by each beta."""
    x, labels, beta = random.normal(size=(N, D)), random.integers(0, 3, N), np.array([0.7, 1.0, 1.3])
    d, same = euclidean(x, x), labels[:, None] == labels
    near, far, with_triplet = [], [], []
    for i, (p, q) in enumerate(rows(same & ~np.eye(N, dtype=bool), ~same)):
        b = beta[labels[i]]
        near += [max(0, d[i, k] - b + 0.2) for k in p for _ in q]
        far += [max(0, b - d[i, k] + 0.2) for k in q for _ in p]
        with_triplet += [b] * bool(len(p) and len(q))
    with jax.enable_x64(True):

        @jax.jit
        def compute(beta, nu):
            return jax.value_and_grad(lambda beta: losses.margin_loss(x, labels, beta=beta, nu=nu, block_size=4))(beta)

        expected = mean_above_zero(near + far)
        np.testing.assert_allclose(compute(beta, 0.0)[0], expected, rtol=2e-5)
        np.testing.assert_allclose(compute(beta, 0.3)[0], expected + 0.3 * mean(with_triplet), rtol=2e-5)
        assert_gradient_equals_slope(lambda beta: compute(beta, 0.1), beta, random)
        one_for_all = jax.jit(jax.value_and_grad(lambda beta: losses.margin_loss(x, labels, beta=beta, nu=0.1)))
        assert_gradient_equals_slope(one_for_all, np.float64(1.1), random)


@pytest.mark.slow
def test_signal_to_noise_of_rows_without_a_signal_and_with_a_mean(random):
    """Rows of equal features are ignored, and the regularizer is that of the embeddings as given."""
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    x[4] = 0.5
    same, has = labels[:, None] == labels, np.arange(N)[:, None] != 4
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = signal_to_noise_contrastive(x, x, same & ~np.eye(N, dtype=bool) & has, ~same & has)
    loss = jax.jit(jax.value_and_grad(losses.signal_to_noise_contrastive_loss))
    (plain, gradient), (regularized, _) = (loss(float32(x), labels, zero_mean=weight) for weight in (0.0, 0.3))
    np.testing.assert_allclose(plain, expected, rtol=2e-5)
    np.testing.assert_allclose(regularized - plain, 0.3 * np.abs(x.sum(1)).mean(), rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_a_zero_mean_adds_no_gradient():
    x = np.array([[1, -1, 0], [0, 2, -2], [-3, 1, 2], [4, 0, -4]], np.float32)
    labels = np.array([0, 0, 1, 1])
    gradient = jax.jit(jax.grad(losses.signal_to_noise_contrastive_loss))
    np.testing.assert_array_equal(gradient(x, labels, zero_mean=0.3), gradient(x, labels, zero_mean=0.0))


def manifold(x, ids, proxies, alpha=0.8, margin=5e-4):
    n, nodes = len(x), np.concatenate([x, proxies])
    weight = np.exp(2 * np.maximum(0, cosine(nodes, nodes)))
    np.fill_diagonal(weight, 0)
    root = np.sqrt(weight.sum(1))
    walk = (1 - alpha) * np.linalg.inv(np.eye(len(nodes)) - alpha * weight / np.outer(root, root))
    total = 0.0
    for f in (walk[:n, n:], cosine(walk[:n], walk[n:])):
        ahead = [[f[i, k] - f[i, y] + margin for k in range(len(proxies)) if k != y] for i, y in enumerate(ids)]
        total += np.mean([np.log1p(sum(np.exp(a) for a in row if a >= 0)) for row in ahead])
    return total


@pytest.mark.slow
def test_manifold_equals_an_inverse(random):
    x, proxies, ids = random.normal(size=(N, D)), random.normal(size=(4, D)), random.integers(0, 4, N)
    nodes = np.concatenate([x, proxies])

    def loss(nodes, ids, alpha, margin):
        terms = losses.unreduced(losses.manifold_loss)(nodes[:N], ids, proxies=nodes[N:], alpha=alpha, margin=margin)
        return losses.manifold_loss(nodes[:N], ids, proxies=nodes[N:], alpha=alpha, margin=margin), terms

    with jax.enable_x64(True):
        compute = jax.jit(jax.value_and_grad(loss, has_aux=True))
        for options in ({"alpha": 0.8, "margin": 5e-4}, {"alpha": 0.3, "margin": 0.1}):
            found = compute(nodes, ids, **options)[0][0]
            np.testing.assert_allclose(found, manifold(x, ids, proxies, **options), rtol=2e-5)
        (_, terms), _ = compute(nodes, np.where(ids == 2, -1, ids), alpha=0.8, margin=5e-4)

        def value_and_gradient(nodes):
            (value, _), gradient = compute(nodes, ids, alpha=0.8, margin=0.1)
            return value, gradient

        assert_gradient_equals_slope(value_and_gradient, nodes, random)
    np.testing.assert_array_equal(terms.count, np.where(ids == 2, 0, 2))  # two terms of each row that has a proxy


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_manifold_has_no_nan_at_degenerate_batches(dtype):
    def loss(x, labels):
        return losses.manifold_loss(x, labels, proxies=np.eye(5, 4, dtype=np.float32))

    assert_no_nan(loss, dtype, zero=("no row",))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lifted_structure", "intra_pair_variance"])
def test_a_square_that_overflows_has_no_gradient(random, name):
    x = float32(1e37 * random.normal(size=(4, 4)))
    loss = jax.jit(jax.value_and_grad(lambda x: loss_named(name)(x, np.array([0, 0, 1, 1]), measure="euclidean")))
    value, gradient = loss(x)
    assert float(value) == np.inf
    assert np.isfinite(gradient).all()


def test_every_row_is_an_instance_without_labels(random):
    x = float32(random.normal(size=(N, D)))
    np.testing.assert_array_equal(losses.instance_loss(x), losses.instance_loss(x, np.arange(N)[::-1]))


def test_a_transposed_relation_has_transposed_masks(random):
    ids, ref = random.integers(0, 3, N), random.integers(0, 3, M)

    @jax.jit
    def masks(relation):
        i, j = jnp.arange(N)[:, None], jnp.arange(M)[None]
        return relation.masks(i, j), relation.transposed().masks(j.T, i.T)

    for relation in (pairs.by_class(ids, ref, ignore=(2,)), pairs.by_matrix(random.random((N, M)) > 0.5)):
        assert relation.transposed().shape == (M, N)
        for mask, other in zip(*masks(relation), strict=True):
            np.testing.assert_array_equal(np.asarray(mask).T, other)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    for name, argument, wrong in (
        ("margin", "nu", -1.0),
        ("intra_pair_variance", "positive_eps", -0.1),
        ("intra_pair_variance", "negative_eps", float("nan")),
        ("signal_to_noise_contrastive", "zero_mean", -1.0),
        ("threshold_consistent_margin", "positive_weight", -1.0),
        ("threshold_consistent_margin", "negative_weight", -1.0),
        ("instance", "gamma", 0.0),
    ):
        with pytest.raises(InputError, match=f"{argument}: expected"):
            loss_named(name)(x, labels, **{argument: wrong})
    with pytest.raises(InputError, match="below 1, the number of betas, got 1"):
        losses.margin_loss(x, labels, beta=np.ones(1))
    with pytest.raises(InputError, match=r"one for each class \[c\], got shape \(2, 1\)"):
        losses.margin_loss(x, labels, beta=np.ones((2, 1)))
    with pytest.raises(InputError, match="betas need class ids"):
        losses.margin_loss(x, pairs.by_matrix(np.eye(3, dtype=bool)), beta=np.ones(2))
    valid: dict[str, Any] = {"embeddings": x, "labels": labels, "proxies": np.ones((2, 2))}
    changes: dict[str, dict[str, Any]] = {
        "alpha: expected a number between 0 and 1, got 1.0": {"alpha": 1.0},
        "alpha: expected a number between 0 and 1, got 0.0": {"alpha": 0.0},
        "context_weight: expected at least 0": {"context_weight": -1.0},
        "below 1, the number of proxies, got 1": {"proxies": np.ones((1, 2))},
        "one for each of 3 rows, got shape": {"labels": labels[:2]},
    }
    for message, change in changes.items():
        with pytest.raises(InputError, match=message):
            losses.manifold_loss(**(valid | change))
