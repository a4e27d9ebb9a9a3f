"""Which images a step sees: of a key, the step and the epoch's order, their indices."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from simjax.core import InputError
from simjax.data import class_table, sample_m_per_class, sample_pairs
from simjax.train._objectives import OBJECTIVES
from simjax.train._settings import Settings


class Batches(NamedTuple):
    """The batches of a run.

    Attributes:
        images: in a step.
        steps_per_epoch: so that as many images are seen as there are.
        sample: of a key, the step and the epoch's order of the images, the indices of the step's images [images].
    """

    images: int
    steps_per_epoch: int
    sample: Callable[[Array, Array, Array], Array]


def batches_of(settings: Settings, labels: np.ndarray, classes: int) -> Batches:
    """The batches that an objective needs, of training images of these labels.

    Raises:
        InputError: if a batch cannot hold the samples per class that are asked for.
    """
    n = len(labels)
    batch = min(settings.batch_size, n)
    if settings.loss.pairs == "random":
        return _random_pairs(n, batch)
    if with_views(settings):
        return _in_order(n, batch, times=2)
    if OBJECTIVES[settings.objective].batch == "classes" and settings.loss.batches == "classes":
        return _of_classes(settings, labels, classes, batch)
    return _in_order(n, batch)


def with_views(settings: Settings) -> bool:
    """Whether a step sees each of its images twice: the first half of a batch in one way, the second in another."""
    return OBJECTIVES[settings.objective].batch == "views" or settings.loss.positives == "views"


def _in_order(n: int, batch: int, times: int = 1) -> Batches:
    steps = max(1, n // batch)

    def sample(key: Array, step: Array, order: Array) -> Array:
        del key  # the epoch's order is random already
        return jnp.tile(order[(step % steps) * batch + jnp.arange(batch)], times)

    return Batches(times * batch, steps, sample)


def _random_pairs(n: int, batch: int) -> Batches:
    def sample(key: Array, step: Array, order: Array) -> Array:
        del step, order
        return jnp.concatenate(sample_pairs(key, n, batch))

    return Batches(2 * batch, -(-n // batch), sample)


def _of_classes(settings: Settings, labels: np.ndarray, classes: int, batch: int) -> Batches:
    per_class, classes_per_batch = _class_batch(settings, batch, labels)
    table = class_table(labels, classes)
    images = per_class * classes_per_batch

    def sample(key: Array, step: Array, order: Array) -> Array:
        del step, order
        return sample_m_per_class(key, table, classes_per_batch, per_class)

    return Batches(images, max(1, len(labels) // images), sample)


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
