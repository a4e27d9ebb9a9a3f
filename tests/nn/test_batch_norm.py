import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import nnx

from simjax import nn


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 2, 5)])
def test_equals_flax_in_training_and_evaluation(random, shape):
    ours, theirs = nn.BatchNorm(5), nnx.BatchNorm(5, momentum=0.9, rngs=nnx.Rngs(0))
    scale, bias = jnp.float32(random.normal(size=(2, 5)))
    for norm in (ours, theirs):
        norm.scale[...], norm.bias[...] = scale, bias
    for _ in range(3):  # the running mean is no longer 0
        x = jnp.float32(3 + random.normal(size=shape))
        np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.mean[...], rtol=1e-5)
    np.testing.assert_allclose(ours.var[...], theirs.var[...], rtol=1e-4)
    alone = [nnx.view(norm, use_running_average=True)(x[:1]) for norm in (ours, theirs)]
    np.testing.assert_allclose(*alone, rtol=1e-4, atol=1e-5)


def test_gradients():
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        structure, statistics = nnx.split(nn.BatchNorm(3))
        x, weights = jnp.asarray(random.normal(size=(2, 5, 3)))

        def loss(x, weights):
            return jnp.sum(weights * nnx.merge(structure, statistics, copy=True)(x) ** 2)

        jax.test_util.check_grads(jax.jit(loss), (x, weights), order=2, modes=["fwd", "rev"], rtol=1e-5)


def test_the_variance_is_accurate_with_a_near_running_mean():
    norm = nn.BatchNorm(3)
    x = 300 + jax.random.normal(jax.random.key(0), (512, 3))
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    first = np.abs(norm(x) - exact).max()
    for _ in range(100):
        norm(x)
    assert np.abs(norm(x) - exact).max() < 1e-4 < first


def test_float16_is_summed_in_float32():
    x = jnp.float16(300 + jax.random.normal(jax.random.key(0), (512, 3)))
    norm, reference = nn.BatchNorm(3), nn.BatchNorm(3)
    out = norm(x)
    assert out.dtype == jnp.float16
    np.testing.assert_array_equal(out, reference(jnp.float32(x)).astype(jnp.float16))
    np.testing.assert_array_equal(norm.var[...], reference.var[...])


@pytest.mark.parametrize("x", [np.ones((1, 3)), np.full((5, 3), 1e4), np.zeros((5, 3))])
def test_one_row_and_equal_rows_are_finite(x):
    structure, statistics = nnx.split(nn.BatchNorm(3))

    def loss(x):
        return jnp.sum((nnx.merge(structure, statistics, copy=True)(x) - 1) ** 2)

    value, gradient = jax.value_and_grad(loss)(jnp.float32(x))
    np.testing.assert_allclose(value, x.size)
    np.testing.assert_array_equal(gradient, 0)
