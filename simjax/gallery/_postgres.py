"""A gallery in PostgreSQL with pgvector: the tables of a schema. See docs/gallery-format.md for them.

A transaction of PostgreSQL is one of the gallery. Embeddings are copied in PostgreSQL's binary format into a temporary
file, which is mapped into memory; later only new ones are copied. Filters and names are read from the database. All
values are parameters of the statements.
"""

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import psycopg
from psycopg import IsolationLevel, sql

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.gallery import _postgres_index
from simjax.gallery._postgres_sql import (
    WRONG_TABLES,
    add_items,
    address_of,
    check_schema,
    condition,
    connect,
    copied,
    input_errors,
    read_ids,
    read_properties,
    set_search_path,
)
from simjax.gallery._results import Item
from simjax.gallery._store import (
    INTEGERS,
    ITEMS_PER_READ,
    Contents,
    DamageError,
    EmbeddingFile,
    NewItems,
    Properties,
    StoredCalibration,
    Where,
    as_npy,
    check_properties,
    checked_item,
    load_archived_encoder,
    read_calibration,
)


class PostgresStore:
    """A gallery in a schema of PostgreSQL. See `Store` for the methods without a description."""

    def __init__(self, url: str, name: str, timeout: float):
        self._url, self._name, self._timeout = url, name, timeout
        self._lock = threading.RLock()
        self._contents: Contents | None = None
        self._gallery: str | None = None  # unique among galleries
        with input_errors("open", self.address):
            self._connection = connect(url, timeout)
        self._embeddings = EmbeddingFile()
        try:
            self.properties()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """URL of the gallery without password."""
        return address_of(self._url, self._name)

    def close(self) -> None:
        """Close the connection, and delete the temporary file."""
        self._embeddings.close()
        self._connection.close()

    def load_encoder(self) -> Encoder:
        with self._reading() as (cursor, _):
            archive = _value(cursor.execute("SELECT archive FROM encoder"))
        return load_archived_encoder(archive, self._name, self.address)

    def properties(self) -> Properties:
        with self._reading() as (_, properties):
            return properties

    def count(self) -> int:
        with self._reading() as (cursor, _):
            return _value(cursor.execute("SELECT count(*) FROM items"))

    def count_identities(self) -> int:
        with self._reading() as (cursor, _):
            return _value(cursor.execute("SELECT count(DISTINCT identity) FROM items"))

    def contents(self, where: Where = None) -> Contents:
        is_wanted, values = condition(where)
        with self._reading() as (cursor, properties):
            found = self._refresh(cursor, properties)
            if where is None:
                return found
            ids = read_ids(cursor, is_wanted, values)
            return found._replace(ids=ids, rows=found.rows[np.searchsorted(found.ids, ids)])

    def named_contents(self) -> Contents:
        with self._reading() as (cursor, properties):
            found = self._refresh(cursor, properties)
            is_named = ~np.isin(found.ids, read_ids(cursor, "identity IS NULL"))
            return found._replace(ids=found.ids[is_named], rows=found.rows[is_named])

    def items_by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        statement = "SELECT id, identity, path, metadata FROM items WHERE id = ANY(%s::bigint[])"
        with self._reading() as (cursor, _):
            return {row[0]: checked_item(row[0], row[1:]) for row in cursor.execute(statement, (list(ids),))}

    def items(self, where: Where = None) -> Iterator[Item]:
        is_wanted, values = condition(where)
        statement = f"SELECT id, identity, path, metadata FROM items WHERE id > %s AND {is_wanted} ORDER BY id LIMIT %s"
        last, count = 0, ITEMS_PER_READ
        while count == ITEMS_PER_READ:
            with self._reading() as (cursor, _):
                rows = cursor.execute(statement, (last, *values, ITEMS_PER_READ))
                found = [checked_item(row[0], row[1:]) for row in rows]
            yield from found
            last, count = found[-1].id if found else 0, len(found)

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        with self._reading() as (cursor, _):
            cursor.execute("SELECT path FROM items WHERE path = ANY(%s::text[])", (list(paths),))
            return {path for (path,) in cursor}

    def enrolled(self, names: Iterable[str | None] | None = None) -> list[str]:
        source = "SELECT name FROM calibration_identities" if names is None else "SELECT unnest(%s::text[])"
        statement = f'SELECT DISTINCT identity COLLATE "C" FROM items WHERE identity IN ({source}) ORDER BY 1'
        with self._reading() as (cursor, _):
            return [name for (name,) in cursor.execute(statement, () if names is None else (list(names),))]

    def calibration(self) -> StoredCalibration | None:
        with self._reading() as (cursor, _):
            found = cursor.execute("SELECT value::text FROM properties WHERE name = 'calibration'").fetchone()
            if found is None:
                return None
            arrays = dict(cursor.execute("SELECT name, content FROM calibration"))
            names = [name for (name,) in cursor.execute("SELECT name FROM calibration_identities")]
            return read_calibration(arrays, found[0], names, self.address)

    def add(self, batches: Iterable[NewItems], last_id: int = 0) -> list[int]:
        with self._writing() as (cursor, properties):
            added = add_items(cursor, batches, properties)
            properties["last_id"] = max(properties["last_id"], last_id)
            return added

    def update(self, ids: Iterable[int], values: Mapping[str, str | None]) -> None:
        columns = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in values)
        with self._writing(rewrites=True) as (cursor, _):
            wanted = self._existing(cursor, ids)
            statement = sql.SQL("UPDATE items SET {} WHERE id = ANY(%s::bigint[])").format(columns)
            cursor.execute(statement, (*values.values(), wanted))

    def remove(self, ids: Iterable[int]) -> int:
        with self._writing(rewrites=True) as (cursor, _):
            wanted = self._existing(cursor, ids)
            return cursor.execute("DELETE FROM items WHERE id = ANY(%s::bigint[])", (wanted,)).rowcount

    def remove_identity(self, name: str) -> int:
        with self._writing(rewrites=True) as (cursor, _):
            return cursor.execute("DELETE FROM items WHERE identity = %s", (name,)).rowcount

    def save_calibration(self, calibration: StoredCalibration) -> None:
        with self._writing() as (cursor, properties):
            cursor.execute("DELETE FROM calibration")
            cursor.execute("DELETE FROM calibration_identities")
            arrays = [(name, as_npy(array)) for name, array in calibration.arrays.items()]
            cursor.executemany("INSERT INTO calibration VALUES (%s, %s)", arrays)
            names = [(name,) for name in sorted(set(calibration.identities))]
            cursor.executemany("INSERT INTO calibration_identities VALUES (%s)", names)
            properties["calibration"] = calibration.description
            properties["calibrated"] = properties["transaction"] + 1

    def create_index(self) -> int:
        with self._writing() as (cursor, properties):
            return _postgres_index.create_index(cursor, self._name, properties)

    def drop_index(self) -> bool:
        with self._writing() as (cursor, _):
            cursor.execute("DELETE FROM properties WHERE name = 'index'")
            return _postgres_index.drop_index(cursor, self._name)

    def save_index(self, description: Properties) -> None:
        with self._writing() as (_, properties):
            properties["index"] = description

    def candidates(self, query: np.ndarray, count: int, where: Where = None) -> Contents:
        with self._reading() as (cursor, properties):
            return _postgres_index.candidates(cursor, self._name, properties, query, count, where)

    def selected_contents(self, where: Where = None, ids: Iterable[int] | None = None) -> Contents:
        with self._reading() as (cursor, properties):
            return _postgres_index.selected_contents(cursor, properties, where, ids)

    def _existing(self, cursor: psycopg.Cursor, ids: Iterable[int]) -> list[int]:
        """Return ids as a list; an InputError names one that does not exist."""
        wanted = list(ids)
        cursor.execute(
            "SELECT id FROM unnest(%s::bigint[]) WITH ORDINALITY AS wanted (id, position) "
            "WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.id = wanted.id) ORDER BY position LIMIT 1",
            (wanted,),
        )
        if (unknown := cursor.fetchone()) is not None:
            raise InputError(f"ids: the gallery has no item {unknown[0]}; nothing was changed")
        return wanted

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tuple[psycopg.Cursor, Properties]]:
        """Read in one transaction: all statements find the same state of the gallery. Yields the properties, too."""
        with self._transaction("read", IsolationLevel.REPEATABLE_READ, "ACCESS SHARE") as cursor:
            yield cursor, self._properties(cursor)

    @contextlib.contextmanager
    def _writing(self, *, rewrites: bool = False) -> Iterator[tuple[psycopg.Cursor, Properties]]:
        """Write in one transaction, and yield the properties, which are stored at its end; see `FolderStore`."""
        # With the isolation of `_reading`, a transaction would not see what was written while it waited for the lock.
        with self._transaction("write", IsolationLevel.READ_COMMITTED, "EXCLUSIVE") as cursor:
            committed = self._properties(cursor)
            properties = dict(committed)
            yield cursor, properties
            properties["transaction"] += 1
            if rewrites:
                properties["last_rewrite"] = properties["transaction"]
            changed = [(name, json.dumps(value)) for name, value in properties.items() if committed.get(name) != value]
            upsert = "INSERT INTO properties VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            cursor.executemany(upsert, changed)

    @contextlib.contextmanager
    def _transaction(
        self, action: str, isolation: IsolationLevel, lock_mode: Literal["ACCESS SHARE", "EXCLUSIVE"]
    ) -> Iterator[psycopg.Cursor]:
        """Begin a transaction that waits for the replacement of the gallery, and if it writes for other writers."""
        with self._lock, input_errors(action, self.address):
            if self._embeddings.closed:
                raise InputError(f"{self.address}: the gallery was closed")
            if self._connection.closed:  # the server was restarted
                self._connection = connect(self._url, self._timeout)
            self._connection.isolation_level = isolation
            self._connection.read_only = lock_mode == "ACCESS SHARE"
            try:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    set_search_path(cursor, self._name, self._timeout)
                    cursor.execute(f"LOCK TABLE properties IN {lock_mode} MODE")
                    yield cursor
            except WRONG_TABLES:
                check_schema(self._connection, self._name, self.address)
                raise

    def _properties(self, cursor: psycopg.Cursor) -> Properties:
        """Read and check the table of properties."""
        found = check_properties(read_properties(cursor), INTEGERS, self.address)
        if self._gallery not in (None, found.get("gallery")):
            raise InputError(f"{self.address} was replaced by another gallery; open it again")
        self._gallery = found.get("gallery")
        return found

    def _refresh(self, cursor: psycopg.Cursor, properties: Properties) -> Contents:
        """Return all items. Only embeddings that were added since the last call are read."""
        size, nothing = properties["embedding_size"], np.empty(0, np.int64)
        known = self._contents or Contents(nothing, nothing, nothing, {"transaction": -1, "last_id": 0, "rows": 0})
        if known.properties["transaction"] == properties["transaction"]:
            return known
        ids, rows, count = [known.ids], [known.rows], known.properties["rows"]
        last = known.properties["last_id"]
        if known.properties["transaction"] < properties["last_rewrite"]:
            exists = np.isin(known.ids, read_ids(cursor, "id <= %s", [last]))
            ids, rows = [known.ids[exists]], [known.rows[exists]]
        statement = "SELECT id, embedding FROM items WHERE id > %s ORDER BY id"
        for block in copied(cursor, statement, [last], size):
            self._embeddings.write(count, block["values"])
            ids.append(block["id"].astype(np.int64))
            rows.append(np.arange(count, count + len(block)))
            count += len(block)
        embeddings = self._embeddings.map(count, size)
        found = {**properties, "rows": count}
        self._contents = Contents(np.concatenate(ids), np.concatenate(rows), embeddings, found)
        return self._contents


def _value(cursor: psycopg.Cursor) -> Any:
    """Return the value of a query for one row."""
    if (row := cursor.fetchone()) is None:
        raise DamageError("its table `encoder` is empty")
    return row[0]
