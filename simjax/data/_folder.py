"""A user's own images: a folder with one sub-folder for each class.

Two layouts are understood, `PATH/CLASS/...` and `PATH/train/CLASS/...` beside `PATH/test/CLASS/...` (or `val`, `valid`,
`validation` where there is no `test`). The first is split by class, 75 to 25, with a fixed seed, so that every class
keeps a training image. Classes are the sub-folders in alphabetical order; images lie in them at any depth. Where no
classes are needed, images may lie directly in PATH, or in its `train` and `test` folders. What is left out is counted
and reported in one warning; see `_scan`.
"""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simjax.core import InputError
from simjax.data._dataset import Dataset, stratified_split
from simjax.data._decode import ReadOptions, UnreadableImageError, common_format, decode_images, unreadable_images
from simjax.data._download import Progress
from simjax.data._scan import Skipped, find_images, list_folder

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")

Classes = dict[str, list[Path]]
"""The image files of each class."""


def read_folder(
    path: str | os.PathLike[str],
    split: str,
    options: ReadOptions,
    *,
    needs_classes: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Read a folder of images.

    Args:
        path: of the folder.
        split: "train", "test" or "all" (both, one after the other).
        options: How images are read. Size and channels that are not given are chosen for the training images.
        needs_classes: Whether fewer than two classes are an error. Otherwise a folder with images directly in it is
            one class of the folder's name.
        progress: Called with one line if images are resized.

    Returns:
        The data set.

    Raises:
        InputError: if the path is no folder, holds fewer than two classes, or an image cannot be read; or if the
            test folder has a class that the training folder lacks, unless all is asked for.
    """
    root = Path(os.path.expanduser(path))
    name = f"folder:{path}"
    if not root.is_dir():
        raise InputError(f"{name}: {'it is a file, not a folder' if root.exists() else 'no such folder'}")
    found = _layout(root, name, options)
    train, test = found.train, found.test
    names = sorted(train.keys() | test.keys())
    if needs_classes and (found.is_flat or len(names) < 2):
        count = sum(len(members) for part in (train, test) for members in part.values())
        got = f"{count:,} images directly in it" if found.is_flat else ", ".join(names) or "none"
        also = f"; {found.left_out}" if found.left_out else ""
        raise InputError(f"{name}: expected a sub-folder with images for each of two or more classes, got {got}{also}")
    if not names:
        raise InputError(f"{name}: expected images, got none" + (f"; {found.left_out}" if found.left_out else ""))
    new = sorted(test.keys() - train.keys())
    if new and split != "all":
        raise InputError(f"{name}: classes in its test folder but not in its train folder: {', '.join(new)}")
    if found.left_out:
        warnings.warn(f"{name}: {found.left_out}", stacklevel=2)
    chosen = {"train": [train], "test": [test], "all": [train, test]}[split]
    files = [(file, label) for part in chosen for label, name in enumerate(names) for file in part.get(name, [])]
    sources = [file for name in names for file in train.get(name, [])]
    try:
        wanted, resizing = common_format(sources, options)
        if resizing is not None and progress is not None:
            progress(f"{name}: {resizing}", 1, 1)
        sources = [file for file, _ in files]
        images = decode_images(sources, wanted, name)
    except UnreadableImageError as error:
        raise InputError(
            f"{sources[error.index]}: cannot be read ({error}); `skip_unreadable=True` leaves out such images"
        ) from error
    return Dataset(images, np.array([label for _, label in files], np.int32), tuple(names))


def has_test_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder of images says itself which of them are for the test."""
    root = Path(os.path.expanduser(path))
    return root.is_dir() and _train_and_test(list_folder(root, Skipped()).folders) is not None


class Layout(NamedTuple):
    """What a folder holds.

    Attributes:
        train: Image files of the training part.
        test: Image files of the test part.
        is_flat: Whether images lie directly in the folder, without classes.
        left_out: What is not read, in words.
    """

    train: Classes
    test: Classes
    is_flat: bool
    left_out: str


def _layout(root: Path, name: str, options: ReadOptions) -> Layout:
    """Find the training and the test files of each class."""
    skipped = Skipped()
    unused: list[str] = []
    held_out = _train_and_test(list_folder(root, Skipped()).folders)
    if held_out is None:
        classes, is_flat = _classes(root, root, options, skipped, unused)
        train, test = _split(classes)
    else:
        listed = list_folder(root, skipped)
        skipped.add("image{s} beside the folders of classes", count=len(listed.images))
        unused += [f"{folder.name} (beside {held_out[0].name})" for folder in listed.folders if folder not in held_out]
        train, is_flat = _classes(held_out[0], root, options, skipped, unused)
        test, test_is_flat = _classes(held_out[1], root, options, skipped, unused)
        if test and is_flat != test_is_flat:
            flat, other = held_out if is_flat else reversed(held_out)
            raise InputError(
                f"{name}: images lie directly in {flat.name}, but {other.name} has sub-folders of classes; give the "
                f"two as data sets of their own, folder:{held_out[0]} and folder:{held_out[1]}"
            )
    parts = [f"left out {skipped}"] if skipped else []
    if unused:
        parts.append(f"sub-folders that are not read, or without images: {', '.join(unused)}")
    return Layout(train, test, is_flat, "; ".join(parts))


def _train_and_test(folders: list[Path]) -> tuple[Path, Path] | None:
    """The folders of training and test images among sub-folders, if both are there and the first is not empty."""
    by_name = {folder.name.lower(): folder for folder in folders}
    train = next((by_name[name] for name in TRAIN_FOLDERS if name in by_name), None)
    test = next((by_name[name] for name in TEST_FOLDERS if name in by_name), None)
    if train is None or test is None:
        return None
    return (train, test) if any(list_folder(train, Skipped())) else None


def _split(classes: Classes) -> tuple[Classes, Classes]:
    """Split every class in a training and a test part."""
    files = [(name, file) for name, members in classes.items() for file in members]
    labels = np.repeat(np.arange(len(classes)), [len(members) for members in classes.values()])
    parts: tuple[Classes, Classes] = ({}, {})
    for part, index in zip(parts, stratified_split(labels), strict=True):
        for name, file in (files[i] for i in index):
            part.setdefault(name, []).append(file)
    return parts


def _classes(
    folder: Path, root: Path, options: ReadOptions, skipped: Skipped, unused: list[str]
) -> tuple[Classes, bool]:
    """The image files in each sub-folder that has any; or, if none has, those directly in the folder, as one class.

    Args:
        folder: With a sub-folder for each class.
        root: Of the data set; its name is that of the one class.
        options: Say whether unreadable images are left out.
        skipped: Counts what is left out.
        unused: Receives the sub-folders without images, and the reasons.

    Returns:
        The classes, and whether the images lie directly in the folder.
    """
    above = (os.path.realpath(root),)
    sub_folders, images = list_folder(folder, skipped, above)
    classes: Classes = {}
    for sub_folder in sub_folders:
        here = Skipped()
        files = find_images(sub_folder, here, (*above, os.path.realpath(folder)))
        if options.skip_unreadable:
            before = len(files)
            files = _readable(files, options)
            here.add("unreadable image{s}", count=before - len(files))
        if files:
            classes[sub_folder.name] = files
        else:
            unused.append(f"{sub_folder.relative_to(root)} ({here or 'empty'})")
        skipped.update(here)
    if classes or not images:
        skipped.add("image{s} beside the folders of classes", count=len(images))
        return classes, False
    if options.skip_unreadable:
        images = _readable(images, options)
    return {root.resolve().name: images} if images else {}, True


def _readable(files: list[Path], options: ReadOptions) -> list[Path]:
    failures = {error.index: error for error in unreadable_images(files, options)}
    for index, error in failures.items():
        warnings.warn(f"{files[index]}: skipped, it cannot be read ({error})", stacklevel=2)
    return [file for index, file in enumerate(files) if index not in failures]
