"""How similar the classes are to each other, and each to itself: the matrix of a measure, averaged by class."""

import numpy as np
from numpy.typing import ArrayLike

from simjax.evaluate._checks import as_labels, as_rows
from simjax.evaluate._strips import strips
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def class_similarity(
    embeddings: ArrayLike, labels: ArrayLike, n_classes: int, measure: str | Measure = "cosine"
) -> np.ndarray:
    """The mean of the measure over all pairs of a row of one class and a row of another.

    Args:
        embeddings: [n, d].
        labels: integers [n] in [0, n_classes).
        n_classes: c.
        measure: a name or a `Measure`.

    Returns:
        float64 [c, c]; the diagonal leaves out each row's pair with itself. 0 where there is no pair.

    Raises:
        InputError: for shapes that do not fit, embeddings that are not finite, a class out of range or an unknown
            measure.

    Example:
        >>> print(class_similarity([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], [0, 0, 1], 2))
        [[1. 0.]
         [0. 0.]]
    """
    rows = as_rows("embeddings", embeddings)
    classes = as_labels("labels", labels, len(rows), n_classes)
    member = (classes[:, None] == np.arange(n_classes)).astype(rows.dtype)  # [n, c]
    total = np.zeros((n_classes, n_classes))
    for index, values in strips(rows, rows, as_measure(measure)):
        values = values.copy()
        values[np.arange(len(index)), index] = 0
        total += member[index].astype(np.float64).T @ (values @ member)
    count = member.sum(axis=0, dtype=np.float64)
    pairs = np.outer(count, count) - np.diag(count)
    return np.divide(total, pairs, out=np.zeros_like(total), where=pairs > 0)
