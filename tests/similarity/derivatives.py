"""Compare derivatives with central differences, by one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STEP = 1e-5


def assert_derivatives(
    function: Callable[..., Any],
    *arguments: Any,
    order: int = 2,
    forward: bool = True,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> Any:
    """Check derivatives of a weighted sum of the results along a random direction, in float64; return the gradient.

    Order 1 compares the gradient, and with `forward` the derivative of forward mode; order 2 also compares the
    derivative of the gradient, by forward mode over reverse mode, or with `forward=False` by reverse mode twice.
    """
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        point = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), arguments)
        direction = jax.tree.map(lambda a: random.normal(size=np.shape(a)), point)
        weights = jax.tree.map(lambda s: random.normal(size=s.shape), jax.eval_shape(function, *point))

        def total(at):
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, weights, function(*at))))

        def along(gradient):
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))

        @jax.jit
        def derivatives(step):
            at = jax.tree.map(lambda a, v: a + step * v, point, direction)
            if order == 2 and forward:
                (value, gradient), (slope, change) = jax.jvp(jax.value_and_grad(total), (at,), (direction,))
                return value, along(gradient), (slope, along(change)), gradient
            value, gradient = jax.value_and_grad(total)(at)
            slope = jax.jvp(total, (at,), (direction,))[1] if forward else along(gradient)
            bend = along(jax.grad(lambda at: along(jax.grad(total)(at)))(at)) if order == 2 else jnp.zeros(())
            return value, along(gradient), (slope, bend), gradient

        value, reverse, (slope, bend), gradient = derivatives(0.0)
        (before, reverse_before, *_), (after, reverse_after, *_) = derivatives(-STEP), derivatives(STEP)
        assert np.isfinite(value)
        np.testing.assert_allclose([reverse, slope], (after - before) / (2 * STEP), rtol=rtol, atol=atol)
        if order == 2:
            np.testing.assert_allclose(bend, (reverse_after - reverse_before) / (2 * STEP), rtol=rtol, atol=atol)
        return jax.tree.map(np.asarray, gradient)
