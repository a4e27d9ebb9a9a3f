"""Copying a gallery from one store to another."""

import json
from collections.abc import Iterator

from simjax.core import InputError
from simjax.gallery._store import ITEMS_PER_READ, NewItems, Store


def copy_contents(source: Store, target: Store) -> None:
    """Copy all items with their ids, in one transaction, and the calibration to an empty gallery of the same encoder.

    Raises:
        InputError: If the source is changed meanwhile.
    """
    if (calibration := source.calibration()) is not None:
        target.save_calibration(calibration)
    target.add(_batches(source), last_id=source.properties()["last_id"])


def _batches(source: Store) -> Iterator[NewItems]:
    contents = source.contents()
    for start in range(0, len(contents.ids), ITEMS_PER_READ):
        part = slice(start, start + ITEMS_PER_READ)
        ids = contents.ids[part].tolist()
        found = source.items_by_id(ids)
        if len(found) < len(ids):
            break  # items were removed
        items = [found[i] for i in ids]
        yield NewItems(
            contents.embeddings[contents.rows[part]],
            [item.identity for item in items],
            [item.path for item in items],
            [json.dumps(item.metadata, ensure_ascii=False) for item in items],
            ids,
        )
    if source.properties()["transaction"] != contents.properties["transaction"]:
        raise InputError(f"{source.address} was changed while it was copied; copy it again")
