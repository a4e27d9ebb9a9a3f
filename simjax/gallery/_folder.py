"""The files of a gallery, and creating or replacing them."""

import contextlib
import errno
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from simjax._files import move_folder, replace_folder, temporary_folder
from simjax.core import InputError
from simjax.encoder._storage import foreign_entries
from simjax.gallery._sql import BUSY, FILE_SYSTEM_ERRORS, connect, input_errors, primary_code
from simjax.gallery._store import FORMAT, VERSION

DATABASE, ENCODER, EMBEDDINGS = "items.sqlite", "encoder", "embeddings-{}.f32"  # {} is the generation, first 0
JOURNAL = f"{DATABASE}-journal"
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
    add_items: Callable[[Path], None],
    *,
    overwrite: bool,
    timeout: float,
) -> None:
    """Create a gallery in a hidden folder, and rename it at the end. If this raises an error, nothing has changed.

    Args:
        path: Absolute path of the folder.
        properties: `ENCODER_PROPERTIES`.
        save_encoder: Writes the encoder to a folder.
        add_items: Adds the first items to the gallery in the hidden folder.
        overwrite: Replace a gallery that has this path.
        timeout: Seconds to wait for processes that use the gallery to be replaced.
    """
    with contextlib.ExitStack() as stack:
        with input_errors("write", path):  # converts errors of files and of SQLite to InputErrors
            check_replaceable(path, overwrite=overwrite)
            work = stack.enter_context(temporary_folder(path))
            _write_empty_gallery(work, properties)
            save_encoder(work / ENCODER)
        add_items(work)
        with input_errors("write", path):
            while not _put_in_place(work, path, overwrite, timeout):
                pass


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Raise an InputError if a path exists, unless it is an empty folder or, with `overwrite`, a gallery."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a folder for a gallery")
    entries = sorted(path.iterdir())
    if (path / DATABASE).exists() and not overwrite:
        raise InputError(f"{path} exists; choose another folder, or create it with `overwrite=True`")
    unknown = [entry.name for entry in entries if not _is_of_gallery(entry)]
    if not unknown and (path / ENCODER).exists():
        unknown = [f"{ENCODER}/{name}" for name in foreign_entries(path / ENCODER)]
    if not unknown and entries and not (path / DATABASE).exists():
        unknown = [entries[0].name]
    if unknown:
        raise InputError(f"{path} contains {unknown[0]}, which no gallery wrote: not overwritten")


def _is_of_gallery(entry: Path) -> bool:
    """Return whether a gallery can have a file or folder of this name and kind, or had it until now."""
    try:
        mode = entry.lstat().st_mode
    except FileNotFoundError:  # the journal of a transaction that has ended
        return True
    if entry.name == ENCODER:
        return stat.S_ISDIR(mode)
    return stat.S_ISREG(mode) and (entry.name in (DATABASE, JOURNAL) or is_embeddings(entry.name))


def is_embeddings(name: str) -> bool:
    """Return whether this is the name of a file of embeddings, of any generation."""
    return re.fullmatch(r"embeddings-[0-9]+\.f32", name) is not None


def check_no_links(folder: Path, address: str) -> None:
    """Raise an InputError if a file of SQLite is a link: the file that it points to would be changed."""
    for name in (DATABASE, JOURNAL, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        if (folder / name).is_symlink():
            raise InputError(f"{address}: the gallery is damaged: {name} is a link")


def check_schema(connection: sqlite3.Connection, table: str | None = None) -> None:
    """Raise a DatabaseError if the database has tables, indexes or others that `create_folder` does not make.

    A view with the name of a table can be infinite, a trigger changes tables, an index can compute values.

    Args:
        connection: A connection to the database.
        table: Check this table only.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        new.executescript(SCHEMA)
        expected = _definitions(new)
    for kind, name, _ in sorted(_definitions(connection) - expected, reverse=True):  # views first
        if table in (None, name):
            raise sqlite3.DatabaseError(f"its {kind} {name} is not that of a gallery")


def _definitions(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Return the type, the name and the SQL statement of each table, index, view and trigger."""
    found = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master")
    return {(kind, name, " ".join(sql.split())) for kind, name, sql in found}


def file_number(path: Path) -> tuple[int, int]:
    """Return the device and the inode of a file or link: others for the database of a gallery that replaced it."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def _write_empty_gallery(work: Path, properties: dict[str, Any]) -> None:
    (work / EMBEDDINGS.format(0)).touch()
    with contextlib.closing(sqlite3.connect(work / DATABASE)) as connection:
        connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        stored = {"format": FORMAT, "version": VERSION, **dict.fromkeys(INTEGERS, 0), **properties}
        connection.executemany("INSERT INTO properties VALUES (?, ?)", stored.items())
        connection.commit()


def _put_in_place(work: Path, path: Path, overwrite: bool, timeout: float) -> bool:
    """Rename a new gallery to its path. Return False if another process has changed that path at the same time."""
    check_replaceable(path, overwrite=overwrite)
    if not (path / DATABASE).exists():  # nothing, or an empty folder
        try:
            move_folder(work, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            return False
        return True
    with _lock_before_replacing(path, timeout) as is_locked:
        if is_locked:
            check_replaceable(path, overwrite=overwrite)
            replace_folder(work, path)
        return is_locked


@contextlib.contextmanager
def _lock_before_replacing(path: Path, timeout: float) -> Iterator[bool]:
    """Wait until no process reads or writes a gallery, lock it, and yield whether it still is at the path.

    A damaged gallery is replaced without a lock. A process that has opened the gallery reads or writes only after the
    lock, sees another inode of the database, and raises an InputError. So it never writes to the files of the new
    gallery.
    """
    database = path / DATABASE
    number = file_number(database)
    with contextlib.closing(connect(database, timeout)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if primary_code(error) in (*BUSY, *FILE_SYSTEM_ERRORS):
                raise
        yield file_number(database) == number
