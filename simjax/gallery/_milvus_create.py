"""Creating or replacing a gallery in Milvus.

A new gallery is written to a collection with a temporary name, which is then renamed. A gallery that is replaced is
renamed before that, and dropped afterwards. If the process or the server dies, one of these states remains:

    it died                     gallery               collections with temporary names, which can be dropped
    before the first renaming   the old one, or none  the new gallery, maybe incomplete
    between both                none                  the new gallery; the old one, complete
    before the end of dropping  the new one           the old gallery, maybe incomplete

In each state, the gallery can be created again.
"""

import base64
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pymilvus import DataType, MilvusClient, MilvusException

from simjax.core import InputError
from simjax.gallery._milvus_lock import locked
from simjax.gallery._milvus_rows import (
    MAX_BYTES,
    Commit,
    address_of,
    check_collection,
    connect,
    input_errors,
    insert,
    insert_commit,
    item_rows,
    new_token,
    parts_of,
)
from simjax.gallery._store import FORMAT, INTEGERS, VERSION, NewItems, Properties, archive_of

NEW, OLD = "simjax_new_".ljust(64, "_") + "{}_{}", "simjax_old_".ljust(64, "_") + "{}_{}"
"""Temporary names, with the name of the gallery and a token. They are longer than the name of a gallery can be."""


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
    """Create the collection of a gallery with its first items; see `create_store`."""
    address, token = address_of(url, name), new_token()
    new, old = NEW.format(name, token), OLD.format(name, token)
    archive = archive_of(save_encoder)
    stored = {"format": FORMAT, "version": VERSION, **dict.fromkeys(INTEGERS, 0), **properties}
    with input_errors("write", address), contextlib.closing(connect(url, timeout, create=True)) as client:
        _check_replaceable(client, name, address, overwrite=overwrite)
        try:
            _write(client, new, archive, stored, items)
            with locked(client, url, name, timeout) as check_lock:
                is_replaced = _check_replaceable(client, name, address, overwrite=overwrite)
                check_lock()
                if is_replaced:
                    client.rename_collection(name, old)
                client.rename_collection(new, name)
        except BaseException:
            _try(client.rename_collection, old, name)  # if it was renamed
            _try(client.drop_collection, new)
            raise
        _try(client.drop_collection, old)


def _check_replaceable(client: MilvusClient, name: str, address: str, *, overwrite: bool) -> bool:
    """Return whether the collection exists; an InputError if it must not be replaced."""
    if not client.has_collection(name):
        return False
    if not overwrite:
        raise InputError(f"{address} exists; choose another name, or create it with `overwrite=True`")
    check_collection(client, name, address)
    return True


def _try(call: Callable[..., object], *arguments: str) -> None:
    """Call a function of Milvus, which fails if the collection does not exist."""
    with contextlib.suppress(MilvusException):
        call(*arguments)


def _write(
    client: MilvusClient, collection: str, archive: bytes, properties: Properties, items: Sequence[NewItems]
) -> None:
    """Create a collection with the encoder and the first items of a gallery, and their commits."""
    size = properties["embedding_size"]
    schema = client.create_schema()
    schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
    schema.add_field("kind", DataType.VARCHAR, max_length=16)
    schema.add_field("number", DataType.INT64)
    schema.add_field("content", DataType.VARCHAR, max_length=MAX_BYTES)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=size)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="L2")
    client.create_collection(collection, schema=schema, index_params=index, consistency_level="Strong")
    token = new_token()
    count = insert(client, collection, token, parts_of("encoder", base64.b64encode(archive).decode()), size)
    insert_commit(client, collection, Commit(token, count, properties), size)
    if items:
        token = new_token()
        count = insert(client, collection, token, item_rows(items, 1, []), size)
        insert_commit(
            client, collection, Commit(token, count, {**properties, "transaction": 1, "last_id": count}), size
        )
