"""Regularizers of embeddings and of proxies against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import (
    D,
    N,
    assert_gradient_equals_slope,
    assert_no_nan,
    cosine,
    float32,
    related,
    unit,
)
from tests.slow import mostly_slow


def center_invariant(x):
    squares = np.square(x).sum(1)
    return np.mean([(s - squares.mean()) ** 2 / 4 for s in squares])


def regular_face(x):
    return np.mean([max(s for j, s in enumerate(row) if j != i) for i, row in enumerate(cosine(x, x))])


def sparse_centers(x):
    c, k, _ = x.shape
    apart = [np.linalg.norm(unit(own)[i] - unit(own)[j]) for own in x for i in range(k) for j in range(i)]
    return sum(apart) / (c * k * (k - 1))


def lp(x, p: float = 2, power: float = 1.0):
    return np.mean([np.linalg.norm(row, p) ** power for row in x])


def zero_mean(x):
    return np.mean(abs(x.sum(1)))


def global_orthogonal(x, negative=None, mean_weight=1.0, second_moment_weight=1.0, threshold=None):
    others = ~np.eye(len(x), dtype=bool)
    s = cosine(x, x)[others if negative is None else negative & others]
    threshold = 1 / x.shape[1] if threshold is None else threshold
    return mean_weight * s.mean() ** 2 + second_moment_weight * max(0, np.square(s).mean() - threshold)


ORACLES = {
    "center_invariant": center_invariant,
    "regular_face": regular_face,
    "sparse_centers": sparse_centers,
    "lp": lp,
    "zero_mean": zero_mean,
    "global_orthogonal": global_orthogonal,
}


def regularizer_named(name):
    return getattr(losses, f"{name}_regularizer")


def arguments(name, random):
    return random.normal(size=(N, 3, D) if name == "sparse_centers" else (N, D))


@pytest.mark.parametrize("name", ORACLES)
def test_value_equals_loops_and_gradient_equals_finite_differences(random, name):
    x = arguments(name, random)
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(regularizer_named(name)))
        np.testing.assert_allclose(both(x)[0], ORACLES[name](x), rtol=2e-5)
        assert_gradient_equals_slope(both, x, random)


def test_lp_equals_loops_for_other_norms(random):
    x, orders = random.normal(size=(N, D)), ((1, 1.0), (3, 2.0), (2.5, 0.5), (float("inf"), 1.0))
    found = jax.jit(lambda x: [losses.lp_regularizer(x, p=p, power=power) for p, power in orders])(float32(x))
    np.testing.assert_allclose(found, [lp(x, *order) for order in orders], rtol=2e-5)


@pytest.mark.parametrize("kind", mostly_slow(["classes", "shared labels"], "classes"))
def test_global_orthogonal_averages_negative_pairs(random, kind):
    labels, _, _, negative = related(kind, random)
    x = random.normal(size=(N, D))
    options = {"mean_weight": 0.5, "second_moment_weight": 2.0, "threshold": 0.1}
    found = losses.global_orthogonal_regularizer(float32(x), labels, block_size=4, **options)
    np.testing.assert_allclose(found, global_orthogonal(x, negative, **options), rtol=2e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "global_orthogonal"))
@pytest.mark.parametrize("dtype", mostly_slow(["float32", "float16"], "float32"))
def test_no_nan_at_degenerate_batches(name, dtype):
    def of_batch(x, labels):
        return regularizer_named(name)(jnp.repeat(x[:, None], 2, axis=1) if name == "sparse_centers" else x)

    assert_no_nan(of_batch, dtype, ("no row",) if name == "global_orthogonal" else ("no row", "at one point"))


def test_proxies_that_are_equal_single_or_of_very_different_lengths():
    single, equal, uneven = np.ones((1, 4)), np.ones((3, 4)), np.diag([1, 1e15, 1e30])

    @jax.jit
    def compute(single, equal, uneven):
        regular = losses.regular_face_regularizer(single), losses.regular_face_regularizer(equal)
        sparse = losses.sparse_centers_regularizer(single[None])
        return (*regular, sparse), jax.value_and_grad(losses.center_invariant_regularizer)(uneven)

    found, uneven = compute(*map(float32, (single, equal, uneven)))
    np.testing.assert_allclose(found, (0, 1, 0), rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in uneven)


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    for name in ("center_invariant", "regular_face"):
        with pytest.raises(InputError, match=r"proxies: expected rows \[c, d\], got shape \(3,\)"):
            regularizer_named(name)(np.ones(3))
    for name in ("lp", "zero_mean", "global_orthogonal"):
        with pytest.raises(InputError, match=r"embeddings: expected rows \[n, d\], got shape \(3,\)"):
            regularizer_named(name)(np.ones(3))
    with pytest.raises(InputError, match=r"k proxies of each class, \[c, k, d\], got shape \(3, 2\)"):
        losses.sparse_centers_regularizer(np.ones((3, 2)))
    with pytest.raises(InputError, match=r"p: expected at least 1, got 0.5"):
        losses.lp_regularizer(np.ones((3, 2)), p=0.5)
    with pytest.raises(InputError, match="power: expected more than 0, got 0"):
        losses.lp_regularizer(np.ones((3, 2)), power=0)
    with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
        losses.global_orthogonal_regularizer(np.ones((3, 2)), np.array([0, 1]))
