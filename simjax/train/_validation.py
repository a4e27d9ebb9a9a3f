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
from simjax.train._tensorboard import require_tensorboard

ABOVE_0 = "a number above 0"

RANGES: tuple[tuple[Callable[[float], bool], str, str], ...] = (
    (
        lambda value: 0 < value < inf,
        ABOVE_0,
        "epochs steps embedding_size vit.patch_size vit.width vit.depth vit.heads vit.mlp_ratio loss.margin "
        "loss.parameters_rate loss.measure_size loss.centers loss.temperature optimizer.learning_rate data.max_pixels",
    ),
    (
        lambda value: value >= 0,
        "0 or more",
        "checkpoint_seconds cache_gigabytes optimizer.weight_decay optimizer.clip_norm",
    ),
    (lambda value: 0 <= value < inf, "0 or more", "augment.shift augment.rotation augment.scale"),
    (lambda value: value >= 2, "at least 2", "batch_size loss.samples_per_class"),
    (lambda value: 0 <= value < 1, "0 or more, below 1", "loss.label_smoothing optimizer.warmup"),
    (lambda value: 0 <= value <= 1, "0 to 1", "augment.cutout mining.hardness mining.start mining.length"),
    (lambda value: 0 <= value < 2**32, "0 to 4294967295", "seed"),
    (lambda value: value >= 1, "at least 1", "ensemble.size"),
    (lambda value: 0 <= value < 0.9, "0 to 0.9", "data.validation_fraction"),
    (lambda value: 0 < value <= 1, "above 0, at most 1", "data.train_fraction"),
)
"""Ranges of numbers: whether a value is valid, the range in words, and the names of the settings."""


def validate(settings: Settings) -> None:
    """Check the ranges of numbers, installed packages and, by `check_options`, whether the settings fit together.

    No data is read.
    """
    _check_ranges(settings)
    check_options(settings)
    if settings.tensorboard:
        require_tensorboard()


def check_options(settings: Settings) -> None:
    """Check that the objective and the miner take the given settings, and that the settings can be combined.

    An `InputError` names the setting, and the objectives or miners that take it.
    """
    _check_settings_are_taken(settings)
    _check_combinations(settings)


def _check_ranges(settings: Settings) -> None:
    for is_valid, expected, names in RANGES:
        for name in names.split():
            value = operator.attrgetter(name)(settings)
            _require(name, value is None or is_valid(value), expected, value)
    for name, widths in (("cnn.widths", settings.cnn.widths), ("dnn.widths", settings.dnn.widths)):
        _require(name, widths and min(widths) >= 1, "one or more numbers above 0", list(widths))
    size = settings.data.image_size
    for side in size if isinstance(size, tuple) else (size,):
        _require("data.image_size", side is None or side > 0, ABOVE_0, side)
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
    for name in sorted(_changed(settings.loss) - settings_of_objective(objective)):
        takers = [other for other in OBJECTIVES if name in settings_of_objective(other)]
        raise _not_taken(f"loss.{name}", f"the objective {objective}", takers)
    has_random_pairs = settings.loss.pairs == "random"
    if miner != "none" and (has_random_pairs or not OBJECTIVES[objective].mined):
        refusing = "random pairs" if has_random_pairs else f"the objective {objective}"
        raise _not_taken("mining.miner", refusing, [name for name, spec in OBJECTIVES.items() if spec.mined])
    for name in sorted(_changed(settings.mining) - settings_of_miner(miner) - {"miner"}):
        takers = [other for other in MINERS if name in settings_of_miner(other)]
        raise _not_taken(f"mining.{name}", f"the miner {miner}", takers)


def _changed(section: Any) -> set[str]:
    """Return the names of the fields whose value is not the default."""
    return {field.name for field in dataclasses.fields(section) if getattr(section, field.name) != field.default}


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
    is_classic = settings.model == "cnn" and settings.cnn.variant == "classic"
    extra = OBJECTIVES[settings.objective].extra_parameters
    is_trained = settings.model != "logistic" or loss.learned_measure or extra in ("head", "proxies", "centers")
    for name, is_excluded, reason in (
        (
            "objective",
            not is_trained,
            f"the logistic model has no parameters to train with objective {settings.objective}; use softmax",
        ),
        ("cnn.measure", is_classic and settings.cnn.measure != "dot", "the classic network computes dot products only"),
        ("loss.batches", shuffled and (views or random_pairs), no_classes),
        ("loss.samples_per_class", samples and shuffled, "shuffled batches have no fixed number of images per class"),
        ("loss.samples_per_class", samples and (views or random_pairs), no_classes),
        ("loss.pairs", random_pairs and views, no_classes),
        ("loss.boundary", loss.boundary == "classes" and views, no_classes),
        ("loss.memory", loss.memory and cluster_hard, "the miner cluster_hard compares the centers of the classes"),
        ("loss.memory", loss.memory and (views or random_pairs), no_classes),
        ("loss.reducer", loss.reducer is not None and random_pairs, "loss.pairs='random' takes the mean"),
        ("loss.measure", loss.learned_measure and loss.measure is not None, "loss.learned_measure is the measure"),
        ("loss.learned_measure", loss.learned_measure and random_pairs, "loss.pairs='random' has a fixed measure"),
        ("loss.learned_measure", loss.learned_measure and settings.ensemble.size > 1, "an ensemble has one measure"),
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
