import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.similarity import Measure, maximum_mean_discrepancy, measure
from tests.similarity.arrays import float32, float64, temporary_bytes
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless


def gaussian(a, b, *, gamma):
    return jnp.exp(-gamma * jnp.sum((a - b) ** 2, axis=-1))


KERNELS = {
    "rbf": ("rbf", lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / a.shape[1])),
    "user function": (
        Measure.from_pair(gaussian, higher_is_closer=True, gamma=0.3),
        lambda a, b: np.exp(-0.3 * cdist(a, b, "sqeuclidean")),
    ),
    "dot": ("dot", lambda a, b: a @ b.T),
    "euclidean": ("euclidean", lambda a, b: -cdist(a, b)),
}


def by_loops(k, x, y, unbiased):
    n, m = len(x), len(y)
    xx, yy = (
        [k[i, j] for i in range(len(a)) for j in range(len(a)) if i != j or not unbiased]
        for a, k in ((x, k(x, x)), (y, k(y, y)))
        for n in [len(a)]
    )
    return np.mean(xx) + np.mean(yy) - 2 * np.mean(k(x, y).reshape(n * m))


@pytest.mark.parametrize(
    ("kernel", "unbiased", "block_size"),
    [
        ("rbf", True, None),
        slow_unless(False, "rbf", False, 4),
        slow_unless(False, "user function", True, 4),
        slow_unless(False, "user function", False, None),
        slow_unless(False, "dot", True, 4),
        slow_unless(False, "euclidean", True, 1),
        slow_unless(False, "euclidean", False, None),
    ],
)
def test_agrees_with_loops(random, kernel, unbiased, block_size):
    x, y = float32(random.normal(size=(11, 3))), float32(random.normal(size=(7, 3)) + 0.5)
    k, oracle = KERNELS[kernel]
    found = maximum_mean_discrepancy(x, y, measure=k, unbiased=unbiased, block_size=block_size)
    np.testing.assert_allclose(found, by_loops(oracle, float64(x), float64(y), unbiased), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_dot_product_compares_only_the_means(random):
    x, y = float32(random.normal(size=(11, 3))), float32(random.normal(size=(7, 3)))
    found = maximum_mean_discrepancy(x, y, measure="dot", unbiased=False)
    np.testing.assert_allclose(found, np.sum((x.mean(0) - y.mean(0)) ** 2), rtol=1e-4)


@pytest.mark.slow
def test_unbiased_is_about_zero_for_one_distribution_and_biased_is_not(random):
    x, y = float32(random.normal(size=(2, 200, 23, 2)))

    @jax.jit
    def estimate(x, y):
        return {u: jax.vmap(functools.partial(maximum_mean_discrepancy, unbiased=u))(x, y) for u in (True, False)}

    estimates = estimate(x, y)
    error = np.std(estimates[True]) / np.sqrt(200)
    assert abs(np.mean(estimates[True])) < 4 * error
    assert np.min(estimates[True]) < 0
    assert np.mean(estimates[False]) > 10 * error
    assert np.min(estimates[False]) >= 0


@pytest.mark.slow
def test_two_thousand_samples_lose_no_digits_to_cancellation(random):
    x, y = float32(random.normal(size=(2003, 2))), float32(random.normal(size=(1999, 2)) + 0.03)
    k, oracle = KERNELS["rbf"]
    expected = by_loops(oracle, float64(x), float64(y), False)
    assert expected < 2e-3  # of means of kernels that are about 0.5
    np.testing.assert_allclose(maximum_mean_discrepancy(x, y, measure=k, unbiased=False), expected, atol=3e-8)


def test_equal_sets_have_distance_and_gradient_zero(random):
    x = float32(random.normal(size=(13, 3)) + 10)
    discrepancy = functools.partial(maximum_mean_discrepancy, unbiased=False)
    value, gradients = jax.jit(jax.value_and_grad(discrepancy, (0, 1)))(x, x)
    assert 0 <= value < 1e-7
    np.testing.assert_allclose(gradients, np.zeros((2, 13, 3)), atol=1e-7)


@pytest.mark.slow
def test_derivatives_of_samples_and_of_a_learned_bandwidth():
    x, y = (np.random.default_rng(n).normal(size=(n, 2)) for n in (5, 3))

    def discrepancies(x, y, gamma):
        rbf = maximum_mean_discrepancy(x, y, measure=measure("rbf", gamma=gamma), block_size=2)
        return rbf, maximum_mean_discrepancy(x, y, measure="euclidean", unbiased=False, block_size=2)

    gradient = assert_derivatives(discrepancies, x, y, 0.7, order=1)
    assert abs(gradient[2]) > 1e-3


@pytest.mark.parametrize("kernel", ["euclidean", *(slow_unless(False, k) for k in ("rbf", "cosine"))])
def test_degenerate_samples_give_finite_numbers(kernel):
    x = float32([[0, 0], [0, 0], [1, 2]])
    discrepancy = functools.partial(maximum_mean_discrepancy, measure=kernel)
    value_and_gradients = jax.jit(jax.value_and_grad(discrepancy, (0, 1)))
    for y in (x, 0 * x, float32(1e15) * x):
        value, gradients = value_and_gradients(x, y)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)


def test_an_overflow_is_infinite_with_zero_gradient(random):
    x, y = float32(1e30 * random.normal(size=(2, 7, 3)))
    value, gradient = jax.jit(jax.value_and_grad(lambda x: maximum_mean_discrepancy(x, y, measure="dot")))(x)
    assert np.isposinf(value)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
def test_the_matrix_is_never_stored():
    x = jax.ShapeDtypeStruct((4096, 8), jnp.float32)

    def temporary(block_size):
        value_and_gradient = jax.value_and_grad(
            lambda x, y: maximum_mean_discrepancy(x, y, block_size=block_size), (0, 1)
        )
        return temporary_bytes(value_and_gradient, x, x)

    assert temporary(4096) > 4096 * 4096 * 4
    assert temporary(32) < 4096 * 4096 * 4 / 10


@pytest.mark.slow
def test_vmap_is_a_loop(random):
    x, y = (float32(random.normal(size=(3, n, 3))) for n in (11, 7))
    expected = [maximum_mean_discrepancy(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(maximum_mean_discrepancy))(x, y), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [slow_unless(False, "float16"), "bfloat16", slow_unless(False, "int32")])
def test_integers_and_half_precision(random, kind):
    kind = jnp.dtype(kind)
    x, y = ((3 * random.normal(size=(n, 3))).astype(kind) for n in (11, 7))
    result = jnp.dtype(jnp.float32 if kind == jnp.int32 else kind)
    found = maximum_mean_discrepancy(x, y)
    assert found.dtype == result
    expected = maximum_mean_discrepancy(float32(x), float32(y))
    np.testing.assert_allclose(float(found), expected, rtol=float(jnp.finfo(result).eps), atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match="samples of y: expected at least 2, got 1"):
        maximum_mean_discrepancy(x, x[:1])
    with pytest.raises(InputError, match="samples of x: expected at least 1, got 0"):
        maximum_mean_discrepancy(x[:0], x, unbiased=False)
    with pytest.raises(InputError, match="did you mean rbf"):
        maximum_mean_discrepancy(x, x, measure="rbff")
    with pytest.raises(InputError, match="y: expected rows of 2 features"):
        maximum_mean_discrepancy(x, np.zeros((3, 5), np.float32))
