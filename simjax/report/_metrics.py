"""The metrics of a report: their place in report.json, their format, their direction and their meaning."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from simjax.report import _numbers as numbers
from simjax.report._run import Run


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric in the tables of reports."""

    name: str  # dotted path in report.json
    title: str
    show: Callable[[object], str]  # returns a value as text
    better: Literal["highest", "lowest"]
    meaning: str
    compared: bool = True  # comparisons of runs include the metric

    @property
    def interval(self) -> str:
        """Dotted path of its 95% interval in report.json."""
        return f"{self.name}_interval"


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
    Metric("calibration.expected_calibration_error", "Calibration error", numbers.percent, "lowest",
           "Mean difference of the predicted probability that a pair is of one class from the share of such pairs that "
           "are, with as many pairs of one class as of two (ECE).", compared=False),
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


def with_interval(metric: Metric, run: Run) -> str:
    """Return the value of a run and its 95% interval as text, such as "98.61% (97.42–99.26%)"."""
    interval, value = run.value(metric.interval), metric.show(run.value(metric.name))
    if not isinstance(interval, list | tuple):
        return value
    low, high = map(metric.show, interval)
    return f"{value} ({low.removesuffix('%')}–{high})"
