"""Settings of the cells of a study, so that each has the same budget by one rule."""

import bisect
import dataclasses
import math
import time
from typing import Any

import jax
from flax import nnx

from simjax.nn import count_parameters
from simjax.study._flops import forward_flops
from simjax.study._plan import Budget
from simjax.train._data import DataSplits, build_normalization
from simjax.train._learner import Learner, build_learner
from simjax.train._objective import build_objective, total_steps
from simjax.train._recipes import fill_defaults
from simjax.train._settings import Settings, network_options
from simjax.train._step import build_augmentation, build_optimizer, build_steps, initial_state

TIMED_STEPS, TIMED_CALLS = 10, 3  # of the rule "seconds"; the fastest call counts
FORWARD_PASSES = 3  # of a training step in FLOPs: the backward pass costs two
FACTORS = [2 ** (k / 8) for k in range(-32, 33)]  # of the widths, for the rule "parameters"


@dataclasses.dataclass(frozen=True)
class Match:
    """The settings of a cell and what its budget buys.

    Attributes:
        settings: Settings of the run, with the number of epochs and, for the rule "parameters", the widths.
        parameters: Number of trained parameters.
        forward_flops: FLOPs of the embedding and the classification of one image.
        training_flops: FLOPs of the whole training, `FORWARD_PASSES` times those of the images of all steps.
        steps: Number of training steps.
        is_capped: Whether the epochs are `max_epochs` instead of those that the amount buys.
    """

    settings: Settings
    parameters: int
    forward_flops: int
    training_flops: float
    steps: int
    is_capped: bool


def match(settings: Settings, budget: Budget, splits: DataSplits) -> Match:
    """Return the settings of a cell under the rule of the budget."""
    images, classes = len(splits.train.labels), len(splits.train.class_names)
    settings = fill_defaults(settings, images)
    if budget.rule == "parameters":
        settings = _with_parameters(settings, budget.amount, splits.image_shape, classes)
    learner = _abstract_learner(settings, splits.image_shape, classes)
    forward = forward_flops(learner.encoder, splits.image_shape) + _head_flops(learner)
    objective = build_objective(settings, splits.train.labels, classes)
    per_step = float(FORWARD_PASSES * forward * objective.images_per_step)
    per_epoch = per_step * objective.steps_per_epoch
    if budget.rule == "training_flops":
        epochs = budget.amount / max(per_epoch, 1)
    elif budget.rule == "seconds":
        epochs = budget.amount / _seconds_per_epoch(settings, splits)
    else:
        epochs = budget.amount if budget.rule == "epochs" else budget.max_epochs
    is_capped = budget.rule in ("training_flops", "seconds") and epochs > budget.max_epochs
    epochs = budget.max_epochs if is_capped else epochs
    settings = dataclasses.replace(settings, epochs=epochs, steps=None)
    steps = total_steps(settings, objective.steps_per_epoch)
    return Match(settings, count_parameters(learner), forward, per_step * steps, steps, is_capped)


def _head_flops(learner: Learner) -> int:
    """Count the operations of the dot products of the classifier for one image; 0 without a classifier."""
    arrays = jax.tree.leaves(nnx.state(learner.head)) if learner.head is not None else []
    return sum(2 * array.size for array in arrays if array.ndim == 2)  # the weight vectors of the classes


def _abstract_learner(settings: Settings, image_shape: tuple[int, int, int], classes: int) -> Learner:
    """Return the learner with shapes in the place of arrays."""
    return nnx.eval_shape(lambda: build_learner(settings, image_shape, classes))


def _with_parameters(settings: Settings, amount: float, image_shape: tuple[int, int, int], classes: int) -> Settings:
    """Return the settings with all widths of the network scaled to the number of parameters that is nearest."""

    def parameters(factor: float) -> int:
        return count_parameters(_abstract_learner(_scaled(settings, factor), image_shape, classes))

    above = bisect.bisect_left(FACTORS, amount, lo=1, hi=len(FACTORS) - 1, key=parameters)
    nearest = min(FACTORS[above - 1 : above + 1], key=lambda factor: abs(parameters(factor) - amount))
    return _scaled(settings, nearest)


def _scaled(settings: Settings, factor: float) -> Settings:
    """Return the settings with all widths of the network times a factor; a network without widths stays the same."""
    section = settings.model.replace("-", "_")
    options, changes = network_options(settings), {}
    if "widths" in options:
        changes["widths"] = tuple(max(1, round(factor * width)) for width in options["widths"])
    if "heads" in options:
        multiple = math.lcm(4, options["heads"])  # sincos positions need a multiple of 4
        changes["width"] = multiple * max(1, round(factor * options["width"] / multiple))
    return dataclasses.replace(settings, **{section: dataclasses.replace(getattr(settings, section), **changes)})


def _seconds_per_epoch(settings: Settings, splits: DataSplits) -> float:
    """Measure the time of an epoch by a few steps after compilation."""
    classes = len(splits.train.class_names)
    learner = build_learner(settings, splits.image_shape, classes)
    objective = build_objective(settings, splits.train.labels, classes)
    optimizer, _ = build_optimizer(settings, TIMED_STEPS * (TIMED_CALLS + 1))
    graphdef, state = initial_state(learner, optimizer, settings.seed)
    take_steps: Any = build_steps(graphdef, optimizer, objective, build_augmentation(settings), settings.dtype)
    data = jax.device_put((splits.train.images, splits.train.labels))
    order = jax.numpy.arange(len(splits.train.labels))
    normalization, seconds = build_normalization(settings, splits), []
    for _ in range(TIMED_CALLS + 1):
        begin = time.perf_counter()
        state = jax.block_until_ready(take_steps(state, TIMED_STEPS, *data, order, normalization))
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:]) / TIMED_STEPS * objective.steps_per_epoch
