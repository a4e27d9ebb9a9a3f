"""The images of a run: training, validation and test, and what a report must know of them."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import numpy as np

from simjax.core import InputError
from simjax.data import Dataset, has_test_folder, load, split_name
from simjax.train._batches import with_views
from simjax.train._progress import PreparationDisplay
from simjax.train._settings import Reading, Settings


class Sources(NamedTuple):
    """Images of a run.

    Attributes:
        train: what is learned from.
        validation: kept aside from the training images; may be empty.
        test: evaluated at the end, and used for nothing else.
        known_classes: whether the test images' classes are among those learned; then its labels are too.
        fingerprint: a hash of all of it, by which runs on the same data know each other.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    known_classes: bool
    fingerprint: str


def load_sources(settings: Settings) -> Sources:
    """Read the images that the settings name.

    Raises:
        InputError: if a source is unknown, missing or unreadable.
    """
    s, d = settings, settings.data
    options: dict[str, Any] = {field.name: getattr(d, field.name) for field in dataclasses.fields(Reading)}
    options |= {"progress": PreparationDisplay(), "needs_classes": not with_views(s)}

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
    train, validation = _split(whole, d.validation_fraction if len(whole.class_names) > 1 else 0.0)
    return Sources(train, validation, test, known, _fingerprint(train, validation, test))


def _split(data: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Keep a share of every class aside, always the same images whatever the run's seed."""
    random = np.random.default_rng(0)
    aside = np.zeros(len(data.labels), bool)
    for label in np.unique(data.labels):
        members = np.flatnonzero(data.labels == label)
        aside[random.permutation(members)[: int(len(members) * fraction)]] = True
    return some_of(data, ~aside), some_of(data, aside)


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
