"""Find the image files of a folder, and count everything that is left out.

Hidden folders (`.ipynb_checkpoints`), system folders (Synology's `@eaDir`) and hidden files hold copies and previews of
images rather than data. Links to files and folders are followed, except a link to a folder that contains the link:
following it would lead to the same images again, or from one class to the images of the others.
"""

import functools
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from simjax.core import InputError

SYSTEM_FOLDERS = {
    "@eadir",  # Synology
    "@tmp",
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "@__thumb",
    "__macosx",  # archives made by macOS
    "$recycle.bin",  # Windows
    "system volume information",
    "lost+found",
    "__pycache__",
}
NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # formats that Pillow recognises but cannot decode by itself
OTHER_IMAGES = {
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".svg", ".exr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".srw", ".pef"),  # of cameras
}
SHOWN = 5  # names in the description of one kind


class Skipped:
    """What was left out of a folder of images, counted by kind."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Count files or links.

        Args:
            kind: Their description, with `{s}` at the end of the noun.
            detail: What they are called, for instance their extension.
            count: How many there are.
        """
        self._counts[kind][detail] += count

    def update(self, other: "Skipped") -> None:
        """Add the counts of another one."""
        for kind, details in other._counts.items():
            self._counts[kind].update(details)

    def __bool__(self) -> bool:
        return any(details.total() for details in self._counts.values())

    def __str__(self) -> str:
        return ", ".join(
            f"{details.total():,} {kind.format(s='' if details.total() == 1 else 's')}{_listed(details)}"
            for kind, details in sorted(self._counts.items())
            if details.total()
        )


def _listed(details: Counter[str]) -> str:
    largest = sorted(details.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    shown = [f"{name}: {count:,}" for name, count in largest if name and count]
    more = ", ..." if len(details) > SHOWN else ""
    return f" ({', '.join(shown)}{more})" if shown else ""


class Listing(NamedTuple):
    """What a folder holds: its sub-folders that are to be read, and its image files."""

    folders: list[Path]
    images: list[Path]


def list_folder(folder: Path, skipped: Skipped, parents: tuple[str, ...] = ()) -> Listing:
    """List one folder, not its sub-folders.

    Args:
        folder: The folder.
        skipped: Counts what is left out.
        parents: Real paths of the folders through which this one was reached.

    Raises:
        InputError: If the folder cannot be read.
    """
    way = (*parents, os.path.realpath(folder))
    folders, images = [], []
    for entry in _entries(folder):
        path = Path(entry.path)
        extension = path.suffix.lower()
        if path.is_dir():
            if entry.name.startswith("."):
                skipped.add("file{s} in hidden folders", entry.name, _files_in(path))
            elif entry.name.lower() in SYSTEM_FOLDERS:
                skipped.add("file{s} in system folders", entry.name, _files_in(path))
            elif entry.is_symlink() and _contains(os.path.realpath(path), way):
                skipped.add("link{s} to a folder that contains the link", entry.name)
            else:
                folders.append(path)
        elif entry.name.startswith("."):
            skipped.add("hidden file{s}")
        elif not path.is_file():
            skipped.add("broken link{s}" if entry.is_symlink() else "special file{s}")
        elif extension in readable_extensions():
            images.append(path)
        elif extension in OTHER_IMAGES:
            skipped.add("image{s} in formats that Pillow cannot read, to be converted to PNG or JPEG", extension)
        elif not extension:
            skipped.add("file{s} without an extension")
        else:
            skipped.add("other file{s}", extension)
    return Listing(folders, images)


def find_images(folder: Path, skipped: Skipped, parents: tuple[str, ...] = ()) -> list[Path]:
    """Find the image files in a folder, at any depth, in alphabetical order; for the arguments see `list_folder`."""
    folders, images = list_folder(folder, skipped, parents)
    way = (*parents, os.path.realpath(folder))
    return sorted([*images, *(image for inner in folders for image in find_images(inner, skipped, way))])


@functools.cache
def readable_extensions() -> frozenset[str]:
    """The extensions, in lower case, of the image formats that Pillow can decode."""
    from PIL import Image

    kinds = Image.registered_extensions()
    return frozenset(extension for extension, kind in kinds.items() if kind in Image.OPEN and kind not in NO_PIXELS)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error


def _files_in(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _contains(target: str, way: tuple[str, ...]) -> bool:
    """Whether a folder is, or contains, one of those through which a link was reached."""
    inside = target.rstrip(os.sep) + os.sep
    return any(path == target or path.startswith(inside) for path in way)
