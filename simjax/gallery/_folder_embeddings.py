"""The file of embeddings of a gallery in a folder: its checks, its memory map, appending and rewriting it."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simjax._files import is_regular, sync_folder
from simjax.core import InputError
from simjax.gallery._folder import EMBEDDINGS, is_embeddings
from simjax.gallery._store import Properties

ROWS_PER_COPY = 2**16


class EmbeddingsFile:
    """The file of embeddings of one generation, with the committed rows of a transaction.

    Args:
        folder: Folder of the gallery.
        properties: Properties of the gallery.
        address: Path of the gallery for error messages.

    Raises:
        InputError: If the file has not all committed rows, or is a link: the file it points to would be changed.
    """

    def __init__(self, folder: Path, properties: Properties, address: str):
        self.path = folder / EMBEDDINGS.format(properties["generation"])
        self.shape = (properties["rows"], properties["embedding_size"])
        self.size = self.shape[0] * self.shape[1] * 4
        found = self.path.stat().st_size if is_regular(self.path) else -1
        if found < self.size:
            state = "missing or a link" if found < 0 else f"too short ({found:,} of {self.size:,} bytes)"
            raise InputError(f"{address}: the gallery is damaged: {self.path.name} is {state}")

    def map(self) -> np.ndarray:
        """Return all committed rows, memory-mapped."""
        if not self.size:
            return np.empty(self.shape, np.float32)  # an empty file cannot be mapped
        return np.asarray(np.memmap(self.path, "<f4", "r", shape=self.shape))

    def discard_uncommitted(self) -> None:
        """Cut the file to its committed rows, and delete those of other generations, which a killed process left."""
        if self.path.stat().st_size > self.size:
            os.truncate(self.path, self.size)
        for path in self.path.parent.iterdir():
            if path != self.path and is_embeddings(path.name):
                delete(path)

    def open_for_appending(self) -> BinaryIO:
        """Open the file behind its committed rows."""
        file = self.path.open("r+b")
        file.seek(self.size)
        return file


def write_rows(path: Path, embeddings: np.ndarray, rows: np.ndarray) -> None:
    """Write a new file with some rows of embeddings, and wait until it is on the disk."""
    with path.open("wb") as file:
        starts = range(0, len(rows), ROWS_PER_COPY)
        write_durably(file, (embeddings[rows[start : start + ROWS_PER_COPY]] for start in starts))
    sync_folder(path.parent)


def write_durably(file: BinaryIO, arrays: Iterable[np.ndarray]) -> None:
    """Write arrays, and wait until they are on the disk."""
    for array in arrays:
        file.write(array.data)
    file.flush()
    os.fsync(file.fileno())


def delete(path: Path) -> None:
    """Delete a file if this is possible."""
    with contextlib.suppress(OSError):  # Windows does not delete a file that a reader has mapped
        path.unlink()
