"""SQLite: connections, errors, conditions, and the conversion of values."""

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.gallery._results import Item
from simjax.gallery._store import Where, values_of

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
FILE_SYSTEM_ERRORS = (
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
)


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a database that exists, for reading if it cannot be written. Threads may share the connection."""
    uri = f"{path.as_uri()}?mode=rw"  # without a mode, a missing file would be created
    return sqlite3.connect(uri, timeout=timeout, isolation_level=None, check_same_thread=False, uri=True)


@contextlib.contextmanager
def input_errors(action: str, path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of files as InputErrors.

    Args:
        action: A verb: what is done to the gallery.
        path: Folder of the gallery.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot {action} {path}: {error.strerror or error}") from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise InputError(f"expected Unicode text and integers of at most 64 bits ({error})") from error
    except sqlite3.ProgrammingError as error:
        raise InputError(f"{path}: the gallery was closed ({error})") from error
    except sqlite3.Error as error:
        if primary_code(error) in BUSY:
            message = f"another process is writing {path}; try again later"
        elif primary_code(error) in FILE_SYSTEM_ERRORS:
            message = f"cannot {action} {path}: {error}"
        elif not primary_code(error):  # a value that SQLite accepts, and galleries do not have
            message = f"{path}: the gallery is damaged: {error}"
        else:
            message = f"{path}: the gallery is damaged, or its database is of something else ({error})"
        raise InputError(message) from error


def primary_code(error: sqlite3.Error) -> int:
    """Return the primary result code of SQLite, the lowest byte of the extended code; 0 if there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def integer_columns(cursor: Iterable[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return two columns of integers as int64 arrays."""
    try:
        both = np.fromiter(itertools.chain.from_iterable(cursor), np.int64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise sqlite3.DatabaseError(f"ids and rows are not integers: {error}") from error
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def names_of(cursor: Iterable[tuple[Any, ...]]) -> list[str]:
    """Return a column of names as a list."""
    names = [name for (name,) in cursor]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise sqlite3.DatabaseError(f"a name of an identity is {wrong[0]!r}")
    return names


def item_of(row: tuple[Any, ...]) -> Item:
    """Return an item from its columns: id, identity, path and metadata."""
    for column, value in zip(("identity", "path"), row[1:3], strict=True):
        if not isinstance(value, str | None):
            raise sqlite3.DatabaseError(f"the {column} of item {row[0]} is {type(value).__name__}, not text")
    try:
        metadata = json.loads(row[3])
    except (TypeError, ValueError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"the metadata of item {row[0]} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise sqlite3.DatabaseError(f"the metadata of item {row[0]} is {type(metadata).__name__}, not an object")
    return Item(row[0], row[1], row[2], metadata)


def json_list(values: Iterable[Any]) -> str:
    """Return the parameter of `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(list(values))


def condition(where: Where) -> tuple[str, list[Any]]:
    """Return an SQL condition on items with these values of metadata or identity, and its parameters.

    A list of values means any of them. 12 and 12.0 are one value; 1, "1" and true are three.
    """
    terms, parameters = ["1"], []
    for key, values in values_of(where):
        if key == "identity":
            terms.append("(" + (" OR ".join(["identity IS ?"] * len(values)) or "0") + ")")
            parameters += values
            continue
        same = "value IS ? AND (type IN ('true', 'false')) IS ? AND type NOT IN ('array', 'object')"
        any_of = " OR ".join([same] * len(values)) or "0"
        terms.append(f"EXISTS (SELECT 1 FROM json_each(items.metadata) WHERE key = ? AND ({any_of}))")
        parameters += [key, *(part for value in values for part in (value, isinstance(value, bool)))]
    return " AND ".join(terms), parameters
