"""Retrieval among images of fixed classes, with a single image left out at a time.

Leaving out an image removes one query, and one row from the rankings of the other queries. The metrics without this row
follow from sums along the ranking, for the rows of all ranks at once.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simjax.evaluate._intervals import Estimate, estimate_of_sums
from simjax.evaluate._retrieval import nearest_rows
from simjax.similarity import Measure


class _Metric(NamedTuple):
    """A metric of queries [r], the same without the neighbour of each rank [r, w], and without a relevant row behind
    rank R, [r]."""

    value: np.ndarray
    without: np.ndarray
    behind: np.ndarray


def leave_out_images(x: np.ndarray, ids: np.ndarray, measure: Measure, ks: Sequence[int]) -> list[Estimate]:
    """Estimate MAP at R, R-precision, precision at 1 and recall at k, where each image searches among all others.

    Args:
        x: Embeddings [n, d].
        ids: Class ids from 0, [n].
        measure: Measure of the embeddings.
        ks: Values of k for recall at k.
    """
    n, names = len(x), tuple(range(len(x)))
    size = np.bincount(ids, minlength=1)
    n_relevant = size[ids] - 1
    active = np.flatnonzero(n_relevant > 0)
    depth = min(max([*ks, int(n_relevant.max(initial=0))]) + 1, n - 1)
    total, sums = np.zeros(3 + len(ks)), np.zeros((3 + len(ks), n))
    for rows, nearest in nearest_rows(x, x, measure, depth, active, exclude_itself=True):
        r = n_relevant[rows]
        is_relevant = ids[nearest] == ids[rows, None]
        is_hit = is_relevant & (np.arange(1, depth + 1) <= r[:, None])
        for index, (value, without, behind) in enumerate(_without_one_row(is_relevant, r, ks)):
            total[index] += value.sum()
            of_rows = sums[index]  # the changes of other queries without each image, and minus its own value
            of_rows += np.bincount(nearest.ravel(), (without - value[:, None]).ravel(), n)
            # The change without a relevant row behind rank R: of all queries of the class, but neither of the query
            # itself nor of queries that have this row among the first R.
            change = behind - value
            of_rows += np.bincount(ids[rows], change, len(size))[ids]
            of_rows -= np.bincount(nearest[is_hit], np.repeat(change, is_hit.sum(axis=1)), n)
            of_rows -= np.bincount(rows, change + value, n)
    # A query of a class of two images has no relevant row without the other one, and is ignored.
    counts = len(active) - (n_relevant > 0) - (n_relevant == 1)
    return [
        estimate_of_sums(of_all, len(active), of_all + of_rows, counts, names, len(active))
        for of_all, of_rows in zip(total, sums, strict=True)
    ]


def _without_one_row(is_relevant: np.ndarray, n_relevant: np.ndarray, ks: Sequence[int]) -> Iterator[_Metric]:
    """Compute the metrics of queries with and without a single row of the gallery.

    Without a row among the first R, the rows behind it move up by one rank. If it is relevant, R is one less, and the
    first R end where they ended before; otherwise the row of rank R + 1 joins them. Without a relevant row behind rank
    R, the row of rank R leaves them. Other rows behind rank R change nothing.

    Args:
        is_relevant: Of the ranked neighbours [r, w], to rank R + 1 and k + 1 if the gallery has as many rows.
        n_relevant: R of each query, [r].
        ks: Values of k for recall at k.
    """
    n, width = is_relevant.shape
    ranks, r = np.arange(1, width + 1), n_relevant[:, None]
    is_first, less = ranks <= r, np.maximum(r - 1, 1)
    hits = np.cumsum(is_relevant, axis=1)  # relevant rows among the first ranks
    hits_to = np.concatenate([np.zeros((n, 1), int), hits], axis=1)  # by the number of first ranks, from 0

    def hits_among(first: np.ndarray) -> np.ndarray:
        return np.take_along_axis(hits_to, np.minimum(first, width), axis=1)

    term = np.where(is_relevant & is_first, hits / ranks, 0)
    before, moved = np.cumsum(term, axis=1) - term, np.maximum(ranks - 1, 1)
    after_hit = _sum_after(np.where(is_relevant & is_first, (hits - 1) / moved, 0))
    after_other = _sum_after(np.where(is_relevant & (ranks <= r + 1), hits / moved, 0))
    total = term.sum(axis=1, keepdims=True)
    without = np.where(is_relevant, (before + after_hit) / less, (before + after_other) / r)
    behind = (total - np.take_along_axis(term, r - 1, axis=1)) / less
    yield _Metric((total / r)[:, 0], np.where(is_first, without, total / r), behind[:, 0])

    precision = hits_among(r) / r
    without = np.where(is_relevant, (hits_among(r) - 1) / less, hits_among(r + 1) / r)
    yield _Metric(precision[:, 0], np.where(is_first, without, precision), (hits_among(r - 1) / less)[:, 0])

    for k in (1, *ks):
        found = (hits_among(np.full_like(r, k)) > 0).astype(float)
        is_found_without = hits_among(np.full_like(r, k + 1)) > is_relevant
        yield _Metric(found[:, 0], np.where(ranks <= k, is_found_without, found), found[:, 0])


def _sum_after(a: np.ndarray) -> np.ndarray:
    """Return the sum of the entries after each one, along the rows of a."""
    return a.sum(axis=1, keepdims=True) - np.cumsum(a, axis=1)
