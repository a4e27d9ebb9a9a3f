import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from simjax.core import InputError
from simjax.similarity import sliced_wasserstein_distance, unit_vectors
from tests.similarity.arrays import float32, float64, temporary_bytes
from tests.similarity.derivatives import assert_derivatives
from tests.slow import mostly_slow, slow_unless

KEY = jax.random.key(7)
sliced = functools.partial(sliced_wasserstein_distance, key=KEY)


def by_repetition(x, y, p):
    """Compute W_p^p in one dimension, with the samples repeated until both sets have the same size."""
    a, b = np.repeat(np.sort(x), len(y)), np.repeat(np.sort(y), len(x))
    return np.mean(np.abs(a - b) ** p)


@pytest.mark.parametrize(("n", "m"), [(6, 4), slow_unless(False, 31, 53), slow_unless(False, 1, 5)])
def test_one_dimension_agrees_with_scipy(random, n, m):
    x, y = float32(random.normal(size=(n, 1))), float32(random.normal(size=(m, 1)) + 1)
    np.testing.assert_allclose(sliced(x, y, p=1), wasserstein_distance(x[:, 0], y[:, 0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("p", "m", "block_size"),
    mostly_slow([(1, 31, None), (1.5, 13, 5), (2, 13, 1), (2, 31, 5), (5, 13, None)], (1.5, 13, 5)),
)
def test_agrees_with_numpy_over_the_documented_directions(random, p, m, block_size):
    x, y = float32(random.normal(size=(31, 5))), float32(random.normal(size=(m, 5)) + 1)
    directions = float64(jax.jit(lambda key: unit_vectors(jax.random.normal(key, (17, 5))))(KEY))
    expected = np.mean([by_repetition(x @ v, y @ v, p) for v in directions]) ** (1 / p)
    np.testing.assert_allclose(sliced(x, y, projections=17, p=p, block_size=block_size), expected, rtol=1e-5)


def test_the_distance_of_a_translation_is_its_length_over_the_root_of_the_dimension(random):
    x, t = float32(random.normal(size=(11, 7)) + 1e3), float32(random.normal(size=7))
    found = sliced(x, x + t, projections=20_000)
    np.testing.assert_allclose(found, np.linalg.norm(t) / np.sqrt(7), rtol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]))
def test_symmetry_scale_and_triangle_inequality(seed, p):
    random = np.random.default_rng(seed)
    x, y, z = float32(random.normal(size=(3, 7, 3)))
    xy, yz, xz = (float(sliced(a, b, p=p, projections=8)) for a, b in ((x, y), (y, z), (x, z)))
    np.testing.assert_allclose(sliced(y, x, p=p, projections=8), xy, rtol=1e-5)
    np.testing.assert_allclose(sliced(-4 * x, -4 * y, p=p, projections=8), 4 * xy, rtol=1e-5)
    assert xz <= xy + yz + 1e-5


@pytest.mark.parametrize("p", [1, slow_unless(False, 2)])
def test_equal_sets_have_distance_and_gradient_exactly_zero(random, p):
    x = float32(random.normal(size=(13, 5)) + 100)
    distance = jax.jit(jax.value_and_grad(lambda x, y: sliced(x, y, p=p), (0, 1)))
    value, gradients = distance(x, x)
    assert value == 0
    np.testing.assert_array_equal(gradients, 0)
    np.testing.assert_allclose(distance(x[::-1], x)[0], 0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("p", "m"), [(1, 5), (2, 7), (3.5, 5)])
def test_gradients_in_float64(p, m):
    x, y = (np.random.default_rng(n).normal(size=(n, 2)) for n in (7, m + 4))
    assert_derivatives(functools.partial(sliced, projections=3, p=p, block_size=2), x, y[:m], order=1)


@pytest.mark.parametrize("p", [7, slow_unless(False, 1)])
def test_huge_and_tiny_samples(random, p):
    x, y = float32(random.normal(size=(11, 3))), float32(random.normal(size=(7, 3)))
    distance = jax.jit(jax.value_and_grad(functools.partial(sliced, p=p)))
    expected, slope = distance(x, y)
    for scale in float32([1e-30, 1e30]):
        found, gradient = distance(x * scale, y * scale)
        np.testing.assert_allclose(found / scale, expected, rtol=1e-4)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_vmap_is_a_loop_and_the_key_matters(random):
    x, y = (float32(random.normal(size=(3, n, 2))) for n in (5, 7))
    expected = [sliced(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(sliced))(x, y), expected, rtol=1e-5)
    assert sliced_wasserstein_distance(x[0], y[0], key=jax.random.key(8)) != expected[0]


@pytest.mark.parametrize("kind", [slow_unless(False, "float16"), "bfloat16", slow_unless(False, "int32")])
def test_integers_and_half_precision(random, kind):
    kind = jnp.dtype(kind)
    x, y = ((3 * random.normal(size=(n, 2))).astype(kind) for n in (5, 7))
    result = jnp.dtype(jnp.float32 if kind == jnp.int32 else kind)
    found = sliced(x, y)
    assert found.dtype == result
    np.testing.assert_allclose(float(found), sliced(float32(x), float32(y)), rtol=float(jnp.finfo(result).eps))


@pytest.mark.slow
def test_one_block_of_projections_is_stored():
    x = jax.ShapeDtypeStruct((4096, 4), jnp.float32)

    def temporary(block_size):
        distance = jax.grad(lambda x: sliced(x, -x, projections=512, block_size=block_size))
        return temporary_bytes(distance, x)

    assert temporary(512) > 512 * 4096 * 4
    assert temporary(8) < 512 * 4096 * 4 / 4


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match="samples of y: expected at least 1, got 0"):
        sliced(x, x[:0])
    with pytest.raises(InputError, match="projections: expected at least 1, got 0"):
        sliced(x, x, projections=0)
    for p in (0.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match="p: expected a finite number from 1"):
            sliced(x, x, p=p)
    with pytest.raises(InputError, match="y: expected rows of 2 features"):
        sliced(x, np.zeros((3, 5), np.float32))
