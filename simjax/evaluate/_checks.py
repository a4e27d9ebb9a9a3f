"""What every evaluation asks of its arrays: rows of finite features, one integer label each, scored pairs."""

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError


def as_rows(argument: str, x: ArrayLike) -> np.ndarray:
    """Embeddings as finite float32 rows [n, d]."""
    rows = np.asarray(x, dtype=np.float32)
    if rows.ndim != 2:
        raise InputError(f"{argument}: expected rows [n, d], got shape {rows.shape}")
    return _finite(argument, rows)


def as_labels(argument: str, labels: ArrayLike, n: int, n_classes: int | None = None) -> np.ndarray:
    """Class ids as integers [n], in [0, n_classes) where that is given."""
    ids = np.asarray(labels)
    if ids.shape != (n,):
        raise InputError(f"{argument}: expected {n} labels, one for each row, got shape {ids.shape}")
    if n and not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"{argument}: expected integer class ids, got {ids.dtype}")
    if n and n_classes is not None and (ids.min() < 0 or ids.max() >= n_classes):
        raise InputError(f"{argument}: expected classes 0 to {n_classes - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.int64)


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
    return gallery, classes, query, as_labels("query_labels", query_labels, len(query))


def as_scored_pairs(scores: ArrayLike, same: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores as finite float64 [n], and whether each pair is of one class as booleans [n]."""
    values, alike = np.asarray(scores, dtype=np.float64), np.asarray(same)
    if values.ndim != 1:
        raise InputError(f"scores: expected one score a pair, [n], got shape {values.shape}")
    if alike.shape != values.shape:
        raise InputError(f"same: expected {values.size} booleans, one for each score, got shape {alike.shape}")
    if not np.isin(alike, (0, 1)).all():
        raise InputError("same: expected booleans, True for a pair of one class")
    return _finite("scores", values), alike.astype(bool)


def _finite(argument: str, values: np.ndarray) -> np.ndarray:
    wrong = values.size - np.count_nonzero(np.isfinite(values))
    if wrong:
        raise InputError(f"{argument}: expected finite numbers, got {wrong} of {values.size} that are not")
    return values
