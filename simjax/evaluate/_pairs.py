"""Pairs of rows to verify: half of one class, half of two, each pair at most once.

With the rows sorted by class, the partners of a row among the later rows are one stretch for its own class and one
for the other classes. So all pairs of a kind can be numbered without listing them, and numbers be drawn.
"""

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError
from simjax.evaluate._checks import as_labels


def sample_pairs_for_verification(
    labels: ArrayLike, n_pairs: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A balanced sample of pairs of rows, uniform among those of one class and among those of two.

    Args:
        labels: integers [n].
        n_pairs: how many pairs, even; an odd number gives one less.
        seed: the same seed gives the same pairs.

    Returns:
        i and j, int32 [p], i != j, and same, booleans [p], true and false by turns. No pair occurs twice, in either
        order. p is n_pairs, or less where one kind has fewer than n_pairs / 2: always as many of one kind as of the
        other, and none at all for a single class or where no class has two rows.

    Raises:
        InputError: for labels that are not integers [n] or a negative n_pairs.

    Example:
        >>> i, j, same = sample_pairs_for_verification([5, 5, 5, 7, 7], n_pairs=4, seed=0)
        >>> print(same)
        [ True False  True False]
    """
    classes = as_labels("labels", labels, np.size(labels))
    if n_pairs < 0:
        raise InputError(f"n_pairs: expected a number from 0, got {n_pairs}")
    order = np.argsort(classes, kind="stable")
    position = np.arange(len(order))
    ends = np.searchsorted(classes[order], classes[order], side="right")  # where each row's class ends
    kinds = ((position + 1, ends), (ends, np.full_like(ends, len(order))))  # stretches of partners: same, different
    totals = [int(np.sum(stop - start)) for start, stop in kinds]
    count = min(n_pairs // 2, *totals)
    rng = np.random.default_rng(seed)
    pairs = np.empty((count, 2, 2), np.int32)  # number, kind, i and j
    for kind, ((start, stop), total) in enumerate(zip(kinds, totals, strict=True)):
        number = rng.choice(total, count, replace=False) if count else np.zeros(0, int)
        last = np.cumsum(stop - start)
        row = np.searchsorted(last, number, side="right")
        pairs[:, kind, 0] = order[row]
        pairs[:, kind, 1] = order[stop[row] - last[row] + number]
    i, j = pairs.reshape(-1, 2).T
    return i, j, np.tile([True, False], count)
