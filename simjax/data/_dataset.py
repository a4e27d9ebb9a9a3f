"""A data set in memory: its type, its split into training and test images, the embedded digits, and export as PNG."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simjax._files import absolute_path, move_folder, reason_of, temporary_folder
from simjax.core import InputError, suggestion

SEED = 0
TEST_FRACTION = 0.25

Progress = Callable[[str, int, int], None]
"""A function that is called with a description of the current work, the amount done, and the total amount."""


class Dataset(NamedTuple):
    """Labelled images of one size.

    Attributes:
        images: uint8 [n, h, w, c] with c = 1 or 3.
        labels: int32 [n] in 0 .. len(class_names) - 1.
        class_names: The name of each label.
        paths: Strings [n], the path of the file of each image below the folder of the data set, with slashes; "" for an
            image that comes from no file. None if no image comes from a file.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    paths: np.ndarray | None = None


def select(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """Return the images of a data set with the indices `rows`, int [m], or with a mask, bool [n]."""
    paths = None if dataset.paths is None else dataset.paths[rows]
    return dataset._replace(images=dataset.images[rows], labels=dataset.labels[rows], paths=paths)


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Concatenate data sets that have the same image shape and the same classes."""
    images, labels = (np.concatenate(arrays) for arrays in zip(*(d[:2] for d in datasets), strict=True))
    return Dataset(images, labels, datasets[0].class_names, concatenate_paths(datasets))


def concatenate_paths(datasets: Sequence[Dataset], prefixes: Sequence[str] | None = None) -> np.ndarray | None:
    """Return the paths of the images of all data sets, each after the prefix of its data set and a slash, if given."""
    if all(dataset.paths is None for dataset in datasets):
        return None
    paths: list[str] = []
    for number, dataset in enumerate(datasets):
        prefix = "" if prefixes is None else f"{prefixes[number]}/"
        own = [""] * len(dataset.labels) if dataset.paths is None else dataset.paths.tolist()
        paths += [path and f"{prefix}{path}" for path in own]
    return np.array(paths, np.str_)


def stratified_split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the images of every class into 75% for training and 25% for the test, with a fixed seed.

    Every class has at least one training image, and at least one test image if it has two images. The results are the
    indices of the training images and of the test images, both ascending.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1, 2])
        >>> train, test = stratified_split(labels)
        >>> len(train), len(test), np.bincount(labels[train]).tolist()
        (5, 2, [3, 1, 1])
    """
    rng = np.random.default_rng(SEED)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: min(max(round(len(members) * TEST_FRACTION), 1), len(members) - 1)]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def select_classes(dataset: Dataset, classes: str) -> Dataset:
    """Select the images of some classes and renumber the labels.

    `classes` has names of classes, labels, or ranges of labels such as 0-7, separated by commas.

    Example:
        >>> data = Dataset(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 2, 2], np.int32), ("cat", "dog", "owl"))
        >>> selected = select_classes(data, "owl,0")
        >>> selected.labels.tolist(), selected.class_names
        ([0, 1, 1], ('cat', 'owl'))
    """
    names = dataset.class_names
    selected: set[int] = set()
    for item in filter(None, (part.strip() for part in classes.split(","))):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        first, last = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (0, -1)  # else an empty range
        if item in names:
            selected.add(names.index(item))
        elif first <= last < len(names):
            selected.update(range(first, last + 1))
        else:
            near = suggestion(item, names)
            raise InputError(f"classes: expected names or numbers below {len(names)}, got {item!r}{near}")
    if not selected:
        raise InputError(f"classes: expected at least one in brackets, got [{classes}]")
    old_labels = np.array(sorted(selected))
    found = select(dataset, np.isin(dataset.labels, old_labels))
    labels = np.searchsorted(old_labels, found.labels).astype(np.int32)
    return found._replace(labels=labels, class_names=tuple(names[label] for label in old_labels))


def load_digits(split: str) -> Dataset:
    """Load scikit-learn's handwritten digits: 1,347 training and 450 test images of 8x8 pixels, stratified."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    pixels, target = map(np.asarray, datasets.load_digits(return_X_y=True))
    images = np.rint(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)  # pixels are 0..16
    digits = Dataset(images, target.astype(np.int32), tuple(map(str, range(10))))
    parts = train_test_split(np.arange(len(target)), test_size=TEST_FRACTION, stratify=target, random_state=SEED)
    train, test = (select(digits, np.asarray(part)) for part in parts)
    return {"train": train, "test": test, "all": concatenate([train, test])}[split]


def export(dataset: Dataset, out: Path, classes: tuple[str, ...] | None = None) -> int:
    """Write the images of the named classes (default: all) to out/CLASS/INDEX.png, and return their number.

    The folder `out` must not exist. The images are written to a temporary folder, which is renamed to `out` at the end.
    """
    from PIL import Image

    out = absolute_path(out)
    names = dict.fromkeys(dataset.class_names if classes is None else classes)
    for name in names:
        if name not in dataset.class_names:
            raise InputError(f"unknown class {name!r}{suggestion(name, dataset.class_names)}")
    if out.exists():
        raise InputError(f"{out} exists; choose another folder")
    written = 0
    try:
        with temporary_folder(out) as temporary:
            for name in names:
                folder = temporary / name.replace("/", "_")
                folder.mkdir()
                for row in (dataset.labels == dataset.class_names.index(name)).nonzero()[0]:
                    image = dataset.images[row]
                    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{row:06d}.png")
                    written += 1
            move_folder(temporary, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {reason_of(error)}") from error
    return written
