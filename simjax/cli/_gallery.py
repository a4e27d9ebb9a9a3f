"""`simjax gallery create | add | remove | calibrate | info | list`: change and describe a gallery of images."""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from simjax.cli._arguments import parse
from simjax.cli._encoders import print_json
from simjax.cli._train import enable_compilation_cache
from simjax.core import InputError


@dataclasses.dataclass(frozen=True)
class CreateArguments:
    """Create a gallery: a folder with the embeddings of images, for search and identification."""

    gallery: Positional[str]
    """Folder of the gallery."""
    encoder: str
    """Folder of a run or of an encoder, or the name of a ready one."""
    images: str | None = None
    """Folder with one sub-folder for each identity; with --flat, a folder of images. Default: an empty gallery."""
    flat: bool = False
    """Every image is an item of its own, without an identity."""
    overwrite: bool = False
    """Replace the gallery."""


@dataclasses.dataclass(frozen=True)
class AddArguments:
    """Add images to a gallery."""

    gallery: Positional[str]
    """Folder of the gallery."""
    images: Positional[tuple[str, ...]]
    """Images, and folders of images."""
    identity: str | None = None
    """Name of the identity that the images show. Default: none."""
    metadata: tuple[str, ...] = ()
    """Properties of the images, KEY=VALUE each."""


@dataclasses.dataclass(frozen=True)
class RemoveArguments:
    """Remove items from a gallery."""

    gallery: Positional[str]
    """Folder of the gallery."""
    ids: Positional[tuple[int, ...]] = ()
    """Ids of the items."""
    identity: str | None = None
    """Remove all items of this identity."""


@dataclasses.dataclass(frozen=True)
class GalleryCalibrateArguments:
    """Calibrate a gallery with images of identities that are not in it."""

    gallery: Positional[str]
    """Folder of the gallery."""
    images: str
    """Folder with one sub-folder for each identity."""


@dataclasses.dataclass(frozen=True)
class InfoArguments:
    """Describe a gallery: items, identities, encoder, measure, store (its folder) and thresholds."""

    gallery: Positional[str]
    """Folder of the gallery."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class ListArguments:
    """Print the items of a gallery, one JSON object a line."""

    gallery: Positional[str]
    """Folder of the gallery."""
    where: tuple[str, ...] = ()
    """Print only items with these properties, KEY=VALUE each; the key `identity` is the identity."""


def create(arguments: Sequence[str]) -> None:
    """Create a gallery and add the images of a folder."""
    parsed = parse(CreateArguments, arguments)
    from simjax.encoder import find_identities, find_images, load_encoder
    from simjax.gallery import Gallery

    enable_compilation_cache()
    encoder = load_encoder(parsed.encoder)
    paths: list[Path] = []
    identities: list[str] | None = None
    if parsed.images is not None and parsed.flat:
        paths = find_images(parsed.images)
    elif parsed.images is not None:
        paths, identities = find_identities(parsed.images)
    embeddings = encoder.encode(paths, progress=encoding_progress())
    with Gallery.create(parsed.gallery, encoder, overwrite=parsed.overwrite) as gallery:
        if paths:
            gallery.add(embeddings, identities, paths=paths)
        print(f"{_counts(gallery)}: {parsed.gallery}")
        if gallery.calibration is None:
            print(f"for probabilities and identification, {how_to_calibrate(parsed.gallery)}")


def add(arguments: Sequence[str]) -> None:
    """Add images to a gallery."""
    parsed = parse(AddArguments, arguments)
    from simjax.encoder import find_images

    metadata = key_values("metadata", parsed.metadata)
    with open_gallery(parsed.gallery) as gallery:
        paths = find_images(parsed.images)
        ids = gallery.add(paths, parsed.identity, metadata or None, progress=encoding_progress())
        print(f"added {count(len(ids), 'item')} with ids {_ranges(ids)}; {_counts(gallery)}")


def remove(arguments: Sequence[str]) -> None:
    """Remove items from a gallery."""
    parsed = parse(RemoveArguments, arguments)
    if bool(parsed.ids) == (parsed.identity is not None):
        raise InputError("expected ids of items or `identity`, one of both")
    with open_gallery(parsed.gallery) as gallery:
        if parsed.identity is not None:
            removed = gallery.remove_identity(parsed.identity)
        else:
            removed = gallery.remove(parsed.ids)
        print(f"removed {count(removed, 'item')}; {_counts(gallery)}")


def calibrate(arguments: Sequence[str]) -> None:
    """Calibrate a gallery."""
    parsed = parse(GalleryCalibrateArguments, arguments)
    from simjax.encoder import find_identities

    with open_gallery(parsed.gallery) as gallery:
        paths, identities = find_identities(parsed.images)
        gallery.calibrate(gallery.encoder.encode(paths, progress=encoding_progress()), identities)
        print(f"calibrated on {len(paths):,} images of {len(set(identities)):,} identities")
        for threshold in gallery.info()["thresholds"]:
            print(threshold["text"])


def info(arguments: Sequence[str]) -> None:
    """Describe a gallery."""
    parsed = parse(InfoArguments, arguments)
    with open_gallery(parsed.gallery) as gallery:
        description = gallery.info()
        if parsed.json:
            print_json(description)
            return
        for name in ("items", "identities", "encoder", "measure", "store"):
            value = description[name]
            print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
        for threshold in description["thresholds"]:
            print(threshold["text"])
        if not description["thresholds"]:
            print(f"thresholds: none; {how_to_calibrate(parsed.gallery)}")


def list_items(arguments: Sequence[str]) -> None:
    """Print the items of a gallery as JSON Lines."""
    parsed = parse(ListArguments, arguments)
    with open_gallery(parsed.gallery) as gallery:
        for item in gallery.items(where=key_values("where", parsed.where) or None):
            print(json.dumps(item._asdict(), ensure_ascii=False))


def open_gallery(path: str) -> Any:
    """Open a gallery, and suppress the warning that it is not calibrated."""
    from simjax.gallery import Gallery

    enable_compilation_cache()
    # Commands that need a calibration say how to calibrate.
    warnings.filterwarnings("ignore", "the gallery is not calibrated", UserWarning)
    return Gallery.open(path)


def encoding_progress() -> Any:
    """Return a display of the progress on stderr."""
    from simjax.train._progress import PreparationDisplay

    return PreparationDisplay(stderr=True)


def key_values(option: str, words: Sequence[str]) -> dict[str, str]:
    """Return the properties that are given as KEY=VALUE."""
    pairs = [word.partition("=") for word in words]
    for (key, equals, _), word in zip(pairs, words, strict=True):
        if not key or not equals:
            raise InputError(f"`{option}`: expected KEY=VALUE, got {word!r}")
    return {key: value for key, _, value in pairs}


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "2 items"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _counts(gallery: Any) -> str:
    """Return the numbers of items and identities as text, such as "2 items of 1 identity"."""
    description = gallery.info()
    identities = description["identities"]
    return f"{count(description['items'], 'item')} of {identities:,} identit{'y' if identities == 1 else 'ies'}"


def _ranges(ids: Sequence[int]) -> str:
    """Return ids as text, as 7 or 7-12 (new ids are consecutive)."""
    return str(ids[0]) if len(ids) == 1 else f"{ids[0]}-{ids[-1]}"


def how_to_calibrate(gallery: str) -> str:
    """Return how to calibrate a gallery: the images that this needs, and the command."""
    command = f"simjax gallery calibrate {gallery} --images FOLDER"
    return f"calibrate with images of identities that are not in the gallery, `{command}`"
