"""Arithmetic that stays finite, in value and in every derivative, at the degenerate points of measures.

Division 0 / 0, the square root at 0, and numbers whose squares overflow or underflow.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_jvp
def ratio(a: Array, b: Array) -> Array:
    """Compute a / b, and 0 with zero gradient where b is 0.

    JAX differentiates a / b through a / b^2, whose square overflows at 1e30 and vanishes at 1e-30. This derivative is
    (da - (a / b) db) / b.
    """
    nonzero = b != 0
    return jnp.where(nonzero, a / jnp.where(nonzero, b, 1.0), 0.0)


@ratio.defjvp
def _ratio_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    q = ratio(a, b)
    return q, ratio(da - q * db, b)


@jax.custom_jvp
def safe_sqrt(x: Array) -> Array:
    """Compute the square root, with gradient 0 at 0; 0 below 0, and NaN of NaN."""
    return jnp.sqrt(jnp.where(x <= 0, 0.0, x))


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root = safe_sqrt(*primals)
    return root, ratio(tangents[0] / 2, root)


def power_of_two(x: Array) -> Array:
    """Return the largest power of two that is at most x, and 1 for 0, infinity and NaN; dividing by it is exact.

    The power is limited, so that neither it nor its inverse overflows when a gradient is divided by a small number.
    """
    x = lax.stop_gradient(x)
    usable = jnp.where((x > 0) & jnp.isfinite(x), x, 1.0)
    info = jnp.finfo(x.dtype)
    without_mantissa = usable.view(f"int{info.bits}") & (-1 << info.nmant)  # far cheaper to trace than frexp and ldexp
    limit = 2.0 ** (3 * info.maxexp // 4)
    return jnp.clip(without_mantissa.view(x.dtype), 1 / limit, limit)


def absolute(x: Array) -> Array:
    """Compute |x| with gradient 0 at 0, where the gradient of `jnp.abs` is 1."""
    return jnp.where(x == 0, 0.0, jnp.abs(x))


def saturate(x: Array) -> Array:
    """Replace infinity by the largest number of the dtype, with zero gradient."""
    limit = float(jnp.finfo(x.dtype).max)
    return jnp.clip(x, -limit, limit)


def clip_to_range(x: Array, low: float, high: float) -> Array:
    """Clip rounding errors beyond a range; the gradient with respect to x is 1, also where x is clipped."""
    return x + lax.stop_gradient(jnp.clip(x, low, high) - x)


def largest(x: Array) -> Array:
    """Return the largest absolute value of each row, [..., 1]; 0 for a row without features."""
    return jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)


def safe_norm(x: Array) -> Array:
    """Compute |x| of rows [..., d], with gradient 0 at 0; 1e30 and 1e-30 do not overflow or underflow."""
    scale = power_of_two(largest(x))
    scaled = x / scale
    return scale[..., 0] * safe_sqrt(jnp.sum(scaled * scaled, axis=-1))
