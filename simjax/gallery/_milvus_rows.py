"""Milvus: connections, errors, and the rows of a gallery."""

import base64
import contextlib
import itertools
import json
import logging
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pymilvus import MilvusClient, MilvusException

from simjax._files import absolute_path
from simjax.core import InputError
from simjax.gallery._store import INTEGERS, DamageError, NewItems, NoGalleryError, Properties, check_properties

FIELDS = ("key", "kind", "number", "content", "embedding")
MAX_BYTES = 65_535
"""Largest size of a text in Milvus."""

ROWS_PER_CALL = 500
"""Rows of the largest size then stay below the 64 MB of a call."""

MAX_SIZE = 32_768
"""Largest size of a vector of Milvus."""

MAX_PARTS = 100_000
"""Largest number of parts of an encoder or a calibration, 6.5 GB."""

Row = dict[str, Any]


class Commit(NamedTuple):
    """A transaction.

    Attributes:
        token: Beginning of the keys of its rows.
        rows: Their number.
        properties: Of the gallery after it.
    """

    token: str
    rows: int
    properties: Properties


def address_of(url: str, name: str) -> str:
    """Return the URL of a gallery without user and password, which may be one token."""
    scheme, _, place = _split(url)
    return f"{scheme}{place}?gallery={name}"


def _split(url: str) -> tuple[str, str, str]:
    """Return "milvus:" or "milvus://", "USER:PASSWORD" or nothing, and the file or HOST:PORT/DATABASE."""
    if not url.startswith("milvus://"):
        return "milvus:", "", url.removeprefix("milvus:")
    credentials, _, place = url.removeprefix("milvus://").rpartition("@")
    return "milvus://", credentials, place


def file_of(url: str) -> Path | None:
    """Return the file of milvus-lite, or None for a server."""
    scheme, _, place = _split(url)
    # Resolved, because milvus-lite starts a server for each path, and only one server can open the file.
    return absolute_path(place) if scheme == "milvus:" else None


def connect(url: str, timeout: float, *, create: bool = False) -> MilvusClient:
    """Return a client.

    Args:
        url: URL of the database.
        timeout: Seconds to wait for the server.
        create: Create the file if it does not exist.
    """
    for library in ("pymilvus", "milvus_lite", "grpc"):  # they print a traceback for each error that they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    _, credentials, place = _split(url)
    if (path := file_of(url)) is not None:
        if path.suffix != ".db":
            raise InputError(f"expected a file that ends in .db, got {path}")
        if not create and not path.exists():
            raise NoGalleryError(f"{path}: no such gallery")
        try:
            return MilvusClient(str(path))
        except MilvusException as error:
            reason = f"damaged, or another process has opened it ({error.message})"
            raise InputError(f"cannot open {path}: it is {reason}") from error
    host, _, database = place.partition("/")
    try:
        return MilvusClient(f"http://{host}", token=unquote(credentials), db_name=database, timeout=timeout)
    except ValueError:  # of the parser of URLs, which may quote a password
        raise InputError("expected a URL like milvus://USER:PASSWORD@HOST:PORT/DATABASE?gallery=NAME") from None


@contextlib.contextmanager
def input_errors(action: str, address: str) -> Iterator[None]:
    """Raise errors of Milvus as InputErrors; see `_postgres_sql.input_errors`."""
    try:
        yield
    except (UnicodeEncodeError, OverflowError) as error:
        raise InputError(f"expected Unicode text and integers of at most 64 bits ({error})") from error
    except (json.JSONDecodeError, RecursionError, DamageError) as error:
        raise InputError(f"{address}: the gallery is damaged ({error})") from error
    except MilvusException as error:
        raise InputError(f"cannot {action} {address}: {' '.join(error.message.split())}") from error


def check_collection(client: MilvusClient, name: str, address: str) -> None:
    if not client.has_collection(name):
        raise NoGalleryError(f"{address}: no such gallery")
    if sorted(fields_of(client, name)) != sorted(FIELDS):
        raise InputError(f"{address} is not a gallery: it is of something else")


def fields_of(client: MilvusClient, name: str) -> list[str]:
    """Return the names of the fields of a collection."""
    description: Any = client.describe_collection(name)
    return [field["name"] for field in description["fields"]]


def insert(client: MilvusClient, name: str, token: str, rows: Iterable[Row], size: int) -> int:
    """Insert rows with the keys of a token, and return their number. An embedding of a row that has none is 0."""
    count, zero = 0, [0.0] * size
    for batch in batches_of(rows, ROWS_PER_CALL):
        keyed = [{"key": f"{token} {count + n}", "embedding": zero, **row} for n, row in enumerate(batch)]
        client.insert(name, keyed)
        count += len(keyed)
    return count


def commit_of(content: str, number: int, address: str) -> Commit:
    """Return the commit with a number from the content of its row.

    Args:
        content: See `_milvus`.
        number: Number of the transaction.
        address: See `Store`.

    Raises:
        DamageError: If it is not a commit of this number.
        InputError: If its properties are not of a gallery that this version can use.
    """
    match json.loads(content):
        case [str() as token, int() as rows, dict() as properties] if rows >= 0:
            check_properties(properties, INTEGERS, address)
        case _:
            raise DamageError(f"commit {number} has another form")
    size, last_id = properties["embedding_size"], properties["last_id"]
    if not 0 < size <= MAX_SIZE:
        raise DamageError(f"its embedding_size is {size}")
    if properties["transaction"] != number or properties["calibrated"] > number:
        raise DamageError(f"commit {number} has the properties of another one")
    if rows > max(MAX_PARTS, last_id):  # reading them would take very long
        raise DamageError(f"commit {number} has {rows:,} rows, but only {last_id} items were ever added")
    return Commit(token, rows, properties)


def insert_commit(client: MilvusClient, name: str, commit: Commit, size: int) -> None:
    number = commit.properties["transaction"]
    row = {"key": key_of_commit(number), "kind": "commit", "number": number, "content": as_json(commit)}
    client.insert(name, [{**row, "embedding": [0.0] * size}])


def key_of_commit(number: int) -> str:
    return f"commit {number}"


def keys_of(commit: Commit) -> Iterator[str]:
    return (f"{commit.token} {position}" for position in range(commit.rows))


def new_token() -> str:
    return uuid.uuid4().hex


def parts_of(kind: str, text: str) -> Iterator[Row]:
    """Yield rows with the parts of an ASCII text."""
    for number, start in enumerate(range(0, len(text), MAX_BYTES)):
        yield {"kind": kind, "number": number, "content": text[start : start + MAX_BYTES]}


def item_rows(batches: Iterable[NewItems], first: int, positions: list[int]) -> Iterator[Row]:
    """Yield the rows of new items.

    Args:
        batches: The items.
        first: Highest id before the transaction, plus one.
        positions: The positions of the items in the transaction are appended to it.
    """
    for new in batches:
        start = len(positions)
        own = range(start, start + len(new.embeddings)) if new.ids is None else [i - first for i in new.ids]
        positions.extend(own)
        columns = zip(own, new.identities, new.paths, new.metadata, new.embeddings, strict=True)
        for position, identity, path, metadata, embedding in columns:
            content = as_json([identity, path, json.loads(metadata)])
            yield {"kind": "item", "number": position, "content": content, "embedding": embedding}


def from_base64(text: Any) -> bytes:
    """Return the bytes that text in Base64 stands for; a DamageError for other text."""
    try:
        return base64.b64decode(text)
    except (ValueError, TypeError) as error:
        raise DamageError(f"expected Base64 ({error})") from error


def batches_of(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if (size := len(text.encode())) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES:,} bytes of metadata, identity and path, got {size:,}")
    return text
