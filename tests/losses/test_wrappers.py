"""Losses of truncated embeddings, weighted sums of losses, and pair losses of several views."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import (
    D,
    M,
    N,
    assert_gradient_equals_slope,
    assert_no_nan,
    float32,
    related,
    unit,
)
from tests.losses.oracles import contrastive, multi_similarity, nt_xent, supervised_contrastive
from tests.slow import mostly_slow

SIZES, FACTORS = (2, D), (0.5, 2.0)


@pytest.fixture
def x(random):
    return random.normal(size=(N, D))


@pytest.mark.parametrize("kind", mostly_slow(["shared labels", "reference"], "reference"))
def test_matryoshka_equals_loops(random, x, kind):
    labels, ref_labels, positive, negative = related(kind, random)
    y = x if ref_labels is None else random.normal(size=(M, D))
    if ref_labels is None:
        positive, negative = positive & ~np.eye(N, dtype=bool), negative & ~np.eye(N, dtype=bool)
    options = {} if ref_labels is None else {"ref_embeddings": float32(y), "ref_labels": ref_labels}
    found = losses.matryoshka_loss(
        losses.multi_similarity_loss, float32(x), labels, sizes=SIZES, size_weights=FACTORS, block_size=4, **options
    )
    expected = [
        w * multi_similarity(x[:, :k], y[:, :k], positive, negative) for k, w in zip(SIZES, FACTORS, strict=True)
    ]
    np.testing.assert_allclose(found, sum(expected), rtol=2e-5)


TRUNCATED = {  # loss, its arguments, and whether arguments beside the first one are truncated
    "a second view": (losses.info_nce_loss, lambda x, y, p: ((x, y), {}), True),
    "a second view by name": (losses.info_nce_loss, lambda x, y, p: ((x,), {"y": y}), True),
    "all views": (
        partial(losses.self_supervised_loss, losses.nt_xent_loss),
        lambda x, y, p: ((x, y, x + y), {}),
        True,
    ),
    "predictions": (
        losses.simsiam_loss,
        lambda x, y, p: ((x, y), {"other_prediction": y, "other_projection": x}),
        True,
    ),
    "proxies": (losses.proxy_anchor_loss, lambda x, y, p: ((x, np.arange(N) % 3), {"proxies": p}), True),
    "not a teacher": (
        losses.similarity_distillation_loss,
        lambda x, y, p: ((x, y), {}),
        False,
    ),
}


@pytest.mark.parametrize("case", mostly_slow(TRUNCATED, "a second view by name", "not a teacher"))
def test_matryoshka_truncates_every_argument_that_holds_embeddings(random, x, case):
    loss, arguments, others_too = TRUNCATED[case]

    @jax.jit
    def compute(x, y, p):
        args, options = arguments(x, y, p)
        found = losses.matryoshka_loss(loss, *args, sizes=SIZES, **options)
        expected = 0.0
        for k in SIZES:
            other = k if others_too else D
            args, options = arguments(x[:, :k], y[:, :other], p[:, :other])
            expected += loss(*args, **options)
        return found, expected

    shapes = ((N, D), (3, D))
    np.testing.assert_allclose(*compute(float32(x), *(float32(random.normal(size=s)) for s in shapes)), rtol=1e-6)


@pytest.mark.slow
def test_matryoshka_of_all_features_is_the_loss_and_may_normalize(x):
    a, labels = float32(x), np.arange(N) % 3

    @jax.jit
    def compute(a, unit_rows):
        nt_xent = losses.nt_xent_loss
        whole = losses.matryoshka_loss(nt_xent, a, labels, sizes=(D,), measure="dot"), nt_xent(a, labels, measure="dot")
        normalized = losses.matryoshka_loss(nt_xent, a, labels, sizes=SIZES, normalize=True, measure="dot")
        return whole, (normalized, sum(nt_xent(rows, labels, measure="dot") for rows in unit_rows))

    whole, normalized = compute(a, [float32(unit(x[:, :k])) for k in SIZES])
    np.testing.assert_array_equal(*whole)
    np.testing.assert_allclose(*normalized, rtol=1e-6)


def test_matryoshka_adds_weighted_terms(x):
    labels, nt_xent = np.arange(N) % 3, losses.unreduced(losses.nt_xent_loss)

    @jax.jit
    def compute(a):
        weights = np.ones(N, np.float32)
        terms = losses.matryoshka_loss(nt_xent, a, labels, sizes=SIZES, size_weights=FACTORS, weights=weights)
        return terms, [nt_xent(a[:, :k], labels) for k in SIZES]

    terms, parts = compute(float32(x))
    expected = sum(w * np.asarray(t.total) for w, t in zip(FACTORS, parts, strict=True))
    np.testing.assert_allclose(terms.total, expected, rtol=1e-6)
    np.testing.assert_array_equal(terms.count, sum(np.asarray(t.count) for t in parts))


@pytest.mark.slow
def test_matryoshka_has_gradients_of_embeddings_and_weights(random, x):
    labels = np.arange(N) % 3
    with jax.enable_x64(True):

        @jax.jit
        def compute(a, w):
            def loss(a, w):
                return losses.matryoshka_loss(losses.nt_xent_loss, a, labels, sizes=SIZES, size_weights=(w, 1))

            return jax.value_and_grad(loss, argnums=(0, 1))(a, w), losses.nt_xent_loss(a[:, :2], labels)

        (_, (_, by_weight)), at_two = compute(x, 0.5)
        np.testing.assert_allclose(by_weight, at_two, rtol=1e-12)

        def value_and_gradient(a):
            value, (gradient, _) = compute(a, 0.5)[0]
            return value, gradient

        assert_gradient_equals_slope(value_and_gradient, x, random)


def test_combined_equals_the_weighted_sum_of_its_parts(random, x):
    labels = random.integers(0, 3, N)
    same = labels[:, None] == labels
    three = {
        "pairs": losses.contrastive_loss,
        "warm": partial(losses.nt_xent_loss, temperature=0.5),
        "squares": lambda x, labels: jnp.mean(x**2),
    }
    with jax.enable_x64(True):

        @jax.jit
        @partial(jax.value_and_grad, has_aux=True)
        def compute(x):
            return losses.combined_loss(three, x, labels, loss_weights={"pairs": 0.25, "squares": 0.0})

        (total, parts), _ = compute(x)
        assert_gradient_equals_slope(lambda x: (compute(x)[0][0], compute(x)[1]), x, random)
    positive, negative = same & ~np.eye(N, dtype=bool), ~same
    expected = {
        "pairs": contrastive(x, x, positive, negative),
        "warm": nt_xent(x, x, positive, negative, t=0.5),
        "squares": np.mean(x**2),
    }
    assert set(parts) == set(three)
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=2e-5)
    np.testing.assert_allclose(total, 0.25 * expected["pairs"] + expected["warm"], rtol=2e-5)


@pytest.mark.parametrize("symmetric", mostly_slow([True, False], True))
def test_self_supervised_equals_loops(random, x, symmetric):
    """Values, and the weights of rows, which hold in all views."""
    y, weights = random.normal(size=(N, D)), float32(random.random(N))
    if symmetric:
        both, ids = np.concatenate([x, y]), np.tile(np.arange(N), 2)
        same = ids[:, None] == ids
        expected = supervised_contrastive(both, both, same & ~np.eye(2 * N, dtype=bool), ~same)
    else:
        expected = supervised_contrastive(x, y, np.eye(N, dtype=bool), ~np.eye(N, dtype=bool))

    @jax.jit
    def compute(x, y):
        def of(loss, **options):
            return losses.self_supervised_loss(loss, x, y, symmetric=symmetric, **options)

        terms = losses.unreduced(losses.supervised_contrastive_loss)
        return of(losses.supervised_contrastive_loss, block_size=4), of(terms), of(terms, weights=weights)

    found, plain, weighted = compute(float32(x), float32(y))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    np.testing.assert_allclose(weighted.total, np.asarray(plain.total) * np.tile(weights, 1 + symmetric), rtol=1e-5)


@pytest.mark.slow
def test_self_supervised_of_three_views(random, x):
    views = [x, *random.normal(size=(2, N, D))]
    all_rows, ids = np.concatenate(views), np.tile(np.arange(N), 3)
    same = ids[:, None] == ids

    @jax.jit
    def compute(*views):
        terms = losses.unreduced(losses.nt_xent_loss)
        of_first = losses.self_supervised_loss(terms, *views, symmetric=False)
        return losses.self_supervised_loss(losses.nt_xent_loss, *views), of_first.count

    found, counts = compute(*map(float32, views))
    np.testing.assert_allclose(found, nt_xent(all_rows, all_rows, same & ~np.eye(3 * N, dtype=bool), ~same), rtol=2e-5)
    np.testing.assert_array_equal(counts, np.full(N, 2))


WRAPPED = {
    "matryoshka": lambda x, labels: losses.matryoshka_loss(losses.nt_xent_loss, x, labels, sizes=(2, 4)),
    "self_supervised": lambda x, labels: losses.self_supervised_loss(losses.nt_xent_loss, x, -x),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_nan_at_degenerate_batches(name, dtype):
    # The single row of a batch has a positive in the other view.
    assert_no_nan(WRAPPED[name], dtype, () if name == "self_supervised" else ("no row", "one row"))


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    x, labels = np.ones((3, 4), np.float32), np.array([0, 1, 1])
    for sizes in ((), (0, 2), (5,)):
        with pytest.raises(InputError, match=r"sizes: expected numbers of features from 1 to 4, got \("):
            losses.matryoshka_loss(losses.nt_xent_loss, x, labels, sizes=sizes)
    with pytest.raises(InputError, match="size_weights: expected one for each of 2 sizes, got 1"):
        losses.matryoshka_loss(losses.nt_xent_loss, x, labels, sizes=(2, 4), size_weights=(1.0,))
    with pytest.raises(TypeError, match="labels"):
        losses.matryoshka_loss(losses.nt_xent_loss, x, sizes=(2,))
    with pytest.raises(InputError, match="losses: expected at least one"):
        losses.combined_loss({}, x, labels)
    with pytest.raises(InputError, match="unknown name in loss_weights 'pears'.*did you mean pairs"):
        losses.combined_loss({"pairs": losses.nt_xent_loss}, x, labels, loss_weights={"pears": 1.0})
    with pytest.raises(InputError, match="views: expected at least one"):
        losses.self_supervised_loss(losses.nt_xent_loss, x)
    with pytest.raises(InputError, match=r"views: expected the shape of x, \(3, 4\), got \[\(2, 4\)\]"):
        losses.self_supervised_loss(losses.nt_xent_loss, x, x[:2])
