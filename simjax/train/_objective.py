"""Objectives: which images a step sees, and what is asked of their embeddings."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from simjax.core import InputError
from simjax.data import class_table, sample_m_per_class, sample_pairs
from simjax.losses import contrastive_loss, contrastive_terms, triplet_margin_loss
from simjax.mining import batch_hard, semi_hard
from simjax.similarity import Measure, measure, unit_vectors
from simjax.train._settings import Settings

MINERS = {"hard": batch_hard, "semi_hard": semi_hard}


class Objective(NamedTuple):
    """One way to learn.

    Attributes:
        images: in a step.
        classifies: whether the loss reads logits.
        steps_per_epoch: so that as many images are seen as there are.
        sample: of a key, the step and the epoch's order of the images, the indices of the step's images.
        loss: of embeddings, logits or None, and labels: the loss, and how many were classified rightly.
        measure: by which the embeddings are meant to be compared.
    """

    images: int
    classifies: bool
    steps_per_epoch: int
    sample: Callable[[Array, Array, Array], Array]
    loss: Callable[[Array, Array | None, Array], tuple[Array, Array]]
    measure: Measure


def build_objective(settings: Settings, labels: np.ndarray, classes: int) -> Objective:
    """The objective that completed settings describe, for training images of these labels.

    Raises:
        InputError: if a batch cannot hold the samples per class that are asked for.
    """
    n = len(labels)
    batch = min(settings.batch_size, n)
    steps = max(1, n // batch)
    loss = settings.loss
    if settings.objective == "softmax":

        def in_order(key: Array, step: Array, order: Array) -> Array:
            del key  # the epoch's order is random already
            return order[(step % steps) * batch + jnp.arange(batch)]

        def cross_entropy(embeddings: Array, logits: Array | None, y: Array) -> tuple[Array, Array]:
            del embeddings
            assert logits is not None
            targets = optax.smooth_labels(jnp.eye(classes)[y], loss.label_smoothing)
            return optax.softmax_cross_entropy(logits, targets).mean(), jnp.sum(jnp.argmax(logits, -1) == y)

        return Objective(batch, True, steps, in_order, cross_entropy, measure("cosine"))

    compared = measure("cosine" if loss.normalise else "euclidean")
    margin = loss.margin or 0.0
    form = loss.form or "linear"

    if settings.objective == "contrastive" and loss.pairs == "random":

        def pairs(key: Array, step: Array, order: Array) -> Array:
            del step, order
            return jnp.concatenate(sample_pairs(key, n, batch))

        def pair_loss(embeddings: Array, logits: Array | None, y: Array) -> tuple[Array, Array]:
            del logits
            e = unit_vectors(embeddings) if loss.normalise else embeddings
            half = y.shape[0] // 2
            same = y[:half] == y[half : 2 * half]
            distance = measure("euclidean")(e[:half], e[half : 2 * half])
            return contrastive_terms(distance, same, margin=margin, form=form).mean(), jnp.zeros(())

        return Objective(2 * batch, False, -(-n // batch), pairs, pair_loss, compared)

    per_class, classes_per_batch = _class_batch(settings, batch, labels)
    table = class_table(labels, classes)

    def classes_and_samples(key: Array, step: Array, order: Array) -> Array:
        del step, order
        return sample_m_per_class(key, table, classes_per_batch, per_class)

    def metric_loss(embeddings: Array, logits: Array | None, y: Array) -> tuple[Array, Array]:
        del logits
        e = unit_vectors(embeddings) if loss.normalise else embeddings
        if settings.objective == "contrastive":
            return contrastive_loss(e, y, margin=margin, form=form, measure="euclidean"), jnp.zeros(())
        related = y if loss.mining == "all" else MINERS[loss.mining](e, y, measure="euclidean")
        return triplet_margin_loss(e, related, margin=margin, measure="euclidean"), jnp.zeros(())

    images = per_class * classes_per_batch
    return Objective(images, False, max(1, n // images), classes_and_samples, metric_loss, compared)


def _class_batch(settings: Settings, batch: int, labels: np.ndarray) -> tuple[int, int]:
    """Samples of a class and classes in a batch."""
    classes = len(np.unique(labels))
    per_class = settings.loss.samples_per_class
    if per_class is None:
        in_batch = min(classes, batch // 4)
        if in_batch < 2:
            raise InputError(f"batch_size: a batch of {batch} cannot hold 4 images of 2 classes each, give 8 or more")
        return batch // in_batch, in_batch
    in_batch = min(classes, batch // per_class)
    if in_batch < 2:
        raise InputError(
            f"loss.samples_per_class: a batch of {batch} cannot hold {per_class} images of 2 classes each, "
            f"give at most {batch // 2}"
        )
    return per_class, in_batch
