"""The interface of the places where galleries are stored: folders and databases.

A store keeps items, embeddings and the calibration. Each method is one transaction. A store never compares embeddings:
scores come from the exact search in the rows of `Contents.embeddings`, so that they are the same in every store.
"""

import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from simjax.core import InputError
from simjax.encoder import Encoder, load_encoder
from simjax.gallery._results import Item

FORMAT, VERSION = "simjax gallery", 1
ENCODER_PROPERTIES = ("encoder", "fingerprint", "embedding_size", "measure")
"""Properties of the encoder: its name, the hash of its weights and preprocessing, its embedding size, and the name of
its measure."""

INTEGERS = ("embedding_size", "transaction", "last_rewrite", "calibrated", "last_id")
"""Integer properties of a gallery in a database; see `Store.properties`. All but the embedding size are first 0."""

ITEMS_PER_READ = 1000

MAX_VALUES = 100
"""Largest number of keys of a condition, and of values of one key; SQLite limits the depth of expressions."""

Properties = dict[str, Any]
Where = Mapping[str, Any] | None


class NoGalleryError(InputError):
    """There is no gallery at a path or URL."""


class DamageError(Exception):
    """A gallery contains something that no version of this package writes. Stores raise it as an InputError."""


class Contents(NamedTuple):
    """The items of a gallery, or some of them, after a transaction.

    Attributes:
        ids: Ascending, int64 [n].
        rows: Row of each item in the embeddings, ascending, int64 [n].
        embeddings: Embeddings of all items and possibly of removed ones, memory-mapped, float32 [rows, e].
        properties: Properties of the gallery; "rows" is the number of rows of the embeddings.
    """

    ids: np.ndarray
    rows: np.ndarray
    embeddings: np.ndarray
    properties: Properties


class EmbeddingFile:
    """Embeddings that were copied from a database, in a temporary file that is mapped into memory."""

    def __init__(self):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`

    @property
    def closed(self) -> bool:
        """Whether the file was closed and deleted."""
        return self._file.closed

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()

    def write(self, start: int, embeddings: np.ndarray) -> None:
        """Write embeddings [n, e] from row `start` on."""
        self._file.seek(start * embeddings.shape[1] * 4)
        self._file.write(embeddings.astype("<f4").data)

    def map(self, count: int, size: int) -> np.ndarray:
        """Return the first rows, memory-mapped, float32 [count, size]."""
        if not count:
            return np.empty((0, size), np.float32)  # an empty file cannot be mapped
        self._file.flush()
        return np.asarray(np.memmap(self._file, "<f4", "r", shape=(count, size)))


class NewItems(NamedTuple):
    """Items to be added.

    Attributes:
        embeddings: Contiguous float32 [n, e].
        identities: [n].
        paths: [n].
        metadata: JSON objects [n].
        ids: Ascending and higher than all ids of the gallery, [n]. Default: the next ones.
    """

    embeddings: np.ndarray
    identities: Sequence[str | None]
    paths: Sequence[str | None]
    metadata: Sequence[str]
    ids: Sequence[int] | None = None


class StoredCalibration(NamedTuple):
    """A calibration.

    Attributes:
        arrays: Arrays by name, as `Calibration.to_arrays` returns them.
        description: Its description, a JSON object.
        identities: Names of the identities of its images.
    """

    arrays: dict[str, np.ndarray]
    description: dict[str, Any]
    identities: list[str]


@runtime_checkable
class Store(Protocol):
    """An opened gallery. Threads may share it."""

    @property
    def address(self) -> str:
        """Path of the folder, or URL of the database without password."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...

    def load_encoder(self) -> Encoder:
        """Load the encoder that is stored with the gallery."""
        ...

    def properties(self) -> Properties:
        """Return the properties.

        They are `ENCODER_PROPERTIES`, the number of transactions ("transaction"), the last one that did more than
        adding items ("last_rewrite") and the one that stored the calibration ("calibrated"), and the highest id that
        was ever given ("last_id").
        """
        ...

    def count(self) -> int:
        """Return the number of items."""
        ...

    def count_identities(self) -> int:
        """Return the number of different identities."""
        ...

    def contents(self, where: Where = None) -> Contents:
        """Return all items, or those with given metadata or identity. Only what was changed is read again."""
        ...

    def named_contents(self) -> Contents:
        """Return the items that have an identity."""
        ...

    def items_by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        """Return those of these items that exist."""
        ...

    def items(self, where: Where = None) -> Iterator[Item]:
        """Yield the items in the order of their ids. The gallery may be changed in between."""
        ...

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        """Return those of these paths that items have."""
        ...

    def enrolled(self, names: Iterable[str | None] | None = None) -> list[str]:
        """Return which of these identities have items. Default: of the identities of the calibration."""
        ...

    def calibration(self) -> StoredCalibration | None:
        """Return the calibration, or None."""
        ...

    def add(self, batches: Iterable[NewItems], last_id: int = 0) -> list[int]:
        """Add items and return their ids; ids up to `last_id` are never given again."""
        ...

    def update(self, ids: Iterable[int], values: Mapping[str, str | None]) -> None:
        """Set the "identity" or the "metadata" (a JSON object) of items."""
        ...

    def remove(self, ids: Iterable[int]) -> int:
        """Remove items, and return their number."""
        ...

    def remove_identity(self, name: str) -> int:
        """Remove the items of an identity, and return their number."""
        ...

    def save_calibration(self, calibration: StoredCalibration) -> None:
        """Replace the calibration."""
        ...


@runtime_checkable
class IndexedStore(Store, Protocol):
    """A store that can have an index. The property "index" describes it as soon as its recall was measured."""

    def create_index(self) -> int:
        """Create the index unless it exists, and return its size in bytes."""
        ...

    def save_index(self, description: Properties) -> None:
        """Set the property "index"."""
        ...

    def drop_index(self) -> bool:
        """Drop the index and the property, and return whether there was an index."""
        ...

    def candidates(self, query: np.ndarray, count: int, where: Where = None) -> Contents:
        """Return items that are close to a query [e] and match `where`: `count` of them, or fewer if few match."""
        ...

    def selected_contents(self, where: Where = None, ids: Iterable[int] | None = None) -> Contents:
        """Return the items that match `where` and have one of these ids. No other embeddings are read."""
        ...


def check_properties(found: Properties, integers: Iterable[str], address: str) -> Properties:
    """Return the stored properties; an InputError if they are not of a gallery that this version can use.

    Args:
        found: Stored properties.
        integers: Names of those that are integers of at least 0.
        address: See `Store`.
    """
    if found.get("format") != FORMAT:
        raise InputError(f"{address} is not a gallery: it is of something else")
    version = found.get("version")
    if not isinstance(version, int):
        raise InputError(f"{address}: the gallery is damaged: its version is {version!r}")
    if version > VERSION:
        raise InputError(f"{address}: its format {version} is newer than {VERSION}; update simjax")
    if wrong := [name for name in integers if not isinstance(found.get(name), int) or found[name] < 0]:
        raise InputError(f"{address}: the gallery is damaged: its {wrong[0]} is {found.get(wrong[0])!r}")
    return found


def values_of(where: Where) -> Iterator[tuple[str, list[str | int | float | None]]]:
    """Yield each key of a condition, and the values of which an item has to have one.

    Raises:
        InputError: If there are too many values of a key, or a value is not Unicode text, a finite number, a boolean or
            None.
    """
    if where is not None and not isinstance(where, Mapping):
        raise InputError(f"where: expected a dictionary of values by name, got {type(where).__name__}")
    if len(where or {}) > MAX_VALUES:
        raise InputError(f"where: expected at most {MAX_VALUES} keys, got {len(where or {}):,}")
    for key, given in (where or {}).items():
        values = list(given) if isinstance(given, list | tuple | np.ndarray) else [given]
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        if len(values) > MAX_VALUES:
            raise InputError(f"where: expected at most {MAX_VALUES} values for {key!r}, got {len(values):,}")
        if wrong := [value for value in values if not isinstance(value, str | int | float | None)]:
            got = type(wrong[0]).__name__
            raise InputError(f"where: expected text, numbers, booleans or None for {key!r}, got {got}")
        if wrong := [value for value in values if isinstance(value, float) and not math.isfinite(value)]:
            raise InputError(f"where: expected finite numbers for {key!r}, got {wrong[0]}")
        if wrong := [text for text in (key, *values) if isinstance(text, str) and not is_unicode(text)]:
            raise InputError(f"where: expected Unicode text, got {wrong[0]!a}")
        yield key, values if key != "identity" else [None if value is None else str(value) for value in values]


def is_unicode(text: str) -> bool:
    """Return whether text has no surrogates, which stand for bytes that Python could not decode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def matches(item: Item, conditions: Iterable[tuple[str, list[Any]]]) -> bool:
    """Return whether an item has these values of metadata or identity, which compare as in `_sql.condition`."""
    for key, values in conditions:
        if key == "identity":
            is_found = item.identity in values
        else:
            stored = item.metadata.get(key, ...)
            is_found = any(isinstance(v, bool) == isinstance(stored, bool) and v == stored for v in values)
        if not is_found:
            return False
    return True


def checked_item(i: int, values: Any) -> Item:
    """Return the item with an id, and with a stored identity, path and metadata; a DamageError if they are none."""
    match values:
        case [str() | None as identity, str() | None as path, dict() as metadata]:
            return Item(i, identity, path, metadata)
    raise DamageError(f"the identity, the path or the metadata of item {i} have another type")


def properties_of(encoder: Encoder) -> Properties:
    """Return the properties of the encoder of a gallery."""
    values = (encoder.name, encoder.fingerprint, encoder.embedding_size, encoder.measure.name)
    return dict(zip(ENCODER_PROPERTIES, values, strict=True))


def as_npy(array: np.ndarray) -> bytes:
    """Return an array in NumPy's .npy format."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def read_calibration(
    arrays: Mapping[str, bytes], description: str, identities: list[Any], address: str
) -> StoredCalibration:
    """Return a calibration from arrays in NumPy's .npy format and a description as JSON."""
    try:
        read = {name: np.lib.format.read_array(io.BytesIO(array)) for name, array in arrays.items()}
        settings = json.loads(description)
    except Exception as error:  # NumPy raises errors of many types, also MemoryError and those of Python's tokenizer
        raise InputError(f"{address}: the calibration is damaged ({type(error).__name__}: {error})") from error
    is_numeric = all(array.dtype.kind in "fiu" for array in read.values())
    if not is_numeric or not isinstance(settings, dict) or not all(isinstance(name, str) for name in identities):
        raise InputError(f"{address}: the calibration is damaged (expected arrays of numbers, settings and names)")
    return StoredCalibration(read, settings, identities)


def archive_of(save_encoder: Callable[[Path], None]) -> bytes:
    """Return the folder of an encoder as a ZIP archive."""
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(content, "w") as archive:
        save_encoder(Path(folder) / "encoder")
        for path in sorted((Path(folder) / "encoder").iterdir()):
            archive.write(path, path.name)
    return content.getvalue()


def load_archived_encoder(content: bytes, name: str, address: str) -> Encoder:
    """Load an encoder from the ZIP archive of its folder.

    Args:
        content: The archive.
        name: Name of the encoder.
        address: See `Store`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                archive.extractall(path)
        except Exception as error:  # zipfile raises errors of many types, also those of the decompressors
            raise InputError(f"{address}: the encoder is damaged ({error})") from error
        try:
            return load_encoder(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), address)) from error
