"""The metrics of a report: their place in report.json, their format, their direction and their meaning."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from simjax.report import _numbers as numbers


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Dotted path in report.json.
        title: Name in tables.
        show: Formats a value.
        better: Direction of the better values.
        meaning: Explanation in one sentence.
        compared: Whether comparisons of runs include the metric.
    """

    name: str
    title: str
    show: Callable[[object], str]
    better: Literal["highest", "lowest"]
    meaning: str
    compared: bool = True


# fmt: off
METRICS = (
    Metric("accuracy", "Accuracy", numbers.percent, "highest",
           "Test images whose class was predicted right."),
    Metric("knn_accuracy", "k-NN accuracy", numbers.percent, "highest",
           "The same, where the nearest labelled images vote: training images, or for new classes other test images."),
    Metric("test_loss", "Test loss", numbers.decimal, "lowest",
           "The training objective on the test images.", compared=False),
    Metric("retrieval.precision_at_1", "Precision@1", numbers.percent, "highest",
           "Test images whose closest other test image is of the same class."),
    Metric("retrieval.mean_average_precision_at_r", "MAP@R", numbers.percent, "highest",
           "How purely the R closest images are of the query's class, R being the class's size; early ones count "
           "more."),
    Metric("retrieval.r_precision", "R-precision", numbers.percent, "highest",
           "The share of the R closest images that are of the query's class.", compared=False),
    Metric("retrieval.recall_at_k.5", "Recall@5", numbers.percent, "highest",
           "Queries with at least one image of their class among the 5 closest.", compared=False),
    Metric("retrieval.recall_at_k.10", "Recall@10", numbers.percent, "highest",
           "Queries with at least one image of their class among the 10 closest.", compared=False),
    Metric("verification.roc_auc", "ROC AUC", numbers.decimal, "highest",
           "How often a pair of one class is scored closer than a pair of two classes: 0.5 is chance, 1 perfect."),
    Metric("verification.equal_error_rate", "Equal error rate", numbers.percent, "lowest",
           "The error where as many wrong pairs are accepted as right pairs rejected."),
    Metric("verification.accuracy", "Verification accuracy", numbers.percent, "highest",
           "Pairs decided right at the chosen threshold.", compared=False),
    Metric("parameters", "Parameters", numbers.count, "lowest",
           "Numbers that training adjusts."),
    Metric("step_milliseconds", "Step time", numbers.milliseconds, "lowest",
           "One training step, compilation left out."),
    Metric("train_seconds", "Training time", numbers.seconds, "lowest",
           "The whole training."),
    Metric("images_per_second", "Images per second", numbers.count, "highest",
           "Images that training takes in.", compared=False),
)
# fmt: on


def best(metric: Metric, values: Sequence[object]) -> list[bool]:
    """Return a mask of the best values.

    Values with the same text are all best: a reader could not see why one of them is highlighted. A single value is not
    the best of anything.

    Example:
        >>> error = next(m for m in METRICS if m.title == "Equal error rate")
        >>> best(error, [0.02, None, 0.010001, 0.01])
        [False, False, True, True]
    """
    known = [x for x in map(numbers.number, values) if x is not None]
    if len(known) < 2:
        return [False] * len(values)
    winner = metric.show(max(known) if metric.better == "highest" else min(known))
    return [metric.show(value) == winner for value in values]
