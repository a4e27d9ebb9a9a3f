"""Retrieval: whether the gallery rows closest to an embedding are of its class.

A gallery row is relevant to a query if both have the same class; R is the number of relevant rows. Rank the gallery
from the closest row to the farthest, equal values by lowest index. Let rel(i) be 1 if the i-th row is relevant, else 0,
P(i) the fraction of relevant rows among the first i, and m the number of rows that are ranked. Then

    precision at 1         = rel(1)
    recall at k            = 1 if any of the first k rows is relevant, else 0
    R-precision            = P(R)
    average precision at R = (1 / R) sum of P(i) rel(i) over i = 1 to R

depend on the first R or k rows alone, and these on the whole ranking:

    average precision      = (1 / R) sum of P(i) rel(i) over i = 1 to m
    reciprocal rank        = 1 / rank of the first relevant row
    NDCG                   = sum of rel(i) / log2(1 + i) over i = 1 to m / sum of 1 / log2(1 + i) over i = 1 to R
    triplet accuracy       = pairs of a relevant and an irrelevant row of which the relevant one is closer, those with
                             equal values counted half / all such pairs

Metrics are means over the queries: MAP (mean average precision), MRR (mean reciprocal rank), ... Recall at k is what
metric learning calls recall and re-identification the cumulative matching characteristic (CMC); its value at k = 1 is
precision at 1. The triplet accuracy of a query is the ROC AUC of its ranking.

References:
    Musgrave, Belongie, Lim (2020), A Metric Learning Reality Check.
    Jaervelin, Kekaelaeinen (2002), Cumulated Gain-Based Evaluation of IR Techniques.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, as_integer_array, as_matrices, check_at_least, map_rows, rows_per_block
from simjax.evaluate._checks import as_finite, as_rows, gallery_and_queries
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure

METRICS = ("mean_average_precision_at_r", "r_precision", "precision_at_1")
WHOLE_RANKING_METRICS = ("mean_average_precision", "mean_reciprocal_rank", "ndcg", "triplet_accuracy")


def retrieval_metrics(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    measure: str | Measure = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    whole_ranking: bool = False,
    block_size: int | None = None,
) -> dict[str, Any]:
    """Compute precision at 1, MAP at R, R-precision and recall at k, averaged over the queries and for each class.

    Args:
        embeddings: The gallery, [m, d].
        labels: Integers [m].
        query_embeddings: [q, d]. Default: every embedding searches among all others.
        query_labels: Integers [q]. Required with `query_embeddings`.
        measure: Name of a measure, or a `Measure`. Ties are ranked by lowest index.
        ks: Values of k for recall at k. A k beyond the size of the gallery means the whole gallery.
        whole_ranking: Also compute the metrics of the whole ranking. They take several times as long, because the
            gallery is sorted for every query.
        block_size: Queries per tile. Default: chosen from a memory budget.

    Returns:
        `precision_at_1`, `mean_average_precision_at_r`, `r_precision`, `recall_at_k` {"1": ..., "5": ...}, each in
        [0, 1], and `queries`, the number of queries with a relevant row; the others are ignored. Without such queries
        all values are None. `per_class` has lists with one entry for each class of these queries: `label`, `queries`,
        and the means `precision_at_1` and `mean_average_precision_at_r` over the queries of the class.

        With `whole_ranking` also `mean_average_precision`, `mean_reciprocal_rank`, `ndcg` and `triplet_accuracy`, the
        latter None if the gallery has a single class.

    Raises:
        InputError: If a k is below 1.

    Example:
        >>> found = retrieval_metrics([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [0, 0, 1])
        >>> found["precision_at_1"], found["queries"]
        (1.0, 2)
    """
    values = retrieval_values(
        embeddings,
        labels,
        query_embeddings=query_embeddings,
        query_labels=query_labels,
        measure=measure,
        ks=ks,
        whole_ranking=whole_ranking,
        block_size=block_size,
    )
    query, recall = values.pop("query"), values.pop("recall_at_k")
    given = as_integer_array("labels", labels if query_labels is None else query_labels)
    classes, class_of, count = np.unique(np.asarray(given)[query], return_inverse=True, return_counts=True)
    per_class = {
        name: (np.bincount(class_of, values[name], len(classes)) / count).tolist()
        for name in ("precision_at_1", "mean_average_precision_at_r")
    }
    return {
        **{name: _mean(value) for name, value in values.items()},
        "recall_at_k": {k: _mean(value) for k, value in recall.items()},
        "queries": int(query.size),
        "per_class": {"label": classes.tolist(), "queries": count.tolist(), **per_class},
    }


def retrieval_values(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    measure: str | Measure = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    whole_ranking: bool = False,
    block_size: int | None = None,
) -> dict[str, Any]:
    """Compute the metrics of `retrieval_metrics` for each query, for instance for intervals over identities.

    Args:
        embeddings, labels, query_embeddings, query_labels, measure, ks, whole_ranking, block_size: See
            `retrieval_metrics`.

    Returns:
        `query`, the indices of the a queries with a relevant row, int64 [a], in ascending order, and float64 arrays [a]
        with the names of the means that `retrieval_metrics` returns: `mean_average_precision_at_r` has the average
        precision at R of each of these queries, and so on. `triplet_accuracy` is None if the gallery has a single
        class.

    Example:
        >>> found = retrieval_values([[0.0], [1.0], [3.0], [4.0], [6.0]], [5, 5, 8, 7, 8], measure="euclidean")
        >>> print(found["query"], found["precision_at_1"])
        [0 1 2 4] [1. 1. 0. 0.]
    """
    for k in ks:
        check_at_least("ks", k, 1)
    m, is_self_search = as_measure(measure), query_embeddings is None
    gallery, gallery_labels, query, query_labels = gallery_and_queries(
        embeddings, labels, query_embeddings, query_labels
    )
    ids = np.unique(np.concatenate([gallery_labels, query_labels]), return_inverse=True)[1]  # class ids from 0
    gallery_ids, query_ids = np.split(ids.astype(np.int32), [len(gallery)])
    n_relevant = np.bincount(gallery_ids, minlength=len(ids))[query_ids] - is_self_search
    active = np.flatnonzero(n_relevant > 0)

    available = len(gallery) - is_self_search
    depth = available if whole_ranking else min(max(*ks, 1, int(n_relevant.max(initial=0))), available)
    found = {name: np.empty(len(query)) for name in METRICS + (WHOLE_RANKING_METRICS if whole_ranking else ())}
    recall = {str(k): np.empty(len(query)) for k in ks}
    function = _distances_to_others if is_self_search else _distances
    for rows, distances in _tiles(function, query, gallery, m, block_size, active):
        order = _rank(distances, depth)
        is_relevant, r = gallery_ids[order] == query_ids[rows, None], n_relevant[rows]
        results = _first_ranks(is_relevant[:, : r.max()], r)
        if whole_ranking:
            results |= _all_ranks(is_relevant, np.take_along_axis(distances, order, axis=1), r)
        for name, value in results.items():
            found[name][rows] = value
        for k in ks:
            recall[str(k)][rows] = is_relevant[:, :k].any(axis=1)
    has_irrelevant = np.any(n_relevant[active] < available)
    return {
        "query": active,
        **{name: a[active] if name != "triplet_accuracy" or has_irrelevant else None for name, a in found.items()},
        "recall_at_k": {k: a[active] for k, a in recall.items()},
    }


def graded_ndcg(
    embeddings: ArrayLike,
    relevance: ArrayLike | Callable[[np.ndarray], ArrayLike],
    *,
    query_embeddings: ArrayLike | None = None,
    k: int | None = None,
    measure: str | Measure = "cosine",
    block_size: int | None = None,
) -> float | None:
    """Compute the NDCG at k of graded relevance, averaged over the queries.

        DCG = sum of gain(i) / log2(1 + i) over ranks i = 1 to k,        NDCG = DCG / DCG of the best order

    Args:
        embeddings: The gallery, [m, d].
        relevance: Gains, at least 0, of the gallery rows for each query, [q, m]. For a large gallery, a function from
            the indices of r queries, integers [r], to their gains [r, m], which is called tile by tile. For exponential
            gains pass 2**grade - 1.
        query_embeddings: [q, d]. Default: every embedding searches among all others; its own gain is ignored.
        k: The number of ranks that count. Default: all.
        measure: Name of a measure, or a `Measure`. Ties are ranked by lowest index.
        block_size: Queries per tile. Default: chosen from a memory budget.

    Returns:
        In [0, 1]. Queries without a gain above 0 are ignored; without other queries the result is None.

    Raises:
        InputError: If a gain is below 0, or k is below 1.

    Example:
        >>> found = graded_ndcg([[0.0], [1.0], [2.0]], [[3, 0, 1]], query_embeddings=[[0.0]], measure="euclidean")
        >>> round(found, 4)  # (3 + 1 / log2(4)) / (3 + 1 / log2(3))
        0.9639
    """
    check_at_least("k", k, 1)
    m, is_self_search = as_measure(measure), query_embeddings is None
    gallery = as_rows("embeddings", embeddings)
    query = gallery if query_embeddings is None else as_rows("query_embeddings", query_embeddings)
    gains_of = relevance if callable(relevance) else _as_gains(relevance, len(query), len(gallery)).__getitem__
    available = len(gallery) - is_self_search
    if available < 1:
        return None
    depth = available if k is None else min(k, available)
    discount = 1 / np.log2(np.arange(2, depth + 2))
    found = []
    function = _distances_to_others if is_self_search else _distances
    for rows, distances in _tiles(function, query, gallery, m, block_size, np.arange(len(query))):
        gains = _as_gains(gains_of(rows), len(rows), len(gallery)).astype(np.float64)
        if is_self_search:
            gains[np.arange(len(rows)), rows] = 0
        order = _rank(distances, depth)
        gain = np.take_along_axis(gains, order, axis=1) @ discount
        best = np.sort(gains, axis=1)[:, ::-1][:, :depth] @ discount
        found.append(gain[best > 0] / best[best > 0])
    return _mean(np.concatenate([np.zeros(0), *found]))


def tiles(
    query: np.ndarray, gallery: np.ndarray, measure: Measure, block_size: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over blocks of rows of the similarity matrix: query indices [r] and values [r, m] as NumPy arrays."""
    return _tiles(_values, query, gallery, measure, block_size, np.arange(len(query)))


def nearest_rows(
    query: np.ndarray, gallery: np.ndarray, measure: Measure, depth: int, rows: np.ndarray, *, exclude_itself: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over blocks of the queries `rows`: their indices [r] and their closest gallery rows, [r, depth].

    Args:
        query: [q, d].
        gallery: [m, d].
        measure: How rows are compared; equal ones are ranked by lowest index.
        depth: Gallery rows of each query, at most those that are available.
        rows: Indices of the queries that are searched.
        exclude_itself: True if the queries are the gallery, where no row is its own neighbour.
    """
    function = _distances_to_others if exclude_itself else _distances
    for block, distances in _tiles(function, query, gallery, measure, None, rows):
        yield block, _rank(distances, depth)


def _tiles(
    function: Callable[..., jax.Array],
    query: np.ndarray,
    gallery: np.ndarray,
    measure: Measure,
    block_size: int | None,
    rows: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over blocks of the queries `rows`: their indices [r] and `function(values, measure, indices)` [r, m]."""
    if not rows.size:
        return
    x, y = as_matrices(query, gallery, ("query_embeddings", "embeddings"))
    row_bytes = measure.row_bytes(x, y)
    block_size = min(block_size or rows_per_block(len(query), row_bytes), len(query))
    inputs, columns = _tile_inputs(measure, x, y)
    inputs = jax.tree.map(np.asarray, inputs)

    def compute(block: np.ndarray) -> tuple[np.ndarray, jax.Array]:
        padded = np.resize(block, block_size)  # because another shape would be compiled again
        x = jax.tree.map(lambda a: a[padded], inputs)
        return block, _tile(function, measure, x, columns, padded, row_bytes=row_bytes)

    computed = map(compute, np.split(rows, range(block_size, len(rows), block_size)))
    tile = next(computed, None)
    while tile is not None:
        (block, found), tile = tile, next(computed, None)  # computed while the caller handles this tile
        yield block, np.asarray(found)[: len(block)]


@jax.jit
def _tile_inputs(measure: Measure, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
    return measure.tile_inputs(x, y)


@partial(jax.jit, static_argnames=("function", "row_bytes"))
def _tile(
    function: Callable[..., jax.Array], measure: Measure, x: Any, columns: Any, rows: ArrayLike, *, row_bytes: int
) -> jax.Array:
    return function(map_rows(lambda x: measure.tile(x, columns), x, row_bytes=row_bytes), measure, rows)


def _values(values: jax.Array, measure: Measure, rows: jax.Array) -> jax.Array:
    return values


def _distances(values: jax.Array, measure: Measure, rows: jax.Array) -> jax.Array:
    """Return values that are smaller for closer pairs."""
    return -measure.as_score(values)


def _distances_to_others(values: jax.Array, measure: Measure, rows: jax.Array) -> jax.Array:
    """Return distances among the same rows, NaN from each row to itself."""
    is_itself = jnp.arange(values.shape[1]) == rows[:, None]
    return jnp.where(is_itself, jnp.nan, _distances(values, measure, rows))


def _as_gains(relevance: ArrayLike, q: int, m: int) -> np.ndarray:
    gains = as_finite("relevance", relevance)
    if gains.shape != (q, m):
        raise InputError(f"relevance: expected a gain for each of {q} queries and {m} rows, got shape {gains.shape}")
    check_at_least("relevance", gains.min(initial=0), 0)
    return gains


def _mean(values: np.ndarray | None) -> float | None:
    return float(np.mean(values)) if values is not None and values.size else None


def _first_ranks(is_relevant: np.ndarray, r: np.ndarray) -> dict[str, np.ndarray]:
    """Compute `METRICS` of tiles [n, w] that have the first ranks of each query, at least the largest R of r [n]."""
    rank = np.arange(1, is_relevant.shape[1] + 1)
    is_hit = is_relevant & (rank <= r[:, None])  # relevant rows among the first R
    precision = np.cumsum(is_hit, axis=1, dtype=np.int32) / rank
    values = np.sum(precision * is_hit, axis=1) / r, np.sum(is_hit, axis=1) / r, is_relevant[:, 0]
    return dict(zip(METRICS, values, strict=True))


def _all_ranks(is_relevant: np.ndarray, values: np.ndarray, r: np.ndarray) -> dict[str, np.ndarray]:
    """Compute `WHOLE_RANKING_METRICS` of a tile of whole rankings [n, w], given the values in their order."""
    n, w = is_relevant.shape
    relevant = np.flatnonzero(is_relevant)  # positions in the flat tile, the R of each row one after the other
    row, first = relevant // w, np.cumsum(r) - r
    rank = relevant % w + 1
    number = np.arange(len(rank)) - first[row] + 1  # 1 to R in each row
    discount = np.cumsum(1 / np.log2(np.arange(2, w + 2)))
    # The mean position of each group of equal values. With these positions, the R relevant rows of a query follow
    # sum of positions - (0 + ... + R - 1) irrelevant ones, those with equal values counted half.
    starts = np.flatnonzero(np.concatenate([np.ones((n, 1), bool), values[:, 1:] != values[:, :-1]], axis=1))
    middles = starts + (np.diff(starts, append=n * w) - 1) / 2 - starts // w * w
    position = middles[np.searchsorted(starts, relevant, side="right") - 1]
    misordered = np.bincount(row, position, n) - r * (r - 1) / 2
    results = (
        np.bincount(row, number / rank, n) / r,
        1 / rank[first],
        np.bincount(row, 1 / np.log2(rank + 1), n) / discount[r - 1],
        1 - misordered / np.maximum(r * (w - r), 1),
    )
    return dict(zip(WHOLE_RANKING_METRICS, results, strict=True))


def _rank(distance: np.ndarray, depth: int) -> np.ndarray:
    """Return the columns of the `depth` smallest distances of each row [r, m], in order, equal ones by lowest index.

    NaN are last. A float32 distance and its column are packed into one 64-bit integer, with bits that sort like the
    distance in the upper half and the column in the lower half. As all integers of a row differ, they need no stable
    sort, which takes 12 times as long for 999 of 10,000 columns, and 4 times for all (`python -m benchmarks.choices`).
    """
    if distance.dtype != np.float32:
        return np.argsort(distance, axis=1, kind="stable")[:, :depth]
    r, m = distance.shape
    if 3 * depth > m:
        packed = _pack(distance, np.arange(m))
    else:
        at = np.flatnonzero(distance <= _bound(distance, depth))
        row = at // m
        count = np.bincount(row, minlength=r)
        packed = np.full((r, count.max()), np.iinfo(np.int64).max)
        packed[row, np.arange(len(at)) - (np.cumsum(count) - count)[row]] = _pack(distance.ravel()[at], at - row * m)
    packed.sort(axis=1)
    return packed[:, :depth] & 0xFFFFFFFF


def _bound(distance: np.ndarray, depth: int) -> np.ndarray:
    """Return a distance that at least `depth` entries of each row do not exceed, and few others, [r, 1].

    The smallest entries of `depth` groups of columns are `depth` entries, which the largest of them bounds.
    """
    r, m = distance.shape
    size = min(32, m // (3 * depth))
    smallest = np.fmin.reduce(distance[:, : m // size * size].reshape(r, size, -1), axis=1)
    return np.partition(smallest, depth - 1, axis=1)[:, depth - 1 : depth]


def _pack(distance: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return int64 that sort like float32 distances, equal ones by column; NaN with a sign bit of 0 is last."""
    bits = (distance + np.float32(0)).view(np.int32)  # + 0 changes -0 to 0
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # the bits of negative floats have reversed order
    return (bits.astype(np.int64) << 32) | column
