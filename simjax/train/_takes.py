"""Which settings an objective and a miner take: read from the signatures of the functions themselves.

A setting that is given and not taken is an error, since it would be ignored in silence.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from simjax.core import InputError
from simjax.similarity import measure
from simjax.train._loss_settings import Loss, Mining
from simjax.train._objectives import MINERS, OBJECTIVES
from simjax.train._settings import Settings

ARGUMENTS = frozenset(
    {"embeddings", "labels", "ref_embeddings", "ref_labels", "relation"}  # data
    | {"x", "y", "prediction", "projection", "other_prediction", "other_projection"}  # of two views
    | {"proxies", "histogram", "key"}  # learned, remembered, drawn
    | {"weights", "block", "options"}  # of examples; memory; what another function takes
)
"""What functions take that is no setting."""


@functools.cache
def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The hyper-parameters of a loss or a miner, by name."""
    return {name: p for name, p in inspect.signature(function).parameters.items() if name not in ARGUMENTS}


def takes_reducer(loss: Callable[..., Any]) -> bool:
    """Whether a loss has terms to reduce; `options` are those of `losses.pair_loss` or another such loss."""
    return not {"reducer", "options"}.isdisjoint(inspect.signature(loss).parameters)


@functools.cache
def taken_by_objective(objective: str) -> frozenset[str]:
    """The fields of `Loss` that an objective takes."""
    needs = OBJECTIVES[objective]
    if needs.loss is None:
        return frozenset({"head", "label_smoothing"})
    own = parameters(needs.loss)
    others = {
        "pairs": objective == "contrastive",
        "positives": needs.batch == "classes",
        "batches": needs.batch == "classes",
        "samples_per_class": needs.batch == "classes",
        "memory": needs.mined,
        "normalise": "measure" in own and own["measure"].default == "normalized_euclidean",
        "centers": needs.learns == "centers",
        "boundary": needs.learns == "boundary",
        "reducer": takes_reducer(needs.loss),
        "learn_temperature": "temperature" in own,
        "parameters_rate": "temperature" in own or needs.learns in ("vectors", "centers", "boundary", "sigmoid"),
    }
    return frozenset({*own, *(name for name, taken in others.items() if taken)})


@functools.cache
def taken_by_miner(miner: str) -> frozenset[str]:
    """The fields of `Mining` that a miner takes."""
    schedule = {"start", "length"} if miner == "curriculum" else set()
    return frozenset({*parameters(MINERS[miner]), *schedule} if miner in MINERS else ())


def given(section: Loss | Mining, function: Callable[..., Any]) -> dict[str, Any]:
    """What the settings give to a loss or a miner, by keyword.

    Raises:
        InputError: for a fraction where the function needs a whole number.
    """
    found: dict[str, Any] = {}
    for name, parameter in parameters(function).items():
        value = getattr(section, name)
        if value is None:
            continue
        if parameter.annotation is int and value != int(value):
            raise InputError(f"{name}: expected a whole number, got {value}")
        found[name] = int(value) if parameter.annotation is int else value
    return found


def check_taken(settings: Settings) -> None:
    """What is set must be taken, and must fit together.

    Raises:
        InputError: naming the setting, and the objectives or miners that do take it.
    """
    objective, loss, mine = settings.objective, settings.loss, settings.mining
    for name in _changed(loss):
        if name not in taken_by_objective(objective):
            takers = [other for other in OBJECTIVES if name in taken_by_objective(other)]
            raise InputError(
                f"setting 'loss.{name}': not taken by the objective {objective}, but by {', '.join(takers)}"
            )
    if mine.miner != "none" and (not OBJECTIVES[objective].mined or loss.pairs == "random"):
        takers = [other for other, needs in OBJECTIVES.items() if needs.mined]
        what = "random pairs" if loss.pairs == "random" else f"the objective {objective}"
        raise InputError(f"setting 'mining.miner': not taken by {what}, but by {', '.join(takers)}")
    for name in _changed(mine):
        if name != "miner" and name not in taken_by_miner(mine.miner):
            takers = [other for other in MINERS if name in taken_by_miner(other)]
            raise InputError(
                f"setting 'mining.{name}': not taken by the miner {mine.miner}, but by {', '.join(takers)}"
            )
    _check_together(settings)


def _check_together(settings: Settings) -> None:
    loss = settings.loss
    views = loss.positives == "views"
    of_centres = settings.mining.miner == "cluster_hard"
    if (views or OBJECTIVES[settings.objective].batch == "views") and not settings.augment.enabled:
        raise InputError("setting 'augment.enabled': two views of an image differ by random changes alone, got False")
    excluded = {
        "loss.batches": (loss.batches == "shuffled", views or loss.pairs == "random"),
        "loss.samples_per_class": (
            loss.samples_per_class is not None,
            views or loss.pairs == "random" or loss.batches == "shuffled",
        ),
        "loss.pairs": (loss.pairs == "random", views),
        "loss.boundary": (loss.boundary == "classes", views),
        "loss.memory": (loss.memory != 0, views or loss.pairs == "random" or of_centres),
        "loss.reducer": (loss.reducer is not None, loss.pairs == "random"),
        "loss.normalise": (not loss.normalise, loss.measure is not None),
    }
    reason = {
        "loss.normalise": "--loss.measure says how embeddings are compared",
        "loss.reducer": "--loss.pairs random takes the mean",
    }
    if of_centres:
        reason["loss.memory"] = "the miner cluster_hard compares the centres of the batch's classes"
    if loss.batches == "shuffled":
        reason["loss.samples_per_class"] = "shuffled batches hold what comes, not so many of each class"
    for name, (is_given, is_excluded) in excluded.items():
        if is_given and is_excluded:
            why = reason.get(name, "with --loss.positives views or --loss.pairs random a batch has no classes")
            raise InputError(f"setting {name!r}: {why}")
    for name, value in (("loss.measure", loss.measure), ("mining.measure", settings.mining.measure)):
        if value is not None:
            try:
                measure(value)
            except InputError as error:
                raise InputError(f"setting {name!r}: {error}") from None


def _changed(section: Any) -> list[str]:
    """The fields that are not at their defaults."""
    return [field.name for field in dataclasses.fields(section) if getattr(section, field.name) != field.default]
