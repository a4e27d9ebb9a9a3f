"""Agreement of the nearest neighbours in two representations of the same inputs.

References:
    Huh, Cheung, Wang, Isola (2024), The Platonic Representation Hypothesis (mutual k-NN alignment).
"""

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least
from simjax.evaluate._checks import as_rows
from simjax.evaluate._intervals import Estimate, estimate_of_sums
from simjax.similarity import Measure, top_k


def mutual_knn(x: ArrayLike, y: ArrayLike, *, k: int = 10, measure: str | Measure = "cosine") -> Estimate:
    """Estimate the share of the k nearest neighbours of an input that two representations have in common.

        mean over inputs i of |N_x(i) & N_y(i)| / k

    N_x(i) are the k rows of x that are closest to row i, without row i. Independent representations have the expected
    share k / (n - 1).

    Args:
        x, y: Two sets of features, [n, d] and [n, e], of the same inputs in the same order.
        k: Number of neighbours, at most n - 2.
        measure: Name of a measure, or a `Measure`, for both.

    Returns:
        An estimate from 0 to 1; one input is left out at a time, as a row and as a neighbour of others.

    Example:
        >>> x = np.array([[0.0], [1.0], [3.0], [6.0]])
        >>> mutual_knn(x, [[0.0], [1.0], [3.0], [-6.0]], k=1, measure="euclidean").value  # not of the last one
        0.75
    """
    x, y = as_rows("x", x), as_rows("y", y)
    if len(x) != len(y):
        raise InputError(f"y: expected features of the same {len(x)} inputs as x, got shape {y.shape}")
    return mutual_share(*(nearest_others(a, k, measure) for a in (x, y)))


def nearest_others(x: np.ndarray, k: int, measure: str | Measure) -> np.ndarray:
    """Return the k + 1 closest rows of each row of x [n, d], without the row itself, [n, k + 1]."""
    check_at_least("k", k, 1)
    if k > len(x) - 2:
        raise InputError(f"k: expected at most {len(x) - 2}, two less than the number of inputs, got {k}")
    return np.asarray(top_k(x, x, k + 1, measure, exclude=np.arange(len(x)))[1])


def mutual_share(x_neighbors: np.ndarray, y_neighbors: np.ndarray) -> Estimate:
    """Return `mutual_knn` from the k + 1 nearest neighbours of each input in x and in y, [n, k + 1] each."""
    n, k = len(x_neighbors), x_neighbors.shape[1] - 1
    is_same = x_neighbors[:, :, None] == y_neighbors[:, None]  # [n, k + 1, k + 1]
    is_common = is_same[:, :k, :k]
    common = is_common.sum(axis=(1, 2))
    # If the input that is left out is a neighbour, the one of rank k + 1 takes its place. The common neighbours without
    # an input that is a neighbour in x only, in y only, and in both, [n, 1]:
    not_x, not_y = is_same[:, :, :k].sum(axis=(1, 2))[:, None], is_same[:, :k].sum(axis=(1, 2))[:, None]
    not_both = is_same.sum(axis=(1, 2))[:, None] - 1
    x_changes = np.where(is_common.any(axis=2), not_both, not_x) - common[:, None]
    y_changes = np.where(is_common.any(axis=1), 0, not_y - common[:, None])  # x_changes has those of both
    sums = common.sum() - common
    sums = sums + np.bincount(x_neighbors[:, :k].ravel(), x_changes.ravel(), n)
    sums += np.bincount(y_neighbors[:, :k].ravel(), y_changes.ravel(), n)
    return estimate_of_sums(common.sum() / k, n, sums / k, np.full(n, n - 1), tuple(range(n)), n)
