"""Load a data set by its name."""

import os
import re
from pathlib import Path
from typing import get_args

import numpy as np

from simjax.core import InputError, check_choice, suggestion
from simjax.data._dataset import Dataset, Progress, concatenate_paths, load_digits, select_classes
from simjax.data._decode import CACHE_GIGABYTES, Aspect, ReadOptions, check_format, resize
from simjax.data._folder import read_folder
from simjax.data._originals import OFFICIAL
from simjax.data._prepare import missing, prepare
from simjax.data._prepared import data_root, find_prepared, prepared_names, read_prepared

DATASETS = ("digits", *OFFICIAL)
"""The built-in names. `load` also accepts `tfds:NAME`, `folder:PATH` and `NAME+NAME`."""

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
        name: One of
            `digits`, embedded;
            `mnist`, `fashion_mnist`, `cifar10`, `cifar100`, prepared by TFDS or by `prepare`;
            `tfds:NAME` or `tfds:NAME/CONFIG`, any other image data set that TFDS has prepared;
            `folder:PATH`, a folder with a sub-folder of images for each class, or with `train` and `test` folders
            of such sub-folders;
            `a+b`, the concatenation of two or more of these with separate classes `mnist/0` .. `cifar10/truck`; all
            images have the largest height, width and number of channels;
            any of these followed by some of its classes in brackets, by name or number: `mnist[0-7]`,
            `cifar10[cat,dog]`.
        split: "train", "test" or "all" (train followed by test). A folder without `train` and `test`, and a TFDS data
            set that has only a train split, is split by class, 75 to 25, with a fixed seed.
        data_dir: Directory of prepared data sets. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        image_size: (height, width), or one number for both. Default: the size of the data set; images of files whose
            sizes differ, or that are larger than 64x64, get about 32 * 32 pixels and their median aspect ratio.
        channels: 1 or 3. Default: the number of channels of the data set.
        aspect: How an image of another aspect ratio is resized: "pad" repeats its border pixels, "crop" crops it at its
            centre, "stretch" changes its aspect ratio.
        input_range: For pixels with more than 8 bits, the values that become 0 and 255; values outside are clipped.
            Default: 0 and 65535 for integers, 0 and 1 for floating-point pixels.
        max_pixels: Largest number of pixels of an image file. Default: Pillow's limit of 178,956,970.
        skip_unreadable: Whether corrupt images of a folder are skipped with a warning.
        needs_classes: Whether a folder needs sub-folders for two or more classes. If False, images may lie directly
            in it; they form one class with the name of the folder.
        download: Whether to download an official data set that is not prepared.
        cache_gigabytes: Largest size of the decoded images of prepared data sets in the user's cache folder; 0 disables
            the cache.
        progress: See `Progress`. Called during download and preparation, and once if image files are resized.

    Raises:
        InputError: If the name is unknown, the data set is missing and cannot be downloaded, or images cannot be read.

    Example:
        >>> digits = load("digits", "train")
        >>> digits.images.shape, digits.images.dtype, digits.labels.dtype, digits.class_names[:3]
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
    options = ReadOptions(
        size, channels, aspect, input_range, max_pixels, skip_unreadable, needs_classes, cache_gigabytes, progress
    )
    names = [name] if _is_folder(name) and _suggest_folder(name) else _split_sum(name)
    parts = [_load_part(part, split, data_root(data_dir), options, download) for part in names]
    shapes = [part.images.shape[1:] for part in parts]
    height, width, max_channels = (max(extents) for extents in zip(*shapes, strict=True))
    parts = [resize(part, size or (height, width), channels or max_channels, aspect) for part in parts]
    return parts[0] if len(parts) == 1 else _concatenate_with_separate_classes(names, parts)


def split_name(name: str) -> tuple[str, str | None]:
    """Split a name into the data set and the classes in brackets, or None if it has no brackets.

    The name of an existing folder that ends in brackets is not split.

    Example:
        >>> split_name("cifar10[airplane,bird]"), split_name("mnist")
        (('cifar10', 'airplane,bird'), ('mnist', None))
    """
    found = re.fullmatch(r"(.+)\[([^\[\]]*)\]", name)
    if found is None or (name.startswith("folder:") and os.path.exists(name.partition(":")[2])):
        return name, None
    return found[1], found[2]


def resolve_folders(name: str, start: Path) -> str:
    """Return the name of a data set with the relative paths of its folders resolved against `start`.

    Folders that do not exist under `start` are not changed.

    Example:
        >>> resolve_folders("mnist", Path("/home"))
        'mnist'
    """

    def resolve(part: str) -> str:
        kind, _, path = part.partition(":")
        found = f"folder:{start / os.path.expanduser(path)}"
        is_folder = kind == "folder" and path and os.path.isdir(split_name(found)[0].partition(":")[2])
        return found if is_folder else part

    return "+".join(map(resolve, _split_sum(name)))


def _load_part(name: str, split: str, root: Path, options: ReadOptions, download: bool) -> Dataset:
    """Load one data set of a sum `a+b`."""
    name, classes = split_name(name)
    if classes is not None:
        return select_classes(_load_part(name, split, root, options, download), classes)
    if name == "digits":
        return load_digits(split)
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest:
        return read_folder(rest, split, options)
    if kind == "tfds" and rest:
        folder = find_prepared(rest, root)
        if folder is None:
            near = suggestion(rest, prepared_names(root))
            raise InputError(f"{name} is not prepared in {root}{near}; --data-dir or $TFDS_DATA_DIR names another one")
        return read_prepared(folder, split, options)
    if name not in DATASETS and (near := _suggest_folder(name)):
        raise InputError(f"unknown dataset {name!r} (did you mean {near}?)")
    check_choice("dataset", name, (*DATASETS, "tfds:NAME", "folder:PATH"))
    folder = find_prepared(name, root)
    if folder is None and not download:
        raise missing(name, root, "downloading is turned off")
    return read_prepared(folder or prepare(name, root, progress=options.progress), split, options)


def _suggest_folder(name: str) -> str | None:
    """Return `folder:PATH` for a name that is a path, or that has an unknown word before the colon."""
    kind, colon, rest = name.partition(":")
    if name in DATASETS or kind in ("folder", "tfds"):
        return None
    if colon and _is_folder(rest):
        return f"folder:{rest}"
    is_path = name.startswith((".", "~")) or ("/" in name and name.split("/")[0] not in DATASETS) or "\\" in name
    return f"folder:{name}" if is_path or _is_folder(name) else None


def _is_folder(name: str) -> bool:
    return os.path.isdir(os.path.expanduser(name))


def _split_sum(name: str) -> list[str]:
    """Split `a+b` into names; a plus sign that is not followed by a known name belongs to the path of a folder."""
    parts: list[str] = []
    for part in name.split("+"):
        is_known = split_name(part)[0] in DATASETS or part.startswith(("tfds:", "folder:"))
        if parts and parts[-1].startswith("folder:") and not is_known:
            parts[-1] += f"+{part}"
        else:
            parts.append(part)
    return parts


def _concatenate_with_separate_classes(names: list[str], parts: list[Dataset]) -> Dataset:
    """Concatenate data sets; the classes and the paths of each get its name as a prefix."""
    short = [Path(name.partition(":")[2]).name or name for name in names]
    prefixes = short if len(set(short)) == len(names) else names
    if len(set(prefixes)) < len(names):
        raise InputError(f"dataset {'+'.join(names)}: expected different data sets")
    offsets = np.cumsum([0, *(len(part.class_names) for part in parts)])
    return Dataset(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels + int(offset) for part, offset in zip(parts, offsets, strict=False)]),
        tuple(f"{prefix}/{name}" for prefix, part in zip(prefixes, parts, strict=True) for name in part.class_names),
        concatenate_paths(parts, prefixes),
    )
