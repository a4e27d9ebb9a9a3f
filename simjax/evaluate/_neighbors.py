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
    common = is_same[:, :k, :k].sum(axis=(1, 2))
    # Without one of the first k neighbours, the next one takes its place. By the list that has lost a neighbour:
    of_x, of_y, of_both = is_same[:, :, :k].sum((1, 2)), is_same[:, :k].sum((1, 2)), is_same.sum((1, 2)) - 1
    x_first, y_first = x_neighbors[:, :k], y_neighbors[:, :k]
    in_y, in_x = is_same[:, :k, :k].any(axis=2), is_same[:, :k, :k].any(axis=1)
    sums = common.sum() - common.astype(float)
    for neighbors, changes in (
        (x_first, np.where(in_y, of_both[:, None], of_x[:, None]) - common[:, None]),
        (y_first, np.where(in_x, 0, of_y[:, None] - common[:, None])),
    ):
        sums += np.bincount(neighbors.ravel(), changes.ravel(), n)
    return estimate_of_sums(common.sum() / k, n, sums / k, np.full(n, n - 1), tuple(range(n)), n)
