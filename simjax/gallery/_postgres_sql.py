"""PostgreSQL: connections, errors, conditions, and copies in its binary format."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString
from urllib.parse import quote

import numpy as np
import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from simjax.core import InputError
from simjax.gallery._store import NoGalleryError, Properties, Where, values_of

HEADER_BYTES, TRAILER_BYTES, BLOCK_BYTES = 19, 2, 2**22
"""Sizes of the header and the trailer of a binary COPY, and of the part of it that is converted at once."""


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
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName, errors.WrongObjectType) as error:
        raise NoGalleryError(f"{address}: no such gallery, or it is damaged ({one_line(error)})") from error
    except errors.DependentObjectsStillExist as error:
        raise InputError(f"{address}: something depends on its tables: not overwritten") from error
    except (
        UnicodeEncodeError,
        OverflowError,
        errors.UntranslatableCharacter,
        errors.CharacterNotInRepertoire,
    ) as error:
        message = f"expected Unicode text without NUL, and integers of at most 64 bits ({one_line(error)})"
        raise InputError(message) from error
    except (psycopg.Error, OSError) as error:
        raise InputError(f"cannot {action} {address}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def set_search_path(cursor: psycopg.Cursor, name: str, timeout: float) -> None:
    """Until the transaction ends, let names of tables mean those of a schema, and limit the wait for locks."""
    cursor.execute(
        "SELECT set_config('search_path', quote_ident(%s), true), set_config('lock_timeout', %s, true)",
        (name, str(max(round(1000 * timeout), 1))),  # milliseconds; 0 would be no limit
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
            parameters += [[str(value) for value in values if value is not None], None in values]
        else:
            terms.append("metadata::jsonb -> %s = ANY(%s::text[]::jsonb[])")
            parameters += [key, [json.dumps(value) for value in values]]
    return " AND ".join(terms), parameters


def read_ids(cursor: psycopg.Cursor, condition: LiteralString, parameters: Iterable[Any] = ()) -> np.ndarray:
    """Return the ids of the items that fulfil a condition, ascending, int64 [n]."""
    dtype = np.dtype([("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8")])
    statement = f"SELECT id FROM items WHERE {condition} ORDER BY id"
    return np.concatenate([block["id"].astype(np.int64) for block in copied(cursor, statement, parameters, dtype)])


def copied(
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


def vector_records(size: int) -> np.dtype:
    """Return the records of a copy of ids and embeddings, for `copied`."""
    vector = [("bytes", ">i4"), ("size", ">i2"), ("unused", ">i2"), ("values", ">f4", size)]
    return np.dtype([("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8"), *vector])


def as_vectors(embeddings: np.ndarray) -> Iterator[bytes]:
    """Yield rows [n, e] in the binary format of pgvector."""
    size = embeddings.shape[1]
    prefix = np.array([size, 0], ">i2").tobytes()
    for row in embeddings:
        yield prefix + row.astype(">f4").tobytes()
