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

    def show_difference(self, value: float) -> str:
        """Return a difference of two values as text: in percentage points for shares."""
        return f"{100 * value:+.2f}" if self.show is numbers.percent else f"{value:+.4f}"

    @property
    def interval(self) -> str:
        """Dotted path of its 95% interval in report.json."""
        return f"{self.name}_interval"


# fmt: off
METRICS = (
    Metric("accuracy", "Accuracy", numbers.percent, "highest",
           "Share of the test images whose class is predicted correctly."),
    Metric("knn_accuracy", "k-NN accuracy", numbers.percent, "highest",
           "Share of the test images that their 5 most similar labelled images classify correctly, without the "
           "classifier: how good the embeddings are."),
    Metric("test_loss", "Test loss", numbers.decimal, "lowest",
           "The training objective on the test images. Lower is better; with label smoothing, even a perfect model is "
           "above 0.", compared=False),
    Metric("retrieval.precision_at_1", "Precision@1", numbers.percent, "highest",
           "Share of the test images whose nearest other test image is of the same class."),
    Metric("retrieval.mean_average_precision_at_r", "MAP@R", numbers.percent, "highest",
           "Searches for each test image among the others: 100% if all images of its class come before those of other "
           "classes (mean average precision at R, the number of other images of its class)."),
    Metric("retrieval.r_precision", "R-precision", numbers.percent, "highest",
           "A search for each test image: the share of its class among the first R results, where R is the number of "
           "other images of its class.", compared=False),
    Metric("retrieval.recall_at_k.5", "Recall@5", numbers.percent, "highest",
           "Share of the searches with an image of the right class among the first 5 results.", compared=False),
    Metric("retrieval.recall_at_k.10", "Recall@10", numbers.percent, "highest",
           "Share of the searches with an image of the right class among the first 10 results.", compared=False),
    Metric("verification.roc_auc", "ROC AUC", numbers.decimal, "highest",
           "Chance that two images of one class are more similar than two images of different classes: 0.5 is "
           "guessing, 1 is perfect."),
    Metric("verification.equal_error_rate", "Equal error rate", numbers.percent, "lowest",
           "Wrong decisions whether two images are of the same class, if the threshold is such that same and different "
           "pairs are wrong equally often. It depends on no chosen threshold. Lower is better."),
    Metric("verification.accuracy", "Same class or not", numbers.percent, "highest",
           "Right decisions whether two test images are of the same class, for as many same as different pairs, at a "
           "threshold that was chosen without the test images (verification accuracy).", compared=False),
    Metric("calibration.expected_calibration_error", "Calibration error", numbers.percent, "lowest",
           "Gap between the predicted probability that two images are of the same class and the share of such pairs "
           "that are, on average (ECE), for as many same as different pairs. Lower is better.", compared=False),
    Metric("parameters", "Parameters", numbers.count, "lowest",
           "Trainable numbers of the network."),
    Metric("step_milliseconds", "Step time", numbers.milliseconds, "lowest",
           "Time of one training step, without compilation."),
    Metric("train_seconds", "Training time", numbers.seconds, "lowest",
           "Time of the whole training, with compilation and validation."),
    Metric("images_per_second", "Images per second", numbers.count, "highest",
           "Training images processed per second.", compared=False),
)
# fmt: on
BY_NAME = {metric.name: metric for metric in METRICS}
HEADLINE = tuple(
    BY_NAME[name]
    for name in (
        "accuracy",
        "knn_accuracy",
        "retrieval.mean_average_precision_at_r",
        "verification.equal_error_rate",
    )
)
"""The metrics of the tables of a comparison."""
COLUMNS = tuple(metric for metric in METRICS if metric.compared)
"""The metrics of compare.json."""
COMPARED = tuple(metric for metric in COLUMNS if "." in metric.name or "accuracy" in metric.name)
"""The metrics of the table of differences, those that have intervals."""
CARDS = (*HEADLINE[:-1], BY_NAME["verification.accuracy"])
"""The metrics of the first screen of a run."""


def interval_of(metric: Metric, run: Run) -> tuple[str, str] | None:
    """Return the ends of the interval of a run as text, such as ("97.42%", "99.26%"), or None if it has none."""
    interval = run.value(metric.interval)
    if not isinstance(interval, list | tuple):
        return None
    low, high = map(metric.show, interval)
    return low, high


def with_interval(metric: Metric, run: Run) -> str:
    """Return the value of a run and its 95% interval as text, such as "98.61% (97.42–99.26%)"."""
    value, interval = metric.show(run.value(metric.name)), interval_of(metric, run)
    return f"{value} ({interval[0].removesuffix('%')}–{interval[1]})" if interval else value
