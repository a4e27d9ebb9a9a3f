"""The runs of a study on one data set, by network, and differences between networks."""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.evaluate import Comparison, Estimate, compare, error_consistency
from simjax.report._metrics import METRICS, Metric
from simjax.report._recipes import Recipe, estimate
from simjax.report._run import Run

ACCURACY = next(metric for metric in METRICS if metric.name == "accuracy")
MODEL_NAMES = {"cnn": "CNN", "vit": "ViT", "dnn": "dense network", "logistic": "logistic regression"}
MEASURE_NAMES = {
    "dot": "dot product",
    "cosine": "cosine",
    "squared_euclidean": "squared distance",
    "rbf": "RBF",
    "manhattan": "Manhattan distance",
}


@dataclasses.dataclass(frozen=True)
class Network:
    """The runs of a model with one measure, in the order of their seeds."""

    model: str
    measure: str
    runs: tuple[Run, ...]
    planned: dict[str, Any]  # settings and budget of the first run, as in plan.json

    @property
    def name(self) -> str:
        return f"{MODEL_NAMES.get(self.model, self.model)}, {MEASURE_NAMES.get(self.measure, self.measure)}"

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.name, self.runs)

    def mean(self, metric: Metric) -> float | None:
        """Return the mean of a metric over the seeds, or None if a run lacks it."""
        values = self.recipe.values(metric)
        return statistics.fmean(values) if len(values) == len(self.runs) else None

    @cached_property
    def correct(self) -> list[np.ndarray] | None:
        """Whether each test image is classified correctly, by run, or None if a run has no predictions."""
        arrays = [run.arrays("predictions.npz") for run in self.runs]
        if any("predicted" not in one for one in arrays):
            return None
        return [one["predicted"] == one["label"] for one in arrays]

    @cached_property
    def accuracies(self) -> list[Estimate] | None:
        """The accuracies of the runs, or None if one is missing."""
        found = [estimate(ACCURACY, run) for run in self.runs]
        return None if any(one is None for one in found) else [one for one in found if one is not None]


@dataclasses.dataclass(frozen=True)
class Group:
    """All networks of a study that were trained and tested on the same images with the same objective."""

    title: str
    networks: list[Network]

    def find(self, model: str, measure: str) -> Network | None:
        """Return a network, or None if it has no finished run."""
        return next((n for n in self.networks if (n.model, n.measure) == (model, measure)), None)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(network.model for network in self.networks))

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(network.measure for network in self.networks))

    def check_same_images(self) -> None:
        """Raise an `InputError` if two runs have different images."""
        runs = [run for network in self.networks for run in network.runs]
        for run in runs[1:]:
            expected, got = (one.part("data").get("fingerprint") for one in (runs[0], run))
            if expected != got:
                raise InputError(
                    f"study: expected the same images in all runs of {self.title}, got fingerprint {expected} in "
                    f"{runs[0].path} and {got} in {run.path}"
                )

    def content(self) -> dict[str, Any]:
        """Return the results of all networks as plain values."""
        networks = [
            {
                "model": network.model,
                "measure": network.measure,
                "seeds": network.recipe.seeds,
                **{metric.name: network.recipe.values(metric) for metric in METRICS if metric.compared},
                **{key: network.planned[key] for key in ("parameters", "forward_flops", "training_flops", "steps")},
            }
            for network in self.networks
        ]
        return {"title": self.title, "networks": networks}


def difference(a: Network, b: Network, *, confidence: float = 0.95) -> Comparison | None:
    """Compare the accuracies of two networks on the same images, a minus b, over the seeds that both have."""
    return _compare(a.accuracies, b.accuracies, confidence)


def change_of_gap(
    pair: tuple[Network, Network], other: tuple[Network, Network], *, confidence: float = 0.95
) -> Comparison | None:
    """Compare two gaps: the accuracy of pair[0] minus that of pair[1], minus the same of the other pair."""
    return _compare(_gaps(*pair), _gaps(*other), confidence)


def _gaps(a: Network, b: Network) -> list[Estimate] | None:
    """Return the differences of the accuracies, run by run, with the same image left out in both."""
    if a.accuracies is None or b.accuracies is None:
        return None
    gaps = []
    for x, y in zip(a.accuracies, b.accuracies, strict=False):
        if x.value is None or y.value is None or x.identities != y.identities:
            return None
        left_out = None
        if x.leave_one_out is not None and y.leave_one_out is not None:
            left_out = np.subtract(x.leave_one_out, y.leave_one_out)
        sample_size = min(x.sample_size, y.sample_size)
        gaps.append(Estimate(x.value - y.value, left_out, x.identities, sample_size, scale="linear"))
    return gaps


def _compare(a: Sequence[Estimate] | None, b: Sequence[Estimate] | None, confidence: float) -> Comparison | None:
    if not a or not b:
        return None
    runs = min(len(a), len(b))
    return compare(a[:runs], b[:runs], confidence=confidence)


def common_errors(group: Group) -> dict[str, list[tuple[str, str, Estimate]]]:
    """Return the error consistency of pairs of networks, by what is different in the two."""
    found: dict[str, list[tuple[str, str, Estimate]]] = {}

    def add(kind: str, a: str, b: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        kappas = [error_consistency(x, y) for x, y in pairs]
        values = [kappa.value for kappa in kappas if kappa.value is not None]
        left_out = [kappa.leave_one_out for kappa in kappas if kappa.leave_one_out is not None]
        if len(values) < len(pairs):  # no errors
            return
        mean = np.mean(left_out, axis=0) if len(left_out) == len(pairs) else None
        sample_size = min(kappa.sample_size for kappa in kappas)
        estimate = Estimate(statistics.fmean(values), mean, kappas[0].identities, sample_size, scale="linear")
        found.setdefault(kind, []).append((a, b, estimate))

    known = [(network, network.correct) for network in group.networks if network.correct is not None]
    pairs = list(itertools.combinations(known, 2))
    for (a, x), (b, y) in (pair for pair in pairs if pair[0][0].measure == pair[1][0].measure):
        add("another model", a.name, b.name, list(zip(x, y, strict=False)))
    for (a, x), (b, y) in (pair for pair in pairs if pair[0][0].model == pair[1][0].model):
        add("another measure", a.name, b.name, list(zip(x, y, strict=False)))
    for network, correct in known:
        if len(correct) > 1:
            add("another seed", network.name, network.name, list(itertools.combinations(correct, 2)))
    return found


def file_name(text: str) -> str:
    """Return a text as part of the name of a file."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)


def points(value: float) -> str:
    """Return a difference of accuracies in percentage points, such as "0.21"."""
    return f"{100 * value:.2f}"
