"""PostgreSQL: connections, errors, conditions, and copies in its binary format."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString
from urllib.parse import quote

import numpy as np
import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from simjax.core import InputError
from simjax.gallery._store import DamageError, NewItems, NoGalleryError, Properties, Where, values_of

HEADER_BYTES, TRAILER_BYTES, BLOCK_BYTES = 19, 2, 2**22
"""Sizes of the header and the trailer of a binary COPY, and of the part of it that is converted at once."""

SECRETS = ("password", "sslpassword")
"""Parameters of a connection that are not shown."""

EXPECTED_TEXT = "expected Unicode text without NUL, and integers of at most 64 bits"


RELATIONS: LiteralString = (
    "(SELECT nspname, relname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid "
    "WHERE relkind IN ('r', 'p', 'v', 'm', 'f')) AS relations"
)
"""The tables and views of all schemas."""

WRONG_TABLES = (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName, errors.WrongObjectType)
"""Errors of statements in a schema that has not the tables of a gallery."""

MAX_SIZE = 16_000
"""Largest size of a vector of pgvector."""


def address_of(url: str, name: str) -> str:
    """Return the URL of a gallery without password, from which the gallery can be opened."""
    parameters = {key: str(value) for key, value in _parameters(url).items() if key not in SECRETS}
    user, host, port, database = (parameters.pop(key, "") for key in ("user", "host", "port", "dbname"))
    if "/" in host or "," in host:  # the folder of a socket, or several servers
        parameters = {"host": host, **({"port": port} if port else {}), **parameters}
        host = port = ""
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    place = f"{quote(user, safe='')}@{place}" if user else place
    query = "&".join(f"{key}={quote(value, safe='/:,')}" for key, value in [*parameters.items(), ("gallery", name)])
    return f"postgresql://{place}/{quote(database, safe='')}?{query}"


def _parameters(url: str) -> dict[str, Any]:
    """Return the parameters of a connection. What libpq says about a URL is not shown: it quotes passwords."""
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.Error:
        parameters = None
    if parameters is None or any("@" in str(parameters.get(part)) for part in ("host", "port", "dbname")):
        raise InputError(
            "expected a URL like postgresql://USER:PASSWORD@HOST:PORT/DATABASE?gallery=NAME with special characters "
            "as %XX, such as %40 for @"
        )
    return parameters


def connect(url: str, timeout: float) -> psycopg.Connection:
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
    except (*WRONG_TABLES, DamageError) as error:
        message = f"{address}: the gallery is damaged, or its tables are of something else ({one_line(error)})"
        raise InputError(message) from error
    except errors.DependentObjectsStillExist as error:
        raise InputError(f"{address}: something depends on its tables: not overwritten") from error
    except (
        UnicodeEncodeError,
        OverflowError,
        errors.UntranslatableCharacter,
        errors.CharacterNotInRepertoire,
    ) as error:
        raise InputError(f"{EXPECTED_TEXT} ({one_line(error)})") from error
    except (psycopg.Error, OSError) as error:
        if isinstance(error, psycopg.DataError) and error.sqlstate is None:  # raised by psycopg for text with NUL
            raise InputError(f"{EXPECTED_TEXT} ({one_line(error)})") from error
        raise InputError(f"cannot {action} {address}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, without the statement, and with advice about passwords."""
    diagnosis = error.diag if isinstance(error, psycopg.Error) else None
    if diagnosis is not None and diagnosis.message_primary:
        parts = (diagnosis.message_primary, diagnosis.message_detail, diagnosis.message_hint)
        return "; ".join(" ".join(part.split()) for part in parts if part)
    text = re.sub("^(connection failed|connection is bad|consuming input failed): ", "", str(error))
    # libpq writes several sentences in lines of their own, without a full stop.
    text = " ".join(re.sub(r"(?<![.:?])\n\s*(?=[A-Z])", ". ", text).split())
    if "password" in text:
        text += "; write the password to the variable PGPASSWORD or to the file ~/.pgpass"
    return text


def milliseconds(timeout: float) -> str:
    """Return a value of lock_timeout, where 0 would be no limit."""
    return str(max(round(1000 * timeout), 1))


def set_search_path(cursor: psycopg.Cursor, name: str, timeout: float) -> None:
    """Until the transaction ends, let names of tables mean those of a schema, and limit the wait for locks."""
    # Unlike a SELECT, these statements do not determine which transactions a REPEATABLE READ transaction sees.
    statements = sql.SQL("SET LOCAL search_path TO {}; SET LOCAL lock_timeout TO {}")
    cursor.execute(statements.format(sql.Identifier(name), sql.Literal(milliseconds(timeout))))


def check_schema(connection: psycopg.Connection, name: str, address: str) -> None:
    """Raise a NoGalleryError if a schema does not exist or is empty, and an InputError if it must not be used."""
    statement = f"SELECT has_schema_privilege(nspname, 'USAGE') FROM {RELATIONS} WHERE nspname = %s LIMIT 1"
    found = connection.execute(statement, (name,)).fetchone()
    if found is None:
        raise NoGalleryError(f"{address}: no such gallery")
    if not found[0]:
        user = connection.info.user
        raise InputError(
            f"{address}: permission denied for schema {name}; its owner runs GRANT USAGE ON SCHEMA {name} TO {user}, "
            f"and grants {user} rights on its tables"
        )


def add_extension_to_search_path(cursor: psycopg.Cursor, name: str) -> None:
    """Until the transaction ends, find the types and operators of pgvector behind the tables of a schema."""
    cursor.execute(
        "SELECT set_config('search_path', quote_ident(%s) || ', ' || quote_ident(nspname), true) "
        "FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'",
        (name,),
    )


def read_properties(cursor: psycopg.Cursor) -> Properties:
    return dict(cursor.execute("SELECT name, value FROM properties WHERE name != 'calibration'"))


def condition(where: Where) -> tuple[LiteralString, list[Any]]:
    """Return an SQL condition on items with these values of metadata or identity, and its parameters.

    Values are compared as by `_sql.condition`: 12 and 12.0 are one value; 1, "1" and true are three.
    """
    terms: list[LiteralString] = ["true"]
    parameters: list[Any] = []
    for key, values in values_of(where):
        if key == "identity":
            terms.append("(identity = ANY(%s::text[]) OR (identity IS NULL AND %s))")
            parameters += [[value for value in values if value is not None], None in values]
        else:
            terms.append("metadata::jsonb -> %s = ANY(%s::text[]::jsonb[])")
            parameters += [key, [json.dumps(value) for value in values]]
    return " AND ".join(terms), parameters


def read_ids(cursor: psycopg.Cursor, condition: LiteralString, parameters: Iterable[Any] = ()) -> np.ndarray:
    """Return the ids of the items that fulfil a condition, ascending, int64 [n]."""
    statement = f"SELECT id FROM items WHERE {condition} ORDER BY id"
    return np.concatenate([block["id"].astype(np.int64) for block in copied(cursor, statement, parameters)])


def copied(
    cursor: psycopg.Cursor, statement: LiteralString, parameters: Iterable[Any], size: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the rows of a query, copied in PostgreSQL's binary format, as arrays of records; one or more arrays.

    Args:
        cursor: In a transaction.
        statement: A query for ids or, with a size, for ids and embeddings.
        parameters: Of the query.
        size: Of the embeddings.

    Raises:
        DamageError: If a column has another type, or an embedding another size.
    """
    fields: list[Any] = [("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8")]
    expected = {"columns": 1, "id_bytes": 8}
    if size is not None:
        if not 0 < size <= MAX_SIZE:
            raise DamageError(f"its embedding_size is {size}")
        fields += [("bytes", ">i4"), ("size", ">i2"), ("unused", ">i2"), ("values", ">f4", size)]
        expected = {"columns": 2, "id_bytes": 8, "bytes": 4 * size + 4, "size": size}
    dtype = np.dtype(fields)

    def records(content: bytes) -> np.ndarray:
        is_whole = len(content) % dtype.itemsize == 0
        found = np.frombuffer(content if is_whole else b"", dtype)
        if not is_whole or any(np.any(found[name] != value) for name, value in expected.items()):
            vectors = "" if size is None else f" and embeddings that are vectors of {size} numbers, its embedding_size"
            raise DamageError(f"expected ids of the type bigint{vectors}")
        return found

    pending = bytearray()
    unread = HEADER_BYTES
    with cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT binary)", list(parameters)) as copy:
        while data := copy.read():
            pending += data[unread:]
            unread = max(unread - len(data), 0)
            if len(pending) >= BLOCK_BYTES:
                whole = len(pending) // dtype.itemsize * dtype.itemsize
                yield records(bytes(pending[:whole]))
                del pending[:whole]
    yield records(bytes(pending[:-TRAILER_BYTES]))


def add_items(cursor: psycopg.Cursor, batches: Iterable[NewItems], properties: Properties) -> list[int]:
    """Copy items into their table, set the property "last_id", and return the ids of the items."""
    added: list[int] = []
    columns = "COPY items (id, identity, path, metadata, embedding) FROM STDIN (FORMAT binary)"
    with cursor.copy(columns) as copy:
        copy.set_types(["int8", "text", "text", "text", "bytea"])  # for json and vector, bytes as PostgreSQL reads them
        for new in batches:
            first = properties["last_id"] + 1
            ids = range(first, first + len(new.embeddings)) if new.ids is None else new.ids
            vectors = _as_vectors(new.embeddings)
            for row in zip(ids, new.identities, new.paths, new.metadata, vectors, strict=True):
                copy.write_row(row)
            added += ids
            properties["last_id"] = max([properties["last_id"], *ids[-1:]])
    return added


def _as_vectors(embeddings: np.ndarray) -> Iterator[bytes]:
    """Yield rows [n, e] in the binary format of pgvector."""
    size = embeddings.shape[1]
    prefix = np.array([size, 0], ">i2").tobytes()
    for row in embeddings:
        yield prefix + row.astype(">f4").tobytes()
