"""Data of a run: training, validation and test images, and the images of each step."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError
from simjax.data import (
    Dataset,
    class_table,
    has_test_folder,
    load,
    resolve_folders,
    sample_m_per_class,
    sample_pairs,
    split_name,
    statistics,
)
from simjax.encoder import PRETRAINED, PRETRAINED_PREPROCESSING
from simjax.train._objectives import OBJECTIVES
from simjax.train._progress import PreparationDisplay
from simjax.train._settings import Reading, Settings

MIN_PAIRS = 10
"""Minimum number of positive and of negative validation pairs for choosing a threshold. With fewer pairs, a threshold
chosen on training images gave a higher verification accuracy (embedded digits, 8 to 30 images per class)."""
MIN_CLASS_SIZE = 4
"""Classes with at least this many training images have at least two validation images."""


class DataSplits(NamedTuple):
    """Images of a run."""

    train: Dataset
    validation: Dataset  # split off from the training images; may be empty
    test: Dataset  # used for the final evaluation only
    known_classes: bool  # training images have the classes of the test images, with the same labels
    fingerprint: str  # hash of all images and labels, equal for runs on the same data
    known_validation_classes: bool = True  # training images have the classes of the validation images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = (int(size) for size in self.train.images.shape[1:])
        return height, width, channels


class Normalization(NamedTuple):
    """Scaling of uint8 images to the input of the network: (image / 255 - mean) / std, per channel."""

    mean: Array
    std: Array

    @classmethod
    def of(cls, mean: ArrayLike, std: ArrayLike) -> "Normalization":
        """Return the scaling to mean 0 and standard deviation 1, given those of image / 255, [c] each."""
        return cls(*jax.device_put((np.asarray(mean, np.float32), np.asarray(std, np.float32))))

    @classmethod
    def unit(cls, channels: int) -> "Normalization":
        """Return the scaling to [0, 1]."""
        return cls.of(np.zeros(channels), np.ones(channels))


def build_normalization(settings: Settings, splits: DataSplits) -> Normalization:
    """Return the scaling that the settings name, computed from the training images, or that of a pretrained network."""
    if settings.model == PRETRAINED:
        return Normalization.of(np.array(PRETRAINED_PREPROCESSING.mean), np.array(PRETRAINED_PREPROCESSING.std))
    if settings.data.scaling == "unit":
        return Normalization.unit(splits.image_shape[2])
    return Normalization.of(*statistics(splits.train.images))


SampleFunction = Callable[[Array, Array, Array], Array]
"""Takes a key, the step and the image indices of the epoch in random order [n]. Returns those of the batch, [b]."""


def build_batches(settings: Settings, labels: np.ndarray, classes: int) -> tuple[int, int, SampleFunction]:
    """Return the number of images per step, the number of steps per epoch, and the function that samples a batch.

    `labels` are those of the training images, int [n]. A batch that is too small for the samples per class is an error.
    """
    n = len(labels)
    batch = min(settings.batch_size, n)
    if settings.loss.pairs == "random":
        return 2 * batch, -(-n // batch), lambda key, step, order: jnp.concatenate(sample_pairs(key, n, batch))

    views = 2 if has_views(settings) else 1
    if views == 2 or OBJECTIVES[settings.objective].batch == "images" or settings.loss.batches == "shuffled":
        steps = max(1, n // batch)

        def sample_in_order(key: Array, step: Array, order: Array) -> Array:
            return jnp.tile(order[(step % steps) * batch + jnp.arange(batch)], views)

        return views * batch, steps, sample_in_order

    per_class = settings.loss.samples_per_class
    classes_per_batch = min(len(np.unique(labels)), batch // (per_class or 4))
    if classes_per_batch < 2 and per_class is None:
        raise InputError(f"batch_size: a batch of {batch} cannot hold 4 images of 2 classes each, give 8 or more")
    if classes_per_batch < 2:
        raise InputError(
            f"loss.samples_per_class: a batch of {batch} cannot hold {per_class} images of 2 classes each, give at "
            f"most {batch // 2}"
        )
    m = per_class or batch // classes_per_batch
    table, images = class_table(labels, classes), m * classes_per_batch
    steps = max(1, n // images)
    return images, steps, lambda key, step, order: sample_m_per_class(key, table, classes_per_batch, m)


def has_views(settings: Settings) -> bool:
    """Return whether a batch consists of two augmented views of each image, one half of the batch each."""
    return OBJECTIVES[settings.objective].batch == "views" or settings.loss.positives == "views"


def load_splits(settings: Settings, start: Path = Path()) -> DataSplits:
    """Read the images that the settings name.

    `start` is the folder for relative paths that exist there. Others are relative to the working directory.
    """
    s, data = settings, settings.data
    # Names of folders that do not exist under `start` stay as they are.
    test_dataset = None if s.test_dataset is None else resolve_folders(s.test_dataset, start)
    s = dataclasses.replace(s, dataset=resolve_folders(s.dataset, start), test_dataset=test_dataset)
    if s.data_dir is not None and os.path.isdir(folder := start / os.path.expanduser(s.data_dir)):
        s = dataclasses.replace(s, data_dir=str(folder))
    needs_classes = not has_views(s)
    options: dict[str, Any] = {field.name: getattr(data, field.name) for field in dataclasses.fields(Reading)}
    options |= {"cache_gigabytes": s.cache_gigabytes, "progress": PreparationDisplay(), "needs_classes": needs_classes}

    # If the test images come from elsewhere, all images of a folder without a test folder are training images.
    kind, _, path = split_name(s.dataset)[0].partition(":")
    use_all = s.test_dataset is not None and kind == "folder" and not has_test_folder(path)
    whole = load(s.dataset, "all" if use_all else "train", s.data_dir, **options)
    if needs_classes and len(np.unique(whole.labels)) < 2:
        raise InputError(f"dataset {s.dataset}: expected images of at least 2 classes")
    test, known = _load_test(s, whole, options)
    if len(test.labels) == 0:
        raise InputError(f"dataset {s.test_dataset or s.dataset}: has no test images")

    # Validation images of a single class would show neither an accuracy nor a threshold.
    fraction = data.validation_fraction if len(whole.class_names) > 1 else 0.0
    is_validation, known_validation_classes = _stratified_mask(whole.labels, fraction), True
    if fraction and not known and count_verification_pairs(whole.labels[is_validation]) < MIN_PAIRS:
        of_classes = _whole_classes_mask(whole.labels)
        if of_classes.any():
            is_validation, known_validation_classes = of_classes, False
    train, validation = subset(whole, ~is_validation), subset(whole, is_validation)
    if data.train_fraction < 1:
        train = subset(train, _stratified_mask(train.labels, data.train_fraction))
    digest = hashlib.sha256()
    for dataset in (train, validation, test):
        digest.update(str((dataset.images.shape, dataset.class_names)).encode())
        digest.update(np.ascontiguousarray(dataset.images).data)
        digest.update(np.ascontiguousarray(dataset.labels).data)
    return DataSplits(train, validation, test, known, digest.hexdigest()[:16], known_validation_classes)


def _load_test(settings: Settings, train: Dataset, options: dict[str, Any]) -> tuple[Dataset, bool]:
    """Return the test images, and whether training images have their classes."""
    s = settings
    if s.test_dataset is None:
        return load(s.dataset, "test", s.data_dir, **options), True
    # All images of a test folder are test images; a named data set has a test split.
    split = "all" if s.test_dataset.startswith("folder:") else "test"
    height, width, channels = (int(size) for size in train.images.shape[1:])
    options = options | {"needs_classes": True, "image_size": (height, width), "channels": channels}
    test = load(s.test_dataset, split, s.data_dir, **options)
    if not set(test.class_names) <= set(train.class_names):
        return test, False
    train_labels = np.array([train.class_names.index(name) for name in test.class_names], np.int32)
    return test._replace(labels=train_labels[test.labels], class_names=train.class_names), True


def count_verification_pairs(labels: np.ndarray) -> int:
    """Return the number of positive pairs or the number of negative pairs, whichever is smaller."""
    counts = np.unique(labels, return_counts=True)[1]
    positives = int(np.sum(counts * (counts - 1) // 2))
    return min(positives, len(labels) * (len(labels) - 1) // 2 - positives)


def threshold_source(splits: DataSplits) -> tuple[str | None, str]:
    """Return the images on which the verification threshold is chosen, and a sentence for the report.

    The images are "validation", "train", or None if training images have no positive or no negative pairs.
    """
    images, pairs = len(splits.validation.labels), count_verification_pairs(splits.validation.labels)
    if pairs >= MIN_PAIRS:
        unknown = "" if splits.known_validation_classes else ", of classes without training images"
        return "validation", f"the verification threshold is chosen on {images:,} validation images{unknown}"
    reason = "there are no validation images"
    if images:
        reason = (
            f"{images:,} validation images give too few pairs of one class or of two ({pairs} instead of {MIN_PAIRS})"
        )
    if count_verification_pairs(splits.train.labels) == 0:
        return None, f"there is no verification threshold: {reason}, and training images give none"
    return "train", (
        f"the verification threshold is chosen on training images, which the encoder has already seen, because {reason}"
        "; more images per class or a larger `data.validation_fraction` would give more pairs"
    )


def _stratified_mask(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Return a mask of a share of every class, at least two images of a class with `MIN_CLASS_SIZE` images.

    The choice does not depend on the seed of the run.
    """
    random = np.random.default_rng(0)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(len(members) * fraction)
        if fraction and len(members) >= MIN_CLASS_SIZE:
            count = max(count, 2)
        mask[random.permutation(members)[:count]] = True
    return mask


def _whole_classes_mask(labels: np.ndarray) -> np.ndarray:
    """Return a mask of all images of the smallest number of classes with `MIN_PAIRS`.

    The mask is empty if that is more than a quarter of the classes.
    """
    classes, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(0).permutation(len(classes))[: len(classes) // 4]
    images, positives = np.cumsum(counts[order]), np.cumsum(counts[order] * (counts[order] - 1) // 2)
    enough = np.minimum(positives, images * (images - 1) // 2 - positives) >= MIN_PAIRS
    last = int(np.argmax(enough)) + 1 if enough.any() else 0
    return np.isin(labels, classes[order[:last]])


def subset(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """Return the images of a data set where a boolean mask [n] is True."""
    paths = None if dataset.paths is None else dataset.paths[mask]
    return dataset._replace(images=dataset.images[mask], labels=dataset.labels[mask], paths=paths)
