"""Some classes of a data set alone, as `mnist[8,9]`: for instance to test on classes that were never seen."""

import re
from pathlib import Path

import numpy as np

from simjax.core import InputError, suggestion
from simjax.data._dataset import Dataset


def split_name(name: str) -> tuple[str, str | None]:
    """The name of a source, and what stands in brackets behind it, or None.

    A folder whose own name ends so is taken as it is.

    Example:
        >>> split_name("cifar10[airplane,bird]"), split_name("mnist")
        (('cifar10', 'airplane,bird'), ('mnist', None))
    """
    found = re.fullmatch(r"(.+)\[([^\[\]]*)\]", name)
    if found is None or (name.startswith("folder:") and Path(name.partition(":")[2]).exists()):
        return name, None
    return found[1], found[2]


def keep_classes(dataset: Dataset, chosen: str) -> Dataset:
    """The images of some classes, with labels counted anew.

    Args:
        dataset: with all classes.
        chosen: names of classes, or their numbers from 0 on, or ranges of numbers, with commas between them.

    Raises:
        InputError: for an unknown class, with the nearest one, or none at all.

    Example:
        >>> data = Dataset(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 2, 2], np.int32), ("cat", "dog", "owl"))
        >>> some = keep_classes(data, "owl,0")
        >>> some.labels.tolist(), some.class_names
        ([0, 1, 1], ('cat', 'owl'))
    """
    names = dataset.class_names
    wanted: set[int] = set()
    for item in filter(None, (part.strip() for part in chosen.split(","))):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if item in names:
            wanted.add(names.index(item))
        elif bounds and int(bounds[2] or bounds[1]) < len(names) and int(bounds[1]) <= int(bounds[2] or bounds[1]):
            wanted.update(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
        else:
            near = suggestion(item, names)
            raise InputError(f"classes: expected names or numbers below {len(names)}, got {item!r}{near}")
    if not wanted:
        raise InputError(f"classes: expected at least one in brackets, got [{chosen}]")
    kept = sorted(wanted)
    new = np.full(len(names), -1, np.int32)
    new[kept] = np.arange(len(kept), dtype=np.int32)
    rows = np.isin(dataset.labels, kept)
    return Dataset(dataset.images[rows], new[dataset.labels[rows]], tuple(names[k] for k in kept))
