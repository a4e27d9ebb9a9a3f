"""A gallery in PostgreSQL with pgvector: the tables of a schema. See docs/gallery-format.md for them.

A transaction of PostgreSQL is one of the gallery. Embeddings are copied in PostgreSQL's binary format into a temporary
file, which is mapped into memory; later only new ones are copied. Filters and names are read from the database. All
values are parameters of the statements.
"""

import contextlib
import json
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import numpy as np

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.gallery._results import Item
from simjax.gallery._store import (
    FORMAT,
    ITEMS_PER_READ,
    VERSION,
    Contents,
    NewItems,
    Properties,
    StoredCalibration,
    Where,
    archive_of,
    as_npy,
    check_properties,
    load_archived_encoder,
    read_calibration,
    values_of,
)

try:
    import psycopg
    from psycopg import IsolationLevel, errors, sql
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise InputError(f"galleries in PostgreSQL need psycopg: pip install 'simjax[postgres]' ({error})") from error

TABLES = ("properties", "items", "calibration", "calibration_identities", "encoder")
INTEGERS = ("embedding_size", "transaction", "last_rewrite", "calibrated", "last_id")

SCHEMA = """
    CREATE TABLE properties (name text PRIMARY KEY, value json NOT NULL);
    CREATE TABLE items (
        id bigint PRIMARY KEY,
        identity text,
        path text,
        metadata json NOT NULL CHECK (jsonb_typeof(metadata::jsonb) = 'object'),
        embedding vector({size}) NOT NULL
    );
    CREATE INDEX items_by_identity ON items USING hash (identity);
    CREATE TABLE calibration (name text PRIMARY KEY, content bytea NOT NULL);
    CREATE TABLE calibration_identities (name text NOT NULL);
    CREATE TABLE encoder (archive bytea NOT NULL);
"""

HEADER_BYTES, TRAILER_BYTES, BLOCK_BYTES = 19, 2, 2**22
"""Sizes of the header and the trailer of a binary COPY, and of the part of it that is converted at once."""


def create_tables(
    url: str,
    name: str,
    properties: Properties,
    save_encoder: Callable[[Path], None],
    *,
    overwrite: bool,
    timeout: float,
) -> None:
    """Create the tables of an empty gallery in one transaction; see `create_store`.

    Args:
        url: URL of the database.
        name: Name of the schema.
        properties, save_encoder, overwrite, timeout: See `create_store`.
    """
    address = address_of(url, name)
    archive = archive_of(save_encoder)
    stored = {
        **{"format": FORMAT, "version": VERSION, "gallery": uuid.uuid4().hex},
        **dict.fromkeys(INTEGERS, 0),
        **properties,
    }
    with (
        input_errors("write", address),
        contextlib.closing(_connect(url, timeout)) as connection,
        connection.transaction(),
        connection.cursor() as cursor,
    ):
        _create_extension(cursor, address)
        _enter(cursor, name, timeout)
        _empty_schema(cursor, name, address, overwrite=overwrite)
        cursor.execute(
            "SELECT set_config('search_path', quote_ident(%s) || ', ' || quote_ident(nspname), true)"
            "FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'",
            (name,),
        )
        cursor.execute(sql.SQL(SCHEMA).format(size=sql.Literal(properties["embedding_size"])))
        rows = [(key, json.dumps(value)) for key, value in stored.items()]
        cursor.executemany("INSERT INTO properties VALUES (%s, %s)", rows)
        cursor.execute("INSERT INTO encoder VALUES (%s)", (archive,))


def _create_extension(cursor: psycopg.Cursor, address: str) -> None:
    cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
    if cursor.fetchone() is not None:
        return
    try:
        cursor.execute("CREATE EXTENSION vector")
    except (errors.FeatureNotSupported, errors.UndefinedFile, errors.InsufficientPrivilege) as error:
        raise InputError(
            f"{address}: expected the extension pgvector, and it cannot be created ({_one_line(error)}); a superuser "
            "of the server installs it and runs CREATE EXTENSION vector"
        ) from error


def _empty_schema(cursor: psycopg.Cursor, name: str, address: str, *, overwrite: bool) -> None:
    """Create the schema if it does not exist, and drop the tables of a gallery that is to be replaced."""
    cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,))
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return
    cursor.execute(
        "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname",
        (name,),
    )
    tables = [table for (table,) in cursor]
    if tables and not overwrite:
        raise InputError(f"{address} exists; choose another name, or create it with `overwrite=True`")
    if unknown := sorted(set(tables) - set(TABLES)):
        raise InputError(f"{address} contains {unknown[0]}, which no gallery wrote: not overwritten")
    if tables:
        check_properties(_read_properties(cursor), (), address)  # tables of something else are not dropped
        cursor.execute(f"DROP TABLE {', '.join(TABLES)}")


class PostgresStore:
    """A gallery in a schema of PostgreSQL. See `Store` for the methods without a description."""

    def __init__(self, url: str, name: str, timeout: float):
        self._url, self._name, self._timeout = url, name, timeout
        self._lock = threading.RLock()
        self._contents: Contents | None = None
        self._gallery: str | None = None  # unique among galleries
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        try:
            with input_errors("open", self.address):
                self._connection = _connect(url, timeout)
            self.properties()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """URL of the database without user and password."""
        return address_of(self._url, self._name)

    def close(self) -> None:
        """Close the connection, and delete the temporary file."""
        self._file.close()
        if hasattr(self, "_connection"):
            self._connection.close()

    def load_encoder(self) -> Encoder:
        with self._reading() as cursor:
            (archive,) = _one(cursor.execute("SELECT archive FROM encoder"))
        return load_archived_encoder(archive, self._name, self.address)

    def properties(self) -> Properties:
        with self._reading() as cursor:
            return self._properties(cursor)

    def count(self) -> int:
        with self._reading() as cursor:
            return _one(cursor.execute("SELECT count(*) FROM items"))[0]

    def count_identities(self) -> int:
        with self._reading() as cursor:
            return _one(cursor.execute("SELECT count(DISTINCT identity) FROM items"))[0]

    def contents(self, where: Where = None) -> Contents:
        is_wanted, values = _condition(where)
        with self._reading() as cursor:
            found = self._refresh(cursor)
            if where is None:
                return found
            ids = _read_ids(cursor, is_wanted, values)
            return found._replace(ids=ids, rows=found.rows[np.searchsorted(found.ids, ids)])

    def named_contents(self) -> Contents:
        with self._reading() as cursor:
            found = self._refresh(cursor)
            is_named = ~np.isin(found.ids, _read_ids(cursor, "identity IS NULL"))
            return found._replace(ids=found.ids[is_named], rows=found.rows[is_named])

    def items_by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        statement = "SELECT id, identity, path, metadata FROM items WHERE id = ANY(%s::bigint[])"
        with self._reading() as cursor:
            return {row[0]: Item(*row) for row in cursor.execute(statement, (list(ids),))}

    def items(self, where: Where = None) -> Iterator[Item]:
        is_wanted, values = _condition(where)
        statement = f"SELECT id, identity, path, metadata FROM items WHERE id > %s AND {is_wanted} ORDER BY id LIMIT %s"
        last, count = 0, ITEMS_PER_READ
        while count == ITEMS_PER_READ:
            with self._reading() as cursor:
                found = [Item(*row) for row in cursor.execute(statement, (last, *values, ITEMS_PER_READ))]
            yield from found
            last, count = found[-1].id if found else 0, len(found)

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        with self._reading() as cursor:
            cursor.execute("SELECT path FROM items WHERE path = ANY(%s::text[])", (list(paths),))
            return {path for (path,) in cursor}

    def enrolled(self, names: Iterable[str | None] | None = None) -> list[str]:
        source = "SELECT name FROM calibration_identities" if names is None else "SELECT unnest(%s::text[])"
        statement = f'SELECT DISTINCT identity COLLATE "C" FROM items WHERE identity IN ({source}) ORDER BY 1'
        with self._reading() as cursor:
            return [name for (name,) in cursor.execute(statement, () if names is None else (list(names),))]

    def calibration(self) -> StoredCalibration | None:
        with self._reading() as cursor:
            found = cursor.execute("SELECT value::text FROM properties WHERE name = 'calibration'").fetchone()
            if found is None:
                return None
            arrays = dict(cursor.execute("SELECT name, content FROM calibration"))
            names = [name for (name,) in cursor.execute("SELECT name FROM calibration_identities")]
            return read_calibration(arrays, found[0], names, self.address)

    def add(self, batches: Iterable[NewItems], last_id: int = 0) -> list[int]:
        added: list[int] = []
        columns = "COPY items (id, identity, path, metadata, embedding) FROM STDIN (FORMAT binary)"
        with self._writing() as (cursor, properties), cursor.copy(columns) as copy:
            copy.set_types(
                ["int8", "text", "text", "text", "bytea"]
            )  # for json and vector, bytes as PostgreSQL reads them
            for new in batches:
                first = properties["last_id"] + 1
                ids = range(first, first + len(new.embeddings)) if new.ids is None else new.ids
                vectors = _as_vectors(new.embeddings)
                for row in zip(ids, new.identities, new.paths, new.metadata, vectors, strict=True):
                    copy.write_row(row)
                added += ids
                properties["last_id"] = max([properties["last_id"], *ids[-1:]])
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
    def _reading(self) -> Iterator[psycopg.Cursor]:
        """Read in one transaction: all statements find the same state of the gallery."""
        with self._transaction("read", IsolationLevel.REPEATABLE_READ, read_only=True) as cursor:
            self._properties(cursor)
            yield cursor

    @contextlib.contextmanager
    def _writing(self, *, rewrites: bool = False) -> Iterator[tuple[psycopg.Cursor, Properties]]:
        """Write in one transaction, and yield the properties, which are stored at its end; see `FolderStore`."""
        # With the isolation of `_reading`, a transaction would not see what was written while it waited for the lock.
        with self._transaction("write", IsolationLevel.READ_COMMITTED, read_only=False) as cursor:
            cursor.execute("LOCK TABLE properties IN EXCLUSIVE MODE")  # readers are not locked out
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
    def _transaction(self, action: str, isolation: IsolationLevel, *, read_only: bool) -> Iterator[psycopg.Cursor]:
        with self._lock, input_errors(action, self.address):
            if self._file.closed:
                raise InputError(f"{self.address}: the gallery was closed")
            if self._connection.closed:  # the server was restarted
                self._connection = _connect(self._url, self._timeout)
            self._connection.isolation_level, self._connection.read_only = isolation, read_only
            with self._connection.transaction(), self._connection.cursor() as cursor:
                _enter(cursor, self._name, self._timeout)
                yield cursor

    def _properties(self, cursor: psycopg.Cursor) -> Properties:
        """Read and check the table of properties."""
        found = check_properties(_read_properties(cursor), INTEGERS, self.address)
        if self._gallery not in (None, found.get("gallery")):
            raise InputError(f"{self.address} was replaced by another gallery; open it again")
        self._gallery = found.get("gallery")
        return found

    def _refresh(self, cursor: psycopg.Cursor) -> Contents:
        """Return all items. Only embeddings that were added since the last call are read."""
        properties = self._properties(cursor)
        size, known = properties["embedding_size"], self._contents
        if known is None:
            nothing = np.empty(0, np.int64)
            known = Contents(
                nothing, nothing, np.empty((0, size), np.float32), {"transaction": 0, "last_id": 0, "rows": 0}
            )
        if known.properties["transaction"] == properties["transaction"] and self._contents is not None:
            return known
        ids, rows, count = [known.ids], [known.rows], known.properties["rows"]
        last = known.properties["last_id"]
        if known.properties["transaction"] < properties["last_rewrite"]:
            exists = np.isin(known.ids, _read_ids(cursor, "id <= %s", [last]))
            ids, rows = [known.ids[exists]], [known.rows[exists]]
        self._file.seek(count * size * 4)  # behind it are rows of a call that was interrupted
        vector = [("bytes", ">i4"), ("size", ">i2"), ("unused", ">i2"), ("values", ">f4", size)]
        dtype = np.dtype([("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8"), *vector])
        for block in _copied(cursor, "SELECT id, embedding FROM items WHERE id > %s ORDER BY id", [last], dtype):
            self._file.write(block["values"].astype("<f4").data)
            ids.append(block["id"].astype(np.int64))
            rows.append(np.arange(count, count + len(block)))
            count += len(block)
        self._file.flush()
        embeddings = np.empty((0, size), np.float32)  # an empty file cannot be mapped
        if count:
            embeddings = np.asarray(np.memmap(self._file, "<f4", "r", shape=(count, size)))
        found = {**properties, "rows": count}
        self._contents = Contents(np.concatenate(ids), np.concatenate(rows), embeddings, found)
        return self._contents


def address_of(url: str, name: str) -> str:
    """Return the URL of a gallery without user and password."""
    parameters = _parameters(url)
    host, port, database = (str(parameters.get(part) or "") for part in ("host", "port", "dbname"))
    # libpq decodes folders of sockets and IPv6 addresses.
    return f"postgresql://{quote(host, safe=',')}{f':{port}' if port else ''}/{database}?gallery={name}"


def _parameters(url: str) -> dict[str, Any]:
    """Return the parameters of a connection. What libpq says about a URL is not shown: it quotes passwords."""
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.Error:
        parameters = {"host": "@"}
    if any("@" in str(parameters.get(part)) for part in ("host", "port", "dbname")):
        raise InputError(
            "expected a URL like postgresql://USER:PASSWORD@HOST:PORT/DATABASE?gallery=NAME with special characters "
            "as %XX, such as %40 for @"
        )
    return parameters


def _connect(url: str, timeout: float) -> psycopg.Connection:
    """Return a connection. Statements are not prepared, so that it may lead through a pool of connections."""
    options = {"connect_timeout": max(round(timeout), 2), **_parameters(url)}
    return psycopg.connect(**options, autocommit=True, prepare_threshold=None)


@contextlib.contextmanager
def input_errors(action: str, address: str) -> Iterator[None]:
    """Raise errors of PostgreSQL as InputErrors.

    Args:
        action: A verb: what is done to the gallery.
        address: See `Store`.
    """
    try:
        yield
    except errors.LockNotAvailable as error:
        raise InputError(f"another process is writing {address}; try again later") from error
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName, errors.WrongObjectType) as error:
        raise InputError(f"{address}: no such gallery, or it is damaged ({_one_line(error)})") from error
    except errors.DependentObjectsStillExist as error:
        raise InputError(f"{address}: something depends on its tables: not overwritten") from error
    except (psycopg.DataError, UnicodeEncodeError, OverflowError) as error:
        raise InputError(f"expected Unicode text without NUL and integers of at most 64 bits ({error})") from error
    except (psycopg.Error, OSError) as error:
        raise InputError(f"cannot {action} {address}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _enter(cursor: psycopg.Cursor, name: str, timeout: float) -> None:
    """Until the transaction ends, let names of tables mean those of a schema, and limit the wait for locks."""
    cursor.execute(
        "SELECT set_config('search_path', quote_ident(%s), true), set_config('lock_timeout', %s, true)",
        (name, str(max(round(1000 * timeout), 1))),  # milliseconds; 0 would be no limit
    )


def _read_properties(cursor: psycopg.Cursor) -> Properties:
    return dict(cursor.execute("SELECT name, value FROM properties WHERE name != 'calibration'"))


def _one(cursor: psycopg.Cursor) -> tuple:
    if (row := cursor.fetchone()) is None:
        raise InputError("the gallery is damaged: it has no encoder")
    return row


def _condition(where: Where) -> tuple[LiteralString, list[Any]]:
    """Return an SQL condition on items with these values of metadata or identity, and its parameters.

    Values are compared as by `_sql.condition`: 12 and 12.0 are one value; 1, "1" and true are three.
    """
    terms: list[LiteralString] = ["true"]
    parameters: list[Any] = []
    for key, values in values_of(where):
        if key == "identity":
            terms.append("(identity = ANY(%s::text[]) OR (identity IS NULL AND %s))")
            parameters += [[str(value) for value in values if value is not None], None in values]
        else:
            terms.append("metadata::jsonb -> %s = ANY(%s::text[]::jsonb[])")
            parameters += [key, [json.dumps(value) for value in values]]
    return " AND ".join(terms), parameters


def _read_ids(cursor: psycopg.Cursor, condition: LiteralString, parameters: Iterable[Any] = ()) -> np.ndarray:
    """Return the ids of the items that fulfil a condition, ascending, int64 [n]."""
    dtype = np.dtype([("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8")])
    statement = f"SELECT id FROM items WHERE {condition} ORDER BY id"
    return np.concatenate([block["id"].astype(np.int64) for block in _copied(cursor, statement, parameters, dtype)])


def _copied(
    cursor: psycopg.Cursor, statement: LiteralString, parameters: Iterable[Any], dtype: np.dtype
) -> Iterator[np.ndarray]:
    """Yield the rows of a query, copied in PostgreSQL's binary format, as arrays of records; one or more arrays."""
    pending = bytearray()
    unread = HEADER_BYTES
    with cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT binary)", list(parameters)) as copy:
        while data := copy.read():
            pending += data[unread:]
            unread = max(unread - len(data), 0)
            if len(pending) >= BLOCK_BYTES:
                whole = len(pending) // dtype.itemsize * dtype.itemsize
                yield np.frombuffer(bytes(pending[:whole]), dtype)
                del pending[:whole]
    yield np.frombuffer(bytes(pending[:-TRAILER_BYTES]), dtype)


def _as_vectors(embeddings: np.ndarray) -> Iterator[bytes]:
    """Yield rows [n, e] in the binary format of pgvector."""
    size = embeddings.shape[1]
    prefix = np.array([size, 0], ">i2").tobytes()
    for row in embeddings:
        yield prefix + row.astype(">f4").tobytes()
