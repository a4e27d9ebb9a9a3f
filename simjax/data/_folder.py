"""A user's own images: a folder with one sub-folder for each class.

Two layouts are understood, `PATH/CLASS/...` and `PATH/train/CLASS/...` beside `PATH/test/CLASS/...` (or `val`, `valid`,
`validation` where there is no `test`). The first is split by class, 75 to 25, with a fixed seed, so that every class
keeps a training image. Classes are the sub-folders in alphabetical order; images lie in them at any depth. Hidden
files, and files whose extension belongs to no image format, are passed over.
"""

import os
import warnings
from pathlib import Path

import numpy as np

from simjax.core import InputError
from simjax.data._dataset import Dataset, stratified_split
from simjax.data._decode import UnreadableImageError, common_format, decode_images, unreadable_images

TEST_FOLDERS = ("test", "val", "valid", "validation")

Classes = dict[str, list[Path]]
"""The image files of each class."""


def read_folder(
    path: str | os.PathLike[str],
    split: str,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    skip_unreadable: bool = False,
) -> Dataset:
    """Read a folder of images.

    Args:
        path: of the folder.
        split: "train", "test" or "all" (both, one after the other).
        image_size: (height, width); without it a size that all training images share is kept up to 64x64, and
            anything else becomes 32x32: the centre is cut to the aspect and resampled.
        channels: 1 or 3; without it 1 if every training image is stored as greyscale.
        skip_unreadable: pass over truncated and corrupt images with a warning.

    Returns:
        The data set.

    Raises:
        InputError: if the path is no folder, holds fewer than two classes, or an image cannot be read; or if the
            test folder has a class that the training folder lacks, unless all is asked for.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"folder:{path}: no such folder")
    train, test = _layout(root, skip_unreadable)
    new = sorted(test.keys() - train.keys())
    if new and split != "all":
        raise InputError(f"folder:{path}: classes in its test folder but not in its train folder: {', '.join(new)}")
    names = sorted(train.keys() | test.keys())
    if len(names) < 2:
        raise InputError(
            f"folder:{path}: expected a sub-folder with images for each of two or more classes, got "
            f"{', '.join(names) or 'none'}"
        )
    chosen = {"train": [train], "test": [test], "all": [train, test]}[split]
    files = [(file, label) for part in chosen for label, name in enumerate(names) for file in part.get(name, [])]
    sources = [file for name in names for file in train.get(name, [])]
    try:
        wanted = common_format(sources, image_size, channels)
        sources = [file for file, _ in files]
        images = decode_images(sources, wanted)
    except UnreadableImageError as error:
        raise InputError(
            f"{sources[error.index]}: cannot be read ({error}); --skip-unreadable passes over such images"
        ) from error
    return Dataset(images, np.array([label for _, label in files], np.int32), tuple(names))


def has_test_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder of images says itself which of them are for the test."""
    return _test_folder(Path(path).expanduser()) is not None


def _test_folder(root: Path) -> Path | None:
    found = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    return found if _sub_folders(root / "train") else None


def _layout(root: Path, skip_unreadable: bool) -> tuple[Classes, Classes]:
    """The training and the test files of each class."""
    held_out = _test_folder(root)
    if held_out is not None:
        return _classes(root / "train", skip_unreadable), _classes(held_out, skip_unreadable)
    classes = _classes(root, skip_unreadable)
    files = [(name, file) for name, members in classes.items() for file in members]
    labels = np.repeat(np.arange(len(classes)), [len(members) for members in classes.values()])
    parts: tuple[Classes, Classes] = ({}, {})
    for part, index in zip(parts, stratified_split(labels), strict=True):
        for name, file in (files[i] for i in index):
            part.setdefault(name, []).append(file)
    return parts


def _classes(folder: Path, skip_unreadable: bool) -> Classes:
    """The image files in each sub-folder that has any."""
    from PIL import Image

    readable = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    classes = {}
    for sub_folder in _sub_folders(folder):
        files = [
            Path(parent, name)
            for parent, _, names in os.walk(sub_folder)
            for name in names
            if Path(name).suffix.lower() in readable and not name.startswith(".")
        ]
        if skip_unreadable:
            files = _readable(files)
        if files:
            classes[sub_folder.name] = sorted(files)
    return classes


def _sub_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _readable(files: list[Path]) -> list[Path]:
    failures = {error.index: error for error in unreadable_images(files)}
    for index, error in failures.items():
        warnings.warn(f"{files[index]}: skipped, it cannot be read ({error})", stacklevel=2)
    return [file for index, file in enumerate(files) if index not in failures]
