"""Milvus: connections, errors, and the rows of a gallery."""

import contextlib
import itertools
import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pymilvus import DataType, MilvusClient, MilvusException

from simjax.core import InputError
from simjax.gallery._store import NoGalleryError, Properties

FIELDS = ("key", "kind", "number", "content", "embedding")
MAX_BYTES = 65_535
"""Largest size of a text in Milvus."""

ROWS_PER_CALL = 500
"""Rows of the largest size then stay below the 64 MB of a call."""

LEASE = 10.0
"""Seconds after which a lock is taken from a process that has died. It is held for the insertion of one row."""

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
    """Return the URL of a gallery without user and password."""
    scheme, _, place = _split(url)
    return f"{scheme}{place}?gallery={name}"


def _split(url: str) -> tuple[str, str, str]:
    """Return "milvus:" or "milvus://", "USER:PASSWORD" or nothing, and the file or HOST:PORT/DATABASE."""
    if not url.startswith("milvus://"):
        return "milvus:", "", url.removeprefix("milvus:")
    credentials, _, place = url.removeprefix("milvus://").rpartition("@")
    return "milvus://", credentials, place


def connect(url: str, timeout: float, *, create: bool = False) -> MilvusClient:
    """Return a client.

    Args:
        url: URL of the database.
        timeout: Seconds to wait for the server.
        create: Create the file if it does not exist.
    """
    for library in ("pymilvus", "milvus_lite", "grpc"):  # they print a traceback for each error that they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    scheme, credentials, place = _split(url)
    if scheme == "milvus:":
        path = Path(place).expanduser().absolute()
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
    return MilvusClient(f"http://{host}", token=unquote(credentials), db_name=database, timeout=timeout)


@contextlib.contextmanager
def input_errors(action: str, address: str) -> Iterator[None]:
    """Raise errors of Milvus as InputErrors; see `_postgres_sql.input_errors`."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(f"expected Unicode text ({error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{address}: the gallery is damaged ({error})") from error
    except MilvusException as error:
        raise InputError(f"cannot {action} {address}: {' '.join(error.message.split())}") from error


@contextlib.contextmanager
def locked(client: MilvusClient, gallery: str, timeout: float, address: str) -> Iterator[float]:
    """Hold the collection NAME_lock, which only one process can create; its key is named after the process.

    Yields the time by `time.monotonic` until which no other process takes the lock.

    Args:
        client: A client.
        gallery: Name of the collection of the gallery.
        timeout: Seconds to wait for another process.
        address: See `Store`.
    """
    name, token = f"{gallery}_lock", f"held_by_{new_token()}"
    schema = client.create_schema()
    schema.add_field(token, DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
    end, other, since = time.monotonic() + timeout, "", time.monotonic()
    while True:
        holder, start = "", time.monotonic()
        with contextlib.suppress(MilvusException):  # it exists
            client.create_collection(name, schema=schema)
        with contextlib.suppress(MilvusException):  # it was dropped
            holder = fields_of(client, name)[0]
        if holder == token:
            break
        if holder != other:
            other, since = holder, time.monotonic()
        if holder and time.monotonic() - since > LEASE:
            client.drop_collection(name)
        if time.monotonic() > end:
            raise InputError(f"another process is writing {address}; try again later")
        time.sleep(0.05)
    try:
        yield start + LEASE
    finally:
        if time.monotonic() < start + LEASE:  # else it may be that of another process
            with contextlib.suppress(MilvusException):
                client.drop_collection(name)


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


def batches_of(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if (size := len(text.encode())) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES:,} bytes of metadata, identity and path, got {size:,}")
    return text
