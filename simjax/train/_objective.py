"""Objectives: which images a step sees, and what is asked of their embeddings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from simjax.similarity import Measure
from simjax.train._batches import batches_of, with_views
from simjax.train._learner import Learner
from simjax.train._loss_of import LossOf, Seen, compared_by, loss_of
from simjax.train._settings import Settings
from simjax.train._takes import check_taken


class Objective(NamedTuple):
    """One way to learn.

    Attributes:
        images: in a step.
        classifies: whether the loss reads logits.
        views: whether a step sees each image twice; then images as they are have no loss.
        steps_per_epoch: so that as many images are seen as there are.
        steps: of the whole training.
        sample: of a key, the step and the epoch's order of the images, the indices of the step's images.
        loss: of what the step sees: the loss, and how many were classified rightly.
        measure: by which the embeddings are meant to be compared.
    """

    images: int
    classifies: bool
    views: bool
    steps_per_epoch: int
    steps: int
    sample: Callable[[Array, Array, Array], Array]
    loss: LossOf
    measure: Measure


def build_objective(settings: Settings, labels: np.ndarray, classes: int) -> Objective:
    """The objective that completed settings describe, for training images of these labels.

    Raises:
        InputError: for a setting that the objective does not take, or if a batch cannot hold the samples per class that
            are asked for.
    """
    check_taken(settings)
    batches = batches_of(settings, labels, classes)
    steps = total_steps(settings, batches.steps_per_epoch)
    return Objective(
        images=batches.images,
        classifies=settings.objective == "softmax",
        views=with_views(settings),
        steps_per_epoch=batches.steps_per_epoch,
        steps=steps,
        sample=batches.sample,
        loss=loss_of(settings, steps),
        measure=compared_by(settings),
    )


def total_steps(settings: Settings, steps_per_epoch: int) -> int:
    """Return how many steps the whole training has."""
    return settings.steps or max(1, round((settings.epochs or 1) * steps_per_epoch))


def rehearse(objective: Objective, learner: Learner) -> None:
    """Trace the loss once, without computing it, so that a hyper-parameter out of range is found before training.

    Raises:
        InputError: from the loss or the miner.
    """

    learner = nnx.view(learner, use_running_average=True, raise_if_not_found=False)  # no statistics are kept

    def value(embeddings: Array) -> Any:
        logits = None if learner.head is None else learner.head(embeddings)
        labels, key = jnp.zeros(objective.images, jnp.int32), jax.random.key(0)
        seen = Seen(embeddings, labels, logits, learner.arguments(embeddings), key, jnp.zeros((), jnp.int32))
        if learner.memory is not None:
            seen = seen._replace(memory=learner.memory.get_value())
        return objective.loss(seen)

    jax.eval_shape(value, jax.ShapeDtypeStruct((objective.images, learner.embedding_size), jnp.float32))
