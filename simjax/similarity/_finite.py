"""Arithmetic that stays finite, in value and in every derivative, where measures meet their degenerate points.

Division at 0 / 0, the square root at 0, and numbers whose squares do not fit the type.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_jvp
def ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 with zero gradient where b is 0.

    JAX differentiates a / b by a / b^2, whose square overflows at 1e-30 and vanishes at 1e30; here it is
    (da - (a / b) db) / b.
    """
    usable = b != 0
    return jnp.where(usable, a / jnp.where(usable, b, 1.0), 0.0)


@ratio.defjvp
def _ratio_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    q = ratio(a, b)
    return q, ratio(da - q * db, b)


@jax.custom_jvp
def safe_sqrt(x: Array) -> Array:
    """The square root, with gradient 0 at 0; 0 below 0, and NaN of NaN.

    Its derivative is made of the root alone, so that of a strip no more than that is read again going backward.
    """
    return jnp.sqrt(jnp.where(x <= 0, 0.0, x))


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root = safe_sqrt(*primals)
    return root, ratio(tangents[0] / 2, root)


def power_of_two(x: Array) -> Array:
    """The largest power of two that is at most x, 1 for 0, infinity and NaN: dividing by it rounds nothing.

    It stays so far from the limits of the type that neither it nor 1 over it overflows when a gradient divides it by
    a small number.
    """
    x = lax.stop_gradient(x)
    usable = jnp.where((x > 0) & jnp.isfinite(x), x, 1.0)
    most = 3 * jnp.finfo(x.dtype).maxexp // 4
    return jnp.ldexp(jnp.ones_like(x), jnp.clip(jnp.frexp(usable)[1] - 1, -most, most))


def absolute(x: Array) -> Array:
    """|x| with gradient 0 at 0, where that of `jnp.abs` is 1."""
    return jnp.where(x == 0, 0.0, jnp.abs(x))


def saturate(x: Array) -> Array:
    """The largest number of the type, with zero gradient, instead of infinity."""
    most = float(jnp.finfo(x.dtype).max)
    return jnp.clip(x, -most, most)


def clip_to_range(x: Array, low: float, high: float) -> Array:
    """x without what rounding adds beyond a range, with the gradient of x."""
    return x + lax.stop_gradient(jnp.clip(x, low, high) - x)


def largest(x: Array) -> Array:
    """The largest absolute value of each row [..., 1], 0 of an empty one."""
    return jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)
