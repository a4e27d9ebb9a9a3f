"""The lock of a gallery in Milvus, which only one writer at a time holds.

Only one process at a time opens a file of milvus-lite, so that its threads need a lock in memory only. In a server, the
lock is a collection, which only one process can create. A lock whose holder died is dropped by another process.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from pymilvus import DataType, MilvusClient, MilvusException

from simjax.core import InputError
from simjax.gallery._milvus_rows import address_of, fields_of, file_of, new_token

LEASE = 10.0
"""Seconds after which a lock is taken from a process that has died. It is held for the insertion of one row."""

LOCK = "simjax_lock_".ljust(64, "_") + "{}"
"""Name of the lock of a gallery. It is longer than the name of a gallery can be, see `split_url`."""

HOLDER = "held_by_"
"""Beginning of the name of the key of a lock, which ends with a token of its holder."""

_locks: dict[tuple[str, str], threading.Lock] = {}
"""Locks of the galleries in files that this process has opened; its threads share them."""


@contextlib.contextmanager
def locked(client: MilvusClient, url: str, name: str, timeout: float) -> Iterator[Callable[[], None]]:
    """Hold the lock of a gallery.

    Yields a function that raises an InputError if another process may have taken the lock. It is called immediately
    before the gallery is changed: a process that has waited for a dead holder drops the lock by its name, in a call
    that can reach the server after the next process has created the lock again.

    Args:
        client: A client of the database.
        url: URL of the database.
        name: Name of the gallery.
        timeout: Seconds to wait for another writer.
    """
    address = address_of(url, name)
    if (path := file_of(url)) is None:
        with _locked_in_server(client, LOCK.format(name), timeout, address) as check:
            yield check
        return
    lock = _locks.setdefault((str(path), name), threading.Lock())
    if not lock.acquire(timeout=timeout):
        raise _waited(address)
    try:
        yield lambda: None
    finally:
        lock.release()


@contextlib.contextmanager
def _locked_in_server(client: MilvusClient, lock: str, timeout: float, address: str) -> Iterator[Callable[[], None]]:
    token = f"{HOLDER}{new_token()}"
    schema = client.create_schema()
    schema.add_field(token, DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
    since = time.monotonic()
    end, other, was_held, failure = since + timeout, "", False, ""
    while True:
        start = time.monotonic()
        try:
            client.create_collection(lock, schema=schema)
        except MilvusException as error:  # it exists, or cannot be created
            failure = " ".join(error.message.split())
        holder = _holder_of(client, lock)
        if holder == token:
            break
        if holder and not holder.startswith(HOLDER):
            raise InputError(f"cannot write {address}: the collection {lock} is not its lock, but of something else")
        was_held |= bool(holder)
        if holder != other:
            other, since = holder, time.monotonic()
        is_old = time.monotonic() - since > LEASE
        if holder and is_old and _holder_of(client, lock) == holder:
            with contextlib.suppress(MilvusException):  # another process has dropped it
                client.drop_collection(lock)
        if time.monotonic() > end and was_held:
            raise _waited(address)
        if not holder and (is_old or time.monotonic() > end):
            raise InputError(f"cannot write {address}: its lock can be neither created nor read ({failure})")
        time.sleep(0.05)

    def is_held() -> bool:
        return time.monotonic() < start + LEASE and _holder_of(client, lock) == token

    def check() -> None:
        if not is_held():
            raise InputError(f"cannot write {address}: the server is too slow; try again later")

    try:
        yield check
    finally:
        if is_held():
            with contextlib.suppress(MilvusException):
                client.drop_collection(lock)


def _holder_of(client: MilvusClient, lock: str) -> str:
    """Return the name of the key of a lock, or "" if there is none."""
    with contextlib.suppress(MilvusException):
        return fields_of(client, lock)[0]
    return ""


def _waited(address: str) -> InputError:
    return InputError(f"another process is writing {address}; try again later")
