"""Decoded images of prepared sets in the user's cache folder, so that the second start takes milliseconds.

A cache file holds the arrays of one split, one after the other. It is written to a temporary file and renamed, and its
name has a hash of the files it was made from. The files that were used longest ago are deleted when all of them take
more space than is allowed. A cache that cannot be read or written only costs time.
"""

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simjax._files import user_cache
from simjax.data._dataset import Dataset

PREFIX = "simjax-"
CACHE_GIGABYTES = 4.0
GIGABYTE = 10**9


class Decoded(NamedTuple):
    """A split with decoded images.

    Attributes:
        dataset: The images and labels.
        resizing: How images were resized to a size that was chosen, in words, or "".
    """

    dataset: Dataset
    resizing: str = ""


def cached(folder: Path, key: str, make: Callable[[], Decoded], cache_gigabytes: float = CACHE_GIGABYTES) -> Decoded:
    """Return what `make` returns, from the cache if it was stored before for the same files.

    Warnings that `make` gives are stored, too, and given again.

    Args:
        folder: of the prepared data set.
        key: Which part of it is asked for, and how it is decoded.
        make: reads and decodes it.
        cache_gigabytes: Largest size of all cache files together; 0 stores none.
    """
    cache = user_cache()
    if cache is None or cache_gigabytes <= 0:
        return make()
    path = cache / "images" / f"{PREFIX}{_fingerprint(folder, key)}.npy"
    # Unreadable, cut off by a full disk, or not ours: it is made again.
    with contextlib.suppress(OSError, ValueError, EOFError):
        decoded, messages = _read(path)
        _warn(messages)
        return decoded
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded = make()
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    with contextlib.suppress(OSError):
        _write(path, decoded, messages, int(cache_gigabytes * GIGABYTE))
    _warn(messages)
    return decoded


def _warn(messages: list[str]) -> None:
    for message in messages:
        warnings.warn(message, stacklevel=3)


def _fingerprint(folder: Path, key: str) -> str:
    """Hash the key, the set's description, and its records' names, sizes and times."""
    digest = hashlib.sha256(f"{folder.parent.name} {key}".encode())
    for path in sorted(folder.iterdir()):
        if path.name.startswith((PREFIX, ".")) or not path.is_file():
            continue
        digest.update(path.name.encode())
        if path.suffix in (".json", ".txt"):
            digest.update(path.read_bytes())
        else:
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _read(path: Path) -> tuple[Decoded, list[str]]:
    with path.open("rb") as file:
        images, labels, names, resizing, messages = (np.load(file) for _ in range(5))
    with contextlib.suppress(OSError):
        os.utime(path)  # the time of use, by which files are deleted
    return Decoded(Dataset(images, labels, tuple(map(str, names))), str(resizing)), list(map(str, messages))


def _write(path: Path, decoded: Decoded, messages: list[str], limit: int) -> None:
    """Write a cache file, and delete the files used longest ago where all together exceed the limit."""
    dataset = decoded.dataset
    if dataset.images.nbytes + dataset.labels.nbytes > limit:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.stat().st_mode & 0o222:
        raise PermissionError(path.parent)  # marked read-only, which the superuser's system calls would not say
    handle, temporary = tempfile.mkstemp(prefix=f".{PREFIX}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            strings = (np.array(s, dtype=np.str_) for s in (dataset.class_names, decoded.resizing, messages))
            for array in (dataset.images, dataset.labels, *strings):
                np.save(file, array)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    files = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > limit and file != path:
            file.unlink()
