import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.similarity import Moments, moments
from tests.similarity.arrays import float32, float64
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless


def mean_of(state):
    return float64(state.mean) + float64(state.mean_rest)


def test_agrees_with_numpy(random):
    x = float32(random.normal(size=(31, 5)) @ random.normal(size=(5, 5)))
    state = moments(x)
    assert int(state.count) == 31
    np.testing.assert_allclose(mean_of(state), np.mean(float64(x), axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(state.covariance, np.cov(float64(x), rowvar=False), rtol=1e-5, atol=1e-5)


def test_a_mean_of_ten_thousand_costs_no_digits(random):
    x = float32(random.normal(size=(1009, 3)) + 1e4)
    state = functools.reduce(Moments.update, np.split(x[:1001], 11), moments(x[:0])).update(x[1001:])
    exact = float64(x)
    np.testing.assert_allclose(mean_of(state) - 1e4, exact.mean(0) - 1e4, atol=1e-6)
    np.testing.assert_allclose(state.covariance, np.cov(exact, rowvar=False), rtol=1e-5, atol=1e-6)


def test_merging_in_any_order_equals_one_batch(random):
    x = float32(random.normal(size=(29, 3)) + 7)
    whole, parts = moments(x), [moments(p) for p in np.split(x, [2, 2, 19])]  # one of them is empty
    for order in itertools.permutations(parts):
        left = functools.reduce(Moments.merge, order)
        right = functools.reduce(lambda a, b: b.merge(a), order)
        for found in (left, right):
            assert int(found.count) == 29
            np.testing.assert_allclose(mean_of(found), mean_of(whole), rtol=1e-7)
            np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-5, atol=1e-6)


def test_single_rows_beyond_two_to_the_24_are_not_lost():
    state = moments(np.zeros((1, 2), np.float32))
    for _ in range(26):
        state = state.merge(state)

    @jax.jit
    def add(state, rows):
        return jax.lax.scan(lambda s, row: (s.update(row[None]), None), state, rows)[0]

    state = add(state, np.ones((503, 2), np.float32))
    n = 2**26 + 503
    assert int(state.count) == n
    np.testing.assert_allclose(mean_of(state), 503 / n, rtol=1e-6)
    np.testing.assert_allclose(state.covariance, 503 / n * (1 - 503 / n) * n / (n - 1), rtol=1e-5)


def test_a_count_beyond_two_to_the_31():
    state = moments(float32([[0, 0], [2, 2]]))
    for _ in range(30):
        state = state.merge(state)
    assert int(state.count) == 2**31
    np.testing.assert_allclose(state.covariance, 1.0, rtol=1e-6)


def test_masked_rows_are_ignored(random):
    x = float32(random.normal(size=(7, 3)))
    x[4:] = np.nan
    masked, valid = moments(x, np.arange(7) < 4), moments(x[:4])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), masked, valid)
    np.testing.assert_allclose(masked.update(x, np.zeros(7, bool)).covariance, valid.covariance, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_have_covariance_zero(n):
    state = moments(np.full((n, 3), 5.0, np.float32))
    np.testing.assert_array_equal(state.covariance, 0)
    np.testing.assert_array_equal(state.mean, 5 * n)


def test_update_is_in_place_and_compiles_once(random):
    x = float32(random.normal(size=(40, 3)))
    traces = []
    step = jax.jit(lambda s, rows: traces.append(1) or s.update(rows), donate_argnums=0)
    first = state = moments(x[:8])
    for start in range(8, 40, 8):
        state = step(state, x[start : start + 8])
    assert len(traces) == 1
    assert first.scatter.is_deleted()
    np.testing.assert_allclose(state.covariance, np.cov(x, rowvar=False), rtol=1e-4, atol=1e-6)


def test_transformations(random):
    x = float32(random.normal(size=(3, 11, 2)))
    stacked = jax.jit(jax.vmap(moments))(x)
    for i in range(3):
        np.testing.assert_allclose(stacked.scatter[i], moments(x[i]).scatter, rtol=1e-5, atol=1e-6)
    shapes = jax.eval_shape(moments, x[0])
    assert jax.tree.map(lambda a: (a.shape, a.dtype), shapes) == jax.tree.map(
        lambda a: (a.shape, a.dtype), moments(x[0])
    )


@pytest.mark.parametrize("dtype", [slow_unless(False, jnp.float16), jnp.bfloat16, slow_unless(False, jnp.int32)])
def test_integers_and_half_precision_accumulate_in_float32(random, dtype):
    x = (3 * random.normal(size=(13, 2))).astype(jnp.dtype(dtype))
    state = moments(x).update(x)
    assert state.mean.dtype == state.scatter.dtype == jnp.float32
    expected = np.cov(np.concatenate([float64(x)] * 2), rowvar=False)
    np.testing.assert_allclose(state.covariance, expected, rtol=1e-5, atol=1e-5)


def test_huge_numbers_give_infinity_and_no_nan():
    x = float32([[1e30, 1.0], [-1e30, 2.0], [3e30, 5.0]])
    state = moments(x).merge(moments(x + float32([[1e30, 0.0]])))
    np.testing.assert_allclose(mean_of(state), [1.5e30, 8 / 3], rtol=1e-6)
    covariance = np.asarray(state.covariance)
    assert np.isinf(covariance[0, 0])
    np.testing.assert_allclose(covariance[1, 1], np.var([1, 2, 5, 1, 2, 5], ddof=1), rtol=1e-6)


def test_derivatives_in_float64():
    def results(a, b):
        state = moments(a).update(b)
        return state.covariance, state.mean

    a, b = (np.random.default_rng(i).normal(size=(n, 2)) for i, n in ((1, 5), (2, 3)))
    assert_derivatives(results, a, b, order=1)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(InputError, match=r"features: expected rows \[n, d\], got shape \(3,\)"):
        moments(np.zeros(3, np.float32))
    with pytest.raises(InputError, match="mask: expected 3 booleans"):
        moments(np.zeros((3, 2), np.float32), np.ones(2, bool))
    with pytest.raises(InputError, match="features: expected 2 as seen before, got 5"):
        moments(np.zeros((3, 2), np.float32)).update(np.zeros((3, 5), np.float32))
    with pytest.raises(TypeError, match="complex"):
        moments(np.zeros((3, 2), complex))
