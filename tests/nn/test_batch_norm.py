from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import nnx

from simjax import nn
from tests.slow import mostly_slow


@nnx.jit
def normalize(norm, x):
    return norm(x)


@pytest.mark.parametrize("shape", mostly_slow([((7, 5),), ((3, 4, 2, 5),)], ((3, 4, 2, 5),)))
def test_equals_flax_in_training_and_evaluation(random, shape):
    ours: Any = nn.BatchNorm(5)
    theirs: Any = nnx.BatchNorm(5, momentum=0.9, rngs=nnx.Rngs(0))
    scale, bias = random.normal(size=(2, 5)).astype(np.float32)
    for norm in (ours, theirs):
        norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    batches = (3 + random.normal(size=(3, *shape))).astype(np.float32)  # after them the running mean is not 0
    for x in batches:
        np.testing.assert_allclose(normalize(ours, x), normalize(theirs, x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.mean[...], rtol=1e-5)
    np.testing.assert_allclose(ours.var[...], theirs.var[...], rtol=1e-4)
    alone = [normalize(nnx.view(norm, use_running_average=True), batches[0, :1]) for norm in (ours, theirs)]
    np.testing.assert_allclose(*alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients():
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        structure, statistics = nnx.split(nn.BatchNorm(3))
        x, weights = random.normal(size=(2, 5, 3))

        def loss(x, weights):
            return jnp.sum(weights * nnx.merge(structure, statistics, copy=True)(x) ** 2)

        jax.test_util.check_grads(jax.jit(loss), (x, weights), order=2, modes=["fwd", "rev"], rtol=1e-5)


def test_the_variance_is_accurate_with_a_near_running_mean(random):
    norm = nn.BatchNorm(3)
    x = (300 + random.normal(size=(512, 3))).astype(np.float32)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    first = np.abs(normalize(norm, x) - exact).max()
    for _ in range(100):
        normalize(norm, x)
    assert np.abs(normalize(norm, x) - exact).max() < 1e-4 < first


def test_float16_is_summed_in_float32(random):
    x = (300 + random.normal(size=(512, 3))).astype(np.float16)
    norm, reference = nn.BatchNorm(3), nn.BatchNorm(3)
    out = normalize(norm, x)
    assert out.dtype == jnp.float16
    np.testing.assert_array_equal(out, np.asarray(normalize(reference, x.astype(np.float32))).astype(np.float16))
    np.testing.assert_array_equal(norm.var[...], reference.var[...])


def test_one_row_and_equal_rows_are_finite():
    structure, statistics = nnx.split(nn.BatchNorm(3))

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return jnp.sum((nnx.merge(structure, statistics, copy=True)(x) - 1) ** 2)

    for x in (np.ones((1, 3)), np.full((5, 3), 1e4), np.zeros((5, 3))):
        value, gradient = loss(x.astype(np.float32))
        np.testing.assert_allclose(value, x.size)
        atol = 1e-6 if np.any(x > 1) and len(x) > 1 else 0  # sums of terms of up to 632 that cancel
        np.testing.assert_allclose(gradient, 0, atol=atol)
