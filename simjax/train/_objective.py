"""The objective of a run: its batches, its loss with a miner, and the measure that compares embeddings."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from simjax import losses, mining
from simjax.core import InputError
from simjax.pairs import Relation
from simjax.similarity import Measure, measure, unit_vectors
from simjax.train._data import SampleFunction, build_batches, has_views
from simjax.train._learner import Learner
from simjax.train._loss_settings import LossSettings, MiningSettings
from simjax.train._objectives import MINERS, OBJECTIVES, hyper_parameters
from simjax.train._settings import Settings
from simjax.train._validation import check_options

CURRICULUM = {"hardness": 0.2, "start": 0.0, "length": 0.5}
"""Defaults of the settings of a curriculum."""


class LossInputs(NamedTuple):
    """Inputs of the loss of a step."""

    embeddings: Array  # float32 [b, e]
    labels: Array  # int32 [b]
    logits: Array | None  # float32 [b, classes] of a classifier
    loss_arguments: dict[str, Any]  # learned arguments of the loss by name, such as proxies
    key: Array  # random key of the step, for random miners
    step: Array  # number of earlier steps, int32 [], for a curriculum
    memory: mining.CrossBatchMemory | None = None  # embeddings of this and earlier batches


LossFunction = Callable[[LossInputs], tuple[Array, Array]]
"""Returns the loss and the number of correctly classified images (0 without a classifier)."""

Miner = Callable[[Array, Any, dict[str, Array], LossInputs], tuple[Array, Any, dict[str, Array]]]
"""Takes embeddings, their labels or relation, keyword arguments for the reference embeddings, and the inputs of the
loss. Returns embeddings, a relation of the selected pairs, and keyword arguments for the reference embeddings."""


class Objective(NamedTuple):
    """Loss of a training, its number of steps, and the batches that it needs."""

    images_per_step: int
    is_classifier: bool  # the loss takes logits
    has_views: bool  # a batch has two augmented views of each image; the loss is undefined for other batches
    steps_per_epoch: int  # steps that process as many images as there are training images
    steps: int  # of the whole training
    sample: SampleFunction  # returns the indices of the images of a step
    loss: LossFunction
    measure: Measure  # compares embeddings after training


def build_objective(settings: Settings, labels: np.ndarray, classes: int) -> Objective:
    """Return the objective that the settings describe; `labels` are those of the training images, int [n].

    Raises:
        InputError: If the objective does not take a setting, or a batch is too small for the samples per class.
    """
    check_options(settings)
    images_per_step, steps_per_epoch, sample = build_batches(settings, labels, classes)
    steps = total_steps(settings, steps_per_epoch)
    return Objective(
        images_per_step=images_per_step,
        is_classifier=OBJECTIVES[settings.objective].loss is None,
        has_views=has_views(settings),
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        sample=sample,
        loss=build_loss(settings, steps),
        measure=evaluation_measure(settings),
    )


def total_steps(settings: Settings, steps_per_epoch: int) -> int:
    """Return the number of steps of the whole training."""
    return settings.steps or max(1, round((settings.epochs or 1) * steps_per_epoch))


def evaluation_measure(settings: Settings) -> Measure:
    """Return the measure by which embeddings are compared after training."""
    if settings.loss.measure is not None:
        return measure(settings.loss.measure)
    if settings.loss.normalize:
        return measure(OBJECTIVES[settings.objective].measure)
    return measure("signal_to_noise" if settings.objective == "signal_to_noise_contrastive" else "euclidean")


def dry_run(objective: Objective, learner: Learner) -> None:
    """Trace the loss without computing it, so that errors of hyper-parameters are raised before training."""
    # In evaluation mode tracing does not update the statistics of batch normalization.
    learner = nnx.view(learner, use_running_average=True, raise_if_not_found=False)

    def loss(embeddings: Array) -> tuple[Array, Array]:
        logits = None if learner.head is None else learner.head(embeddings)
        labels, key = jnp.zeros(objective.images_per_step, jnp.int32), jax.random.key(0)
        memory = None if learner.memory is None else learner.memory.get_value()
        loss_arguments = learner.loss_arguments(embeddings)
        return objective.loss(LossInputs(embeddings, labels, logits, loss_arguments, key, jnp.int32(0), memory))

    jax.eval_shape(loss, jax.ShapeDtypeStruct((objective.images_per_step, learner.embedding_size), jnp.float32))


def build_loss(settings: Settings, steps: int) -> LossFunction:
    """Return the loss with its miner. `steps` are those of the whole training, for a curriculum."""
    spec = OBJECTIVES[settings.objective]
    if spec.loss is None:
        return partial(_cross_entropy, settings.loss.label_smoothing)
    if settings.loss.pairs == "random":
        return partial(_contrastive_loss_of_random_pairs, settings.loss)
    options = given_options(settings.loss, spec.loss)
    if settings.loss.reducer is not None:
        options["reducer"] = settings.loss.reducer
    if not settings.loss.normalize and spec.unit_distance:
        options["measure"] = "euclidean"
    loss = partial(spec.loss, **options)
    if spec.extra_parameters == "predictor":
        return partial(_simsiam_loss, loss)
    if spec.batch == "views":
        return partial(_view_loss, loss)
    return partial(_batch_loss, loss, build_miner(settings, steps), has_views(settings))


def given_options(section: LossSettings | MiningSettings, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the settings that are not None and that a loss or a miner takes, as keyword arguments."""
    options: dict[str, Any] = {}
    for name, parameter in hyper_parameters(function).items():
        value = getattr(section, name)
        if value is not None and parameter.annotation is int:
            if value != int(value):
                raise InputError(f"{name}: expected a whole number, got {value}")
            value = int(value)
        if value is not None:
            options[name] = value
    return options


def _cross_entropy(label_smoothing: float, inputs: LossInputs) -> tuple[Array, Array]:
    assert inputs.logits is not None
    targets = optax.smooth_labels(jnp.eye(inputs.logits.shape[1])[inputs.labels], label_smoothing)
    correct = jnp.sum(jnp.argmax(inputs.logits, -1) == inputs.labels)
    return optax.softmax_cross_entropy(inputs.logits, targets).mean(), correct


def _batch_loss(
    loss: Callable[..., Array], mine: Miner | None, has_views: bool, inputs: LossInputs
) -> tuple[Array, Array]:
    """Compute a loss of the pairs, triplets or proxies of a batch."""
    embeddings, labels = inputs.embeddings, inputs.labels
    if has_views:
        labels = jnp.tile(jnp.arange(len(labels) // 2, dtype=jnp.int32), 2)
    relation: Array | Relation = labels
    references: dict[str, Array] = {}
    if inputs.memory is not None:
        relation, references = mining.against(inputs.memory, labels), {"ref_embeddings": inputs.memory.embeddings}
    if mine is not None:
        embeddings, relation, references = mine(embeddings, relation, references, inputs)
    return loss(embeddings, relation, **references, **inputs.loss_arguments), jnp.zeros(())


def _view_loss(loss: Callable[..., Array], inputs: LossInputs) -> tuple[Array, Array]:
    return loss(*jnp.split(inputs.embeddings, 2), **inputs.loss_arguments), jnp.zeros(())


def _simsiam_loss(loss: Callable[..., Array], inputs: LossInputs) -> tuple[Array, Array]:
    (x, y), (from_x, from_y) = jnp.split(inputs.embeddings, 2), jnp.split(inputs.loss_arguments["prediction"], 2)
    return loss(from_x, y, other_prediction=from_y, other_projection=x), jnp.zeros(())


def _contrastive_loss_of_random_pairs(settings: LossSettings, inputs: LossInputs) -> tuple[Array, Array]:
    """Compute the contrastive loss of the pairs of row i and row i + b / 2."""
    embeddings, labels = inputs.embeddings, inputs.labels
    if settings.normalize and settings.measure is None:
        embeddings = unit_vectors(embeddings)
    distance = measure(settings.measure or "euclidean")(*jnp.split(embeddings, 2))
    same = jnp.equal(*jnp.split(labels, 2))
    options = given_options(settings, losses.contrastive_loss)
    options.pop("measure", None)
    return losses.contrastive_terms(distance, same, **options).mean(), jnp.zeros(())


def build_miner(settings: Settings, steps: int) -> Miner | None:
    """Return the miner, or None if all pairs are used. `steps` are those of the whole training, for a curriculum."""
    if settings.mining.miner == "none":
        return None
    miner = MINERS[settings.mining.miner]
    options = given_options(settings.mining, miner)
    is_curriculum = "hardness" in hyper_parameters(miner)
    takes_measure = "measure" in hyper_parameters(miner) and settings.mining.measure is None
    if takes_measure:
        if settings.loss.measure is not None:
            options["measure"] = settings.loss.measure
        elif not settings.loss.normalize:
            options["measure"] = "euclidean"
    takes_key = "key" in inspect.signature(miner).parameters

    def mine(
        embeddings: Array, relation: Any, references: dict[str, Array], inputs: LossInputs
    ) -> tuple[Array, Any, dict[str, Array]]:
        step_options: dict[str, Any] = {"key": inputs.key} if takes_key else {}
        if takes_measure and "measure" in inputs.loss_arguments:
            step_options["measure"] = inputs.loss_arguments["measure"]
        if is_curriculum:
            step_options["hardness"] = curriculum_hardness(settings.mining, inputs.step, steps)
        mined = miner(embeddings, relation, **options | step_options | references)
        if isinstance(mined, Relation):
            return embeddings, mined, references
        anchors, centers, relation = mined  # cluster_hard compares centers of classes instead of images
        return anchors, relation, {"ref_embeddings": centers}

    return mine


def curriculum_hardness(settings: MiningSettings, step: Array, steps: int) -> Array:
    """Compute the hardness at a step: constant, then a linear increase to exactly 1, which selects all pairs."""
    given = {name: getattr(settings, name) for name in CURRICULUM}
    first, start, length = (CURRICULUM[name] if value is None else value for name, value in given.items())
    progress = jnp.clip((step - start * steps) / max(length * steps, 1), 0.0, 1.0)
    return 1 - (1 - first) * (1 - progress)
