"""Accuracy of a classifier, for each class, and which classes it takes for which."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.evaluate._checks import as_labels


def classification_metrics(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> dict[str, Any]:
    """How often the predicted class is the true one.

    Args:
        labels: true classes, integers [n] in [0, n_classes).
        predicted: predicted classes, the same.
        n_classes: c.

    Returns:
        `accuracy`, a share in [0, 1], None for n = 0; `per_class_accuracy`, c of them (a class's recall), None for a
        class without examples; `confusion`, int64 [c, c], how often the class of the row was taken for the column's.

    Raises:
        InputError: for lengths that differ or a class out of range.

    Example:
        >>> found = classification_metrics([0, 0, 0, 1], [0, 1, 0, 1], 3)
        >>> found["accuracy"], found["per_class_accuracy"]
        (0.75, [0.6666666666666666, 1.0, None])
    """
    true = as_labels("labels", labels, np.size(labels), n_classes)
    guessed = as_labels("predicted", predicted, true.size, n_classes)
    confusion = np.bincount(true * n_classes + guessed, minlength=n_classes**2).reshape(n_classes, n_classes)
    right, count = np.diagonal(confusion).tolist(), confusion.sum(axis=1).tolist()
    return {
        "accuracy": sum(right) / true.size if true.size else None,
        "per_class_accuracy": [r / n if n else None for r, n in zip(right, count, strict=True)],
        "confusion": confusion,
    }
