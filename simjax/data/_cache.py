"""Decoded arrays kept on disk, so that the second start costs milliseconds.

A cache file lies beside the prepared data set, or where that folder is read-only in the user's cache folder. It holds
three arrays one after the other, is written to a temporary file and renamed, and its name holds a hash of what it was
made from. It is a convenience: where it cannot be written, nothing is said.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simjax.data._dataset import Dataset

PREFIX = "simjax-"


def cached(folder: Path, key: str, make: Callable[[], Dataset]) -> Dataset:
    """What `make` makes, from the cache if it was made before from the same files.

    Args:
        folder: of the prepared data set.
        key: what of it is asked for.
        make: reads and decodes it.
    """
    name = f"{PREFIX}{key}-{_fingerprint(folder)}.npy"
    places = (folder / name, _user_cache() / name)
    for place in places:
        # Unreadable, cut off by a full disk, or not ours: it is made again.
        with contextlib.suppress(OSError, ValueError, EOFError):
            return _read(place)
    dataset = make()
    for place in places:
        with contextlib.suppress(OSError):
            _write(place, dataset)
            break
    return dataset


def _fingerprint(folder: Path) -> str:
    """A hash of the set's description and of its records' names, sizes and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name.startswith((PREFIX, ".")) or not path.is_file():
            continue
        digest.update(path.name.encode())
        if path.suffix in (".json", ".txt"):
            digest.update(path.read_bytes())
        else:
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simjax"


def _read(path: Path) -> Dataset:
    with path.open("rb") as file:
        images, labels, names = (np.load(file) for _ in range(3))
    return Dataset(images, labels, tuple(map(str, names)))


def _write(path: Path, dataset: Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.stat().st_mode & 0o222:
        raise PermissionError(path.parent)  # marked read-only, which the superuser's system calls would not say
    handle, temporary = tempfile.mkstemp(prefix=f".{PREFIX}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for array in (dataset.images, dataset.labels, np.array(dataset.class_names, dtype=np.str_)):
                np.save(file, array)
        os.chmod(temporary, 0o644)  # mkstemp's files are for one user; a data directory may be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
