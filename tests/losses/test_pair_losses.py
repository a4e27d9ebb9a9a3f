"""Pair losses against loops, for every kind of relation."""

import itertools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses, pairs, similarity
from simjax.core import InputError
from tests.losses.cases import (
    DEGENERATE,
    RELATIONS,
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
)
from tests.slow import mostly_slow


def nt_xent(s, positive, negative, t=0.07):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        others = sum(np.exp(s[i, k] / t) for k in q)
        terms += [-np.log(np.exp(s[i, k] / t) / (np.exp(s[i, k] / t) + others)) for k in p]
    return mean(terms)


def supervised_contrastive(s, positive, negative, t=0.1):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        total = sum(np.exp(s[i, k] / t) for k in [*p, *q])
        if len(p):
            terms.append(-np.mean([np.log(np.exp(s[i, k] / t) / total) for k in p]))
    return mean_above_zero(terms)


def multi_similarity(s, positive, negative, alpha=2.0, beta=50.0, base=0.5):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        near = np.log(1 + sum(np.exp(alpha * (base - s[i, k])) for k in p)) / alpha
        far = np.log(1 + sum(np.exp(beta * (s[i, k] - base)) for k in q)) / beta
        terms.append(near + far)
    return mean(terms)


def circle(s, positive, negative, m=0.4, gamma=80.0):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        if len(p) and len(q):
            near = sum(np.exp(-gamma * max(0, 1 + m - s[i, k]) * (s[i, k] - 1 + m)) for k in p)
            far = sum(np.exp(gamma * max(0, s[i, k] + m) * (s[i, k] - m)) for k in q)
            terms.append(np.log1p(near * far))
    return mean_above_zero(terms)


def nca(d, positive, negative):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        near, far = (sum(np.exp(-(d[i, k] ** 2)) for k in part) for part in (p, q))
        if len(p):
            terms.append(-np.log(near / (near + far)))
    return mean(terms)


def generalized_lifted_structure(d, positive, negative, margin=1.0):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        if len(p) and len(q):
            far, near = sum(np.exp(d[i, k]) for k in p), sum(np.exp(margin - d[i, k]) for k in q)
            terms.append(max(0, np.log(far) + np.log(near)))
    return mean(terms)


def tuplet_margin(s, positive, negative, margin=5.73, scale=64.0):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        for k in p:
            slack = np.cos(np.arccos(s[i, k]) - np.deg2rad(margin))
            terms.append(np.log(1 + sum(np.exp(scale * (s[i, n] - slack)) for n in q)))
    return mean(terms)


def contrastive(d, positive, negative, margin=1.0):
    near, far = [], []
    for i, (p, q) in enumerate(rows(positive, negative)):
        near += [d[i, k] for k in p]
        far += [max(0, margin - d[i, k]) for k in q]
    return mean_above_zero(near) + mean_above_zero(far)


def triplet_margin(d, positive, negative, margin=0.05):
    triplets = [d[i, a] - d[i, b] + margin for i, (p, q) in enumerate(rows(positive, negative)) for a in p for b in q]
    return mean_above_zero(triplets)


ORACLES = {
    "nt_xent": (cosine, nt_xent),
    "supervised_contrastive": (cosine, supervised_contrastive),
    "multi_similarity": (cosine, multi_similarity),
    "circle": (cosine, circle),
    "nca": (euclidean, nca),
    "generalized_lifted_structure": (euclidean, generalized_lifted_structure),
    "tuplet_margin": (cosine, tuplet_margin),
    "contrastive": (euclidean, contrastive),
    "triplet_margin": (euclidean, triplet_margin),
}


def loss_named(name):
    return getattr(losses, f"{name}_loss")


EVERY_LOSS = ("classes", "shared labels", "function", "grades", "reference")
ONE_OF_EACH_KIND = ("contrastive", "supervised_contrastive", "triplet_margin")


@pytest.mark.parametrize(
    ("name", "kind"),
    [kind(which, name) for name in ORACLES for which in RELATIONS if which in EVERY_LOSS or name in ONE_OF_EACH_KIND],
)
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


@pytest.mark.parametrize("name", mostly_slow([n for n in ORACLES if n != "circle"], "multi_similarity"))
def test_gradient_equals_finite_differences(name):
    random = np.random.default_rng(5)
    with jax.enable_x64(True):
        x, labels = jnp.asarray(random.normal(size=(7, 3))), jnp.asarray(random.integers(0, 2, 7))
        jax.test_util.check_grads(
            lambda x: loss_named(name)(jnp.asarray(x), labels, block_size=3), (x,), order=1, modes=["rev"]
        )


def test_the_weights_of_the_circle_loss_are_constants(random):
    """The gradient of a row by a cosine is a softmax times gamma times the weight of the pair."""
    x, labels = random.normal(size=(7, 3)), np.array([0, 0, 1, 1, 2, 2, 2])
    found = jax.grad(lambda x: losses.circle_loss(x, labels, gamma=5.0, reducer="sum"))(jnp.float32(x))
    s, m, gamma = cosine(x, x), 0.4, 5.0
    by_cosine = np.zeros_like(s)
    same = labels[:, None] == labels
    for i, (p, q) in enumerate(rows(same & ~np.eye(7, dtype=bool), ~same)):
        far, near = np.maximum(0, 1 + m - s[i, p]), np.maximum(0, s[i, q] + m)
        a, b = np.exp(-gamma * far * (s[i, p] - 1 + m)), np.exp(gamma * near * (s[i, q] - m))
        outer = a.sum() * b.sum() / (1 + a.sum() * b.sum())
        by_cosine[i, p] = -outer * a / a.sum() * gamma * far
        by_cosine[i, q] = outer * b / b.sum() * gamma * near
    expected = jax.grad(lambda x: jnp.sum(by_cosine * similarity.pairwise(x, x)))(jnp.float32(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "multi_similarity", "circle"))
@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(t, marks=pytest.mark.slow) for t in ("bfloat16", "float16"))]
)
def test_no_nan_at_degenerate_batches(name, dtype):
    for case, (x, labels) in DEGENERATE.items():
        with np.errstate(over="ignore"):
            x = jnp.asarray(np.clip(x, -6e4, 6e4) if dtype == "float16" else x, dtype)
        value, gradient = jax.value_and_grad(loss_named(name))(x, jnp.asarray(labels, jnp.int32))
        assert np.isfinite(value), case
        assert np.isfinite(np.float32(gradient)).all(), case
        if "row" in case:
            assert float(value) == 0, case
            assert not np.any(gradient), case


@pytest.mark.parametrize("name", mostly_slow(ORACLES, *ONE_OF_EACH_KIND))
def test_without_positive_pairs_no_term_is_active(name):
    x, labels = jnp.eye(3), jnp.arange(3)
    terms = losses.unreduced(loss_named(name))(x, labels)
    assert terms.total.shape == terms.count.shape == (3,)
    if name not in ("multi_similarity", "contrastive"):  # which learn from negative pairs alone
        assert float(loss_named(name)(x, labels)) == 0
        assert int(terms.count.sum()) == 0


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_reducers(random, name):
    x, labels = jnp.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    loss = loss_named(name)
    weights = jnp.float32(random.random(N))
    plain, weighted = (losses.unreduced(loss)(x, labels, weights=w) for w in (None, weights))
    np.testing.assert_allclose(weighted.total, plain.total * weights, rtol=1e-5)
    np.testing.assert_array_equal(weighted.count, plain.count)
    np.testing.assert_allclose(loss(x, labels, reducer="sum"), plain.total.sum(), rtol=1e-5)
    by_class = losses.Reducer(class_weights=jnp.array([0.0, 0.0, 3.0]), divide_by=None)
    np.testing.assert_allclose(loss(x, labels, reducer=by_class), 3 * plain.total[labels == 2].sum(), rtol=1e-5)
    if name == "supervised_contrastive":  # has no term of 0
        np.testing.assert_allclose(loss(x, labels, reducer="mean"), plain.total.sum() / plain.count.sum(), rtol=1e-5)


def test_reducers_with_bounds():
    terms, valid = jnp.array([[0.0, 1.0, 2.0, 3.0]]), jnp.array([[True, True, True, False]])
    for reducer, expected in (
        (losses.Reducer(), 1.0),
        (losses.REDUCERS["mean_active"], 1.5),
        (losses.Reducer(above=0.0, below=2.0), 1.0),
        (losses.Reducer(above=5.0), 0.0),
        (losses.REDUCERS["sum"], 3.0),
    ):
        assert float(reducer.scalar(reducer.sum_rows((terms, valid), jnp.ones(1)))) == expected


def test_per_row_gives_every_row_the_same_weight():
    terms = losses.LossTerms(jnp.array([6.0, 1.0, 0.0]), jnp.array([3, 1, 0]))
    assert float(losses.REDUCERS["per_row"].scalar(terms)) == 1.5
    assert float(losses.REDUCERS["mean"].scalar(terms)) == 1.75


def test_info_nce_in_both_directions(random):
    x, y = random.normal(size=(N, D)), random.normal(size=(N, D))
    z = cosine(x, y) / 0.2
    by_rows = np.mean(np.log(np.exp(z).sum(1)) - np.diag(z))
    by_columns = np.mean(np.log(np.exp(z).sum(0)) - np.diag(z))
    a, b = jnp.float32(x), jnp.float32(y)
    np.testing.assert_allclose(losses.info_nce_loss(a, b, temperature=0.2), by_rows, rtol=1e-5)
    both = losses.info_nce_loss(a, b, temperature=0.2, directions="both", block_size=3)
    np.testing.assert_allclose(both, (by_rows + by_columns) / 2, rtol=1e-5)
    terms = losses.unreduced(losses.info_nce_loss)(a, b, temperature=0.2, directions="both")
    np.testing.assert_allclose(terms.total.sum() / terms.count.sum(), both, rtol=1e-5)


def test_gradient_by_the_temperature(random):
    labels = random.integers(0, 3, N)
    with jax.enable_x64(True):
        x = jnp.asarray(random.normal(size=(N, D)))
        for loss in (losses.nt_xent_loss, losses.supervised_contrastive_loss):

            def at(t, loss=loss):
                return loss(x, labels, temperature=t)

            np.testing.assert_allclose(jax.grad(at)(0.3), (at(0.3 + 1e-5) - at(0.3 - 1e-5)) / 2e-5, rtol=1e-6)


def test_siglip_equals_loops(random):
    x, y = random.normal(size=(N, D)), random.normal(size=(M, D))
    labels, ref = random.integers(0, 3, N), random.integers(0, 3, M)
    sign = np.where(labels[:, None] == ref, 1, -1)
    expected = np.log1p(np.exp(-sign * (4.0 * cosine(x, y) - 1.5))).sum() / N
    relation = pairs.by_class(labels, ref)
    found = losses.siglip_loss(jnp.float32(x), jnp.float32(y), relation, log_scale=np.log(4.0), bias=-1.5, block_size=3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_other_labels_do_not_recompile(random, caplog):
    import logging

    x = jnp.float32(random.normal(size=(37, D)))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for seed in range(100):
            batch = np.random.default_rng(seed).integers(0, 1 + seed % 37, 37)
            for name in ORACLES:
                loss_named(name)(x, batch)
    compiled = [
        r.getMessage() for r in caplog.records if "Finished XLA compilation of jit(_pair_terms)" in r.getMessage()
    ]
    assert len(compiled) == len(ORACLES)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
    for name in ORACLES:
        loss = loss_named(name)
        with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
            loss(x, labels[:2])
        with pytest.raises(TypeError, match="integer class ids, got float32"):
            loss(x, jnp.zeros(3))
        with pytest.raises(InputError, match="one without the other"):
            loss(x, labels, ref_embeddings=x)
        with pytest.raises(InputError, match="did you mean mean"):
            loss(x, labels, reducer="meen")
        with pytest.raises(InputError, match="weights: expected one for each of 3 rows"):
            loss(x, labels, weights=jnp.ones(2))
        with pytest.raises(InputError, match="need class ids"):
            loss(x, pairs.by_matrix(np.eye(3, dtype=bool)), reducer=losses.Reducer(class_weights=jnp.ones(2)))
    for name, wrong in itertools.product(("nt_xent", "supervised_contrastive"), (0.0, -1.0, float("nan"))):
        with pytest.raises(InputError, match="temperature: expected more than 0"):
            loss_named(name)(x, labels, temperature=wrong)
    with pytest.raises(InputError, match="expected a similarity, got euclidean"):
        losses.circle_loss(x, labels, measure="euclidean")
    with pytest.raises(InputError, match="have no bounds but above=0"):
        losses.triplet_margin_loss(x, labels, reducer=losses.Reducer(above=0.5))


@pytest.mark.parametrize(
    ("loss", "settings", "options"),
    [
        (losses.contrastive_loss, {"form": "hadsell", "margin": 1.3}, {}),
        (losses.contrastive_loss, {"margin": 1.3}, {"measure": "signal_to_noise"}),
        (losses.contrastive_loss, {"margin": 1.3}, {"reducer": "per_row"}),
        (losses.threshold_consistent_margin_loss, {"positive_margin": 0.95}, {"reducer": "sum"}),
    ],
)
def test_derivatives_of_both_modes_and_orders(random, loss, settings, options):
    """By the embeddings, as rows and as columns, and by a margin."""
    with jax.enable_x64(True):
        x, labels = jnp.asarray(random.normal(size=(9, 3))), jnp.asarray(random.integers(0, 3, 9))
        name, setting = list(settings.items())[-1]

        @jax.jit
        def value(x, setting):
            return loss(x, labels, **(settings | {name: setting}), **options)

        jax.test_util.check_grads(value, (x, setting), order=2)


def test_the_gradient_of_the_terms_of_single_rows(random):
    with jax.enable_x64(True):
        x, labels = jnp.asarray(random.normal(size=(7, 3))), jnp.asarray([0, 0, 0, 0, 1, 1, 2])

        def value(x):
            return jnp.vdot(jnp.arange(7.0), losses.unreduced(losses.contrastive_loss)(x, labels, margin=1.3).total)

        jax.test_util.check_grads(value, (x,), order=1, modes=["rev"])
