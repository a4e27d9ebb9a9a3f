"""Conversion of arguments to arrays of a known dtype.

| function | accepts | returns |
|---|---|---|
| `as_float_array` | real numbers | JAX array of floats |
| `as_number_array` | numbers | JAX array; integers that JAX would truncate become floats |
| `as_exact_array` | numbers | JAX array; integers that its dtype cannot represent are an error |
| `as_integer_array` | integers | NumPy or JAX array of integers of any width |
| `comparable_ids` | integers | JAX arrays; integers beyond JAX's default integer type are replaced by unused ones |

JAX keeps the low 32 bits of wider integers unless `jax_enable_x64` is set (2^32 becomes 0), and its default integer
type is int32, or int64 with `jax_enable_x64`. Arguments are therefore converted before JAX sees them. The values of
traced arrays are unknown, and are not checked. All functions raise a TypeError for text and objects; all but
`as_number_array` and `as_exact_array` also raise it for complex numbers.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.dtypes import canonicalize_dtype
from jax.typing import ArrayLike, DTypeLike

from simjax.core._checks import InputError

NO_CLASS = -(2**31)
"""The id of a row that belongs to no class."""


def as_host_array(x: Any) -> np.ndarray | Array:
    """Return x as a NumPy array if NumPy can convert it; JAX arrays are returned unchanged."""
    if isinstance(x, Array):
        return x
    if hasattr(x, "__jax_array__"):  # a parameter of a Flax module, for instance
        return jnp.asarray(x)
    try:
        return np.asarray(x)
    except (TypeError, ValueError):
        return jnp.asarray(x)  # a list of traced arrays


def fits_dtype(x: np.ndarray | Array, dtype: DTypeLike) -> bool:
    """Return whether all integers of x are in the range of an integer type. True if x is traced."""
    if isinstance(x, Tracer) or not x.size or np.can_cast(x.dtype, dtype):
        return True
    values, limits = np.asarray(x), jnp.iinfo(dtype)
    return limits.min <= int(values.min()) and int(values.max()) <= limits.max


def as_float_array(argument: str, x: ArrayLike) -> Array:
    """Return x as a floating-point array. Integers and booleans become JAX's default float type."""
    x = jnp.asarray(x) if isinstance(x, Array) else as_number_array(argument, float(x) if isinstance(x, int) else x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.result_type(float))
    raise TypeError(f"{argument}: expected real numbers, got {x.dtype}")


def as_number_array(argument: str, x: ArrayLike) -> Array:
    """Return x as an array of numbers. Integers that JAX would truncate become JAX's default float type."""
    try:
        if isinstance(x, bool | int | float | complex):  # a NumPy array of it would lose the weak type
            return jnp.asarray(float(x) if isinstance(x, int) and abs(x) >= 2**31 else x)
        array = as_host_array(x)
        if np.issubdtype(array.dtype, np.integer) and not fits_dtype(array, canonicalize_dtype(array.dtype)):
            array = array.astype(jnp.result_type(float))
        return jnp.asarray(array)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{argument}: expected an array of numbers, got {type(x).__name__} ({error})") from None


def as_matrices(x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    """Return x [n, d] and y [m, d] as floating-point arrays; raise an InputError if their shapes do not match."""
    x, y = as_float_array(names[0], x), as_float_array(names[1], y)
    for name, a in zip(names, (x, y), strict=True):
        if a.ndim != 2:
            raise InputError(f"{name}: expected rows [n, d], got shape {a.shape}")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{names[1]}: expected rows of {x.shape[1]} features as in {names[0]}, got shape {y.shape}")
    return x, y


def as_exact_array(argument: str, x: Any, dtype: DTypeLike | None = None, *, hint: str = "") -> Array:
    """Return x as a JAX array in which every integer is unchanged.

    Args:
        dtype: Integer type of the result if x holds integers. Default: that of x, or its 32-bit form without
            `jax_enable_x64`.
        hint: End of the error message about integers that `dtype` cannot represent.
    """
    array = as_host_array(x)
    if array.dtype.kind in "OSTU":
        as_integer_array(argument, array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        return jnp.asarray(array)
    dtype = canonicalize_dtype(array.dtype) if dtype is None else dtype
    if not fits_dtype(array, dtype):
        raise InputError(
            f"{argument}: expected integers that {jnp.dtype(dtype)} holds, got {array.min()} to {array.max()}{hint}"
        )
    return jnp.asarray(array).astype(dtype)


def as_integer_array(argument: str, x: Any) -> np.ndarray | Array:
    """Return x as an array of integers of any width: a JAX array if x is one, otherwise a NumPy array.

    An empty array of any type counts as integers. The TypeError for anything else says how to convert it.
    """
    array = as_host_array(x)
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array
    if isinstance(array, np.ndarray) and not array.size:
        return array.astype(int)
    if isinstance(x, list | tuple) and all(type(value) is int for value in x):
        return np.asarray(x, object)  # such as [2**63, -1], which NumPy converts to floats
    kinds = {"U": "text", "T": "text", "S": "bytes", "O": "objects"}
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    fix = f"{argument}.astype(int)" if is_float else f"np.unique({argument}, return_inverse=True)[1]"
    given = kinds.get(array.dtype.kind, str(array.dtype))
    raise TypeError(f"{argument}: expected integer class ids, got {given}; pass {fix}")


def class_ids(argument: str, labels: ArrayLike) -> Array:
    """Return class ids [n] as JAX's default integer type, see `comparable_ids`."""
    return comparable_ids({argument: labels})[argument]


def comparable_ids(labels: dict[str, Any]) -> dict[str, Array]:
    """Return class ids in JAX's default integer type, with equal ids exactly where the given ids are equal.

    Unused negative ids replace the ids that this type cannot represent. Unused ids are found by value, so an InputError
    is raised if an id is to be replaced and one of the arrays is traced.

    Args:
        labels: Arrays of class ids, of any lengths, by the argument name that errors mention. The result has the same
            keys.
    """
    dtype = jnp.result_type(int)
    ids, unfit_argument = {}, ""
    for argument, given in labels.items():
        ids[argument] = as_integer_array(argument, given)
        if ids[argument].ndim != 1:
            raise InputError(f"{argument}: expected one class id for each row, got shape {ids[argument].shape}")
        if not fits_dtype(ids[argument], dtype):
            unfit_argument = unfit_argument or argument
    if not unfit_argument:
        return {argument: jnp.asarray(a).astype(dtype) for argument, a in ids.items()}
    if any(isinstance(a, Tracer) for a in ids.values()):
        raise InputError(
            f"{unfit_argument}: expected ids that {dtype} holds, because they are compared with traced ids; "
            "pass np.unique(ids, return_inverse=True)[1] of all ids together, or set jax_enable_x64"
        )
    arrays = [np.asarray(a) for a in ids.values()]
    common = np.result_type(*arrays)
    common = common if np.issubdtype(common, np.integer) else object  # float64, for uint64 and int64, rounds ids
    values, positions = np.unique(np.concatenate([a.astype(common) for a in arrays]), return_inverse=True)
    smallest, largest = jnp.iinfo(dtype).min + 1, jnp.iinfo(dtype).max  # the minimum of int32 is NO_CLASS
    representable = (smallest <= values) & (values <= largest)
    # Of len(values) candidates, the representable ids use at most one each, which leaves one for every other id.
    unused = np.setdiff1d(np.arange(smallest, smallest + len(values)), values[representable].astype(np.int64))
    values[~representable] = unused[: np.sum(~representable)]
    parts = np.split(values.astype(dtype)[positions], np.cumsum([len(a) for a in arrays])[:-1])
    return {argument: jnp.asarray(part) for argument, part in zip(ids, parts, strict=True)}


def promote_to_float32(x: Array) -> Array:
    """Return x in float32 or wider, the precision in which sums accumulate."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def replace_non_finite_rows(x: Array, *, fill_with_minimum: bool = False) -> tuple[Array, Array]:
    """Replace rows of x [..., d] that hold NaN or infinity; also return [...] with NaN for these rows, 0 for others.

    The measure of such a row and any other row is NaN. The row is excluded from the arithmetic, because in the gradient
    of a masked pair 0 * NaN would be NaN.

    Args:
        fill_with_minimum: Fill a row of a matrix [n, d] with the minimum of each feature over the finite rows, which
            does not enlarge their bounding box. Default: fill it with 0.
    """
    finite = jnp.all(jnp.isfinite(x), axis=-1)
    fill = jnp.zeros((), x.dtype)
    if fill_with_minimum:
        fill = jnp.min(lax.stop_gradient(x), axis=0, keepdims=True, initial=jnp.inf, where=finite[..., None])
    return jnp.where(finite[..., None], x, fill), jnp.where(finite, 0.0, jnp.nan).astype(x.dtype)
