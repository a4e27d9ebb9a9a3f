"""Losses whose terms depend on other pairs, rows or classes, against loops."""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from simjax.core import InputError, _blocks
from tests.losses.cases import (
    DEGENERATE,
    D,
    M,
    N,
    cosine,
    euclidean,
    kind,
    mean,
    mean_above_zero,
    related,
    rows,
    unit,
)
from tests.slow import mostly_slow


def signal_to_noise(x, y):
    return np.var(unit(x)[:, None] - unit(y)[None], axis=2) / np.var(unit(x), axis=1)[:, None]


def lifted_structure(d, positive, negative, margin=1.0):
    """Without reference rows a positive has a row of its own, otherwise only a column."""
    one_set = d.shape[0] == d.shape[1]
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        for k in p:
            near = [d[i, n] for n in q] + [
                (d[k, n] if one_set else d[n, k]) for n in np.flatnonzero(negative[k] if one_set else negative[:, k])
            ]
            if near:
                terms.append(max(0, np.log(sum(np.exp(margin - v) for v in near)) + d[i, k]) ** 2 / 2)
    return mean(terms)


def earlier(positive):
    return [sum(positive[i, :i]) for i in range(len(positive))]


def n_pairs(s, positive, negative):
    before = earlier(positive)
    first, second = ([k for k in range(len(s)) if before[k] == rank] for rank in (0, 1))
    terms = []
    for i in first:
        others = sum(np.exp(s[i, n]) for n in second if negative[i, n])
        terms += [np.log(np.exp(s[i, p]) + others) - s[i, p] for p in second if positive[i, p]]
    return mean(terms)


def margin(d, positive, negative, beta=1.2, margin=0.2):
    triplets = [(d[i, p], d[i, n]) for i, (ps, qs) in enumerate(rows(positive, negative)) for p in ps for n in qs]
    near, far = [max(0, p - beta + margin) for p, _ in triplets], [max(0, beta - n + margin) for _, n in triplets]
    return mean_above_zero(near + far)


def intra_pair_variance(s, positive, negative, eps=0.01):
    near = np.maximum(0, (1 - eps) * mean(s[positive]) - s[positive]) ** 2
    far = np.maximum(0, s[negative] - (1 + eps) * mean(s[negative])) ** 2
    return mean(near) + mean(far)


def signal_to_noise_contrastive(d, positive, negative, margin=1.0):
    return mean_above_zero(d[positive]) + mean_above_zero(margin - d[negative])


def threshold_consistent_margin(s, positive, negative, low=0.9, high=0.5):
    near, far = s[positive], s[negative]
    return mean(low - near[near <= low]) + mean(far[far >= high] - high)


def instance(s, positive, negative, gamma=64.0):
    first = [k for k, before in enumerate(earlier(positive)) if before == 0]
    terms = []
    for i in range(len(s)):
        others = sum(np.exp(gamma * s[i, k]) for k in first if negative[i, k])
        terms += [np.log1p(others * np.exp(-gamma * s[i, k])) for k in first if positive[i, k]]
    return mean(terms)


ORACLES = {
    "lifted_structure": (euclidean, lifted_structure),
    "n_pairs": (cosine, n_pairs),
    "margin": (euclidean, margin),
    "intra_pair_variance": (cosine, intra_pair_variance),
    "signal_to_noise_contrastive": (signal_to_noise, signal_to_noise_contrastive),
    "threshold_consistent_margin": (cosine, threshold_consistent_margin),
    "instance": (cosine, instance),
}
WITH_REFERENCE = [name for name in ORACLES if name not in ("n_pairs", "instance")]


def loss_named(name):
    return getattr(losses, f"{name}_loss")


@pytest.mark.parametrize("name", WITH_REFERENCE)
@pytest.mark.parametrize("kind", [kind(name) for name in ("classes", "function", "grades", "reference")])
def test_equals_loops(random, name, kind):
    labels, ref_labels, positive, negative = related(kind, random)
    x = random.normal(size=(N, D))
    y = x if ref_labels is None else random.normal(size=(M, D))
    if ref_labels is None:
        positive, negative = positive & ~np.eye(N, dtype=bool), negative & ~np.eye(N, dtype=bool)
    compare, oracle = ORACLES[name]
    options = {} if ref_labels is None else {"ref_embeddings": jnp.float32(y), "ref_labels": ref_labels}
    found = loss_named(name)(jnp.float32(x), labels, block_size=4, **options)
    np.testing.assert_allclose(found, oracle(compare(x, y), positive, negative), rtol=2e-5)


@pytest.mark.parametrize("name", ["n_pairs", "instance"])
@pytest.mark.parametrize("kind", [kind(name) for name in ("classes", "classes, some ignored", "function", "matrix")])
def test_losses_of_groups_equal_loops(random, name, kind):
    ids, x = np.array([2, 0, 1, 2, 3, 0, 0, 1, 4, 4, 2]), random.normal(size=(N, D))
    groups = ids[:, None] == ids
    known, no_groups = (ids != 4)[:, None] & (ids != 4), np.isin(abs(np.arange(N)[:, None] - np.arange(N)), (0, 3))
    labels, positive, negative = {
        "classes": (ids, groups, ~groups),
        "classes, some ignored": (pairs.by_class(ids, ignore=(4,)), groups & known, ~groups & known),
        "function": (pairs.by_function(jnp.equal, ids), groups, ~groups),
        "matrix": (pairs.by_matrix(no_groups), no_groups, ~no_groups),
    }[kind]
    if name == "n_pairs":
        positive, negative = positive & ~np.eye(N, dtype=bool), negative & ~np.eye(N, dtype=bool)
    compare, oracle = ORACLES[name]
    expected = oracle(compare(x, x), positive, negative)
    assert expected > 0
    np.testing.assert_allclose(loss_named(name)(jnp.float32(x), labels, block_size=4), expected, rtol=2e-5)


def assert_gradient_equals_slope(value_and_gradient, x, random, step=1e-5):
    """Compare the derivative of a jitted function along one direction with finite differences."""
    direction = random.normal(size=x.shape)
    ahead, behind = (value_and_gradient(x + sign * step * direction)[0] for sign in (1, -1))
    slope = np.sum(value_and_gradient(x)[1] * direction)
    assert abs(slope) > 1e-4
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "lifted_structure"))
def test_gradient_equals_finite_differences(random, name):
    with jax.enable_x64(True):
        x, labels = jnp.asarray(random.normal(size=(7, 3))), jnp.asarray([0, 1, 0, 1, 1, 0, 1])
        loss = jax.jit(jax.value_and_grad(lambda x: loss_named(name)(x, labels)))
        assert_gradient_equals_slope(loss, x, random)


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
    mined = mining.triplet_margin(jnp.float32(x), labels, kind="semi_hard")
    expected = mean_above_zero([max(0, a - 1) for a, _ in triplets] + [max(0, 1.4 - b) for _, b in triplets])
    found = losses.margin_loss(jnp.float32(x), mined, block_size=4)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.slow
def test_counts_that_are_not_saved_are_computed_again(random, monkeypatch):
    monkeypatch.setattr(_blocks, "rows_per_block", lambda n, row_bytes: 4)
    x, labels = jnp.asarray(random.normal(size=(13, 3)), jnp.float32), random.integers(0, 4, 13)

    def compute():
        jax.clear_caches()
        value_and_grad = jax.value_and_grad(lambda x: losses.margin_loss(x, mining.semi_hard(x, labels)))
        return value_and_grad(x), str(jax.make_jaxpr(value_and_grad)(x))

    saved, program = compute()
    monkeypatch.setattr(_blocks, "SAVED_BYTES", 0)
    recomputed, other_program = compute()
    assert program != other_program
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), saved, recomputed)


def test_lifted_structure_of_mined_pairs(random):
    """A miner selects a few columns of each row, but a positive also has a row."""
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    mined = mining.batch_hard(jnp.float32(x), labels)
    positive, negative = map(np.asarray, mined.masks(jnp.arange(N)[:, None], jnp.arange(N)[None]))
    expected = lifted_structure(euclidean(x, x), positive, negative)
    np.testing.assert_allclose(losses.lifted_structure_loss(jnp.float32(x), mined, block_size=4), expected, rtol=2e-5)
    with pytest.raises(InputError, match="got a relation that a miner returned"):
        mining.pair_margin(jnp.float32(x), labels).transposed()


def test_similarities_and_distances_agree(random):
    """The cosine distance is 1 - cos, so losses with margins at the same place are equal."""
    x, labels = jnp.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    cases: tuple[Any, ...] = (
        (
            losses.lifted_structure_loss,
            {"positive_margin": 0.1, "negative_margin": 0.7},
            {"positive_margin": 0.9, "negative_margin": 0.3},
        ),
        (losses.margin_loss, {"beta": 0.8}, {"beta": 0.2}),
        (losses.threshold_consistent_margin_loss, {"positive_margin": 0.1, "negative_margin": 0.5}, {}),
    )
    for loss, by_distance, by_similarity in cases:
        distance = loss(x, labels, measure="cosine_distance", **by_distance)
        np.testing.assert_allclose(distance, loss(x, labels, measure="cosine", **by_similarity), rtol=1e-5)


def test_intra_pair_variance_of_a_distance(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    d, same = euclidean(x, x), labels[:, None] == labels
    near, far = d[same & ~np.eye(N, dtype=bool)], d[~same]
    expected = mean(np.maximum(0, near - 1.2 * mean(near)) ** 2) + mean(np.maximum(0, 0.9 * mean(far) - far) ** 2)
    found = losses.intra_pair_variance_loss(
        jnp.float32(x), labels, positive_eps=0.2, negative_eps=0.1, measure="normalized_euclidean"
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_beta_of_each_class_is_that_of_the_row(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    d, same, beta = euclidean(x, x), labels[:, None] == labels, np.array([0.7, 1.0, 1.3])
    near, far, with_triplet = [], [], []
    for i, (p, q) in enumerate(rows(same & ~np.eye(N, dtype=bool), ~same)):
        b = beta[labels[i]]
        near += [max(0, d[i, k] - b + 0.2) for k in p for _ in q]
        far += [max(0, b - d[i, k] + 0.2) for k in q for _ in p]
        with_triplet += [b] * bool(len(p) and len(q))
    expected = mean_above_zero(near + far)
    found = losses.margin_loss(jnp.float32(x), labels, beta=jnp.float32(beta), block_size=4)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    with_nu = losses.margin_loss(jnp.float32(x), labels, beta=jnp.float32(beta), nu=0.3, block_size=4)
    np.testing.assert_allclose(with_nu, expected + 0.3 * mean(with_triplet), rtol=2e-5)


def test_gradient_by_beta(random):
    labels = jnp.asarray(random.integers(0, 3, 7))
    with jax.enable_x64(True):
        x = jnp.asarray(random.normal(size=(7, 3)))
        loss = jax.jit(jax.value_and_grad(lambda beta: losses.margin_loss(x, labels, beta=beta, nu=0.1)))
        for beta in (jnp.float64(1.1), jnp.array([0.7, 1.0, 1.3])):
            assert_gradient_equals_slope(loss, beta, random)


def test_the_zero_mean_regularizer(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    plain, more = (
        losses.signal_to_noise_contrastive_loss(jnp.float32(x), labels, zero_mean=weight) for weight in (None, 0.3)
    )
    np.testing.assert_allclose(more - plain, 0.3 * np.abs(x.sum(1)).mean(), rtol=1e-5)


def test_rows_without_a_signal_are_ignored(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    x[4] = 0.5
    d, same, has = signal_to_noise(x, x), labels[:, None] == labels, np.arange(N)[:, None] != 4
    expected = signal_to_noise_contrastive(d, same & ~np.eye(N, dtype=bool) & has, ~same & has)
    value, gradient = jax.jit(jax.value_and_grad(losses.signal_to_noise_contrastive_loss))(jnp.float32(x), labels)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    assert np.isfinite(gradient).all()


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


def test_manifold_equals_an_inverse(random):
    x, proxies, ids = random.normal(size=(N, D)), random.normal(size=(4, D)), random.integers(0, 4, N)
    options: dict[str, Any]
    for options in ({}, {"alpha": 0.3, "margin": 0.1}):
        found = losses.manifold_loss(jnp.float32(x), ids, proxies=jnp.float32(proxies), **options)
        np.testing.assert_allclose(found, manifold(x, ids, proxies, **options), rtol=2e-5)
    terms = losses.unreduced(losses.manifold_loss)(
        jnp.float32(x), np.where(ids == 2, -1, ids), proxies=jnp.float32(proxies)
    )
    np.testing.assert_array_equal(terms.count, np.where(ids == 2, 0, 2))  # two terms of each row that has a proxy


def test_gradient_of_the_manifold_equals_finite_differences(random):
    with jax.enable_x64(True):
        nodes, ids = jnp.asarray(random.normal(size=(10, 3))), jnp.asarray(random.integers(0, 3, 7))
        loss = jax.value_and_grad(lambda v: losses.manifold_loss(v[:7], ids, proxies=v[7:], margin=0.1))
        assert_gradient_equals_slope(jax.jit(loss), nodes, random)


PAIRS = {name: loss_named(name) for name in ORACLES} | {
    "manifold": lambda x, labels, **options: losses.manifold_loss(x, labels, proxies=jnp.eye(5, 4), **options)
}


NOTHING_TO_LEARN = {"instance": ("no row", "one row"), "manifold": ("no row",)}  # with proxies, one row has something


@pytest.mark.parametrize("name", mostly_slow(PAIRS, "margin"))
@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(t, marks=pytest.mark.slow) for t in ("bfloat16", "float16"))]
)
def test_no_nan_at_degenerate_batches(name, dtype):
    loss = jax.jit(jax.value_and_grad(PAIRS[name]))
    for case, (x, labels) in DEGENERATE.items():
        with np.errstate(over="ignore"):
            x = jnp.asarray(np.clip(x, -6e4, 6e4) if dtype == "float16" else x, dtype)
        value, gradient = loss(x, jnp.asarray(labels, jnp.int32))
        assert np.isfinite(value), case
        assert np.isfinite(np.float32(gradient)).all(), case
        if case in NOTHING_TO_LEARN.get(name, ("no row", "one row", "no positive pair")):
            assert float(value) == 0, case
            assert not np.any(gradient), case


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "lifted_structure", "margin"))
def test_without_positive_pairs_only_some_losses_have_terms(name):
    terms = losses.unreduced(loss_named(name))(jnp.eye(4), jnp.arange(4))
    assert terms.total.shape == terms.count.shape == (4,)
    # Negative pairs have a variance, and every row is an instance.
    np.testing.assert_array_equal(terms.count, {"intra_pair_variance": 3, "instance": 1}.get(name, 0))


@pytest.mark.parametrize("name", ["lifted_structure", "intra_pair_variance"])
def test_a_square_that_overflows_has_no_gradient(random, name):
    x = jnp.float32(1e37 * random.normal(size=(4, 4)))
    loss = jax.jit(jax.value_and_grad(lambda x: loss_named(name)(x, jnp.array([0, 0, 1, 1]), measure="euclidean")))
    value, gradient = loss(x)
    assert float(value) == np.inf
    assert np.isfinite(gradient).all()


def test_every_row_is_an_instance_without_labels(random):
    x = jnp.float32(random.normal(size=(N, D)))
    np.testing.assert_array_equal(losses.instance_loss(x), losses.instance_loss(x, jnp.arange(N)[::-1]))


def test_a_transposed_relation_has_transposed_masks(random):
    ids, ref = random.integers(0, 3, N), random.integers(0, 3, M)
    i, j = jnp.arange(N)[:, None], jnp.arange(M)[None]
    for relation in (pairs.by_class(ids, ref, ignore=(2,)), pairs.by_matrix(random.random((N, M)) > 0.5)):
        transposed = relation.transposed()
        assert transposed.shape == (M, N)
        for mask, other in zip(relation.masks(i, j), transposed.masks(j.T, i.T), strict=True):
            np.testing.assert_array_equal(mask.T, other)


def test_other_labels_do_not_recompile(random, caplog):
    x = jnp.float32(random.normal(size=(N, D)))
    for loss in ORACLES:
        loss_named(loss)(x, random.integers(0, 3, N), block_size=4)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for classes in (1, 2, 5, N):
            for loss in ORACLES:
                loss_named(loss)(x, random.integers(0, classes, N), block_size=4)
    assert not [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
    for name in ORACLES:
        with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
            loss_named(name)(x, labels[:2])
        with pytest.raises(TypeError, match="integer class ids, got float32"):
            loss_named(name)(x, jnp.zeros(3))
        with pytest.raises(InputError, match="did you mean mean"):
            loss_named(name)(x, labels, reducer="meen")
        if name in WITH_REFERENCE:
            with pytest.raises(InputError, match="one without the other"):
                loss_named(name)(x, labels, ref_embeddings=x)
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
        losses.margin_loss(x, labels, beta=jnp.ones(1))
    with pytest.raises(InputError, match=r"one for each class \[c\], got shape \(2, 1\)"):
        losses.margin_loss(x, labels, beta=jnp.ones((2, 1)))
    with pytest.raises(InputError, match="betas need class ids"):
        losses.margin_loss(x, pairs.by_matrix(np.eye(3, dtype=bool)), beta=jnp.ones(2))
    for wrong, message in (
        ({"alpha": 1.0}, "alpha: expected a number between 0 and 1, got 1.0"),
        ({"alpha": 0.0}, "alpha: expected a number between 0 and 1, got 0.0"),
        ({"context_weight": -1.0}, "context_weight: expected at least 0"),
        ({"proxies": jnp.ones((1, 2))}, "below 1, the number of proxies, got 1"),
        ({"labels": labels[:2]}, "one for each of 3 rows, got shape"),
    ):
        with pytest.raises(InputError, match=message):
            losses.manifold_loss(**{"embeddings": x, "labels": labels, "proxies": jnp.ones((2, 2)), **wrong})
