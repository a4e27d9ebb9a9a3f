"""A data set in memory: images, labels and the names of the classes, whatever it was read from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SEED = 0
TEST_FRACTION = 0.25


class Dataset(NamedTuple):
    """Labelled images of one size.

    Attributes:
        images: uint8 [n, h, w, c], c = 1 or 3.
        labels: int32 [n], in 0 .. len(class_names) - 1.
        class_names: one for each label.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def select(dataset: Dataset, index: np.ndarray) -> Dataset:
    """The images of a data set at `index`, int [m]."""
    return dataset._replace(images=dataset.images[index], labels=dataset.labels[index])


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Data sets with the same image shape and the same classes, one after the other."""
    return Dataset(
        np.concatenate([d.images for d in datasets]),
        np.concatenate([d.labels for d in datasets]),
        datasets[0].class_names,
    )


def stratified_split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut every class in a training part and a test part, 75 to 25, with a fixed seed.

    A class keeps at least one image in the training part, and has at least one in the test part if it has two.

    Args:
        labels: int [n].

    Returns:
        The indices of the training part and of the test part, each ascending.

    Example:
        >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1, 2]))
        >>> len(train), len(test), np.bincount(np.array([0, 0, 0, 0, 1, 1, 2])[train]).tolist()
        (5, 2, [3, 1, 1])
    """
    rng = np.random.default_rng(SEED)
    train, test = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out = min(max(round(len(members) * TEST_FRACTION), 1), len(members) - 1)
        test.append(members[:held_out])
        train.append(members[held_out:])
    empty = np.zeros(0, int)
    return np.sort(np.concatenate([empty, *train])), np.sort(np.concatenate([empty, *test]))
