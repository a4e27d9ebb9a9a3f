"""Runs as repetitions of recipes, and differences between recipes.

Runs with the same settings apart from the seed are repetitions of one recipe. One run of each of two recipes shows
whether these two encoders differ; another seed would give other encoders. Several runs of each show whether the recipes
differ.
"""

import dataclasses
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simjax.evaluate import Comparison, Estimate, compare
from simjax.report import _numbers as numbers
from simjax.report._metrics import Metric
from simjax.report._run import Run

CONFIDENCE = 0.95
NOT_IN_RECIPE = {
    *("seed", "out", "resume", "overwrite", "config"),
    *("data_dir", "cache_gigabytes", "checkpoint_seconds", "tensorboard"),
}
"""Settings in which the runs of one recipe may differ."""
_FIRST = ("model", "objective", "mining.miner")
"""Settings that name a recipe before others; their values need no title."""
ESTIMATES_FILE = "leave_one_out.npz"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Runs with the same settings apart from the seed, in the order of their seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[Any]:
        return [run.value("seed") for run in self.runs]

    def values(self, metric: Metric) -> list[float]:
        """Return the values of a metric in the runs that have it."""
        values = (numbers.number(run.value(metric.name)) for run in self.runs)
        return [value for value in values if value is not None]


def recipes_of(runs: Sequence[Run]) -> list[Recipe]:
    """Return the recipes of runs in the order of their first runs, named by the settings in which they differ."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in run.part("settings").items() if key not in NOT_IN_RECIPE}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    names = _names([group[0] for group in groups.values()])
    return [
        Recipe(name, tuple(sorted(group, key=lambda run: numbers.number(run.value("seed")) or 0.0)))
        for name, group in zip(names, groups.values(), strict=True)
    ]


def _names(runs: Sequence[Run]) -> list[str]:
    """Return short names of runs of different recipes: the model, and as few settings as tell them apart."""
    settings = [flatten(run.part("settings")) for run in runs]
    keys = [key for key in dict.fromkeys(itertools.chain(*settings)) if key not in NOT_IN_RECIPE]
    different = [key for key in keys if len({str(of_run.get(key)) for of_run in settings}) > 1]
    names = [run.model_name for run in runs]
    for key in sorted(different, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST)):
        if len(set(names)) == len(names):
            break
        if key != "model":
            values = [numbers.text(of_run.get(key)) for of_run in settings]
            title = "" if key in _FIRST else f"{key.rpartition('.')[2].replace('_', ' ')} "
            names = [f"{name}, {title}{value}" for name, value in zip(names, values, strict=True)]
    return names


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def compared_runs(a: Recipe, b: Recipe) -> tuple[Recipe, Recipe]:
    """Return the recipes with the runs of which their differences are computed: as many of each, of different seeds.

    Runs of common seeds come first. Of several runs with one seed, only the first is used, because they do not tell how
    much other seeds vary.
    """
    by_seed = [{run.value("seed"): run for run in reversed(recipe.runs)} for recipe in (a, b)]
    common = [seed for seed in reversed(by_seed[0]) if seed in by_seed[1]]
    count = min(map(len, by_seed))
    chosen = []
    for recipe, of_seeds in zip((a, b), by_seed, strict=True):
        seeds = [*common, *(seed for seed in reversed(of_seeds) if seed not in common)]
        chosen.append(Recipe(recipe.name, tuple(of_seeds[seed] for seed in seeds[:count])))
    return chosen[0], chosen[1]


def difference(metric: Metric, a: Recipe, b: Recipe, *, confidence: float = CONFIDENCE) -> Comparison | None:
    """Compare a metric of two recipes, a minus b, by their `compared_runs`: in pairs if these have the same seeds.

    Returns None if a run has no estimates or has those of other images, or for accuracies of a classifier and of
    nearest neighbours.
    """
    a, b = compared_runs(a, b)
    estimates = [[estimate(metric, run) for run in recipe.runs] for recipe in (a, b)]
    known = [[estimate for estimate in of_recipe if estimate is not None] for of_recipe in estimates]
    methods = {run.value("accuracy_of") for recipe in (a, b) for run in recipe.runs}  # classifier or neighbours
    if any(len(of_recipe) < len(a.runs) for of_recipe in known) or (metric.name == "accuracy" and len(methods) > 1):
        return None
    if len({estimate.identities for of_recipe in known for estimate in of_recipe}) > 1:
        return None
    of_seeds = None
    if len(a.runs) > 1 and a.seeds != b.seeds:  # the order of the runs has no meaning
        values = [recipe.values(metric) for recipe in (a, b)]
        of_seeds = [(statistics.variance(of_recipe) / len(of_recipe), len(of_recipe) - 1.0) for of_recipe in values]
    return compare(*known, confidence=confidence, seed_variances=of_seeds)


def shown_best(metric: Metric, recipes: Sequence[Recipe]) -> list[bool]:
    """Return a mask with the recipe that is shown to be better than all others, if there is one.

    A difference is shown if its interval excludes 0 and each recipe has runs with two or more seeds. The confidence of
    the m - 1 intervals is 1 - 0.05 / (m - 1) each (Bonferroni), so that all of them are right with 95%.
    """
    others = len(recipes) - 1
    if others < 1 or any(len(set(recipe.seeds)) < 2 for recipe in recipes):
        return [False] * len(recipes)

    def is_better(a: Recipe, b: Recipe) -> bool:
        found = difference(metric, a, b, confidence=1 - (1 - CONFIDENCE) / others)
        return (
            found is not None
            and found.difference is not None
            and found.is_shown
            and (found.difference > 0) == (metric.better == "highest")
        )

    return [all(is_better(a, b) for b in recipes if b is not a) for a in recipes]


def estimate(metric: Metric, run: Run) -> Estimate | None:
    """Return the value of a metric without each identity or group of images, as the run saved it."""
    arrays = run.arrays(ESTIMATES_FILE)
    value = numbers.number(run.value(metric.name))
    if metric.name not in arrays or value is None:
        return None
    left_out = np.asarray(arrays[metric.name], np.float64)
    identities = tuple(arrays[f"{metric.name}.identities"].tolist())
    sample_size = int(arrays.get(f"{metric.name}.sample_size", len(identities)))
    return Estimate(value, left_out, identities, sample_size)
