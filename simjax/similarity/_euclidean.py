"""Euclidean distance and its square.

In blocks both are |x|^2 + |y|^2 - 2 x.y, one matrix product. That difference of large numbers loses the digits of a
small distance, so rows are moved to the common mean first, divided by a power of two so that no square overflows, and
identical rows are found by comparison. The error that remains is below 8 eps d (|x|^2 + |y|^2).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import dot_products, wide
from simjax.similarity._define import define, pair_function


def safe_sqrt(x: Num[Array, "*s"]) -> Num[Array, "*s"]:
    """Square root with gradient 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def power_of_two(x: Array) -> Array:
    """The largest power of two that is at most x, 1 for x = 0: dividing by it rounds nothing."""
    x = lax.stop_gradient(x)
    usable = jnp.where((x > 0) & jnp.isfinite(x), x, 1.0)
    return jnp.ldexp(jnp.ones_like(x), jnp.frexp(usable)[1] - 1)


@pair_function()
def squared_euclidean_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """|x - y|^2, for x, y [..., d]."""
    difference = x - y
    return jnp.sum(difference * difference, axis=-1)


@pair_function()
def euclidean_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """|x - y|, for x, y [..., d]; the gradient at x = y is 0."""
    difference = x - y
    scale = power_of_two(jnp.max(jnp.abs(difference), axis=-1, keepdims=True, initial=0.0))
    scaled = difference / scale
    return scale[..., 0] * safe_sqrt(jnp.sum(scaled * scaled, axis=-1))


def centred(x: Array, y: Array) -> tuple[Any, Any]:
    """Rows divided by a common power of two and moved to the mean of y, with their squares; columns and the power."""
    x, y = wide(x), wide(y)
    scale = power_of_two(jnp.maximum(jnp.max(jnp.abs(x), initial=0.0), jnp.max(jnp.abs(y), initial=0.0)))
    mean = jnp.sum(y / scale, axis=0, keepdims=True) / max(y.shape[0], 1)
    (x, x2), (y, y2) = ((a, jnp.sum(a * a, axis=-1)) for a in (x / scale - mean, y / scale - mean))
    return (x, x2), (y, y2, scale)


def _scaled_squares(x: tuple[Array, Array], y: tuple[Array, Array, Array]) -> Array:
    return jax.nn.relu(x[1][:, None] + y[1][None] - 2 * dot_products(x[0], y[0]))


def squared_distances(x: tuple[Array, Array], y: tuple[Array, Array, Array]) -> Array:
    """|x - y|^2 of what `centred` prepared."""
    return _scaled_squares(x, y) * y[2] * y[2]


def distances(x: tuple[Array, Array], y: tuple[Array, Array, Array]) -> Array:
    """|x - y| of what `centred` prepared."""
    return safe_sqrt(_scaled_squares(x, y)) * y[2]


_form = {"prepare": centred, "range": (0.0, float("inf")), "exact_zero": True}
define(squared_euclidean_distance, matrix=squared_distances, **_form)
define(euclidean_distance, matrix=distances, **_form)
