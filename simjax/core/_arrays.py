"""Arrays as the library takes them: floating point, accumulated in float32 or wider, with names in every error."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core._checks import InputError


def floats(argument: str, x: ArrayLike) -> Array:
    """x as a floating-point array; integers and booleans become float32.

    Raises:
        TypeError: for complex numbers, text and objects, which no measure is defined on.
    """
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: expected an array of numbers, got {type(x).__name__} ({error})") from None
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.float32)
    raise TypeError(f"{argument}: expected real numbers, got {x.dtype}")


def wide(x: Array) -> Array:
    """x in float32 or wider: what sums accumulate in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def matrix_rows(x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    """x [n, d] and y [m, d] as floating-point arrays.

    Raises:
        InputError: if one is no matrix or the features disagree.
        TypeError: for complex numbers, text and objects.
    """
    x, y = floats(names[0], x), floats(names[1], y)
    for name, a in zip(names, (x, y), strict=True):
        if a.ndim != 2:
            raise InputError(f"{name}: expected rows [n, d], got shape {a.shape}")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{names[1]}: expected rows of {x.shape[1]} features as in {names[0]}, got shape {y.shape}")
    return x, y
