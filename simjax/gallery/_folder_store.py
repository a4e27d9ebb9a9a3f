"""The folder of a gallery: items in SQLite, embeddings in a file of float32 rows. See `simjax.gallery` for the format.

A transaction first appends embeddings to their file, beyond the rows that readers know, and then commits the items and
the new number of rows in SQLite. A process that dies before the commit leaves a longer file, which the next transaction
cuts. The lock of a writer is that of SQLite; the operating system releases it when the process ends.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from simjax.core import InputError
from simjax.encoder import Encoder, load_encoder
from simjax.gallery._folder import (
    DATABASE,
    EMBEDDINGS,
    ENCODER,
    INTEGERS,
    check_no_links,
    check_schema,
    create_folder,
    file_number,
)
from simjax.gallery._folder_embeddings import EmbeddingsFile, delete, write_durably, write_rows
from simjax.gallery._results import Item
from simjax.gallery._sql import (
    condition,
    connect,
    input_errors,
    integer_columns,
    item_of,
    json_list,
    names_of,
)
from simjax.gallery._store import (
    ITEMS_PER_READ,
    Contents,
    NewItems,
    NoGalleryError,
    Properties,
    StoredCalibration,
    Where,
    as_npy,
    check_properties,
    read_calibration,
)

MIN_DEAD_ROWS = 10_000
"""The file of embeddings is rewritten when more rows than this, and more than half of all, have no item."""

MAX_EMBEDDING_SIZE = 2**31 - 1
ENCODER_TEXTS = ("encoder", "fingerprint", "measure")
"""Properties that are text."""


def create_folder_store(
    path: Path,
    properties: Properties,
    save_encoder: Callable[[Path], None],
    items: Sequence[NewItems],
    *,
    overwrite: bool,
    timeout: float,
) -> "FolderStore":
    """Create a gallery with its first items in one transaction, and open it; see `create_store`."""

    def add_items(folder: Path) -> None:
        if items:
            with contextlib.closing(FolderStore(path, timeout, folder=folder)) as store:
                store.add(items)

    create_folder(path, properties, save_encoder, add_items, overwrite=overwrite, timeout=timeout)
    return FolderStore(path, timeout)


class FolderStore:
    """The folder of a gallery, opened for reading and writing. Threads may share it.

    Args:
        path: Absolute path of the folder.
        timeout: Seconds to wait for processes that use the gallery.
        folder: Hidden folder that has the files while the gallery is created. Default: `path`.
    """

    def __init__(self, path: Path, timeout: float, *, folder: Path | None = None):
        self.path = path
        self._folder = path if folder is None else folder
        self._database = self._folder / DATABASE
        self._lock = threading.RLock()
        self._contents: Contents | None = None
        with input_errors("open", path):
            if not self._folder.is_dir():
                raise NoGalleryError(f"{path}: {'it is a file, not a gallery' if path.exists() else 'no such gallery'}")
            check_no_links(self._folder, self.address)
            if not self._database.is_file():
                raise NoGalleryError(f"{path} is not a gallery: it has no {DATABASE}")
            self._file_number = file_number(self._database)
            self._connection = connect(self._database, timeout)
        try:
            with input_errors("open", path):
                # Unlike FULL, EXTRA waits until the deleted journal, which is the commit, is on the disk.
                self._connection.execute("PRAGMA synchronous = EXTRA")
                self._connection.execute("PRAGMA trusted_schema = OFF")  # the folder may come from anybody
            with self._reading():
                check_schema(self._connection, "properties")
                self._properties()  # another version may have other tables
                check_schema(self._connection)
            self.contents()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Path of the folder."""
        return str(self.path)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def load_encoder(self) -> Encoder:
        """Load the encoder in the folder."""
        encoder = load_encoder(self._folder / ENCODER)
        with self._reading():  # an InputError if another gallery has replaced this one
            return encoder

    def properties(self) -> Properties:
        """Return the properties."""
        with self._reading():
            return {**self._properties(), "last_id": self._last_id()}

    def count(self) -> int:
        """Return the number of items."""
        return len(self.contents().ids)

    def contents(self, where: Where = None) -> Contents:
        """Return all items, or those with given metadata or identity. Only what was changed is read again."""
        is_wanted, values = condition(where)
        with self._reading():
            found = self._refresh()
            if where is None:
                return found
            sql = f"SELECT id, row FROM items WHERE {is_wanted} ORDER BY row"
            ids, rows = integer_columns(self._connection.execute(sql, values))
            return found._replace(ids=ids, rows=rows)

    def named_contents(self) -> Contents:
        """Return the items that have an identity."""
        with self._reading():
            found = self._refresh()
            unnamed = integer_columns(self._connection.execute("SELECT id, row FROM items WHERE identity IS NULL"))[1]
            if not unnamed.size:
                return found
            is_named = np.ones(len(found.rows), bool)
            is_named[np.searchsorted(found.rows, unnamed)] = False
            return found._replace(ids=found.ids[is_named], rows=found.rows[is_named])

    def items_by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        """Return those of these items that exist."""
        sql = "SELECT id, identity, path, metadata FROM items WHERE id IN (SELECT value FROM json_each(?))"
        with self._reading():
            return {row[0]: item_of(row) for row in self._connection.execute(sql, (json_list(ids),))}

    def items(self, where: Where = None) -> Iterator[Item]:
        """Yield the items in the order of their ids. The gallery may be changed in between."""
        is_wanted, values = condition(where)
        sql = f"SELECT id, identity, path, metadata FROM items WHERE id > ? AND {is_wanted} ORDER BY id LIMIT ?"
        last, count = 0, ITEMS_PER_READ
        while count == ITEMS_PER_READ:
            with self._reading():
                found = [item_of(row) for row in self._connection.execute(sql, (last, *values, ITEMS_PER_READ))]
            yield from found
            last, count = found[-1].id if found else 0, len(found)

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        """Return those of these paths that items have."""
        sql = "SELECT path FROM items WHERE path IN (SELECT value FROM json_each(?))"
        with self._reading():
            return {path for (path,) in self._connection.execute(sql, (json_list(paths),))}

    def count_identities(self) -> int:
        """Return the number of different identities."""
        with self._reading():
            return self._connection.execute("SELECT count(DISTINCT identity) FROM items").fetchone()[0]

    def enrolled(self, names: Iterable[str | None] | None = None) -> list[str]:
        """Return which of these identities have items. Default: of the identities of the calibration."""
        source, values = "SELECT name FROM calibration_identities", ()
        if names is not None:
            source, values = "SELECT value FROM json_each(?)", (json_list(names),)
        sql = f"SELECT DISTINCT identity FROM items WHERE identity IN ({source}) ORDER BY identity"
        with self._reading():
            return names_of(self._connection.execute(sql, values))

    def calibration(self) -> StoredCalibration | None:
        """Return the calibration, or None."""
        with self._reading():
            found = self._connection.execute("SELECT value FROM properties WHERE name = 'calibration'").fetchone()
            if found is None:
                return None
            arrays = dict(self._connection.execute("SELECT name, array FROM calibration"))
            names = names_of(self._connection.execute("SELECT name FROM calibration_identities"))
            return read_calibration(arrays, found[0], names, self.address)

    def add(self, batches: Iterable[NewItems], last_id: int = 0) -> list[int]:
        """Append items in one transaction, and return their ids."""
        added: list[int] = []
        with self._writing() as properties, self._embeddings_file(properties).open_for_appending() as file:
            for new in batches:
                n, first = len(new.embeddings), 1 + self._last_id()
                write_durably(file, [new.embeddings])
                ids = range(first, first + n) if new.ids is None else new.ids
                rows = range(properties["rows"], properties["rows"] + n)
                self._connection.executemany(
                    "INSERT INTO items (id, identity, path, metadata, row) VALUES (?, ?, ?, ?, ?)",
                    zip(ids, new.identities, new.paths, new.metadata, rows, strict=True),
                )
                properties["rows"] += n
                added += ids
            if last_id > self._last_id():
                self._connection.execute("DELETE FROM sqlite_sequence WHERE name = 'items'")
                self._connection.execute("INSERT INTO sqlite_sequence VALUES ('items', ?)", (last_id,))
        return added

    def update(self, ids: Iterable[int], values: Mapping[str, str | None]) -> None:
        """Set columns of items in one transaction."""
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._writing(rewrites=True):
            wanted = self._existing(ids)
            sql = f"UPDATE items SET {columns} WHERE id IN (SELECT value FROM json_each(?))"
            self._connection.execute(sql, (*values.values(), wanted))

    def remove(self, ids: Iterable[int]) -> int:
        """Remove items in one transaction, and return their number."""
        with self._writing(rewrites=True) as properties:
            sql = "DELETE FROM items WHERE id IN (SELECT value FROM json_each(?))"
            return self._remove(properties, sql, self._existing(ids))

    def remove_identity(self, name: str) -> int:
        """Remove the items of an identity in one transaction, and return their number."""
        with self._writing(rewrites=True) as properties:
            return self._remove(properties, "DELETE FROM items WHERE identity = ?", name)

    def save_calibration(self, calibration: StoredCalibration) -> None:
        """Replace the calibration in one transaction."""
        with self._writing() as properties:
            self._connection.execute("DELETE FROM calibration")
            self._connection.execute("DELETE FROM calibration_identities")
            arrays = ((name, as_npy(array)) for name, array in calibration.arrays.items())
            self._connection.executemany("INSERT INTO calibration VALUES (?, ?)", arrays)
            names = ((name,) for name in sorted(set(calibration.identities)))
            self._connection.executemany("INSERT INTO calibration_identities VALUES (?)", names)
            properties["calibration"] = json.dumps(calibration.description)
            properties["calibrated"] = properties["transaction"] + 1

    def _last_id(self) -> int:
        """Return the highest id that was ever given, 0 if there was none."""
        last = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
        if last is None:
            return 0
        if not isinstance(last[0], int) or last[0] < 0:
            raise sqlite3.DatabaseError(f"its highest id is {last[0]!r}")
        return last[0]

    def _remove(self, properties: Properties, sql: str, value: str) -> int:
        removed = self._connection.execute(sql, (value,)).rowcount
        (remaining,) = self._connection.execute("SELECT count(*) FROM items").fetchone()
        if properties["rows"] - remaining > max(MIN_DEAD_ROWS, remaining):
            self._compact(properties)
        return removed

    def _compact(self, properties: Properties) -> None:
        """Write the rows that have an item to a new file of embeddings. The old one is deleted after the commit."""
        _, rows = integer_columns(self._connection.execute("SELECT id, row FROM items ORDER BY row"))
        embeddings = self._embeddings_file(properties).map()
        properties["generation"] += 1
        properties["rows"] = len(rows)
        write_rows(self._folder / EMBEDDINGS.format(properties["generation"]), embeddings, rows)
        # In ascending order: a new row is at most the old one, so that no two items have one row in between.
        self._connection.executemany("UPDATE items SET row = ? WHERE row = ?", enumerate(rows.tolist()))

    def _existing(self, ids: Iterable[int]) -> str:
        """Return ids as a JSON list; an InputError names one that does not exist."""
        wanted = json_list(ids)
        sql = "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.id = value)"
        unknown = self._connection.execute(sql, (wanted,)).fetchone()
        if unknown is not None:
            raise InputError(f"ids: the gallery has no item {unknown[0]}; nothing was changed")
        return wanted

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Read in one transaction: no process changes the gallery until it ends."""
        with self._lock, input_errors("read", self.path):
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("SELECT count(*) FROM sqlite_master")  # BEGIN alone does not take the lock
                self._check_not_replaced()
                yield
            finally:
                self._connection.rollback()

    @contextlib.contextmanager
    def _writing(self, *, rewrites: bool = False) -> Iterator[Properties]:
        """Write in one transaction, and yield the properties, which are stored at its end.

        Args:
            rewrites: The transaction does more than appending items: readers read all items again.
        """
        with self._lock, input_errors("write", self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._check_not_replaced()
                committed = self._properties()
                self._embeddings_file(committed).discard_uncommitted()
                properties = dict(committed)
                try:
                    yield properties
                    properties["transaction"] += 1
                    if rewrites:
                        properties["last_rewrite"] = properties["transaction"]
                    changed = [(name, value) for name, value in properties.items() if committed.get(name) != value]
                    self._connection.executemany("REPLACE INTO properties VALUES (?, ?)", changed)
                    self._check_not_replaced()  # the folder may have been moved by hand
                    self._connection.commit()
                except BaseException:
                    self._connection.rollback()
                    with contextlib.suppress(sqlite3.Error, OSError, InputError):
                        self._connection.execute("BEGIN IMMEDIATE")
                        self._check_not_replaced()
                        self._embeddings_file(self._properties()).discard_uncommitted()
                    raise
            finally:
                self._connection.rollback()
            if properties["generation"] != committed["generation"]:
                delete(self._folder / EMBEDDINGS.format(committed["generation"]))

    def _check_not_replaced(self) -> None:
        """Raise an InputError if another gallery has replaced this one, which cannot happen during a transaction."""
        if not self._database.exists() or file_number(self._database) != self._file_number:
            raise InputError(f"{self.path} was replaced by another gallery; open it again")

    def _properties(self) -> Properties:
        """Read and check the table of properties."""
        found = dict(self._connection.execute("SELECT name, value FROM properties WHERE name != 'calibration'"))
        properties = check_properties(found, INTEGERS, self.address)
        if not 0 < properties["embedding_size"] <= MAX_EMBEDDING_SIZE:
            raise sqlite3.DatabaseError(f"its embedding_size is {properties['embedding_size']}")
        if wrong := [name for name in ENCODER_TEXTS if not isinstance(properties.get(name), str)]:
            raise sqlite3.DatabaseError(f"its {wrong[0]} is {properties.get(wrong[0])!r}")
        return properties

    def _refresh(self) -> Contents:
        """Return all items. Only those that were added since the last call are read, if nothing else was changed."""
        properties, known = self._properties(), self._contents
        if known is not None and known.properties["transaction"] == properties["transaction"]:
            return known
        if known is not None and known.properties["transaction"] < properties["last_rewrite"]:
            known = None
        first = known.properties["rows"] if known else -(2**63)
        sql = "SELECT id, row FROM items WHERE row >= ? ORDER BY row"
        ids, rows = integer_columns(self._connection.execute(sql, (first,)))
        if rows.size and (rows[0] < 0 or rows[-1] >= properties["rows"] or np.any(np.diff(ids) <= 0)):
            raise InputError(f"{self.path}: the gallery is damaged: its items do not belong to its embeddings")
        if known:
            ids, rows = np.concatenate([known.ids, ids]), np.concatenate([known.rows, rows])
        self._contents = Contents(ids, rows, self._embeddings_file(properties).map(), properties)
        return self._contents

    def _embeddings_file(self, properties: Properties) -> EmbeddingsFile:
        return EmbeddingsFile(self._folder, properties, self.address)
