"""Arrays as the library takes them: floating point, accumulated in float32 or wider, with names in every error.

JAX keeps the low 32 bits of wider integers unless `jax_enable_x64` is set: 2^32 becomes 0. So a user's array is
converted here, where NumPy still holds it.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.dtypes import canonicalize_dtype
from jax.typing import ArrayLike, DTypeLike

from simjax.core._checks import InputError


def as_host_array(x: Any) -> Any:
    """x as a NumPy array; an array of JAX, traced or not, is returned as it is."""
    if isinstance(x, Array):
        return x
    if hasattr(x, "__jax_array__"):  # a parameter of a Flax module, for instance
        return jnp.asarray(x)
    try:
        return np.asarray(x)
    except (TypeError, ValueError):
        return jnp.asarray(x)  # a list that holds traced arrays


def fits_dtype(x: np.ndarray | Array, dtype: DTypeLike) -> bool:
    """Whether an integer type holds all the integers of x; it is taken to hold those that are traced."""
    if isinstance(x, Tracer) or not x.size or np.can_cast(x.dtype, dtype):
        return True
    values, limits = np.asarray(x), jnp.iinfo(dtype)
    return limits.min <= int(values.min()) and int(values.max()) <= limits.max


def as_number_array(argument: str, x: ArrayLike) -> Array:
    """x as an array of numbers; integers that JAX's type does not hold are rounded to its default float type.

    Raises:
        TypeError: for text and objects.
    """
    try:
        if isinstance(x, bool | int | float | complex):  # whose type is weak
            return jnp.asarray(x if isinstance(x, bool) or abs(x) < 2**31 else float(x) if isinstance(x, int) else x)
        x = as_host_array(x)
        if (
            isinstance(x, np.ndarray)
            and np.issubdtype(x.dtype, np.integer)
            and not fits_dtype(x, canonicalize_dtype(x.dtype))
        ):
            x = x.astype(jnp.result_type(float))
        return jnp.asarray(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{argument}: expected an array of numbers, got {type(x).__name__} ({error})") from None


def as_float_array(argument: str, x: ArrayLike) -> Array:
    """x as a floating-point array; integers and booleans become JAX's default type, float32 unless x64 is enabled.

    Raises:
        TypeError: for complex numbers, text and objects, which no measure is defined on.
    """
    x = as_number_array(argument, float(x) if isinstance(x, int) else x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.result_type(float))
    raise TypeError(f"{argument}: expected real numbers, got {x.dtype}")


def promote_to_float32(x: Array) -> Array:
    """x in float32 or wider: what sums accumulate in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def replace_non_finite_rows(x: Array, *, fill_with_minimum: bool = False) -> tuple[Array, Array]:
    """Replace rows that hold NaN or infinity, and return what to add to their scores instead.

    Such a row has the score NaN with every other, by every measure. It takes no part in the arithmetic: there, 0 times
    NaN would be NaN in the gradients of rows whose pairs with it are masked.

    Args:
        x: [..., d].
        fill_with_minimum: Replace by the smallest number that the other rows of a matrix [n, d] have in each feature,
            which lies where they lie, instead of by 0.

    Returns:
        The rows [..., d], and NaN for each row that was replaced, 0 for the others, [...].
    """
    finite = jnp.all(jnp.isfinite(x), axis=-1)
    fill = jnp.zeros((), x.dtype)
    if fill_with_minimum:
        fill = jnp.min(lax.stop_gradient(x), axis=0, keepdims=True, initial=jnp.inf, where=finite[..., None])
    return jnp.where(finite[..., None], x, fill), jnp.where(finite, 0.0, jnp.nan).astype(x.dtype)


def as_matrices(x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    """x [n, d] and y [m, d] as floating-point arrays.

    Raises:
        InputError: if one is no matrix or the features disagree.
        TypeError: for complex numbers, text and objects.
    """
    x, y = as_float_array(names[0], x), as_float_array(names[1], y)
    for name, a in zip(names, (x, y), strict=True):
        if a.ndim != 2:
            raise InputError(f"{name}: expected rows [n, d], got shape {a.shape}")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{names[1]}: expected rows of {x.shape[1]} features as in {names[0]}, got shape {y.shape}")
    return x, y
