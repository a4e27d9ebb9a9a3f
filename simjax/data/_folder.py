"""Read a user's own images from a folder with one sub-folder for each class.

There are two layouts: `PATH/CLASS/...`, which is split by class, 75 to 25, with a fixed seed; and
`PATH/train/CLASS/...` beside `PATH/test/CLASS/...` (or `val`, `valid`, `validation` if there is no `test`). Classes are
the sub-folders in alphabetical order; their images may lie at any depth. If no classes are needed, images may lie
directly in PATH, or in its `train` and `test` folders.

Skipped files are counted and reported in one warning. Hidden folders (`.ipynb_checkpoints`), system folders (Synology's
`@eaDir`) and hidden files contain copies and previews of images rather than data. Links to files and folders are
followed, except a link to a folder that contains the link: it would lead to the same images again, or from one class to
the images of other classes.
"""

import functools
import os
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simjax._reading import readable_formats
from simjax.core import InputError
from simjax.data._dataset import Dataset, stratified_split
from simjax.data._decode import ReadOptions, UnreadableImageError, common_format, decode_images, unreadable_images

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
SYSTEM_FOLDERS = {
    *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
    *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP
    "__macosx",  # archives made by macOS
    *("$recycle.bin", "system volume information"),  # Windows
    *("lost+found", "__pycache__"),
}
OTHER_IMAGES = {
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".svg", ".exr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".srw", ".pef"),  # raw files of cameras
}
MAX_DETAILS = 5  # largest number of details in the description of one kind of skipped files

Classes = dict[str, list[Path]]  # the image files of each class

Skipped = Counter[tuple[str, str]]
"""Counts of skipped files by (kind, detail). A kind, such as "hidden file{s}", has `{s}` at the place of the plural s.
A detail is a name, an extension, or ""."""


def read_folder(path: str | os.PathLike[str], split: str, options: ReadOptions) -> Dataset:
    """Read a folder of images. See `load` for the arguments.

    The default size and channels are chosen for the training images. A class in the test folder that the training
    folder lacks is an error, unless `split` is "all".
    """
    root = Path(os.path.expanduser(path))
    name = f"folder:{path}"
    if not os.path.isdir(root):  # unlike `root.is_dir()`, it takes a name of any length
        raise InputError(f"{name}: {'it is a file, not a folder' if os.path.exists(root) else 'no such folder'}")
    found = _find_classes(root, name, options)
    class_names = sorted(found.train.keys() | found.test.keys())
    also = f"; {found.skipped}" if found.skipped else ""
    if options.needs_classes and (found.is_flat or len(class_names) < 2):
        count = sum(len(files) for part in (found.train, found.test) for files in part.values())
        got = f"{count:,} images directly in it" if found.is_flat else ", ".join(class_names) or "none"
        raise InputError(f"{name}: expected a sub-folder with images for each of two or more classes, got {got}{also}")
    if not class_names:
        raise InputError(f"{name}: expected images, got none{also}")
    test_only = sorted(found.test.keys() - found.train.keys())
    if test_only and split != "all":
        raise InputError(f"{name}: classes in its test folder but not in its train folder: {', '.join(test_only)}")
    if found.skipped:
        warnings.warn(f"{name}: {found.skipped}", stacklevel=2)
    parts = {"train": [found.train], "test": [found.test], "all": [found.train, found.test]}[split]
    files = [(file, label) for part in parts for label, c in enumerate(class_names) for file in part.get(c, [])]
    sources = [file for c in class_names for file in found.train.get(c, [])]
    try:
        wanted, resizing = common_format(sources, options)
        if resizing is not None and options.progress is not None:
            options.progress(f"{name}: {resizing}", 1, 1)
        sources = [file for file, _ in files]
        images = decode_images(sources, wanted, name)
    except UnreadableImageError as error:
        raise InputError(
            f"{sources[error.index]}: cannot be read ({error}); `skip_unreadable=True` leaves out such images"
        ) from error
    labels = np.array([label for _, label in files], np.int32)
    paths = np.array([file.relative_to(root).as_posix() for file, _ in files], np.str_)
    return Dataset(images, labels, tuple(class_names), paths)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files in a folder at any depth, in alphabetical order; a warning reports skipped files."""
    skipped = Skipped()
    files = _find_images(Path(folder), skipped, ())
    if description := _describe(skipped):
        warnings.warn(f"{folder}: left out {description}", stacklevel=2)
    return files


def list_classes(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Return the image files of each sub-folder that has any, at any depth; a warning reports skipped files."""
    skipped = Skipped()
    sub_folders, images = _list_folder(Path(folder), skipped)
    skipped["image{s} beside the folders of classes", ""] += len(images)
    found = {path.name: _find_images(path, skipped, (os.path.realpath(folder),)) for path in sub_folders}
    classes = {name: files for name, files in found.items() if files}
    if classes and (description := _describe(skipped)):
        warnings.warn(f"{folder}: left out {description}", stacklevel=2)
    return classes


def has_test_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder of images has separate folders of training and test images."""
    root = Path(os.path.expanduser(path))
    return os.path.isdir(root) and _train_and_test(_list_folder(root, Skipped())[0]) is not None


def _describe(skipped: Skipped) -> str:
    """Describe skipped files in words; "" if there are none."""
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (kind, detail), count in skipped.items():
        by_kind[kind][detail] += count
    described = []
    for kind, details in sorted(by_kind.items()):
        if total := details.total():
            largest = sorted(details.items(), key=lambda item: (-item[1], item[0]))[:MAX_DETAILS]
            listed = ", ".join(f"{detail}: {count:,}" for detail, count in largest if detail and count)
            more = ", ..." if len(details) > MAX_DETAILS else ""
            described.append(f"{total:,} {kind.format(s='' if total == 1 else 's')}{listed and f' ({listed}{more})'}")
    return ", ".join(described)


class FoundClasses(NamedTuple):
    """The classes of a folder."""

    train: Classes
    test: Classes
    is_flat: bool  # images lie directly in the folder, without classes
    skipped: str  # a description of skipped files and folders, or ""


def _find_classes(root: Path, name: str, options: ReadOptions) -> FoundClasses:
    """Find the training and the test files of each class."""
    skipped = Skipped()
    unused: list[str] = []
    split_folders = _train_and_test(_list_folder(root, Skipped())[0])
    if split_folders is None:
        classes, is_flat = _read_classes(root, root, options, skipped, unused)
        train, test = _split(classes)
    else:
        folders, images = _list_folder(root, skipped)
        skipped["image{s} beside the folders of classes", ""] += len(images)
        unused += [f"{f.name} (beside {split_folders[0].name})" for f in folders if f not in split_folders]
        train, is_flat = _read_classes(split_folders[0], root, options, skipped, unused)
        test, test_is_flat = _read_classes(split_folders[1], root, options, skipped, unused)
        if test and is_flat != test_is_flat:
            flat, other = split_folders if is_flat else reversed(split_folders)
            raise InputError(
                f"{name}: images lie directly in {flat.name}, but {other.name} has sub-folders of classes; load them as"
                f" two data sets, folder:{split_folders[0]} and folder:{split_folders[1]}"
            )
    parts = [f"left out {description}"] if (description := _describe(skipped)) else []
    if unused:
        parts.append(f"sub-folders that are not read, or without images: {', '.join(unused)}")
    return FoundClasses(train, test, is_flat, "; ".join(parts))


def _train_and_test(folders: list[Path]) -> tuple[Path, Path] | None:
    """Return the folders of training and test images if both exist and the first is not empty."""
    by_name = {folder.name.lower(): folder for folder in folders}
    train = next((by_name[name] for name in TRAIN_FOLDERS if name in by_name), None)
    test = next((by_name[name] for name in TEST_FOLDERS if name in by_name), None)
    if train is None or test is None or not any(_list_folder(train, Skipped())):
        return None
    return train, test


def _split(classes: Classes) -> list[Classes]:
    """Split every class into a training and a test part."""
    files = [(name, file) for name, members in classes.items() for file in members]
    labels = np.repeat(np.arange(len(classes)), [len(members) for members in classes.values()])
    parts: list[Classes] = []
    for index in stratified_split(labels):
        part: defaultdict[str, list[Path]] = defaultdict(list)
        for name, file in (files[i] for i in index):
            part[name].append(file)
        parts.append(dict(part))
    return parts


def _read_classes(
    folder: Path, root: Path, options: ReadOptions, skipped: Skipped, unused: list[str]
) -> tuple[Classes, bool]:
    """Find the image files in each sub-folder, or the images directly in the folder if no sub-folder has any.

    Return the classes, and whether the images lie directly in the folder; such images form one class with the name of
    `root`. Skipped files are counted in `skipped`; sub-folders without images are appended to `unused` with the reason.
    """
    parents = (os.path.realpath(root),)
    sub_folders, images = _list_folder(folder, skipped, parents)
    classes: Classes = {}
    for sub_folder in sub_folders:
        skipped_here = Skipped()
        files = _find_images(sub_folder, skipped_here, (*parents, os.path.realpath(folder)))
        readable = _readable(files, options)
        skipped_here["unreadable image{s}", ""] += len(files) - len(readable)
        if readable:
            classes[sub_folder.name] = readable
        else:
            unused.append(f"{sub_folder.relative_to(root)} ({_describe(skipped_here) or 'empty'})")
        skipped.update(skipped_here)
    if classes or not images:
        skipped["image{s} beside the folders of classes", ""] += len(images)
        return classes, False
    images = _readable(images, options)
    return {root.resolve().name: images} if images else {}, True


def _readable(files: list[Path], options: ReadOptions) -> list[Path]:
    """Return the files that can be decoded and warn of others; without `options.skip_unreadable` return all files."""
    if not options.skip_unreadable:
        return files
    failures = {error.index: error for error in unreadable_images(files, options)}
    for index, error in failures.items():
        warnings.warn(f"{files[index]}: skipped, it cannot be read ({error})", stacklevel=2)
    return [file for index, file in enumerate(files) if index not in failures]


def _list_folder(folder: Path, skipped: Skipped, parents: tuple[str, ...] = ()) -> tuple[list[Path], list[Path]]:
    """Return the sub-folders and images of a folder, and count other files; `parents` are real paths of its parents."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    parents = (*parents, os.path.realpath(folder))
    folders, images = [], []
    for entry in entries:
        path = Path(entry.path)
        extension = path.suffix.lower()
        if os.path.isdir(path) if entry.is_symlink() else entry.is_dir():
            if entry.name.startswith("."):
                skipped["file{s} in hidden folders", entry.name] += _count_files(path)
            elif entry.name.lower() in SYSTEM_FOLDERS:
                skipped["file{s} in system folders", entry.name] += _count_files(path)
            elif entry.is_symlink() and _contains_any(os.path.realpath(path), parents):
                skipped["link{s} to a folder that contains the link", entry.name] += 1
            else:
                folders.append(path)
        elif entry.name.startswith("."):
            skipped["hidden file{s}", ""] += 1
        elif not (os.path.isfile(path) if entry.is_symlink() else entry.is_file()):
            skipped["broken link{s}" if entry.is_symlink() else "special file{s}", ""] += 1
        elif extension in _readable_extensions():
            images.append(path)
        elif extension in OTHER_IMAGES:
            skipped["image{s} in formats that Pillow cannot read, to be converted to PNG or JPEG", extension] += 1
        elif not extension:
            skipped["file{s} without an extension", ""] += 1
        else:
            skipped["other file{s}", extension] += 1
    return folders, images


def _find_images(folder: Path, skipped: Skipped, parents: tuple[str, ...]) -> list[Path]:
    """Return the image files in a folder at any depth, in alphabetical order. See `_list_folder` for the arguments."""
    folders, images = _list_folder(folder, skipped, parents)
    parents = (*parents, os.path.realpath(folder))
    return sorted([*images, *(image for inner in folders for image in _find_images(inner, skipped, parents))])


@functools.cache
def _readable_extensions() -> frozenset[str]:
    """Return the extensions, in lower case, of the image formats that Pillow can decode."""
    from PIL import Image

    formats = readable_formats()
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in formats)


def _count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _contains_any(target: str, folders: tuple[str, ...]) -> bool:
    """Return whether a folder is, or contains, one of the folders."""
    inside = target.rstrip(os.sep) + os.sep
    return any(path == target or path.startswith(inside) for path in folders)
