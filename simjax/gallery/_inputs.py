"""Arguments of a gallery: images or embeddings, ids, identities and metadata."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np

from simjax.core import InputError
from simjax.data import Progress
from simjax.encoder import Encoder, find_images
from simjax.gallery._hits import embeddings_of
from simjax.gallery._search import finite_rows
from simjax.gallery._store import NewItems, Store, is_unicode

MAX_DEPTH = 100
"""Largest number of levels of metadata. SQLite reads 1,000."""

Ids: TypeAlias = int | np.integer | Iterable[int | np.integer]
"""The id of an item, or ids."""


def embed(
    images: Any,
    size: int,
    encoder: Callable[[], Encoder],
    progress: Progress | None = None,
    *,
    are_paths_stored: bool = False,
) -> tuple[np.ndarray, list[Path] | None]:
    """Return the finite embeddings of images, float32 [n, size], and the paths of images that are files.

    A floating-point array of two axes already holds embeddings; the encoder is then not loaded. Paths that are to be
    stored are checked before the images are encoded.
    """
    if hasattr(images, "__array__") and np.ndim(images) == 2 and np.issubdtype(np.asarray(images).dtype, np.floating):
        return finite_rows("images", images, size), None
    is_one = isinstance(images, str | os.PathLike | bytes) or hasattr(images, "getexif")  # a Pillow image
    is_one = is_one or hasattr(images, "read")  # a binary file
    given: Any = [images] if is_one or hasattr(images, "__array__") else images
    if not isinstance(given, Iterable):
        raise InputError(f"images: expected paths, Pillow images or arrays, got {type(given).__name__}")
    given = list(given)  # the paths of a generator or a set are stored, too
    files = find_images(given) if given and all(isinstance(image, str | os.PathLike) for image in given) else None
    if are_paths_stored:
        stored_paths(None, files, len(files or ()))
    images = images if is_one or hasattr(images, "__array__") else given
    embeddings = encoder().encode(images if files is None else files, progress=progress)
    return finite_rows("images", embeddings, size), files


def as_queries(
    images_or_ids: Any, store: Store, embed: Callable[[Any], tuple[np.ndarray, list[Path] | None]]
) -> tuple[Sequence[str | int], np.ndarray, np.ndarray | None]:
    """Return names and embeddings [q, e] of queries, and their ids [q] if ids were given.

    Args:
        images_or_ids: See `Gallery.search`.
        store: The gallery.
        embed: Returns the embeddings of images, and the paths of those that are files.
    """
    if _is_ids(images_or_ids):
        ids = as_ids(images_or_ids)
        return ids.tolist(), embeddings_of(store, ids), ids
    embeddings, files = embed(images_or_ids)
    return range(len(embeddings)) if files is None else list(map(str, files)), embeddings, None


def _is_ids(given: Any) -> bool:
    """Return whether these are ids of items: integers, and no images."""
    if isinstance(given, list | tuple | range):
        return len(given) > 0 and all(_is_ids(i) and np.ndim(i) == 0 for i in given)
    if hasattr(given, "__array__") and hasattr(given, "dtype"):
        array = np.asarray(given)
        return array.ndim < 2 and np.issubdtype(array.dtype, np.integer)
    return isinstance(given, int) and not isinstance(given, bool)


def as_ids(ids: Ids) -> np.ndarray:
    """Return ids of items, int64 [n]."""
    given: Any = np.asarray(ids).tolist() if hasattr(ids, "__array__") else ids
    given = [given] if isinstance(given, str | bytes) or not isinstance(given, Iterable) else list(given)
    if wrong := [i for i in given if isinstance(i, bool) or not isinstance(i, int | np.integer) or abs(i) >= 2**63]:
        raise InputError(f"ids: expected integers of at most 64 bits, got {wrong[0]!r}")
    return np.array(given, np.int64)


def as_identities(identities: str | Sequence[str | None] | None, n: int) -> list[str | None]:
    """Return the name of the identity of each of n images, or None; see `Gallery.add`."""
    names = _one_for_each("identities", identities, str, n)
    if wrong := [name for name in names if name is not None and (not isinstance(name, str) or not name)]:
        advice = f"; pass text, such as {str(wrong[0])!r}" if isinstance(wrong[0], int | np.integer) else ""
        raise InputError(f"identities: expected names or None, got {wrong[0]!r}{advice}")
    return names


def checked_encoder(encoder: Encoder, name: str, store: Store) -> Encoder:
    """Return the encoder; an InputError with its name if the embeddings of the gallery are of another one."""
    properties = store.properties()
    if encoder.fingerprint != properties["fingerprint"]:
        raise InputError(
            f"{store.address}: its embeddings are of the encoder {properties['encoder']} (fingerprint "
            f"{properties['fingerprint']}), not of {name} ({encoder.fingerprint})"
        )
    return encoder


def new_items(
    embed: Callable[..., tuple[np.ndarray, list[Path] | None]],
    images: Any,
    identities: str | Sequence[str | None] | None,
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None,
    paths: Sequence[str | Path | None] | None,
    progress: Progress | None,
) -> NewItems:
    """Return items; see `Gallery.add`.

    `embed` returns embeddings and files, as the function `embed` of this module without encoder and size.
    """
    embeddings, files = embed(images, progress=progress, are_paths_stored=paths is None)
    n = len(embeddings)
    stored = stored_paths(paths, files, n)
    return NewItems(embeddings, as_identities(identities, n), stored, _as_json(metadata, n))


def changed_values(
    identity: str | None | EllipsisType, metadata: Mapping[str, Any] | None | EllipsisType
) -> dict[str, str | None]:
    """Return the stored form of those of the values that are not `...`; see `Gallery.update`."""
    values: dict[str, str | None] = {}
    if not isinstance(identity, EllipsisType):
        values["identity"] = as_identities(identity, 1)[0]
    if not isinstance(metadata, EllipsisType):
        values["metadata"] = _as_json(metadata, 1)[0]
    return values


def check_not_enrolled(identities: Sequence[str | None], store: Store) -> None:
    """Raise an InputError if the gallery has items of one of these identities."""
    if enrolled := store.enrolled(identities):
        raise InputError(f"identities: expected no enrolled identities, got {first_names(enrolled)}")


def first_names(names: Sequence[str], most: int = 3) -> str:
    """Return the first names and the number of others as text, such as "Ada, Bo, Cy and 97 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _as_json(metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None, n: int) -> list[str]:
    """Return the metadata of each of n images as a JSON object; see `Gallery.add`."""
    objects = []
    for given in _one_for_each("metadata", metadata, Mapping, n):
        values = dict(given or {})
        if wrong := [key for key in values if not isinstance(key, str) or key == "identity"]:
            raise InputError(f"metadata: expected names other than 'identity', got {wrong[0]!r}")
        _check_depth(values)
        try:
            objects.append(json.dumps(values, ensure_ascii=False, allow_nan=False, default=_as_python))
        except (TypeError, ValueError) as error:
            raise InputError(f"metadata: expected values of JSON, got {values} ({error})") from None
    return objects


def _check_depth(value: Any, depth: int = 0) -> None:
    """Raise an InputError for metadata that SQLite or the parser of another Python cannot read, or that is endless."""
    if depth > MAX_DEPTH:
        raise InputError(f"metadata: expected lists and objects of at most {MAX_DEPTH} levels, got more")
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_depth(inner, depth + 1)


def stored_paths(paths: Sequence[str | Path | None] | None, files: list[Path] | None, n: int) -> list[str | None]:
    """Return the paths of n images: those of files, or the given ones. Paths become absolute, text stays as it is."""
    given = files if paths is None else paths
    if isinstance(given, str | os.PathLike):
        raise InputError(f"paths: expected a sequence, one path for each image, got {given!r}")
    found = _one_for_each("paths", given, (), n)
    if wrong := [path for path in found if not isinstance(path, str | Path | None)]:
        raise InputError(f"paths: expected text, `Path` or None, got {type(wrong[0]).__name__}")
    texts = [os.path.abspath(path) if isinstance(path, Path) else path for path in found]
    if wrong := [text for text in texts if text is not None and not is_unicode(text)]:
        raise InputError(f"paths: expected Unicode text, which galleries store, got {wrong[0]!a}; rename the file")
    return texts


def _one_for_each(argument: str, given: Any, kinds: type | tuple[type, ...], n: int) -> list[Any]:
    """Return a list with one value for each of n images.

    Args:
        argument: Name of the argument in error messages.
        given: A value of one of these kinds or None, for all images, or a sequence with one value for each.
        kinds: Kinds of values that are for all images.
        n: Number of images.
    """
    if given is None or isinstance(given, kinds):
        return [given] * n
    if not isinstance(given, Iterable):
        given = [given] * n  # of a wrong kind, which the caller refuses
    values = list(given)
    if len(values) != n:
        raise InputError(f"{argument}: expected {n}, one for each image, got {len(values)}")
    return values


def _as_python(value: Any) -> Any:
    """Return a number of NumPy as one of Python, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a type of JSON")
