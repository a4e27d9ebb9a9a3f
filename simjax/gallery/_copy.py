"""Copying a gallery from one store to another."""

import json
import os
from collections.abc import Iterator

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.gallery._locations import create_store, open_store
from simjax.gallery._store import ENCODER_PROPERTIES, ITEMS_PER_READ, NewItems, NoGalleryError, Store


def copy_store(source: Store, location: str | os.PathLike[str], encoder: Encoder, timeout: float) -> Store:
    """Copy all items, in one transaction, and the calibration to a new or empty gallery, and return its store.

    Raises:
        InputError: If the gallery has items, another encoder, or a calibration that the source does not replace, or the
            source is changed meanwhile.
    """
    properties, calibration = source.properties(), source.calibration()
    of_the_encoder = {name: properties[name] for name in ENCODER_PROPERTIES}
    try:
        target = open_store(location, timeout)
    except NoGalleryError:
        target = create_store(location, of_the_encoder, encoder.save, overwrite=False, timeout=timeout)
    existing = target.properties()
    is_calibrated = calibration is None and existing["calibrated"]
    if existing["last_id"] or is_calibrated or any(existing[name] != value for name, value in of_the_encoder.items()):
        target.close()
        raise InputError(f"{target.address} exists and is not an empty gallery of this encoder; choose another place")
    try:
        if calibration is not None:
            target.save_calibration(calibration)
        target.add(_batches(source, properties["transaction"]), last_id=properties["last_id"])
    except BaseException:
        target.close()
        raise
    return target


def _batches(source: Store, transaction: int) -> Iterator[NewItems]:
    """Yield all items, or raise an InputError if there was a transaction after this one."""
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
    if not transaction == contents.properties["transaction"] == source.properties()["transaction"]:
        raise InputError(f"{source.address} was changed while it was copied; copy it again")
