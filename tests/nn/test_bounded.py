"""Learned scales are bounded, have finite gradients, and can leave the bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from simjax import losses, nn
from simjax.core import InputError

X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)

CASES = {
    "temperature": (nn.Temperature, lambda m, x, y: losses.info_nce_loss(x, y, temperature=m())),
    "siglip": (nn.ScaleAndBias, lambda m, x, y: losses.siglip_loss(x, y, **m())),
    "head": (
        lambda: nn.HEADS["cosine"](4, 6, rngs=nnx.Rngs(0)),
        lambda m, x, y: optax.softmax_cross_entropy_with_integer_labels(m(x), np.arange(6)).mean(),
    ),
}


@functools.cache
def compiled(name):
    make, loss = CASES[name]
    graph, state = nnx.split(make(), nnx.Param)

    @jax.jit
    @jax.value_and_grad
    def both(log_scale, x, y):
        module = nnx.merge(graph, state)
        module.log_scale = nnx.Param(log_scale)
        return loss(module, x, y)

    return both


def loss_and_gradient(name, log_scale, x=X[0], y=X[1]):
    value, gradient = compiled(name)(np.float32(log_scale), x, y)
    return float(value), float(gradient)


@pytest.mark.parametrize("name", CASES)
def test_a_scale_beyond_its_bound_is_clipped(name):
    """Random pairs: a smaller scale would lower the loss, so the gradient is unchanged."""
    value, gradient = loss_and_gradient(name, np.log(100) - 1e-6)
    assert gradient > 0
    for log_scale in (np.log(100), 46.0, 100.0, 1e30):
        np.testing.assert_allclose(loss_and_gradient(name, log_scale), (value, gradient), rtol=1e-4)
    assert np.isfinite(loss_and_gradient(name, -1e30)).all()


def test_the_gradient_beyond_the_bound_is_zero():
    x = (np.eye(6, 4) + 0.5 * np.random.default_rng(1).normal(size=(6, 4))).astype(np.float32)
    assert loss_and_gradient("temperature", np.log(10), x, x)[1] < 0
    assert loss_and_gradient("temperature", 46.0, x, x)[1] == 0


def test_a_scale_can_leave_its_bound():
    make, loss = CASES["temperature"]
    graph, state = nnx.split(make(), nnx.Param)
    optimizer = optax.adam(0.3)
    memory = optimizer.init(state)

    @jax.jit
    def step(state, memory, x, y):
        gradient = jax.grad(lambda state: loss(nnx.merge(graph, state), x, y))(state)
        updates, memory = optimizer.update(gradient, memory, state)
        return optax.apply_updates(state, updates), memory

    for pairs, expected in (((X[0], X[0]), (99.9, 100.1)), (X, (0.0, 20.0))):
        for _ in range(60):
            state, memory = step(state, memory, *pairs)
        assert expected[0] < float(nnx.merge(graph, state).scale) < expected[1]


def test_the_bound_can_be_changed():
    np.testing.assert_allclose(nn.Temperature(0.001, max_scale=1000.0).scale, 1000.0, rtol=1e-5)
    np.testing.assert_allclose(nn.Temperature(1e-4, max_scale=None).scale, 1e4, rtol=1e-5)
    np.testing.assert_allclose(nn.Temperature(0.01).scale, 100.0, rtol=1e-5)
    with pytest.raises(InputError, match=r"initial: expected at least 1 / max_scale = 0.01, got 0.005"):
        nn.Temperature(0.005)
    with pytest.raises(InputError, match=r"scale: expected at most max_scale = 100, got 148"):
        nn.ScaleAndBias(scale=148.0)


def test_a_tuned_parameter_is_finite_for_any_logarithm():
    tuned = nn.TunedMeasure("rbf", gamma=1.0)
    graph, state = nnx.split(tuned, nnx.Param)
    both = jax.jit(jax.value_and_grad(lambda s: nnx.merge(graph, s)(X[0], X[0]).sum()))
    for logarithm in (100.0, -100.0):
        value, gradient = both(jax.tree.map(lambda a, b=logarithm: np.float32(b), state))
        assert float(value) == 6
        assert np.isfinite(jax.tree.leaves(gradient)).all()


def test_siglip_is_infinite_for_an_overflowing_scale():
    both = jax.jit(jax.value_and_grad(lambda s: losses.siglip_loss(jnp.eye(3), jnp.eye(3)[::-1], log_scale=s)))
    for log_scale in (100.0, 1000.0):
        assert [float(v) for v in both(log_scale)] == [np.inf, 0]
