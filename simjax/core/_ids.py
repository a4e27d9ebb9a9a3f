"""Integers that stand for something: class ids, row numbers, attributes.

They are compared, and never rounded. Known ones that JAX's integer type does not hold are replaced, in a way that keeps
equal ids equal and others different, or refused. Traced ones are taken as they are.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.dtypes import canonicalize_dtype
from jax.typing import ArrayLike, DTypeLike

from simjax.core._arrays import as_host_array, fits_dtype
from simjax.core._checks import InputError

NO_CLASS = -(2**31)
"""The id of a row that belongs to no class."""


def as_integer_array(argument: str, x: Any) -> np.ndarray | Array:
    """x as an array of integers of any width: of NumPy, or of JAX where x is one.

    Raises:
        TypeError: if they are not integers, with what to do.
    """
    found = as_host_array(x)
    if jnp.issubdtype(found.dtype, jnp.integer):
        return found
    if isinstance(x, list | tuple) and all(type(value) is int for value in x):
        return np.asarray(x, object if x else int)  # integers that NumPy would take for floats
    if isinstance(found, np.ndarray) and not found.size:
        return found.astype(int)
    kinds = {"U": "text", "T": "text", "S": "bytes", "O": "objects"}
    floating = jnp.issubdtype(found.dtype, jnp.floating)
    fix = f"{argument}.astype(int)" if floating else f"np.unique({argument}, return_inverse=True)[1]"
    got = kinds.get(found.dtype.kind, str(found.dtype))
    raise TypeError(f"{argument}: expected integer class ids, got {got}; pass {fix}")


def class_ids(argument: str, labels: ArrayLike) -> Array:
    """Labels as integers [n] of JAX's default type.

    Raises:
        InputError: if they are no list.
        TypeError: if they are not integers.
    """
    return comparable_ids({argument: labels})[argument]


def comparable_ids(given: dict[str, Any]) -> dict[str, Array]:
    """Class ids by the names of arguments, as integers of JAX's default type [n] that are equal where the ids are.

    Ids that the type does not hold are replaced by unused negative ids that it holds.

    Raises:
        InputError: if one is no list, or known ids that the type does not hold are to be compared with traced ones.
        TypeError: if they are not integers.
    """
    ids = {argument: as_integer_array(argument, labels) for argument, labels in given.items()}
    for argument, a in ids.items():
        if a.ndim != 1:
            raise InputError(f"{argument}: expected one class id for each row, got shape {a.shape}")
    dtype = jnp.result_type(int)
    wide = [argument for argument, a in ids.items() if not fits_dtype(a, dtype)]
    if not wide:
        return {argument: jnp.asarray(a).astype(dtype) for argument, a in ids.items()}
    if any(isinstance(a, Tracer) for a in ids.values()):
        raise InputError(
            f"{wide[0]}: expected ids that {dtype} holds, as they are compared with traced ones, got others; pass "
            "np.unique(ids, return_inverse=True)[1] of all ids together, or set jax_enable_x64"
        )
    arrays = [np.asarray(a) for a in ids.values()]
    common = np.result_type(*arrays)
    common = common if np.issubdtype(common, np.integer) else object  # uint64 and int64 would become float64
    values, number = np.unique(np.concatenate([a.astype(common) for a in arrays]), return_inverse=True)
    least, most = jnp.iinfo(dtype).min + 1, jnp.iinfo(dtype).max  # the smallest is NO_CLASS
    held = ((least <= values) & (values <= most)).astype(bool)
    unused = np.setdiff1d(np.arange(least, least + len(values)), values[held].astype(np.int64))
    values[~held] = unused[: np.sum(~held)]
    parts = np.split(values.astype(dtype)[number], np.cumsum([len(a) for a in arrays])[:-1])
    return {argument: jnp.asarray(part) for argument, part in zip(ids, parts, strict=True)}


def as_exact_array(argument: str, x: Any, dtype: DTypeLike | None = None, *, hint: str = "") -> Array:
    """x as an array of JAX; if integers, of the given type, by default that which JAX has for theirs.

    Args:
        argument: its name, as the message gives it.
        x: whatever becomes an array.
        dtype: an integer type.
        hint: the end of the message, what to do with integers that the type does not hold.

    Raises:
        InputError: for known integers that the type does not hold.
        TypeError: for text and objects.
    """
    found = as_host_array(x)
    if found.dtype.kind in "OSTU":
        as_integer_array(argument, found)
    if not jnp.issubdtype(found.dtype, jnp.integer):
        return jnp.asarray(found)
    dtype = canonicalize_dtype(found.dtype) if dtype is None else dtype
    if not fits_dtype(found, dtype):
        raise InputError(
            f"{argument}: expected integers that {jnp.dtype(dtype)} holds, got {found.min()} to {found.max()}{hint}"
        )
    return jnp.asarray(found).astype(dtype)
