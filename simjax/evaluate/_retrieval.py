"""Retrieval and nearest neighbours: whether the gallery rows closest to an embedding are of its class.

A gallery row is relevant to a query if both have the same class; R is the number of relevant rows. Rank the gallery
from the closest row to the farthest. Let rel(i) be 1 if the i-th row is relevant, else 0, and P(i) the fraction of
relevant rows among the first i. Then

    precision at 1  = rel(1)
    recall at k     = 1 if any of the first k rows is relevant, else 0 (metric learning calls this hit rate recall)
    R-precision     = P(R)
    MAP at R        = (1 / R) sum of P(i) rel(i) over i = 1 to R

each averaged over the queries. MAP (mean average precision) at R also depends on the order within the first R rows.

References:
    Musgrave, Belongie, Lim (2020), A Metric Learning Reality Check.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, as_integer_array, fits_dtype
from simjax.evaluate._checks import as_labels, as_rows, gallery_and_queries
from simjax.similarity import Measure, pairwise, top_k
from simjax.similarity import measure as as_measure

TILE_ENTRIES = 2**21  # of a tile by default: 8 MB of float32, and 16 MB for the integers that `_rank` sorts


def retrieval_metrics(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    measure: str | Measure = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    block_size: int | None = None,
) -> dict[str, Any]:
    """Compute precision at 1, MAP at R, R-precision and recall at k, averaged over the queries.

    Args:
        embeddings: The gallery, [m, d].
        labels: Integers [m].
        query_embeddings: [q, d]. Default: every embedding searches among all others.
        query_labels: Integers [q]. Required with `query_embeddings`.
        measure: Name of a measure, or a `Measure`. Ties are ranked by lowest index.
        ks: Values of k for recall at k. A k beyond the size of the gallery means the whole gallery.
        block_size: Queries per tile. Default: chosen from a memory budget.

    Returns:
        `precision_at_1`, `mean_average_precision_at_r`, `r_precision`, `recall_at_k` {"1": ..., "5": ...}, each in
        [0, 1], and `queries`, the number of queries with a relevant row; the others are ignored. Without such queries
        all values are None.

    Raises:
        InputError: If a k is below 1.

    Example:
        >>> found = retrieval_metrics([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [0, 0, 1])
        >>> found["precision_at_1"], found["queries"]
        (1.0, 2)
    """
    if any(k < 1 for k in ks):
        raise InputError(f"ks: expected at least 1, got {tuple(ks)}")
    m, is_self_search = as_measure(measure), query_embeddings is None
    gallery, gallery_ids, query, query_ids = gallery_and_queries(embeddings, labels, query_embeddings, query_labels)
    ids = np.unique(np.concatenate([gallery_ids, query_ids]), return_inverse=True)[1]  # class ids from 0
    n_relevant = np.bincount(ids[: len(gallery)], minlength=len(ids))[ids[len(gallery) :]] - is_self_search
    active = np.flatnonzero(n_relevant > 0)
    names = ["mean_average_precision_at_r", "r_precision", "precision_at_1", *map(str, ks)]
    found = dict.fromkeys(names)
    if active.size:
        query, query_ids, n_relevant = query[active], query_ids[active], n_relevant[active]
        depth = min(max([*ks, int(n_relevant.max())]), len(gallery) - is_self_search)
        rank = np.arange(1, depth + 1)
        results = np.empty((len(query), len(names)))
        for rows, values in tiles(query, gallery, m, block_size):
            own = active[rows] if is_self_search else None
            is_relevant = gallery_ids[_rank(values, depth, m.higher_is_closer, own)] == query_ids[rows, None]
            r = n_relevant[rows]
            is_hit = is_relevant & (rank <= r[:, None])  # relevant rows among the first R, [rows, depth]
            precision = np.cumsum(is_hit, axis=1, dtype=np.int32) / rank
            results[rows, 0] = np.sum(precision * is_hit, axis=1) / r
            results[rows, 1] = np.sum(is_hit, axis=1) / r
            for column, k in enumerate((1, *ks), start=2):  # precision at 1 equals recall at 1
                results[rows, column] = is_relevant[:, :k].any(axis=1)
        found = dict(zip(names, results.mean(axis=0).tolist(), strict=True))
    recall = {str(k): found.pop(str(k)) for k in dict.fromkeys(ks)}
    return {**found, "recall_at_k": recall, "queries": int(active.size)}


def knn_predict(
    query: ArrayLike,
    gallery: ArrayLike,
    gallery_labels: ArrayLike,
    *,
    k: int = 5,
    measure: str | Measure = "cosine",
    exclude: ArrayLike | None = None,
) -> np.ndarray:
    """Predict the most frequent class among the k nearest gallery rows; of tied classes, that of the nearest row.

    Args:
        query: [q, d].
        gallery: [m, d].
        gallery_labels: Integers [m].
        k: The number of neighbours. If it exceeds the gallery, all gallery rows are neighbours.
        measure: Name of a measure, or a `Measure`.
        exclude: Integers [q]: for each query, the index of one gallery row that cannot be its neighbour, for instance
            the query itself.

    Returns:
        int32 [q], or the dtype of `gallery_labels` if int32 cannot represent them.

    Raises:
        InputError: If k is below 1 or a query has no neighbour.

    Example:
        >>> print(knn_predict([[0.9, 1.0]], [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [0, 1, 0], k=1))
        [1]
    """
    query, gallery = as_rows("query", query), as_rows("gallery", gallery)
    as_labels("gallery_labels", gallery_labels, len(gallery))  # a check only, because it may change the dtype
    labels = np.asarray(as_integer_array("gallery_labels", gallery_labels))
    neighbours = len(gallery) - (exclude is not None)
    if neighbours < 1:
        raise InputError(f"gallery: expected at least one row that is not excluded, got {len(gallery)} rows")
    excluded = None if exclude is None else np.asarray(exclude)
    _, nearest = top_k(query, gallery, min(k, neighbours), measure, exclude=excluded)
    classes = labels[np.asarray(nearest)]  # [q, k]
    votes = np.zeros(classes.shape, np.int32)  # number of neighbours that have the class of each neighbour
    for other in classes.T:
        votes += classes == other[:, None]
    winner = votes.argmax(axis=1)  # the first of equal votes, hence the nearest neighbour
    return classes[np.arange(len(query)), winner].astype(np.int32 if fits_dtype(labels, np.int32) else labels.dtype)


def knn_accuracy(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    k: int = 5,
    measure: str | Measure = "cosine",
) -> float | None:
    """Compute the accuracy of `knn_predict`, or None without queries or without gallery rows other than the query.

    Args:
        embeddings, labels, query_embeddings, query_labels: See `retrieval_metrics`.
        k, measure: See `knn_predict`.
    """
    gallery, gallery_ids, query, query_ids = gallery_and_queries(embeddings, labels, query_embeddings, query_labels)
    is_self_search = query_embeddings is None
    if not len(query) or len(gallery) - is_self_search < 1:
        return None
    exclude = np.arange(len(query)) if is_self_search else None
    predicted = knn_predict(query, gallery, gallery_ids, k=k, measure=measure, exclude=exclude)
    return float(np.mean(predicted == query_ids))


def tiles(
    query: np.ndarray, gallery: np.ndarray, measure: Measure, block_size: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over blocks of rows of the similarity matrix: query indices [r] and values [r, m] as NumPy arrays."""
    q = len(query)
    block_size = max(1, min(block_size or TILE_ENTRIES // max(len(gallery), 1), q))
    columns = jnp.asarray(gallery)
    for start in range(0, q, block_size):
        rows = np.arange(start, start + block_size)
        # The last tile is padded with the first rows, because another shape would be compiled again.
        values = np.asarray(pairwise(query[rows % q], columns, measure))
        yield rows[: q - start], values[: q - start]


def _rank(values: np.ndarray, depth: int, higher_is_closer: bool, own: np.ndarray | None) -> np.ndarray:
    """Return the columns of the `depth` closest values of each row [r, m], closest first, ties by lowest index.

    Values are not NaN. `own` has a column to ignore in each row, [r]; then `depth` is at most m - 1.

    A float32 value and its column are packed into one 64-bit integer, with bits that sort like the value in the upper
    half and the column in the lower half. As all integers of a row differ, they need no stable sort: the metrics of
    10,000 rows x 64 take 2.5 s of CPU time instead of 8.3 s with NumPy's stable argsort. XLA's top-k alone takes 2.8 s
    (`python -m benchmarks.choices`).
    """
    distance = (-values if higher_is_closer else values) + values.dtype.type(0)  # + 0 changes -0 to 0
    if values.dtype != np.float32:
        if own is not None:
            distance[np.arange(len(own)), own] = np.nan  # sorted last
        return np.argsort(distance, axis=1, kind="stable")[:, :depth]
    bits = distance.view(np.int32)
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # the bits of negative floats have reversed order
    packed = (bits.astype(np.int64) << 32) | np.arange(values.shape[1])
    if own is not None:
        packed[np.arange(len(own)), own] = np.iinfo(np.int64).max  # sorted last
    packed.partition(depth - 1, axis=1)
    return np.sort(packed[:, :depth], axis=1) & 0xFFFFFFFF
