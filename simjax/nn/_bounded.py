"""Learned scales that cannot run away.

A scale is learned as its logarithm. Nothing in a loss keeps the scale from growing while that lowers the loss, until
its gradient is no longer finite. CLIP limits the scale to 100 by cutting the parameter after each step. Here the
forward pass cuts it, and the gradient is that of the projection, so that any optimizer and any training loop will do.

References:
    Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision (CLIP).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from simjax.core import InputError, check_positive

MAX_SCALE = 100.0
"""CLIP's limit."""
LOG_LIMIT = 40.0
"""Logarithms beyond this in size are cut in any case: exp(80) and exp(-80), the squares, fit a float32."""


def log_limit(max_scale: float | None) -> float:
    """Return the largest logarithm for a largest scale, or for none."""
    return LOG_LIMIT if max_scale is None else min(math.log(max_scale), LOG_LIMIT)


def check_scale(argument: str, got: float, max_scale: float | None, *, inverse: bool = False) -> None:
    """Check that a scale is above 0 and does not begin beyond its limit.

    Raises:
        InputError: naming the argument and the value that was given for it.
    """
    check_positive(argument, got)
    if max_scale is None:
        return
    check_positive("max_scale", max_scale)
    if (1 / got if inverse else got) > max_scale * (1 + 1e-6):
        expected = f"at least 1 / max_scale = {1 / max_scale:g}" if inverse else f"at most max_scale = {max_scale:g}"
        raise InputError(f"{argument}: expected {expected}, got {got:g}")


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def bounded(x: Array, low: float, high: float) -> Array:
    """Return x cut to [low, high], with the gradient of a projected descent.

    The gradient of x is unchanged inside the bounds. At a bound and beyond, it is 0 where a step of descent would lead
    further out, and unchanged where a step leads back, so that no value is stuck. Reverse mode only: such a gradient is
    not linear.
    """
    return jnp.clip(x, low, high)


def _forward(x: Array, low: float, high: float) -> tuple[Array, Array]:
    return bounded(x, low, high), x


def _backward(low: float, high: float, x: Array, gradient: Array) -> tuple[Array]:
    outwards = ((x >= high) & (gradient < 0)) | ((x <= low) & (gradient > 0))
    return (jnp.where(outwards, 0, gradient),)


bounded.defvjp(_forward, _backward)
