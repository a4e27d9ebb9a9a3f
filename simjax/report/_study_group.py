"""The runs of a study on one data set, by network, and differences between networks."""

import dataclasses
import itertools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.evaluate import Comparison, Estimate, compare, error_consistency
from simjax.report._metrics import METRICS
from simjax.report._recipes import Recipe, estimate
from simjax.report._run import MODEL_NAMES, Run, data_name

ACCURACY = next(metric for metric in METRICS if metric.name == "accuracy")
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

    @cached_property
    def correct(self) -> dict[Any, np.ndarray]:
        """Whether each test image is classified correctly, by seed, for the runs that have predictions."""
        arrays = {run.value("seed"): run.arrays("predictions.npz") for run in self.runs}
        return {seed: one["predicted"] == one["label"] for seed, one in arrays.items() if "predicted" in one}

    @cached_property
    def accuracies(self) -> dict[Any, Estimate]:
        """The accuracies by seed, for the runs that have one."""
        found = {run.value("seed"): estimate(ACCURACY, run) for run in self.runs}
        return {seed: one for seed, one in found.items() if one is not None}


Pair = tuple[Network, Network]


@dataclasses.dataclass(frozen=True)
class Group:
    """All networks of a study that were trained and tested on the same images with the same objective."""

    title: str
    networks: list[Network]

    def find(self, model: str, measure: str) -> Network | None:
        """Return a network, or None if it has no finished run."""
        return next((n for n in self.networks if (n.model, n.measure) == (model, measure)), None)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the first network; all have the same data, objective and varied settings."""
        return self.networks[0].planned["settings"]

    @property
    def dataset(self) -> str:
        return data_name(self.settings["dataset"], self.settings.get("test_dataset"))

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

    def difference(self, a: Network, b: Network, *, confidence: float = 0.95) -> Comparison | None:
        """Compare the accuracies of two networks on the same images, a minus b, over the seeds that both have."""
        return self._compare(a.accuracies, b.accuracies, [a, b], confidence)

    def change_of_gap(self, pair: Pair, other: Pair, *, confidence: float = 0.95) -> Comparison | None:
        """Compare two gaps: the accuracy of pair[0] minus that of pair[1], minus the same of the other pair."""
        return self._compare(_gaps(*pair), _gaps(*other), [*pair, *other], confidence)

    def _compare(
        self, a: Mapping[Any, Estimate], b: Mapping[Any, Estimate], networks: Sequence[Network], confidence: float
    ) -> Comparison | None:
        """Compare values by seed, a minus b, of which each network contributes its accuracy once."""
        seeds = common_seeds(a, b)
        if not seeds:
            return None
        of_seeds = None
        if len(seeds) > 1:
            count = Counter(network.model for network in networks)
            of_models = {model: self._seed_variance(model) for model in count}
            of_seeds = [(count[m] * variance / len(seeds), freedom) for m, (variance, freedom) in of_models.items()]
        return compare(
            [a[seed] for seed in seeds], [b[seed] for seed in seeds], confidence=confidence, seed_variances=of_seeds
        )

    def _seed_variance(self, model: str) -> tuple[float, float]:
        """Return the variance of the accuracy of a model over seeds and its degrees of freedom, at least 1.

        It is that within each of its measures, pooled: two or three seeds of one network alone tell little about it.
        """
        squares = freedom = 0.0
        for network in self.networks:
            values = [one.value for one in network.accuracies.values() if one.value is not None]
            if network.model == model and len(values) > 1:
                squares += (len(values) - 1) * statistics.variance(values)
                freedom += len(values) - 1
        return squares / max(freedom, 1.0), max(freedom, 1.0)


def _gaps(a: Network, b: Network) -> dict[Any, Estimate]:
    """Return the differences of the accuracies by seed, with the same image left out in both."""
    gaps = {}
    for seed in common_seeds(a.accuracies, b.accuracies):
        x, y = a.accuracies[seed], b.accuracies[seed]
        if x.value is None or y.value is None or x.identities != y.identities:
            continue
        left_out = None
        if x.leave_one_out is not None and y.leave_one_out is not None:
            left_out = np.subtract(x.leave_one_out, y.leave_one_out)
        sample_size = min(x.sample_size, y.sample_size)
        gaps[seed] = Estimate(x.value - y.value, left_out, x.identities, sample_size, scale="linear")
    return gaps


def common_seeds(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> list[Any]:
    """Return the keys that both have, so that runs of one seed are paired also if another run is missing."""
    return [seed for seed in a if seed in b]


def common_errors(group: Group) -> dict[str, list[tuple[str, str, Estimate]]]:
    """Return the error consistency of pairs of networks, by what is different in the two."""
    found: dict[str, list[tuple[str, str, Estimate]]] = {kind: [] for kind in ("another model", "another measure")}

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

    for a, b in itertools.combinations(group.networks, 2):
        kind = "another model" if a.measure == b.measure else "another measure" if a.model == b.model else ""
        pairs = [(a.correct[seed], b.correct[seed]) for seed in common_seeds(a.correct, b.correct)]
        if kind and pairs:
            add(kind, a.name, b.name, pairs)
    for network in group.networks:
        if len(network.correct) > 1:
            add("another seed", network.name, network.name, list(itertools.combinations(network.correct.values(), 2)))
    return found


def file_name(text: str) -> str:
    """Return a text as part of the name of a file."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)


def points(value: float) -> str:
    """Return a difference of accuracies in percentage points, such as "0.21"."""
    return f"{100 * value:.2f}"
