from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from simjax.core import InputError
from simjax.similarity import frechet_distance, moments
from tests.similarity.arrays import float32, float64
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless


def by_matrix_root(x, y):
    """Compute the formula literally, in float64."""
    x, y = float64(x), float64(y)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root: Any = scipy.linalg.sqrtm(s @ t)
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * root.real)


def by_factors(x, y):
    """Compute the distance from factors of the covariances, accurate for singular ones, in float64."""
    (x, mu), (y, nu) = ((float64(a) - float64(a).mean(0), float64(a).mean(0)) for a in (x, y))
    x, y = x / np.sqrt(len(x) - 1), y / np.sqrt(len(y) - 1)
    nuclear = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return np.sum((mu - nu) ** 2) + np.sum(x**2) + np.sum(y**2) - 2 * nuclear


def samples(random, n, d, *, scale=1.0, shift=0.0):
    return float32(scale * random.normal(size=(n, d)) @ random.normal(size=(d, d)) + shift)


def as_moments(x):
    return moments(x[:3]).update(x[3:])


@pytest.mark.parametrize(
    ("convert_x", "convert_y"),
    [
        (np.asarray, np.asarray),
        (np.asarray, as_moments),
        slow_unless(False, as_moments, np.asarray),
        slow_unless(False, as_moments, as_moments),
    ],
)
def test_agrees_with_scipys_matrix_root(random, convert_x, convert_y):
    x, y = samples(random, 31, 5), samples(random, 53, 5, scale=2, shift=1)
    np.testing.assert_allclose(frechet_distance(convert_x(x), convert_y(y)), by_matrix_root(x, y), rtol=1e-5)


def test_gaussians_along_the_axes_have_a_closed_form():
    signs = float32(np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T) * np.sqrt(7 / 8)  # covariance 1
    x, y = signs * float32([1, 2, 3]), signs * float32([5, 2, 0]) + float32([0, 1, -2])
    np.testing.assert_allclose(frechet_distance(x, y), (1 - 5) ** 2 + 3**2 + 1 + 2**2, rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "m"), [(5, 7), *(slow_unless(False, *sizes) for sizes in ((7, 31), (31, 7), (1, 7), (1, 1)))]
)
def test_fewer_samples_than_features(random, n, m):
    x, y = samples(random, n, 13), samples(random, m, 13, shift=1)
    expected = np.sum((float64(x) - y) ** 2) if n == m == 1 else None
    if n == 1 and m > 1:
        expected = np.sum((x[0] - y.mean(0)) ** 2) + np.trace(np.cov(y, rowvar=False))
    expected = by_factors(x, y) if expected is None else expected
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-5)


def test_nearly_singular_covariances_keep_their_digits(random):
    """In float32 the root of a product of covariances is off by 1e-3 here."""
    basis = np.linalg.qr(random.normal(size=(17, 17)))[0]
    spread = np.geomspace(1, 1e-7, 17)
    x, y = (float32(random.normal(size=(n, 17)) * spread @ basis) for n in (101, 211))
    np.testing.assert_allclose(frechet_distance(x, y), by_factors(x, y), rtol=1e-5)


def with_gradients(kind):
    return jax.jit(jax.value_and_grad(lambda x, y: frechet_distance(kind(x), kind(y)), (0, 1)))


WITH_GRADIENTS = {"samples": with_gradients(jnp.asarray), "moments": with_gradients(moments)}


@pytest.mark.parametrize("n", [7, slow_unless(False, 1), slow_unless(False, 101)])
@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_equal_sets_have_distance_and_gradient_zero(random, n, kind):
    x = samples(random, n, 11, shift=3)
    x[:, 2] = 0.1  # a feature that never changes
    value, gradients = WITH_GRADIENTS[kind](x, x)
    assert 0 <= value < 1e-20
    np.testing.assert_allclose(gradients, np.zeros((2, n, 11)), atol=1e-10)
    reordered, _ = WITH_GRADIENTS[kind](x, x[::-1])
    np.testing.assert_allclose(reordered, 0, atol=2e-6 * (1 + np.var(x, axis=0).sum()))


def test_nearly_equal_sets_keep_their_digits(random):
    """Rounding the features by 1e-7 changes their difference by 2e-4; rounding their squares would by a fifth."""
    x = samples(random, 53, 5)
    y = float32(x * float32(1 + 2.0**-10))
    expected = by_factors(x, y)
    assert expected < 1e-4
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-3)


def test_translation_rotation_and_symmetry(random):
    x, y, t = samples(random, 53, 5), samples(random, 53, 5), float32(random.normal(size=5))
    np.testing.assert_allclose(frechet_distance(x, x + t), np.sum(float64(t) ** 2), rtol=1e-5)
    rotation = float32(np.linalg.qr(random.normal(size=(5, 5)))[0])
    np.testing.assert_allclose(frechet_distance(x @ rotation, y @ rotation), frechet_distance(x, y), rtol=1e-5)
    np.testing.assert_allclose(frechet_distance(y, x), frechet_distance(x, y), rtol=1e-5)


@pytest.mark.parametrize(
    ("convert_x", "convert_y", "sizes"),
    [
        slow_unless(False, jnp.asarray, jnp.asarray, (31, 53)),
        (jnp.asarray, jnp.asarray, (7, 11)),  # both covariances are singular, and the distance is smooth all the same
        slow_unless(False, jnp.asarray, jnp.asarray, (53, 7)),
        slow_unless(False, moments, moments, (31, 53)),
        slow_unless(False, jnp.asarray, moments, (31, 53)),
    ],
)
def test_derivatives_in_float64(convert_x, convert_y, sizes):
    x, y = (np.random.default_rng(n).normal(size=(n, 13)) for n in sizes)
    assert_derivatives(lambda x, y: frechet_distance(convert_x(x), convert_y(y)), x, y, order=1, rtol=2e-6)


def test_a_second_derivative_raises(random):
    x, y = samples(random, 7, 2), samples(random, 5, 2)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        jax.eval_shape(jax.hessian(frechet_distance), x, y)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        jax.eval_shape(jax.grad(lambda x: jnp.sum(jax.grad(frechet_distance)(x, y))), x)


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_gradients_are_finite_at_singular_covariances(random, kind):
    y = samples(random, 7, 3)
    for x in (np.zeros((7, 3)), np.full((7, 3), 0.1), np.eye(7, 3), np.outer(range(7), [1, 1, 1])):
        value, gradients = WITH_GRADIENTS[kind](float32(x), y)
        assert value > 0
        assert all(np.isfinite(g).all() for g in gradients)


def test_huge_and_tiny_samples(random):
    x, y = samples(random, 7, 3), samples(random, 7, 3)
    for scale in float32([1e-15, 1e17]):
        found, expected = (WITH_GRADIENTS["samples"](factor * x, factor * y)[0] for factor in (scale, 1))
        np.testing.assert_allclose(found / scale**2, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_an_overflow_is_infinite_with_zero_gradient(random, kind):
    x = samples(random, 7, 3) * float32(1e30)
    value, gradients = WITH_GRADIENTS[kind](x, -3 * x)
    assert np.isposinf(value)
    np.testing.assert_array_equal(gradients, 0)
    assert kind == "moments" or WITH_GRADIENTS[kind](x, x)[0] == 0


@pytest.mark.slow
def test_vmap_is_a_loop(random):
    x, y = (np.stack([samples(random, n, 3) for _ in range(3)]) for n in (5, 7))
    expected = [frechet_distance(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(frechet_distance))(x, y), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [slow_unless(False, "float16"), "bfloat16", slow_unless(False, "int32")])
def test_integers_and_half_precision(random, kind):
    kind = jnp.dtype(kind)
    x, y = ((3 * random.normal(size=(n, 3))).astype(kind) for n in (5, 7))
    result = jnp.dtype(jnp.float32 if kind == jnp.int32 else kind)
    found = frechet_distance(x, y)
    assert found.dtype == result
    np.testing.assert_allclose(float(found), by_matrix_root(x, y), rtol=2 * float(jnp.finfo(result).eps) + 1e-5)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, wide = np.zeros((3, 2), np.float32), np.zeros((3, 5), np.float32)
    with pytest.raises(InputError, match="y: expected 2 features as in x, got 5"):
        frechet_distance(x, wide)
    with pytest.raises(InputError, match="y: expected 2 features as in x, got 5"):
        frechet_distance(x, moments(wide))
    with pytest.raises(InputError, match="samples of x: expected at least 1, got 0"):
        frechet_distance(x[:0], x)
    with pytest.raises(InputError, match=r"y: expected samples \[n, d\], got shape \(3,\)"):
        frechet_distance(x, wide[:, 0])
