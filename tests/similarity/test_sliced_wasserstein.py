import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from simjax.core import InputError
from simjax.similarity import sliced_wasserstein_distance, unit_vectors
from tests.slow import mostly_slow

KEY = jax.random.key(7)
sliced = functools.partial(sliced_wasserstein_distance, key=KEY)


def by_repetition(x, y, p):
    """Compute W_p^p in one dimension, with the samples repeated until both sets have the same size."""
    a, b = np.repeat(np.sort(x), len(y)), np.repeat(np.sort(y), len(x))
    return np.mean(np.abs(a - b) ** p)


@pytest.mark.parametrize(("n", "m"), [(31, 53), (6, 4), (1, 5)])
def test_one_dimension_agrees_with_scipy(random, n, m):
    x, y = np.float32(random.normal(size=(n, 1))), np.float32(random.normal(size=(m, 1)) + 1)
    np.testing.assert_allclose(sliced(x, y, p=1), wasserstein_distance(x[:, 0], y[:, 0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("p", "m", "block_size"),
    mostly_slow([(1, 31, None), (1.5, 13, 5), (2, 13, 1), (2, 31, 5), (5, 13, None)], (1.5, 13, 5), (2, 31, 5)),
)
def test_agrees_with_numpy_over_the_documented_directions(random, p, m, block_size):
    x, y = np.float32(random.normal(size=(31, 5))), np.float32(random.normal(size=(m, 5)) + 1)
    directions = np.float64(unit_vectors(jax.random.normal(KEY, (17, 5))))
    expected = np.mean([by_repetition(x @ v, y @ v, p) for v in directions]) ** (1 / p)
    np.testing.assert_allclose(sliced(x, y, projections=17, p=p, block_size=block_size), expected, rtol=1e-5)


def test_the_distance_of_a_translation_is_its_length_over_the_root_of_the_dimension(random):
    x, t = np.float32(random.normal(size=(11, 7)) + 1e3), np.float32(random.normal(size=7))
    found = sliced(x, x + t, projections=20_000)
    np.testing.assert_allclose(found, np.linalg.norm(t) / np.sqrt(7), rtol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]))
def test_symmetry_scale_and_triangle_inequality(seed, p):
    random = np.random.default_rng(seed)
    x, y, z = np.float32(random.normal(size=(3, 7, 3)))
    xy, yz, xz = (float(sliced(a, b, p=p, projections=8)) for a, b in ((x, y), (y, z), (x, z)))
    np.testing.assert_allclose(sliced(y, x, p=p, projections=8), xy, rtol=1e-5)
    np.testing.assert_allclose(sliced(-4 * x, -4 * y, p=p, projections=8), 4 * xy, rtol=1e-5)
    assert xz <= xy + yz + 1e-5


@pytest.mark.parametrize("p", [1, 2])
def test_equal_sets_have_distance_and_gradient_exactly_zero(random, p):
    x = jnp.float32(random.normal(size=(13, 5)) + 100)
    value, gradients = jax.value_and_grad(lambda x, y: sliced(x, y, p=p), (0, 1))(x, x)
    assert value == 0
    np.testing.assert_array_equal(gradients, 0)
    np.testing.assert_allclose(sliced(x[::-1], x, p=p), 0, atol=1e-5)


@pytest.mark.parametrize(("p", "m"), mostly_slow([(1, 5), (2, 7), (3.5, 5)], (2, 7)))
def test_gradients_in_float64(p, m):
    with jax.enable_x64(True):
        x, y = (jnp.asarray(np.random.default_rng(n).normal(size=(n, 2))) for n in (7, m + 4))
        distance = functools.partial(sliced, projections=3, p=p, block_size=2)
        jax.test_util.check_grads(distance, (x, y[:m]), order=1)


@pytest.mark.parametrize("p", [1, 7])
def test_huge_and_tiny_samples(random, p):
    x, y = np.float32(random.normal(size=(11, 3))), np.float32(random.normal(size=(7, 3)))
    distance = jax.jit(jax.value_and_grad(functools.partial(sliced, p=p)))
    expected, slope = distance(x, y)
    for scale in np.float32([1e-30, 1e30]):
        found, gradient = distance(x * scale, y * scale)
        np.testing.assert_allclose(found / scale, expected, rtol=1e-4)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


def test_transformations(random):
    x, y = (jnp.float32(random.normal(size=(3, n, 2))) for n in (5, 7))
    expected = [sliced(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(jax.vmap(sliced)(x, y), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(sliced)(x[0], y[0]), expected[0], rtol=1e-6)
    assert sliced(x[0], y[0]) != sliced_wasserstein_distance(x[0], y[0], key=jax.random.key(8))


@pytest.mark.parametrize(
    ("dtype", "kind"), [(jnp.float16, jnp.float16), (jnp.bfloat16, jnp.bfloat16), (int, jnp.float32)]
)
def test_integers_and_half_precision(random, dtype, kind):
    x, y = (jnp.asarray(3 * random.normal(size=(n, 3)), dtype) for n in (11, 13))
    found = sliced(x, y)
    assert found.dtype == kind
    expected = sliced(x.astype(jnp.float32), y.astype(jnp.float32))
    np.testing.assert_allclose(float(found), expected, rtol=float(jnp.finfo(kind).eps))


def test_one_block_of_projections_is_stored():
    x = jnp.zeros((4096, 4))

    def temporary(block_size):
        distance = jax.grad(lambda x: sliced(x, -x, projections=512, block_size=block_size))
        return jax.jit(distance).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert temporary(512) > 512 * 4096 * 4
    assert temporary(8) < 512 * 4096 * 4 / 4


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = jnp.zeros((3, 2))
    with pytest.raises(InputError, match="samples of y: expected at least 1, got 0"):
        sliced(x, x[:0])
    with pytest.raises(InputError, match="projections: expected at least 1, got 0"):
        sliced(x, x, projections=0)
    for p in (0.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match="p: expected a finite number from 1"):
            sliced(x, x, p=p)
    with pytest.raises(InputError, match="y: expected rows of 2 features"):
        sliced(x, jnp.zeros((3, 5)))
