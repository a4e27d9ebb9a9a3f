"""An approximate index in PostgreSQL: HNSW of pgvector, which proposes candidates for a search.

The operator class of the index has the order of the gallery's measure. Other measures have no index.
"""

import json
from collections.abc import Iterable
from typing import LiteralString

import numpy as np
import psycopg
from psycopg import sql

from simjax.core import InputError
from simjax.gallery._postgres_sql import add_extension_to_search_path, condition, copied
from simjax.gallery._store import Contents, Properties, Where

INDEX = "items_by_embedding"

OPERATORS: dict[str, tuple[LiteralString, LiteralString]] = {
    "cosine": ("vector_cosine_ops", "<=>"),
    "cosine_distance": ("vector_cosine_ops", "<=>"),
    "dot": ("vector_ip_ops", "<#>"),
    "euclidean": ("vector_l2_ops", "<->"),
    "squared_euclidean": ("vector_l2_ops", "<->"),
}
"""Operator class and operator of pgvector by measure. Its operators are distances."""

BUILD_KILOBYTES = 2**21
"""Limit of the memory for a build, which is used as far as needed. A graph that is larger is built on disk, slowly."""

MAX_LIST = 1000
"""Largest hnsw.ef_search."""


def create_index(cursor: psycopg.Cursor, name: str, properties: Properties) -> int:
    """Create the index of a gallery unless it exists, and return its size in bytes.

    Args:
        cursor: In a transaction that locks the gallery.
        name: Schema of the gallery.
        properties: Of the gallery.
    """
    operator_class, _ = _operators(properties)
    if not has_index(cursor, name):
        add_extension_to_search_path(cursor, name)
        cursor.execute(
            "SELECT set_config(name, greatest(setting::bigint, %s)::text, true) "
            "FROM pg_settings WHERE name = 'maintenance_work_mem'",
            (BUILD_KILOBYTES,),
        )
        statement = sql.SQL("CREATE INDEX {} ON items USING hnsw (embedding {})")
        cursor.execute(statement.format(sql.Identifier(INDEX), sql.SQL(operator_class)))
    cursor.execute("SELECT pg_relation_size(%s::regclass)", (INDEX,))
    (size,) = cursor.fetchall()[0]
    return size


def drop_index(cursor: psycopg.Cursor, name: str) -> bool:
    """Drop the index of a gallery, and return whether there was one."""
    if is_there := has_index(cursor, name):
        cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name, INDEX)))
    return is_there


def has_index(cursor: psycopg.Cursor, name: str) -> bool:
    """Return whether the items of a gallery have the index; one of that name may belong to another table."""
    statement = "SELECT 1 FROM pg_indexes WHERE schemaname = %s AND tablename = 'items' AND indexname = %s"
    return cursor.execute(statement, (name, INDEX)).fetchone() is not None


def candidates(
    cursor: psycopg.Cursor, name: str, properties: Properties, query: np.ndarray, count: int, where: Where
) -> Contents:
    """Return items that are close to a query; see `IndexedStore.candidates`."""
    _, operator = _operators(properties)
    is_wanted, values = condition(where)
    add_extension_to_search_path(cursor, name)
    cursor.execute(
        "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', %s, true)",
        (str(min(count, MAX_LIST)),),
    )
    if not where:  # for few items PostgreSQL would prefer a scan, with another recall than later with more items
        cursor.execute("SET LOCAL enable_seqscan = off")
    statement = (
        f"SELECT id, embedding FROM (SELECT id, embedding FROM items WHERE {is_wanted} "
        f"ORDER BY embedding {operator} %s::vector LIMIT %s) AS found ORDER BY id"
    )
    return _contents(cursor, statement, [*values, json.dumps(query.tolist()), count], properties)


def selected_contents(
    cursor: psycopg.Cursor, properties: Properties, where: Where, ids: Iterable[int] | None
) -> Contents:
    """Return the items that match a condition; see `IndexedStore.selected_contents`."""
    is_wanted, values = condition(where)
    if ids is not None:
        is_wanted, values = f"{is_wanted} AND id = ANY(%s::bigint[])", [*values, list(ids)]
    return _contents(cursor, f"SELECT id, embedding FROM items WHERE {is_wanted} ORDER BY id", values, properties)


def _contents(cursor: psycopg.Cursor, statement: LiteralString, parameters: list, properties: Properties) -> Contents:
    records = np.concatenate([*copied(cursor, statement, parameters, properties["embedding_size"])])
    n = len(records)
    ids, embeddings = records["id"].astype(np.int64), records["values"].astype(np.float32)
    return Contents(ids, np.arange(n), embeddings, {**properties, "rows": n})


def _operators(properties: Properties) -> tuple[LiteralString, LiteralString]:
    measure = properties["measure"]
    if measure not in OPERATORS:
        expected = ", ".join(OPERATORS)
        raise InputError(f"expected a measure that pgvector can index ({expected}), got {measure}; searches are exact")
    return OPERATORS[measure]
