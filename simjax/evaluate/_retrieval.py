"""Retrieval: every embedding searches for the others of its class.

For a query with R relevant rows in the gallery, ranked closest first, let rel(i) say whether the i-th is relevant and
P(i) be the share of relevant ones among the first i. Then

    precision at 1  = rel(1)
    recall at k     = 1 if any of the first k is relevant, else 0 (a hit rate, as the field uses the name)
    R-precision     = P(R)
    MAP at R        = (1 / R) sum of P(i) rel(i) over i = 1 to R

each averaged over the queries. MAP at R also sees the order within the first R, and so tells apart what the others
call equal.

R differs between queries and runs into thousands, and for so many XLA's top-k is slow on a CPU: among 10,000 rows
with R near 1,000 it takes 2.8 s (2 cores), these metrics by NumPy's sort 1.1 s in all (`benchmarks/choices.py`).

References:
    Musgrave, Belongie, Lim: A Metric Learning Reality Check, 2020.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError
from simjax.evaluate._checks import as_search
from simjax.evaluate._strips import strips
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


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
    """Precision at 1, MAP at R, R-precision and recall at k, averaged over the queries.

    Args:
        embeddings: the gallery, [m, d].
        labels: integers [m].
        query_embeddings: [q, d]; None searches each embedding among all the others, itself left out.
        query_labels: integers [q], given with `query_embeddings`.
        measure: a name or a `Measure`; ties are ranked by lowest index.
        ks: for recall at k; a smaller gallery counts as a whole.
        block_size: queries compared at once; None chooses.

    Returns:
        `precision_at_1`, `mean_average_precision_at_r`, `r_precision`, `recall_at_k` {"1": ..., "5": ...}, each in
        [0, 1], and `queries`, the number of those that count: a query for which the gallery holds nothing of its class
        is left out. Where none is left all values are None.

    Raises:
        InputError: for shapes that do not fit, embeddings that are not finite, a k below 1 or an unknown measure.

    Example:
        >>> found = retrieval_metrics([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [0, 0, 1])
        >>> found["precision_at_1"], found["queries"]
        (1.0, 2)
    """
    if any(k < 1 for k in ks):
        raise InputError(f"ks: expected numbers from 1, got {tuple(ks)}")
    m, itself = as_measure(measure), query_embeddings is None
    gallery, classes, query, wanted = as_search(embeddings, labels, query_embeddings, query_labels)
    relevant = _relevant(classes, wanted) - itself
    counting = np.flatnonzero(relevant > 0)
    names = ["mean_average_precision_at_r", "r_precision", "precision_at_1", *map(str, ks)]
    found = dict.fromkeys(names)
    if counting.size:
        query, wanted, relevant = query[counting], wanted[counting], relevant[counting]
        depth = min(max([*ks, int(relevant.max())]), len(gallery) - itself)
        rank = np.arange(1, depth + 1)
        results = np.empty((len(query), len(names)))
        for rows, values in strips(query, gallery, m, block_size):
            own = counting[rows] if itself else None
            hit = classes[_ranked(values, depth, m.higher_is_closer, own)] == wanted[rows, None]  # [r, depth]
            total = relevant[rows]
            counted = hit & (rank <= total[:, None])
            precision = np.cumsum(counted, axis=1, dtype=np.int32) / rank
            results[rows, 0] = np.sum(precision * counted, axis=1) / total
            results[rows, 1] = np.sum(counted, axis=1) / total
            for column, k in enumerate((1, *ks), start=2):
                results[rows, column] = hit[:, :k].any(axis=1)
        found = dict(zip(names, results.mean(axis=0).tolist(), strict=True))
    recall = {str(k): found.pop(str(k)) for k in dict.fromkeys(ks)}
    return {**found, "recall_at_k": recall, "queries": int(counting.size)}


def _relevant(classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many rows of the gallery have the class of each query, int [q]."""
    ids = np.unique(np.concatenate([classes, wanted]), return_inverse=True)[1]
    return np.bincount(ids[: len(classes)], minlength=len(ids))[ids[len(classes) :]]


def _ranked(values: np.ndarray, depth: int, higher_is_closer: bool, own: np.ndarray | None) -> np.ndarray:
    """Columns of the `depth` closest entries of each row, closest first, ties by lowest index.

    NumPy's fast sorts are not stable, and its stable one is ten times slower. So what is sorted are integers, which
    no two entries share: in the upper half the distance as an integer in the same order, in the lower the column.

    Args:
        values: float32 or float64 [r, m], none of them NaN.
        depth: at most m, less one with `own`.
        higher_is_closer: the values' direction.
        own: for each row a column to leave out, [r].

    Returns:
        int64 [r, depth].
    """
    distance = (-values if higher_is_closer else values) + values.dtype.type(0)  # + 0 turns -0 into 0, in bits too
    if values.dtype != np.float32:  # whose bits leave no room for the column
        if own is not None:
            distance[np.arange(len(own)), own] = np.nan  # which comes last
        return np.argsort(distance, axis=1, kind="stable")[:, :depth]
    bits = distance.view(np.int32)
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # negative floats grow downwards
    keys = (bits.astype(np.int64) << 32) | np.arange(values.shape[1])
    if own is not None:
        keys[np.arange(len(own)), own] = np.iinfo(np.int64).max
    keys.partition(depth - 1, axis=1)
    return np.sort(keys[:, :depth], axis=1) & 0xFFFFFFFF
