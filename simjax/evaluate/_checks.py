"""What every evaluation asks of its arrays: rows of finite features, one integer label each, scored pairs.

Numbers keep their type: float64 stays where JAX has it, that is if `jax_enable_x64` is set.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype
from numpy.typing import ArrayLike, DTypeLike

from simjax.core import InputError, as_float_array, as_host_array, as_integer_array, fits_dtype


def as_rows(argument: str, x: ArrayLike) -> np.ndarray:
    """Embeddings as finite rows [n, d], in float32 or wider."""
    rows = finite(argument, x)
    if rows.ndim != 2:
        raise InputError(f"{argument}: expected rows [n, d], got shape {rows.shape}")
    return rows


def as_labels(argument: str, labels: ArrayLike, n: int, n_classes: int | None = None) -> np.ndarray:
    """Class ids as integers [n], in [0, n_classes) where that is given; int64 where that holds them."""
    try:
        ids = np.asarray(as_integer_array(argument, labels))
    except TypeError as error:
        raise InputError(str(error)) from None
    if ids.shape != (n,):
        raise InputError(f"{argument}: expected {n} labels, one for each row, got shape {ids.shape}")
    if n and n_classes is not None and (ids.min() < 0 or ids.max() >= n_classes):
        raise InputError(f"{argument}: expected classes 0 to {n_classes - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.int64) if fits_dtype(ids, np.int64) else ids


def as_search(
    embeddings: ArrayLike, labels: ArrayLike, query_embeddings: ArrayLike | None, query_labels: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery [m, d], its labels [m], queries [q, d] and theirs [q]; without queries the gallery searches itself."""
    if (query_embeddings is None) != (query_labels is None):
        raise InputError("query_embeddings, query_labels: expected both or neither, got one")
    gallery = as_rows("embeddings", embeddings)
    classes = as_labels("labels", labels, len(gallery))
    if query_embeddings is None or query_labels is None:
        return gallery, classes, gallery, classes
    query = as_rows("query_embeddings", query_embeddings)
    wanted = as_labels("query_labels", query_labels, len(query))
    if classes.dtype != wanted.dtype:  # uint64 beside int64: together they would become float64
        both = np.concatenate([classes.astype(object), wanted.astype(object)])
        classes, wanted = np.split(np.unique(both, return_inverse=True)[1], [len(classes)])
    return gallery, classes, query, wanted


def as_scored_pairs(scores: ArrayLike, same: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores as finite float64 [n], and whether each pair is of one class as booleans [n]."""
    values, alike = finite("scores", scores, np.float64), np.asarray(same)
    if values.ndim != 1:
        raise InputError(f"scores: expected one score a pair, [n], got shape {values.shape}")
    if alike.shape != values.shape:
        raise InputError(f"same: expected {values.size} booleans, one for each score, got shape {alike.shape}")
    if not np.isin(alike, (0, 1)).all():
        raise InputError("same: expected booleans, True for a pair of one class")
    return values, alike.astype(bool)


def finite(argument: str, x: Any, dtype: DTypeLike | None = None) -> np.ndarray:
    """Known numbers as a floating-point array; by default of their own type, in float32 or wider as JAX has it.

    Raises:
        InputError: if one is not finite, with the first such row.
        TypeError: if they are not real numbers.
    """
    given = as_host_array(x)
    floating = jnp.issubdtype(given.dtype, jnp.floating)
    if not floating and not jnp.issubdtype(given.dtype, jnp.integer) and given.dtype != bool:
        as_float_array(argument, given)  # which says what is wrong with it
    if dtype is None:
        own = given.dtype if floating else jnp.result_type(float)
        dtype = canonicalize_dtype(jnp.promote_types(own, jnp.float32))
    with np.errstate(over="ignore"):
        values = np.asarray(given).astype(dtype)
    wrong = ~np.isfinite(values)
    if wrong.any():
        rows = np.flatnonzero(wrong.reshape(len(values), -1).any(axis=1)) if values.ndim else [0]
        got = np.asarray(given)[tuple(np.argwhere(wrong)[0])]
        others = f", the first of {len(rows)} such rows" if len(rows) > 1 else ""
        raise InputError(f"{argument}: expected finite numbers in {values.dtype}, got {got} in row {rows[0]}{others}")
    return values
