"""Checks of the arrays of every evaluation. float64 stays float64 if `jax_enable_x64` is set."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype
from jax.typing import ArrayLike as JaxArrayLike
from numpy.typing import ArrayLike, DTypeLike

from simjax.core import InputError, as_float_array, as_host_array, as_integer_array, fits_dtype


def as_rows(argument: str, x: ArrayLike, dtype: DTypeLike | None = None) -> np.ndarray:
    """Return embeddings as finite rows [n, d]. Default dtype: see `as_finite`."""
    rows = as_finite(argument, x, dtype)
    if rows.ndim != 2:
        raise InputError(f"{argument}: expected rows [n, d], got shape {rows.shape}")
    return rows


def as_labels(argument: str, labels: ArrayLike, n: int, n_classes: int | None = None) -> np.ndarray:
    """Return class ids as integers [n], in 0 .. n_classes - 1 if `n_classes` is given; int64 if their values fit."""
    try:
        ids = np.asarray(as_integer_array(argument, labels))
    except TypeError as error:
        raise InputError(str(error)) from None
    if ids.shape != (n,):
        raise InputError(f"{argument}: expected {n} labels, one for each row, got shape {ids.shape}")
    if n_classes is not None:
        wrong = (ids < 0) | (ids >= n_classes)
        check_rows(f"{argument}: expected classes 0 to {n_classes - 1}", ids, wrong)
    return ids.astype(np.int64) if fits_dtype(ids, np.int64) else ids


def as_identities(argument: str, identities: ArrayLike, n: int) -> list[Any]:
    """Return identities, integers or names [n], as Python objects, which compare exactly whatever their dtypes."""
    given = np.asarray(identities)
    if given.shape != (n,) or (n and given.dtype.kind not in "iuUT"):
        got = f"{given.dtype} {given.shape}"
        raise InputError(f"{argument}: expected an integer or a name for each of {n} rows, got {got}")
    return given.tolist()


def gallery_and_queries(
    embeddings: ArrayLike, labels: ArrayLike, query_embeddings: ArrayLike | None, query_labels: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the gallery [m, d], its labels [m], queries [q, d] and their labels [q]. Default queries: the gallery."""
    if (query_embeddings is None) != (query_labels is None):
        raise InputError("query_embeddings, query_labels: expected both or neither, got one")
    gallery = as_rows("embeddings", embeddings)
    gallery_labels = as_labels("labels", labels, len(gallery))
    if query_embeddings is None or query_labels is None:
        return gallery, gallery_labels, gallery, gallery_labels
    query = as_rows("query_embeddings", query_embeddings)
    query_labels = as_labels("query_labels", query_labels, len(query))
    if gallery_labels.dtype != query_labels.dtype:  # the common type of uint64 and int64 is float64, which rounds ids
        both = np.concatenate([gallery_labels.astype(object), query_labels.astype(object)])
        gallery_labels, query_labels = np.split(np.unique(both, return_inverse=True)[1], [len(gallery_labels)])
    return gallery, gallery_labels, query, query_labels


def as_scored_pairs(scores: ArrayLike, same: ArrayLike, argument: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    """Return scores as finite float64 [n], and whether each pair has one class as booleans [n]."""
    values, is_same = as_finite(argument, scores, np.float64), np.asarray(same)
    if values.ndim != 1:
        raise InputError(f"{argument}: expected one number for each pair, [n], got shape {values.shape}")
    if is_same.shape != values.shape:
        raise InputError(f"same: expected {values.size} booleans, one for each pair, got shape {is_same.shape}")
    check_rows("same: expected booleans, True for a pair of one class", is_same, ~np.isin(is_same, (0, 1)))
    return values, is_same.astype(bool)


def as_finite(argument: str, x: ArrayLike | JaxArrayLike, dtype: DTypeLike | None = None) -> np.ndarray:
    """Return finite numbers as a floating-point array. Default dtype: that of `x`, in float32 or wider."""
    given = as_host_array(x)
    is_floating = jnp.issubdtype(given.dtype, jnp.floating)
    if not is_floating and not jnp.issubdtype(given.dtype, jnp.integer) and given.dtype != bool:
        as_float_array(argument, given)  # raises the TypeError
    if dtype is None:
        given_dtype = given.dtype if is_floating else jnp.result_type(float)
        dtype = canonicalize_dtype(jnp.promote_types(given_dtype, jnp.float32))
    with np.errstate(over="ignore"):
        values = np.asarray(given).astype(dtype)
    wrong = np.asarray(~np.isfinite(values))
    check_rows(f"{argument}: expected finite numbers in {values.dtype}", np.asarray(given), wrong)
    return values


def check_rows(expected: str, given: np.ndarray, wrong: np.ndarray) -> None:
    """Raise an InputError with the first wrong number and its row, if the mask `wrong` marks any."""
    if not wrong.any():
        return
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)) if wrong.ndim else [0]
    got = given[tuple(np.argwhere(wrong)[0])]
    others = f", the first of {len(rows)} such rows" if len(rows) > 1 else ""
    raise InputError(f"{expected}, got {got} in row {rows[0]}{others}")


def as_open_set_rows(
    probe_embeddings: ArrayLike, unknown_embeddings: ArrayLike, gallery_embeddings: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mated probes [p, e], the unknown probes [u, e] and the gallery [m, e] of open-set identification."""
    gallery = as_rows("gallery_embeddings", gallery_embeddings)
    if not len(gallery):
        raise InputError("gallery_embeddings: expected at least one row, got none")
    probes, unknown = as_rows("probe_embeddings", probe_embeddings), as_rows("unknown_embeddings", unknown_embeddings)
    for argument, rows in (("probe_embeddings", probes), ("unknown_embeddings", unknown)):
        if rows.shape[1] != gallery.shape[1]:
            raise InputError(f"{argument}: expected rows of size {gallery.shape[1]}, got shape {rows.shape}")
    return probes, unknown, gallery


def as_open_set_identities(
    probe_identities: ArrayLike,
    unknown_identities: ArrayLike | None,
    gallery_identities: ArrayLike,
    p: int,
    u: int,
    m: int,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the identities of p mated probes, of u unknown probes (default: all different) and of m gallery rows."""
    gallery = as_identities("gallery_identities", gallery_identities, m)
    known, enrolled = as_identities("probe_identities", probe_identities, p), set(gallery)
    if missing := set(known) - enrolled:
        expected = f"expected identities of the gallery, got {min(missing, key=str)!r}"
        raise InputError(f"probe_identities: {expected}; pass its images as unknown_embeddings")
    if unknown_identities is None:
        return known, list(range(u)), gallery
    unknown = as_identities("unknown_identities", unknown_identities, u)
    if both := enrolled.intersection(unknown):
        raise InputError(f"unknown_identities: expected none of the gallery, got {min(both, key=str)!r}")
    return known, unknown, gallery
