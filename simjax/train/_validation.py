"""Validation of settings before anything is read or written: ranges, and settings that would have no effect."""

import dataclasses
import operator
from collections.abc import Callable
from math import inf
from typing import Any

from simjax.core import InputError
from simjax.similarity import measure
from simjax.train._objectives import MINERS, OBJECTIVES, settings_of_miner, settings_of_objective
from simjax.train._settings import EnsembleSettings, Settings

Range = tuple[Callable[[float], bool], str]

_POSITIVE: Range = (lambda value: 0 < value < inf, "a number above 0")
_NOT_NEGATIVE: Range = (lambda value: value >= 0, "0 or more")
_FINITE: Range = (lambda value: 0 <= value < inf, "0 or more")
_AT_LEAST_2: Range = (lambda value: value >= 2, "at least 2")
_BELOW_1: Range = (lambda value: 0 <= value < 1, "0 or more, below 1")
_SHARE: Range = (lambda value: 0 <= value <= 1, "0 to 1")

RANGES: dict[str, Range] = {
    "epochs": _POSITIVE,
    "steps": _POSITIVE,
    "embedding_size": _POSITIVE,
    "seed": (lambda value: 0 <= value < 2**32, "0 to 4294967295"),
    "batch_size": _AT_LEAST_2,
    "checkpoint_seconds": _NOT_NEGATIVE,
    "cache_gigabytes": _NOT_NEGATIVE,
    "vit.patch_size": _POSITIVE,
    "vit.width": _POSITIVE,
    "vit.depth": _POSITIVE,
    "vit.heads": _POSITIVE,
    "vit.mlp_ratio": _POSITIVE,
    "loss.margin": _POSITIVE,
    "loss.parameters_rate": _POSITIVE,
    "loss.centers": _POSITIVE,
    "loss.temperature": _POSITIVE,
    "loss.label_smoothing": _BELOW_1,
    "loss.samples_per_class": _AT_LEAST_2,
    "mining.hardness": _SHARE,
    "mining.start": _SHARE,
    "mining.length": _SHARE,
    "ensemble.size": (lambda value: value >= 1, "at least 1"),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.warmup": _BELOW_1,
    "optimizer.clip_norm": _NOT_NEGATIVE,
    "augment.shift": _FINITE,
    "augment.rotation": _FINITE,
    "augment.scale": _FINITE,
    "data.max_pixels": _POSITIVE,
    "data.validation_fraction": (lambda value: 0 <= value < 0.9, "0 to 0.9"),
}


def validate(settings: Settings) -> None:
    """Check everything that can be checked without data: ranges, and see `check_options`.

    Raises:
        InputError: The message names the setting.
    """
    _check_ranges(settings)
    check_options(settings)


def check_options(settings: Settings) -> None:
    """Check that the objective and the miner take the given settings, and that the settings can be combined.

    Raises:
        InputError: The message names the setting, and the objectives or miners that take it.
    """
    _check_settings_are_taken(settings)
    _check_combinations(settings)


def _check_ranges(settings: Settings) -> None:
    for name, (is_valid, expected) in RANGES.items():
        value = operator.attrgetter(name)(settings)
        _require(name, value is None or is_valid(value), expected, value)
    for name, widths in (("cnn.widths", settings.cnn.widths), ("dnn.widths", settings.dnn.widths)):
        _require(name, widths and min(widths) >= 1, "one or more numbers above 0", list(widths))
    size = settings.data.image_size
    for side in size if isinstance(size, tuple) else (size,):
        _require("data.image_size", side is None or side > 0, _POSITIVE[1], side)
    if settings.data.input_range is not None:
        low, high = settings.data.input_range
        is_valid = -inf < low < high < inf
        _require("data.input_range", is_valid, f"less than the highest value, {high}", low)
    memory = settings.loss.memory
    _require("loss.memory", memory == 0 or memory >= settings.batch_size, "0, or at least the batch size", memory)
    if settings.ensemble.size == 1 and settings.ensemble != EnsembleSettings():
        raise InputError(
            "setting 'ensemble.size': expected 2 or more if other settings of an ensemble are given, got 1"
        )


def _require(name: str, is_valid: Any, expected: str, value: Any) -> None:
    if not is_valid:
        raise InputError(f"setting {name!r}: expected {expected}, got {value}")


def _check_settings_are_taken(settings: Settings) -> None:
    objective, miner = settings.objective, settings.mining.miner
    for name in _changed(settings.loss):
        if name not in settings_of_objective(objective):
            takers = [other for other in OBJECTIVES if name in settings_of_objective(other)]
            raise _not_taken(f"loss.{name}", f"the objective {objective}", takers)
    has_random_pairs = settings.loss.pairs == "random"
    if miner != "none" and (has_random_pairs or not OBJECTIVES[objective].mined):
        refusing = "random pairs" if has_random_pairs else f"the objective {objective}"
        raise _not_taken("mining.miner", refusing, [name for name, spec in OBJECTIVES.items() if spec.mined])
    for name in _changed(settings.mining):
        if name != "miner" and name not in settings_of_miner(miner):
            takers = [other for other in MINERS if name in settings_of_miner(other)]
            raise _not_taken(f"mining.{name}", f"the miner {miner}", takers)


def _changed(section: Any) -> list[str]:
    """Return the names of the fields that do not have their default value."""
    return [field.name for field in dataclasses.fields(section) if getattr(section, field.name) != field.default]


def _not_taken(name: str, refusing: str, takers: list[str]) -> InputError:
    return InputError(f"setting {name!r}: not taken by {refusing}, but by {', '.join(takers)}")


def _check_combinations(settings: Settings) -> None:
    loss = settings.loss
    views, random_pairs = loss.positives == "views", loss.pairs == "random"
    if (views or OBJECTIVES[settings.objective].batch == "views") and not settings.augment.enabled:
        raise InputError("setting 'augment.enabled': two views of an image differ by augmentation only, got False")
    no_classes = "with loss.positives='views' or loss.pairs='random' a batch has no classes"
    shuffled, samples = loss.batches == "shuffled", loss.samples_per_class is not None
    cluster_hard = settings.mining.miner == "cluster_hard"
    for name, is_excluded, reason in (
        ("loss.batches", shuffled and (views or random_pairs), no_classes),
        ("loss.samples_per_class", samples and shuffled, "shuffled batches have no fixed number of images per class"),
        ("loss.samples_per_class", samples and (views or random_pairs), no_classes),
        ("loss.pairs", random_pairs and views, no_classes),
        ("loss.boundary", loss.boundary == "classes" and views, no_classes),
        ("loss.memory", loss.memory and cluster_hard, "the miner cluster_hard compares the centers of the classes"),
        ("loss.memory", loss.memory and (views or random_pairs), no_classes),
        ("loss.reducer", loss.reducer is not None and random_pairs, "loss.pairs='random' takes the mean"),
        ("loss.normalize", not loss.normalize and loss.measure is not None, "loss.measure defines the comparison"),
    ):
        if is_excluded:
            raise InputError(f"setting {name!r}: {reason}")
    for name, value in (("loss.measure", loss.measure), ("mining.measure", settings.mining.measure)):
        if value is not None:
            try:
                measure(value)
            except InputError as error:
                raise InputError(f"setting {name!r}: {error}") from None
