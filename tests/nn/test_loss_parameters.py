"""Parameters of losses as modules: one step of an optimizer changes them and lowers the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import losses, nn
from simjax.core import InputError
from tests.slow import mostly_slow

X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
LABELS = np.array([0, 0, 1, 1, 2, 2])


def vectors(**options):
    return nn.Proxies(4, 3, rngs=nnx.Rngs(0), **options)


CASES = {  # a module, a loss that takes it, and its parameters
    "proxies": (vectors, lambda m: losses.arcface_loss(X[0], LABELS, proxies=m()), {"vectors": (3, 4)}),
    "proxies of a class": (
        lambda: vectors(per_class=2),
        lambda m: losses.soft_triple_loss(X[0], LABELS, proxies=m(), tau=0.2),
        {"vectors": (3, 2, 4)},
    ),
    "temperature": (nn.Temperature, lambda m: losses.info_nce_loss(*X, temperature=m()), {"log_scale": ()}),
    "scale": (
        nn.Temperature,
        lambda m: losses.cosface_loss(X[0], LABELS, proxies=X[1, :3], scale=m.scale),
        {"log_scale": ()},
    ),
    "scale and bias": (nn.ScaleAndBias, lambda m: losses.siglip_loss(*X, **m()), {"log_scale": (), "bias": ()}),
    # The mean of hinges replaces the margin loss.
    "beta": (nn.Beta, lambda m: jnp.mean(jax.nn.relu(jnp.arange(3.0) - m())), {"beta": ()}),
    "beta of a class": (
        lambda: nn.Beta(classes=3),
        lambda m: jnp.mean(jax.nn.relu(jnp.arange(6.0) - m()[LABELS])),
        {"beta": (3,)},
    ),
}


@pytest.mark.parametrize("name", mostly_slow(CASES, *list(CASES)[:1]))
def test_one_step_lowers_the_loss(name):
    make, loss, shapes = CASES[name]
    graph, state = nnx.split(make(), nnx.Param)
    assert {path[0]: p.shape for path, p in nnx.to_flat_state(state)} == shapes

    @jax.jit
    def step(state):
        value, gradient = jax.value_and_grad(lambda state: loss(nnx.merge(graph, state)))(state)
        learned = jax.tree.map(lambda p, g: p - 1e-3 * g, state, gradient)
        return learned, value, loss(nnx.merge(graph, learned))

    learned, before, after = step(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(learned), strict=True):
        assert np.any(np.asarray(old) != np.asarray(new))
    assert after < before


def test_initial_values():
    many = np.asarray(nn.Proxies(64, 100, per_class=3, rngs=nnx.Rngs(1))())
    np.testing.assert_allclose(np.linalg.norm(many, axis=2), np.ones((100, 3)), rtol=1e-5)
    mean_direction = many.reshape(-1, 64).mean(0)
    assert np.linalg.norm(mean_direction) < 3 / np.sqrt(300)  # of 300 uniform directions it is about 1 / sqrt(300)
    for module, expected in ((nn.Temperature(), 0.07), (nn.Temperature(0.5), 0.5), (nn.Beta(), 1.2)):
        np.testing.assert_allclose(module(), expected, rtol=1e-6)
    np.testing.assert_allclose(nn.Temperature(0.5).scale, 2.0, rtol=1e-6)
    siglip = jax.jit(lambda: (losses.siglip_loss(*X, **nn.ScaleAndBias()()), losses.siglip_loss(*X)))
    np.testing.assert_allclose(*siglip(), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vectors(per_class=0), "per_class: expected at least 1, got 0"),
        (lambda: nn.Temperature(0.0), "initial: expected more than 0, got 0"),
        (lambda: nn.Temperature(float("nan")), "initial: expected more than 0, got nan"),
        (lambda: nn.ScaleAndBias(scale=-1.0), "scale: expected more than 0, got -1"),
        (lambda: nn.Beta(classes=0), "classes: expected at least 1, got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()
