"""The metrics of a report: their place in report.json, their format, their direction and their meaning."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from simjax.report import _numbers as numbers


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric in the tables of reports."""

    name: str  # dotted path in report.json
    title: str
    show: Callable[[object], str]  # returns a value as text
    better: Literal["highest", "lowest"]
    meaning: str
    compared: bool = True  # comparisons of runs include the metric


# fmt: off
METRICS = (
    Metric("accuracy", "Accuracy", numbers.percent, "highest",
           "Share of the test images that are classified correctly."),
    Metric("knn_accuracy", "k-NN accuracy", numbers.percent, "highest",
           "Accuracy of a k-nearest-neighbour classifier of training images, or of other test images for new classes."),
    Metric("test_loss", "Test loss", numbers.decimal, "lowest",
           "The training objective on the test images.", compared=False),
    Metric("retrieval.precision_at_1", "Precision@1", numbers.percent, "highest",
           "Share of the test images whose nearest other test image is of the same class."),
    Metric("retrieval.mean_average_precision_at_r", "MAP@R", numbers.percent, "highest",
           "Mean average precision of the R nearest images, where R is the number of other images of the query's "
           "class."),
    Metric("retrieval.r_precision", "R-precision", numbers.percent, "highest",
           "Share of the R nearest images that are of the query's class.", compared=False),
    Metric("retrieval.recall_at_k.5", "Recall@5", numbers.percent, "highest",
           "Share of the queries with at least one image of their class among the 5 nearest.", compared=False),
    Metric("retrieval.recall_at_k.10", "Recall@10", numbers.percent, "highest",
           "Share of the queries with at least one image of their class among the 10 nearest.", compared=False),
    Metric("verification.roc_auc", "ROC AUC", numbers.decimal, "highest",
           "Probability that a positive pair is closer than a negative pair: 0.5 is chance, 1 is perfect."),
    Metric("verification.equal_error_rate", "Equal error rate", numbers.percent, "lowest",
           "Error rate at the threshold where the false match rate and the false non-match rate are equal."),
    Metric("verification.accuracy", "Verification accuracy", numbers.percent, "highest",
           "Share of the pairs that are classified correctly at the chosen threshold.", compared=False),
    Metric("parameters", "Parameters", numbers.count, "lowest",
           "Number of trained parameters."),
    Metric("step_milliseconds", "Step time", numbers.milliseconds, "lowest",
           "Time of one training step, without compilation."),
    Metric("train_seconds", "Training time", numbers.seconds, "lowest",
           "Time of the whole training."),
    Metric("images_per_second", "Images per second", numbers.count, "highest",
           "Training images processed per second.", compared=False),
)
# fmt: on


def best(metric: Metric, values: Sequence[object]) -> list[bool]:
    """Return a mask of the best values.

    Values that are formatted as the same text are all best, because a reader sees no difference. There is no best
    among fewer than two values.

    Example:
        >>> error = next(m for m in METRICS if m.title == "Equal error rate")
        >>> best(error, [0.02, None, 0.010001, 0.01])
        [False, False, True, True]
    """
    known = [x for x in map(numbers.number, values) if x is not None]
    if len(known) < 2:
        return [False] * len(values)
    best_text = metric.show(max(known) if metric.better == "highest" else min(known))
    return [metric.show(value) == best_text for value in values]
