"""One name for each source of images, and one function that gives the arrays."""

import os
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from simjax.core import InputError, check_choice, suggestion
from simjax.data._cache import CACHE_GIGABYTES
from simjax.data._classes import keep_classes, split_name
from simjax.data._dataset import Dataset
from simjax.data._decode import Aspect, ReadOptions
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
    aspect: Aspect = "pad",
    input_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    skip_unreadable: bool = False,
    needs_classes: bool = True,
    download: bool = True,
    cache_gigabytes: float = CACHE_GIGABYTES,
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
        image_size: (height, width), or one number for both. None keeps the set's own; images of files whose sizes
            differ, or that are larger than 64x64, get about 32 * 32 pixels and their median aspect ratio.
        channels: 1 or 3; None keeps the set's own.
        aspect: How an image of another aspect ratio is brought to the size: "pad" repeats its border pixels, "crop"
            cuts to its centre, "stretch" does not keep the ratio.
        input_range: Lowest and highest value of pixels in files with more than 8 bits a channel, which become 0 and
            255; values outside are clipped. None takes 0 to 65535 for integers and 0 to 1 for floating-point pixels.
        max_pixels: Largest number of pixels of an image file. None is Pillow's limit of 178,956,970.
        skip_unreadable: leave out corrupt images of a folder with a warning.
        needs_classes: Whether a folder needs a sub-folder for each of two or more classes. If False, images may lie
            directly in it; then all have label 0, and the folder's name is that of their class.
        download: whether to download an official set that is not prepared.
        cache_gigabytes: Largest size of the decoded images of prepared sets in the user's cache folder; 0 stores none.
        progress: is called with what is being done, how much of it is done and how much there is of it: while a set
            is downloaded and prepared, and once if images of files are resized.

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
    check_choice("aspect", aspect, get_args(Aspect))
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    check_format(size, channels)
    if input_range is not None and not -np.inf < input_range[0] < input_range[1] < np.inf:
        raise InputError(f"input_range: expected a lower and a higher number, got {input_range}")
    if max_pixels is not None and max_pixels < 1:
        raise InputError(f"max_pixels: expected at least 1, got {max_pixels}")
    options = ReadOptions(size, channels, aspect, input_range, max_pixels, skip_unreadable)
    names = [name] if _is_folder(name) and _suggested_folder(name) else _parts(name)
    source = _Source(split, data_dir, options, needs_classes, download, cache_gigabytes, progress)
    parts = [_load_one(part, source) for part in names]
    shapes = [part.images.shape[1:] for part in parts]
    height, width, depth = (max(extents) for extents in zip(*shapes, strict=True))
    parts = [resize(part, size or (height, width), channels or depth, aspect) for part in parts]
    return parts[0] if len(parts) == 1 else _kept_apart(names, parts)


class _Source(NamedTuple):
    """The arguments of `load` but for the name."""

    split: str
    data_dir: str | os.PathLike[str] | None
    options: ReadOptions
    needs_classes: bool
    download: bool
    cache_gigabytes: float
    progress: Progress | None


def _load_one(name: str, source: _Source) -> Dataset:
    name, classes = split_name(name)
    if classes is not None:
        return keep_classes(_load_one(name, source), classes)
    split, progress = source.split, source.progress
    if name == "digits":
        return load_digits(split)
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest:
        return read_folder(rest, split, source.options, needs_classes=source.needs_classes, progress=progress)
    root = data_root(source.data_dir)
    if kind == "tfds" and rest:
        folder = find_prepared(rest, root)
        if folder is None:
            near = suggestion(rest, prepared_names(root))
            raise InputError(f"{name} is not prepared in {root}{near}; --data-dir or $TFDS_DATA_DIR names another one")
        return read_prepared(folder, split, source.options, source.cache_gigabytes, progress)
    if name not in DATASETS and (near := _suggested_folder(name)):
        raise InputError(f"unknown dataset {name!r} (did you mean {near}?)")
    check_choice("dataset", name, (*DATASETS, "tfds:NAME", "folder:PATH"))
    folder = find_prepared(name, root)
    if folder is None:
        if not source.download:
            raise missing(name, root, "downloading is turned off")
        folder = prepare(name, root, progress=progress)
    return read_prepared(folder, split, source.options, source.cache_gigabytes, progress)


def _suggested_folder(name: str) -> str | None:
    """`folder:PATH` for a name that is a path, or has another word before the colon."""
    kind, colon, rest = name.partition(":")
    if name in DATASETS or kind in ("folder", "tfds"):
        return None
    if colon and _is_folder(rest):
        return f"folder:{rest}"
    is_path = name.startswith((".", "~")) or ("/" in name and name.split("/")[0] not in DATASETS) or "\\" in name
    return f"folder:{name}" if is_path or _is_folder(name) else None


def _is_folder(name: str) -> bool:
    return os.path.isdir(os.path.expanduser(name))


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
