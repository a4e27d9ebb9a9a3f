"""The files of a gallery, and creating or replacing them."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from simjax._files import replace_folder
from simjax.core import InputError
from simjax.gallery._sql import BUSY, connect, input_errors, primary_code
from simjax.gallery._store import FORMAT, VERSION

DATABASE, ENCODER, EMBEDDINGS = "items.sqlite", "encoder", "embeddings-{}.f32"  # {} is the generation, first 0
INTEGERS = ("embedding_size", "generation", "rows", "transaction", "last_rewrite", "calibrated")
"""Integer properties. In a new gallery all but the embedding size are 0: the generation (number of rewrites) and the
rows of the file of embeddings, the number of transactions, and the numbers of the last transaction that did more than
adding items and of the one that stored the calibration."""

SCHEMA = """
    CREATE TABLE properties (name TEXT PRIMARY KEY, value);
    CREATE TABLE items (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        identity TEXT,
        path TEXT,
        metadata TEXT NOT NULL,
        row INTEGER NOT NULL UNIQUE
    );
    CREATE INDEX items_by_identity ON items (identity, row);
    CREATE TABLE calibration (name TEXT PRIMARY KEY, array BLOB NOT NULL);
    CREATE TABLE calibration_identities (name TEXT PRIMARY KEY);
"""


def create_folder(
    path: Path,
    properties: dict[str, Any],
    save_encoder: Callable[[Path], None],
    *,
    overwrite: bool,
    timeout: float,
) -> None:
    """Create an empty gallery. If this raises an error, nothing at its path has changed.

    Args:
        path: Absolute path of the folder.
        properties: Of the encoder: "encoder" (its name), "fingerprint" (hash of its weights and preprocessing),
            "embedding_size" and "measure" (a name).
        save_encoder: Writes the encoder to a folder.
        overwrite: Replace a gallery that has this path.
        timeout: Seconds to wait for processes that use the gallery to be replaced.
    """
    check_replaceable(path, overwrite=overwrite)
    work = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with input_errors("write", path):  # converts errors of files and of SQLite to InputErrors
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            (work / EMBEDDINGS.format(0)).touch()
            with contextlib.closing(sqlite3.connect(work / DATABASE)) as connection:
                connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
                stored = {"format": FORMAT, "version": VERSION, **dict.fromkeys(INTEGERS, 0), **properties}
                connection.executemany("INSERT INTO properties VALUES (?, ?)", stored.items())
                connection.commit()
            save_encoder(work / ENCODER)
            with _lock_before_replacing(path, timeout):
                replace_folder(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Raise an InputError if a path exists, unless it is an empty folder or, with `overwrite`, a gallery."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a folder for a gallery")
    names = sorted(entry.name for entry in path.iterdir())
    own = (DATABASE, f"{DATABASE}-journal", ENCODER)
    unknown = [name for name in names if name not in own and not Path(name).match(EMBEDDINGS.format("*"))]
    if unknown:
        raise InputError(f"{path} contains {unknown[0]}, which no gallery wrote: not overwritten")
    if names and not overwrite:
        raise InputError(f"{path} exists; choose another folder, or create it with `overwrite=True`")


@contextlib.contextmanager
def _lock_before_replacing(path: Path, timeout: float) -> Iterator[None]:
    """Wait until no process reads or writes a gallery, and lock it. A damaged gallery is replaced without a lock.

    A process that has opened the gallery reads or writes only after the lock, sees another inode of the database, and
    raises an InputError. So it never writes to the files of the new gallery.
    """
    if not (path / DATABASE).is_file():
        yield
        return
    with contextlib.closing(connect(path / DATABASE, timeout)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if primary_code(error) in BUSY:
                raise
        yield
