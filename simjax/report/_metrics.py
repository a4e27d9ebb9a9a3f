"""The headline numbers: where each lies in report.json, how it is written, which end is better, what it means."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from simjax.report import _numbers as numbers

Better = Literal["highest", "lowest"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a report.

    Attributes:
        keys: where it is in report.json.
        title: what tables call it.
        show: writes it.
        better: which end is better.
        meaning: one sentence for a reader who does not know it.
        compared: whether a comparison of runs has it.
    """

    keys: tuple[str, ...]
    title: str
    show: Callable[[object], str]
    better: Better
    meaning: str
    compared: bool = False

    @property
    def name(self) -> str:
        """Its place in report.json as one name."""
        return ".".join(self.keys)


METRICS = (
    Metric(
        ("accuracy",),
        "Accuracy",
        numbers.percent,
        "highest",
        "Test images whose class was predicted right.",
        compared=True,
    ),
    Metric(
        ("knn_accuracy",),
        "k-NN accuracy",
        numbers.percent,
        "highest",
        "The same, where the nearest labelled images vote: training images, or for new classes other test images.",
        compared=True,
    ),
    Metric(("test_loss",), "Test loss", numbers.decimal, "lowest", "The training objective on the test images."),
    Metric(
        ("retrieval", "precision_at_1"),
        "Precision@1",
        numbers.percent,
        "highest",
        "Test images whose closest other test image is of the same class.",
        compared=True,
    ),
    Metric(
        ("retrieval", "mean_average_precision_at_r"),
        "MAP@R",
        numbers.percent,
        "highest",
        "How purely the R closest images are of the query's class, R being the class's size; early ones count more.",
        compared=True,
    ),
    Metric(
        ("retrieval", "r_precision"),
        "R-precision",
        numbers.percent,
        "highest",
        "The share of the R closest images that are of the query's class.",
    ),
    Metric(
        ("retrieval", "recall_at_k", "5"),
        "Recall@5",
        numbers.percent,
        "highest",
        "Queries with at least one image of their class among the 5 closest.",
    ),
    Metric(
        ("retrieval", "recall_at_k", "10"),
        "Recall@10",
        numbers.percent,
        "highest",
        "Queries with at least one image of their class among the 10 closest.",
    ),
    Metric(
        ("verification", "roc_auc"),
        "ROC AUC",
        numbers.decimal,
        "highest",
        "How often a pair of one class is scored closer than a pair of two classes: 0.5 is chance, 1 perfect.",
        compared=True,
    ),
    Metric(
        ("verification", "equal_error_rate"),
        "Equal error rate",
        numbers.percent,
        "lowest",
        "The error where as many wrong pairs are accepted as right pairs rejected.",
        compared=True,
    ),
    Metric(
        ("verification", "accuracy"),
        "Verification accuracy",
        numbers.percent,
        "highest",
        "Pairs decided right at the chosen threshold.",
    ),
    Metric(
        ("parameters",),
        "Parameters",
        numbers.count,
        "lowest",
        "Numbers that training adjusts.",
        compared=True,
    ),
    Metric(
        ("step_milliseconds",),
        "Step time",
        numbers.milliseconds,
        "lowest",
        "One training step, compilation left out.",
        compared=True,
    ),
    Metric(("train_seconds",), "Training time", numbers.seconds, "lowest", "The whole training.", compared=True),
    Metric(("images_per_second",), "Images per second", numbers.count, "highest", "Images that training takes in."),
)


def best(metric: Metric, values: Sequence[Any]) -> list[bool]:
    """Which values are the best of them.

    Values that read the same are marked the same: nobody should wonder why one of two equal numbers is bold. A value
    that has no other to be compared with is not the best of anything.

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
