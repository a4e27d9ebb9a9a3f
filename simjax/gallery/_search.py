"""Exact search in embeddings that are memory-mapped, in shards.

A shard is a part of the searched rows that is copied to the device at once. The results of the shards are merged, so
that they equal `similarity.top_k` on all searched rows, in the memory of one shard.

XLA compiles a search for each number of queries, of rows and of neighbours. All three are therefore rounded up to
powers of two, so that adding an item or asking for other numbers rarely compiles anything.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_number
from simjax.gallery._results import Duplicate
from simjax.similarity import Measure, pairwise, top_k
from simjax.similarity import measure as as_measure

SHARD_BYTES = 32 * 2**20
MIN_ROWS, MIN_QUERIES, MIN_NEIGHBOURS = 256, 16, 16
QUERIES = 1024
"""Largest number of queries that are searched at once."""

NEIGHBOURS = 8
"""Neighbours of each row that a search for duplicates considers first."""


def closest(
    queries: np.ndarray,
    embeddings: np.ndarray,
    rows: np.ndarray,
    k: int,
    measure: Measure,
    *,
    exclude: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the closest rows of each query, by exact search.

    Args:
        queries: float32 [q, e].
        embeddings: float32 [m, e], possibly memory-mapped.
        rows: Rows of `embeddings` that are searched, ascending integers [n].
        k: Number of rows to find, at least 1. At most n are found.
        measure: Compares embeddings.
        exclude: For each query the position in `rows` that is not a result, or -1, integers [q].

    Returns:
        Values of the measure [q, min(k, n)] and positions in `rows` [q, min(k, n)], closest first, equal values by
        position. If all n are returned, an excluded position is the last one and is -1.
    """
    n = len(rows)
    wanted = min(k + (exclude is not None), n)
    values = np.empty((len(queries), wanted), np.float32)
    positions = np.empty((len(queries), wanted), np.int64)
    size = min(_power_of_two(len(queries), MIN_QUERIES), QUERIES)  # of all blocks: the last one is padded
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        values[block], positions[block] = _closest_of_block(queries[block], size, embeddings, rows, wanted, measure)
    if exclude is not None:
        is_excluded = positions == exclude[:, None]
        positions[is_excluded] = -1
        order = np.argsort(is_excluded, axis=1, kind="stable")
        values, positions = np.take_along_axis(values, order, 1), np.take_along_axis(positions, order, 1)
    return values[:, :k], positions[:, :k]


def _closest_of_block(
    queries: np.ndarray, padded_size: int, embeddings: np.ndarray, rows: np.ndarray, k: int, measure: Measure
) -> tuple[np.ndarray, np.ndarray]:
    q = len(queries)
    padded = np.concatenate([queries, np.repeat(queries[:1], padded_size - q, axis=0)])
    neighbours = _power_of_two(k, MIN_NEIGHBOURS)
    values, positions = np.empty((q, 0), np.float32), np.empty((q, 0), np.int64)
    for start, shard in shards(embeddings, rows, measure) if k else ():
        found, columns = (np.asarray(a)[:q] for a in top_k(padded, shard, min(neighbours, len(shard)), measure))
        values = np.concatenate([values, found], axis=1)
        positions = np.concatenate([positions, columns.astype(np.int64) + start], axis=1)
        # Stable, and NaN is sorted last: equal values stay in the order of the rows, padding stays behind all rows.
        order = np.argsort(-values if measure.higher_is_closer else values, axis=1, kind="stable")[:, :k]
        values, positions = np.take_along_axis(values, order, 1), np.take_along_axis(positions, order, 1)
    return values, positions


def mean_values(queries: np.ndarray, embeddings: np.ndarray, rows: np.ndarray, measure: Measure) -> np.ndarray:
    """Compute the mean over the queries of the measure of each query and each row, float32 [n]; see `closest`."""
    means = [
        np.asarray(pairwise(queries, shard, measure)).mean(axis=0) for _, shard in shards(embeddings, rows, measure)
    ]
    return np.concatenate(means)[: len(rows)] if means else np.empty(0, np.float32)


def shards(embeddings: np.ndarray, rows: np.ndarray, measure: Measure) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the position of the first row of each shard, and the shard, [s, e].

    The last shard is padded with NaN, which `top_k` ranks behind all rows. For a measure that gives NaN a meaning it is
    not padded; then each size is compiled.
    """
    size = _power_of_two(SHARD_BYTES // (4 * embeddings.shape[1]) // 2 + 1, MIN_ROWS)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        is_contiguous = part[-1] - part[0] == len(part) - 1
        shard = embeddings[part[0] : part[-1] + 1] if is_contiguous else embeddings[part]
        missing = _power_of_two(len(part), MIN_ROWS) - len(part)
        if missing and measure.propagates_nan:
            shard = np.concatenate([shard, np.full((missing, shard.shape[1]), np.nan, np.float32)])
        yield start, shard


def passes(values: Any, threshold: float, measure: Measure) -> Any:
    """Return whether values of the measure are at least as close as a threshold."""
    return values >= threshold if measure.higher_is_closer else values <= threshold


def _power_of_two(n: int, minimum: int) -> int:
    """Return the smallest power of two that is at least n and at least `minimum`, a power of two."""
    return max(1 << max(n - 1, 0).bit_length(), minimum)


def close_pairs(
    embeddings: np.ndarray, rows: np.ndarray, min_score: float, measure: Measure, k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of rows at least as close as `min_score`.

    Args:
        embeddings, rows, measure: See `closest`.
        min_score: Value of the measure.
        k: At most this many pairs of each row are found, its closest ones. Default: all.

    Returns:
        Positions of both rows, the smaller one first, int64 [p, 2], and values of the measure [p]; each pair once,
        closest first, equal values by position.
    """
    n = len(rows)
    pairs, values = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start in range(0, n, QUERIES):
        incomplete = np.arange(start, min(start + QUERIES, n))  # rows whose close neighbours are not all found
        neighbours = min(k or NEIGHBOURS, n - 1)
        while len(incomplete) and neighbours:
            queries = embeddings[rows[incomplete]]
            found, others = closest(queries, embeddings, rows, neighbours, measure, exclude=incomplete)
            is_close = passes(found, min_score, measure)
            # More neighbours are searched for the rows whose last neighbour still passes.
            is_complete = ~is_close[:, -1] | (neighbours == n - 1) | (k is not None)
            row, column = np.nonzero(is_close & is_complete[:, None])
            pairs.append(np.stack([incomplete[row], others[row, column]], axis=1))
            values.append(found[row, column])
            incomplete, neighbours = incomplete[~is_complete], min(2 * neighbours, n - 1)
    both, scores = np.sort(np.concatenate(pairs), axis=1), np.concatenate(values)
    order = np.lexsort((both[:, 1], both[:, 0], -scores if measure.higher_is_closer else scores))
    both, scores = both[order], scores[order]
    first = np.sort(np.unique(both, axis=0, return_index=True)[1])  # each row has found the other
    return both[first], scores[first]


def duplicates_of(
    embeddings: ArrayLike, measure: str | Measure, min_score: float, k: int | None = None
) -> list[Duplicate]:
    """Find all pairs of rows at least as close as a score, by exact search, without a gallery.

    Args:
        embeddings: Finite numbers [n, e].
        measure: Name of a measure or a `Measure`.
        min_score: Value of the measure, for instance `Calibration.pair_threshold(0.001).value`; for a distance, the
            largest one.
        k: At most this many pairs of each row are found, its closest ones. Default: all; n equal rows have
            n (n - 1) / 2 pairs.

    Returns:
        Each pair once, closest first, with rows a < b.

    Raises:
        InputError: If the embeddings are not rows of finite numbers, or k is below 1.

    Example:
        >>> duplicates_of([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], "cosine", 0.9)
        [Duplicate(a=0, b=2, score=1.0)]
    """
    check_number("min_score", min_score)
    check_at_least("k", k, 1)
    matrix = finite_rows("embeddings", embeddings)
    pairs, scores = close_pairs(matrix, np.arange(len(matrix)), min_score, as_measure(measure), k)
    return [Duplicate(a, b, score) for (a, b), score in zip(pairs.tolist(), scores.tolist(), strict=True)]


def finite_rows(argument: str, embeddings: ArrayLike, size: int | None = None) -> np.ndarray:
    """Return embeddings as float32 [n, e]; an InputError names the first row that is not finite.

    Args:
        argument: Name of the argument in error messages.
        embeddings: [n, e].
        size: Expected e. Default: any.
    """
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(embeddings, np.float32)
    if matrix.ndim != 2 or (size is not None and matrix.shape[1] != size):
        raise InputError(f"{argument}: expected embeddings [n, {size or 'e'}], got shape {matrix.shape}")
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        more = f", the first of {bad.size} such rows" if bad.size > 1 else ""
        raise InputError(f"{argument}: expected finite numbers in float32, got NaN or infinity in row {bad[0]}{more}")
    return matrix
