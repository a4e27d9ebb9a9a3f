"""Creating or replacing a gallery in PostgreSQL."""

import contextlib
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
from psycopg import IsolationLevel, errors, sql

from simjax.core import InputError
from simjax.gallery._postgres_sql import (
    RELATIONS,
    add_extension_to_search_path,
    add_items,
    address_of,
    connect,
    input_errors,
    milliseconds,
    one_line,
    read_properties,
    set_search_path,
)
from simjax.gallery._store import FORMAT, INTEGERS, VERSION, NewItems, Properties, archive_of, check_properties

TABLES = ("properties", "items", "calibration", "calibration_identities", "encoder")

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

CREATION_LOCK = 7526481903
"""Key of the advisory lock under which galleries are created. PostgreSQL reports a violated unique constraint if two
transactions create an extension or a schema at the same time."""


def create_gallery(
    url: str,
    name: str,
    properties: Properties,
    save_encoder: Callable[[Path], None],
    items: Sequence[NewItems],
    *,
    overwrite: bool,
    timeout: float,
) -> None:
    """Create the tables of a gallery with its first items in one transaction; see `create_store`.

    Args:
        url: URL of the database.
        name: Name of the schema.
        properties, save_encoder, items, overwrite, timeout: See `create_store`.
    """
    address = address_of(url, name)
    archive = archive_of(save_encoder)
    own = {"format": FORMAT, "version": VERSION, "gallery": uuid.uuid4().hex}
    stored = {**own, **dict.fromkeys(INTEGERS, 0), **properties}
    with input_errors("write", address), contextlib.closing(connect(url, timeout)) as connection:
        connection.isolation_level = IsolationLevel.READ_COMMITTED  # to see what was created before the lock was free
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (milliseconds(timeout),))
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (CREATION_LOCK,))
            _create_extension(cursor, address)
            set_search_path(cursor, name, timeout)
            _empty_schema(cursor, name, address, overwrite=overwrite)
            add_extension_to_search_path(cursor, name)
            cursor.execute(sql.SQL(SCHEMA).format(size=sql.Literal(properties["embedding_size"])))
            cursor.execute("INSERT INTO encoder VALUES (%s)", (archive,))
            if items:
                add_items(cursor, items, stored)
                stored["transaction"] += 1
            rows = [(key, json.dumps(value)) for key, value in stored.items()]
            cursor.executemany("INSERT INTO properties VALUES (%s, %s)", rows)


def _create_extension(cursor: psycopg.Cursor, address: str) -> None:
    cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
    if cursor.fetchone() is not None:
        return
    try:
        cursor.execute("CREATE EXTENSION vector")
    except (errors.FeatureNotSupported, errors.UndefinedFile, errors.InsufficientPrivilege) as error:
        raise InputError(
            f"{address}: expected the extension pgvector, and it cannot be created ({one_line(error)}); a superuser "
            "of the server installs it and runs CREATE EXTENSION vector"
        ) from error


def _empty_schema(cursor: psycopg.Cursor, name: str, address: str, *, overwrite: bool) -> None:
    """Create the schema if it does not exist, and drop the tables of a gallery that is to be replaced."""
    cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,))
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return
    cursor.execute(f"SELECT relname FROM {RELATIONS} WHERE nspname = %s ORDER BY relname", (name,))
    tables = [table for (table,) in cursor]
    if tables and not overwrite:
        raise InputError(f"{address} exists; choose another name, or create it with `overwrite=True`")
    if unknown := sorted(set(tables) - set(TABLES)):
        raise InputError(f"{address} contains {unknown[0]}, which no gallery wrote: not overwritten")
    if tables:
        check_properties(read_properties(cursor), (), address)  # tables of something else are not dropped
        cursor.execute(f"DROP TABLE {', '.join(tables)}")  # all but those that a damaged gallery lacks
