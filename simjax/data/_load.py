"""One name for each source of images, and one function that gives the arrays."""

import os
from pathlib import Path

import numpy as np

from simjax.core import InputError, check_choice, suggestion
from simjax.data._classes import keep_classes, split_name
from simjax.data._dataset import Dataset
from simjax.data._digits import load_digits
from simjax.data._download import Progress
from simjax.data._folder import read_folder
from simjax.data._originals import OFFICIAL
from simjax.data._prepare import missing, prepare
from simjax.data._prepared import data_root, find_prepared, prepared_names, read_prepared
from simjax.data._resize import check_format, resize

DATASETS = ("digits", *OFFICIAL)
"""The built-in names; `tfds:NAME`, `folder:PATH` and `NAME+NAME` come besides."""

SPLITS = ("train", "test", "all")


def load(
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    skip_unreadable: bool = False,
    download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set as arrays.

    Args:
        name: one of
            `digits`, embedded;
            `mnist`, `fashion_mnist`, `cifar10`, `cifar100`, as prepared by TFDS or by `prepare`;
            `tfds:NAME` or `tfds:NAME/CONFIG`, any other image set that TFDS has prepared;
            `folder:PATH`, a folder with a sub-folder of images for each class, or with `train` and `test` folders
            of such sub-folders;
            `a+b`, two or more of these as one, with their labels kept apart: the classes are `mnist/0` ..
            `cifar10/truck`, and all images have the largest height, width and number of channels;
            any of these with some of its classes in brackets, by name or number: `mnist[0-7]`, `cifar10[cat,dog]`.
        split: "train", "test" or "all" (both, one after the other). A folder without `train` and `test`, and a TFDS
            set with nothing but a train split, is split by class, 75 to 25, with a fixed seed.
        data_dir: where prepared sets lie; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        image_size: (height, width), or one number for both; None keeps the set's own, or takes 32x32 where its
            images differ in size.
        channels: 1 or 3; None keeps the set's own.
        skip_unreadable: pass over corrupt images of a folder with a warning.
        download: whether to download an official set that is not prepared.
        progress: is called, while a set is downloaded and prepared, with what is being done, how much of it is done
            and how much there is of it.

    Returns:
        The data set.

    Raises:
        InputError: for an unknown name, a set that is not there and cannot be had, or images that cannot be read.

    Example:
        >>> images, labels, class_names = load("digits", "train")
        >>> images.shape, images.dtype, labels.dtype, class_names[:3]
        ((1347, 8, 8, 1), dtype('uint8'), dtype('int32'), ('0', '1', '2'))
    """
    check_choice("split", split, SPLITS)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    check_format(size, channels)
    parts = [
        _load_one(part, split, data_dir, size, channels, skip_unreadable, download, progress) for part in _parts(name)
    ]
    shapes = [part.images.shape[1:] for part in parts]
    height, width, depth = (max(extents) for extents in zip(*shapes, strict=True))
    parts = [resize(part, size or (height, width), channels or depth) for part in parts]
    return parts[0] if len(parts) == 1 else _kept_apart(_parts(name), parts)


def _load_one(
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None,
    size: tuple[int, int] | None,
    channels: int | None,
    skip_unreadable: bool,
    download: bool,
    progress: Progress | None,
) -> Dataset:
    name, classes = split_name(name)
    if classes is not None:
        whole = _load_one(name, split, data_dir, size, channels, skip_unreadable, download, progress)
        return keep_classes(whole, classes)
    if name == "digits":
        return load_digits(split)
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest:
        return read_folder(rest, split, size, channels, skip_unreadable)
    root = data_root(data_dir)
    if kind == "tfds" and rest:
        folder = find_prepared(rest, root)
        if folder is None:
            near = suggestion(rest, prepared_names(root))
            raise InputError(f"{name} is not prepared in {root}{near}; --data-dir or $TFDS_DATA_DIR names another one")
        return read_prepared(folder, split, size, channels)
    check_choice("dataset", name, (*DATASETS, "tfds:NAME", "folder:PATH"))
    folder = find_prepared(name, root)
    if folder is None:
        if not download:
            raise missing(name, root, "downloading is turned off")
        folder = prepare(name, root, progress=progress)
    return read_prepared(folder, split, size, channels)


def _parts(name: str) -> list[str]:
    """The names in `a+b`; a plus sign that no name follows belongs to a folder's path."""
    parts: list[str] = []
    for part in name.split("+"):
        known = split_name(part)[0] in DATASETS or part.startswith(("tfds:", "folder:"))
        if parts and parts[-1].startswith("folder:") and not known:
            parts[-1] += f"+{part}"
        else:
            parts.append(part)
    return parts


def resolve_folders(name: str, start: Path) -> str:
    """Return the name of a data set with every folder that lies under `start` as a path that begins there.

    Example:
        >>> resolve_folders("mnist", Path("/home"))
        'mnist'
    """
    return "+".join(_resolve_folder(part, start) for part in _parts(name))


def _resolve_folder(name: str, start: Path) -> str:
    kind, _, path = name.partition(":")
    if kind != "folder" or not path:
        return name
    found = f"folder:{start / Path(path).expanduser()}"
    return found if Path(split_name(found)[0].partition(":")[2]).is_dir() else name


def _kept_apart(names: list[str], parts: list[Dataset]) -> Dataset:
    """Several sets as one, each with labels of its own."""
    short = [Path(name.partition(":")[2]).name or name for name in names]
    prefixes = short if len(set(short)) == len(names) else names
    if len(set(prefixes)) < len(names):
        raise InputError(f"dataset {'+'.join(names)}: expected different sets")
    offsets = np.cumsum([0, *(len(part.class_names) for part in parts)])
    return Dataset(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels + int(offset) for part, offset in zip(parts, offsets, strict=False)]),
        tuple(f"{prefix}/{name}" for prefix, part in zip(prefixes, parts, strict=True) for name in part.class_names),
    )
