"""The images of a run: training, validation and test, and what a report must know of them."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simjax.core import InputError
from simjax.data import Dataset, has_test_folder, load, resolve_folders, split_name
from simjax.train._batches import with_views
from simjax.train._progress import PreparationDisplay
from simjax.train._settings import Reading, Settings

FEWEST_PAIRS = 10
"""Pairs of one class, and of two, from which a threshold is chosen on validation images. With fewer of them a threshold
chosen on training images verified test images better (embedded digits, 8 to 30 images a class)."""
SMALLEST_CLASS = 4
"""Training images from which a class gives two to validation: as many remain."""


class Sources(NamedTuple):
    """Images of a run.

    Attributes:
        train: what is learned from.
        validation: kept aside from the training images; may be empty.
        test: evaluated at the end, and used for nothing else.
        known_classes: whether the test images' classes are among those learned; then its labels are too.
        fingerprint: a hash of all of it, by which runs on the same data know each other.
        known_validation_classes: whether the validation images are of classes that training images have.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    known_classes: bool
    fingerprint: str
    known_validation_classes: bool = True


def load_sources(settings: Settings, start: Path = Path()) -> Sources:
    """Read the images that the settings name.

    Args:
        settings: of the run.
        start: folder from which relative paths are meant, where they exist there; otherwise the working directory is.

    Raises:
        InputError: if a source is unknown, missing or unreadable.
    """
    s, d = _with_paths_from(settings, start), settings.data
    options: dict[str, Any] = {field.name: getattr(d, field.name) for field in dataclasses.fields(Reading)}
    options |= {"cache_gigabytes": s.cache_gigabytes, "progress": PreparationDisplay()}
    options["needs_classes"] = not with_views(s)

    def read(name: str, split: str, **changes: Any) -> Dataset:
        return load(name, split, s.data_dir, **(options | changes))

    # Where the test is elsewhere, a folder that keeps no test images of its own is learned from as a whole.
    kind, _, path = split_name(s.dataset)[0].partition(":")
    everything = s.test_dataset is not None and kind == "folder" and not has_test_folder(path)
    whole = read(s.dataset, "all" if everything else "train")
    if options["needs_classes"] and len(np.unique(whole.labels)) < 2:
        raise InputError(f"dataset {s.dataset}: expected images of at least 2 classes")
    shape = whole.images.shape[1:]
    if s.test_dataset is None:
        test, known = read(s.dataset, "test"), True
    else:
        # A folder given for the test is a test as a whole; a named set has a test split.
        split = "all" if s.test_dataset.startswith("folder:") else "test"
        size = {"image_size": (int(shape[0]), int(shape[1])), "channels": int(shape[2])}
        test = read(s.test_dataset, split, needs_classes=True, **size)
        known = set(test.class_names) <= set(whole.class_names)
        if known:
            places = np.array([whole.class_names.index(name) for name in test.class_names], np.int32)
            test = Dataset(test.images, places[test.labels], whole.class_names)
    if len(test.labels) == 0:
        raise InputError(f"dataset {s.test_dataset or s.dataset}: has no test images")
    # Without classes nothing could be read from validation images.
    fraction = d.validation_fraction if len(whole.class_names) > 1 else 0.0
    aside = _share_of_every_class(whole.labels, fraction)
    known_validation_classes = True
    if fraction and not known and verification_pairs(whole.labels[aside]) < FEWEST_PAIRS:
        classes = _whole_classes(whole.labels)
        if classes.any():
            aside, known_validation_classes = classes, False
    train, validation = some_of(whole, ~aside), some_of(whole, aside)
    fingerprint = _fingerprint(train, validation, test)
    return Sources(train, validation, test, known, fingerprint, known_validation_classes)


def _with_paths_from(settings: Settings, start: Path) -> Settings:
    s = settings
    tested = None if s.test_dataset is None else resolve_folders(s.test_dataset, start)
    prepared = None if s.data_dir is None else start / Path(s.data_dir).expanduser()
    data_dir = str(prepared) if prepared is not None and prepared.is_dir() else s.data_dir
    return dataclasses.replace(s, dataset=resolve_folders(s.dataset, start), test_dataset=tested, data_dir=data_dir)


def verification_pairs(labels: np.ndarray) -> int:
    """Return how many pairs of one class there are, or of two classes if those are fewer."""
    counts = np.unique(labels, return_counts=True)[1]
    same = int(np.sum(counts * (counts - 1) // 2))
    return min(same, len(labels) * (len(labels) - 1) // 2 - same)


def threshold_source(sources: Sources) -> tuple[str | None, str]:
    """Return the images on which the threshold of verification is chosen, and a sentence that says so.

    Returns:
        "validation", "train", or None where no two training images make a pair.
    """
    images, pairs = len(sources.validation.labels), verification_pairs(sources.validation.labels)
    if pairs >= FEWEST_PAIRS:
        aside = "" if sources.known_validation_classes else ", whose classes training images do not have"
        return "validation", f"the threshold of verification rests on {images:,} validation images{aside}"
    reason = f"{images:,} validation images give {pairs} pairs of one class or of two, fewer than {FEWEST_PAIRS}"
    if verification_pairs(sources.train.labels) == 0:
        return None, f"there is no threshold of verification: {reason}, and training images give none"
    return "train", (
        f"the threshold of verification rests on training images, which the encoder knows: {reason}; more images a "
        "class or a larger data.validation_fraction would give more"
    )


def _share_of_every_class(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Mark a share of every class, two images or more where the class has `SMALLEST_CLASS`.

    They are always the same images, whatever the run's seed.
    """
    random = np.random.default_rng(0)
    aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(len(members) * fraction)
        if fraction and len(members) >= SMALLEST_CLASS:
            count = max(count, 2)
        aside[random.permutation(members)[:count]] = True
    return aside


def _whole_classes(labels: np.ndarray) -> np.ndarray:
    """Mark all images of as many classes as give enough pairs; of none if that takes more than a quarter of them."""
    classes, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(0).permutation(len(classes))[: len(classes) // 4]
    images, same = np.cumsum(counts[order]), np.cumsum(counts[order] * (counts[order] - 1) // 2)
    enough = np.minimum(same, images * (images - 1) // 2 - same) >= FEWEST_PAIRS
    last = int(np.argmax(enough)) + 1 if enough.any() else 0
    return np.isin(labels, classes[order[:last]])


def some_of(data: Dataset, rows: np.ndarray) -> Dataset:
    """The images that booleans [n] mark."""
    return Dataset(data.images[rows], data.labels[rows], data.class_names)


def _fingerprint(*parts: Dataset) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str((part.images.shape, part.class_names)).encode())
        digest.update(np.ascontiguousarray(part.images).data)
        digest.update(np.ascontiguousarray(part.labels).data)
    return digest.hexdigest()[:16]
