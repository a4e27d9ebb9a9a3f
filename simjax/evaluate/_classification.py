"""Accuracy of a classifier, and the mean similarity between classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.evaluate._checks import as_labels, as_rows
from simjax.evaluate._retrieval import tiles
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def classification_metrics(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> dict[str, Any]:
    """Compute accuracy and confusion matrix of predicted classes [n], integers in 0 .. n_classes - 1.

    Args:
        labels: The true classes [n].
        predicted: The predicted classes [n].
        n_classes: The number of classes.

    Returns:
        `accuracy`, in [0, 1], or None for n = 0; `per_class_accuracy`, the recall of each class, None for a class
        without examples; `confusion`, int64 [n_classes, n_classes], the number of examples of the row's class that are
        predicted as the column's class.

    Raises:
        InputError: If a class is out of range, or the lengths differ.

    Example:
        >>> found = classification_metrics([0, 0, 0, 1], [0, 1, 0, 1], 3)
        >>> found["accuracy"], found["per_class_accuracy"]
        (0.75, [0.6666666666666666, 1.0, None])
    """
    true_classes = as_labels("labels", labels, np.size(labels), n_classes)
    predicted_classes = as_labels("predicted", predicted, true_classes.size, n_classes)
    confusion = np.bincount(true_classes * n_classes + predicted_classes, minlength=n_classes**2).reshape(
        n_classes, n_classes
    )
    correct, count = np.diagonal(confusion).tolist(), confusion.sum(axis=1).tolist()
    return {
        "accuracy": sum(correct) / true_classes.size if true_classes.size else None,
        "per_class_accuracy": [right / total if total else None for right, total in zip(correct, count, strict=True)],
        "confusion": confusion,
    }


def class_similarity(
    embeddings: ArrayLike, labels: ArrayLike, n_classes: int, measure: str | Measure = "cosine"
) -> np.ndarray:
    """Compute the mean of a measure over all pairs of rows, for each pair of classes.

    Args:
        embeddings: [n, d].
        labels: Integers [n].
        n_classes: The number of classes c. Labels are in 0 .. c - 1.
        measure: Name of a measure, or a `Measure`.

    Returns:
        float64 [c, c]; 0 where there are no pairs. On the diagonal, rows are not paired with themselves.

    Example:
        >>> print(class_similarity([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], [0, 0, 1], 2))
        [[1. 0.]
         [0. 0.]]
    """
    rows = as_rows("embeddings", embeddings)
    classes = as_labels("labels", labels, len(rows), n_classes)
    is_member = (classes[:, None] == np.arange(n_classes)).astype(rows.dtype)  # [n, c]
    total = np.zeros((n_classes, n_classes))
    for indices, values in tiles(rows, rows, as_measure(measure)):
        values = values.copy()
        values[np.arange(len(indices)), indices] = 0
        total += is_member[indices].astype(np.float64).T @ (values @ is_member)
    count = is_member.sum(axis=0, dtype=np.float64)
    pairs = np.outer(count, count) - np.diag(count)
    return np.divide(total, pairs, out=np.zeros_like(total), where=pairs > 0)
