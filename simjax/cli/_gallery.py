"""`simjax gallery create | add | remove | calibrate | copy | index | info | list`: change and describe a gallery."""

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional, UseAppendAction

from simjax._compilation_cache import enable_compilation_cache
from simjax.cli._arguments import parse
from simjax.cli._encoders import calibration_text
from simjax.cli._images import encode_files, encoding_progress, identities_of, image_files, of_readable
from simjax.cli._results import calibration_size, print_json
from simjax.core import InputError
from simjax.report._numbers import quantity
from simjax.train._progress import print_line


@dataclasses.dataclass(frozen=True)
class CreateArguments:
    """Create a gallery: embeddings of images in a folder or a database, for search and identification."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    encoder: str
    """Folder of a run or of an encoder, or the name of a ready one."""
    images: str | None = None
    """Folder with one sub-folder for each identity; with --flat, a folder of images. Default: an empty gallery."""
    flat: bool = False
    """Every image is an item of its own, without an identity."""
    overwrite: bool = False
    """Replace the gallery."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class AddArguments:
    """Add images to a gallery. Files whose paths are in it already are left out."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    images: Positional[tuple[str, ...]]
    """Images, and folders of images."""
    identity: str | None = None
    """Name of the identity that the images show. Default: none."""
    metadata: UseAppendAction[tuple[str, ...]] = ()
    """Properties of the images, KEY=VALUE each; values are stored as text."""
    again: bool = False
    """Add images again whose paths are in the gallery, for instance because the files were changed."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class RemoveArguments:
    """Remove items from a gallery."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    ids: Positional[tuple[int, ...]] = ()
    """Ids of the items."""
    identity: str | None = None
    """Remove all items of this identity."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class GalleryCalibrateArguments:
    """Calibrate a gallery with images of other identities, which are not in it.

    This replaces the calibration of its encoder, if that has one: use images like those that will be searched.
    """

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    images: str
    """Folder with one sub-folder for each identity."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class CopyArguments:
    """Copy a gallery between folders and databases, with the ids of its items, its calibration and its encoder."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    copy: Positional[str]
    """Folder or URL of the copy, where no gallery exists, or an empty one."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class IndexArguments:
    """Create an index, for `gallery search --approximate`, and measure its recall. Only PostgreSQL has indexes.

    Searches without --approximate stay exact. An index that exists is kept, and its recall is measured again.
    """

    gallery: Positional[str]
    """URL of the database."""
    candidates: int = 100
    """Number of items that the index proposes for each query, 10 to 1,000."""
    drop: bool = False
    """Drop the index instead."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class InfoArguments:
    """Describe a gallery: items, identities, encoder, measure, store (folder or URL), index and thresholds."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class ListArguments:
    """Print the items of a gallery, one JSON object a line."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    where: UseAppendAction[tuple[str, ...]] = ()
    """Print only items with all of these properties, KEY=VALUE each; the key `identity` is the identity."""


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
        with _advice_about_flat():
            paths, identities = find_identities(parsed.images)

    def create_with(files: list[Path]) -> Gallery:
        names = None if identities is None else identities_of(files, paths, identities)
        options = {"progress": encoding_progress(), "overwrite": parsed.overwrite}
        return Gallery.create(parsed.gallery, encoder, files or None, names, **options)

    files, gallery = of_readable(create_with, paths, encoder, skip_unreadable=parsed.skip_unreadable)
    with gallery:
        if parsed.json:
            added = _added(range(1, len(files) + 1), files)
            print_json({"store": gallery.address, "added": added, **_numbers(gallery)})
            return
        print_line(f"{_counts(gallery)}: {shown(parsed.gallery)}")
        if gallery.calibration is not None:
            print_line(f"calibration: of the encoder, on {calibration_text(gallery.calibration)}")
        else:
            print_line(f"for probabilities and identification, {how_to_calibrate(parsed.gallery)}")


def add(arguments: Sequence[str]) -> None:
    """Add images to a gallery."""
    parsed = parse(AddArguments, arguments)
    metadata = key_values("metadata", parsed.metadata)
    with open_gallery(parsed.gallery) as gallery:
        paths, left_out = image_files(parsed.images), 0
        if not parsed.again:
            given = list(dict.fromkeys(paths))
            known = gallery.known_paths(given)
            paths = [path for path in given if os.path.abspath(path) not in known]
            left_out = len(given) - len(paths)
        ids: list[int] = []
        if paths:
            paths, ids = of_readable(
                lambda files: gallery.add(files, parsed.identity, metadata or None, progress=encoding_progress()),
                paths,
                gallery.encoder,
                skip_unreadable=parsed.skip_unreadable,
            )
        if parsed.json:
            print_json({"added": _added(ids, paths), "left_out": left_out, **_numbers(gallery)})
            return
        if left_out:
            number = quantity(left_out, "image")
            print_line(f"left out {number} that the gallery has already, by the path; --again adds such images again")
        print_line(f"added {quantity(len(ids), 'item')}{_with_ids(ids)}; {_counts(gallery)}")


def remove(arguments: Sequence[str]) -> None:
    """Remove items from a gallery."""
    parsed = parse(RemoveArguments, arguments)
    if bool(parsed.ids) == (parsed.identity is not None):
        raise InputError(f"expected ids of items or `identity`, {'not both' if parsed.ids else 'got neither'}")
    with open_gallery(parsed.gallery) as gallery:
        if parsed.identity is not None:
            removed = gallery.remove_identity(parsed.identity)
            if not removed:
                raise InputError(f"identity: no item of the gallery has the identity {parsed.identity!r}")
        else:
            removed = gallery.remove(parsed.ids)
        if parsed.json:
            print_json({"removed": removed, **_numbers(gallery)})
        else:
            print_line(f"removed {quantity(removed, 'item')}; {_counts(gallery)}")


def calibrate(arguments: Sequence[str]) -> None:
    """Calibrate a gallery."""
    parsed = parse(GalleryCalibrateArguments, arguments)
    from simjax.encoder import find_identities

    with open_gallery(parsed.gallery) as gallery:
        paths, identities = find_identities(parsed.images)
        files, embeddings = encode_files(gallery.encoder, paths, skip_unreadable=parsed.skip_unreadable)
        calibration = gallery.calibrate(embeddings, identities_of(files, paths, identities))
        sizes, thresholds = calibration_size(calibration), gallery.info()["thresholds"]
        if parsed.json:
            print_json({**sizes, "thresholds": thresholds})
            return
        print_line(
            f"calibrated on {sizes['images']:,} images of {quantity(sizes['identities'], 'identity', 'identities')}"
        )
        _print_thresholds(thresholds)


def copy(arguments: Sequence[str]) -> None:
    """Copy a gallery."""
    parsed = parse(CopyArguments, arguments)
    with open_gallery(parsed.gallery) as gallery, gallery.copy(parsed.copy) as copied:
        if parsed.json:
            print_json({"store": copied.address, **_numbers(copied)})
        else:
            print_line(f"{_counts(copied)}: {shown(parsed.copy)}")


def index(arguments: Sequence[str]) -> None:
    """Create or drop the index of a gallery."""
    parsed = parse(IndexArguments, arguments)
    with open_gallery(parsed.gallery) as gallery:
        if not parsed.drop:
            gallery.create_index(parsed.candidates)
        elif not gallery.drop_index():
            raise InputError(f"{shown(parsed.gallery)}: the gallery has no index")
        if parsed.json:
            print_json(None if gallery.index is None else gallery.index._asdict())
        else:
            print_line("dropped the index" if parsed.drop else _index_text(gallery.index))


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
            print_line(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
        if description["index"] is not None:
            print_line(_index_text(gallery.index))
        calibration = description["calibration"]
        if calibration is None:
            print_line(f"calibration: none; for thresholds, {how_to_calibrate(parsed.gallery)}")
            return
        sizes = f"{calibration['images']:,} images of {calibration['identities']:,} other identities"
        whose = "this gallery" if calibration["of"] == "gallery" else f"the encoder {description['encoder']}"
        print_line(f"calibration: of {whose}, on {sizes}")
        _print_thresholds(description["thresholds"])


def list_items(arguments: Sequence[str]) -> None:
    """Print the items of a gallery as JSON Lines."""
    parsed = parse(ListArguments, arguments)
    with open_gallery(parsed.gallery) as gallery:
        is_empty = True
        for item in gallery.items(where=filters(parsed.where)):
            print(json.dumps(item._asdict()))
            is_empty = False
        if is_empty:
            warnings.warn("no item matches `where`" if parsed.where else "the gallery has no items", stacklevel=2)


def open_gallery(path: str, encoder: Any = None) -> Any:
    """Open a gallery, by default with its own encoder, and suppress the warning that it is not calibrated."""
    from simjax.gallery import Gallery

    if os.path.isfile(path):
        raise InputError(f"{path}: expected a gallery, got a file; the gallery comes first, images follow")
    enable_compilation_cache()
    # Commands that need a calibration say how to calibrate.
    warnings.filterwarnings("ignore", "the gallery is not calibrated", UserWarning)
    return Gallery.open(path, encoder=encoder)


def shown(gallery: str) -> str:
    """Return the path or URL of a gallery as it is printed: without user and password."""
    from simjax.gallery._locations import without_credentials

    return without_credentials(gallery)


@contextlib.contextmanager
def _advice_about_flat() -> Iterator[None]:
    """Add what to do to the warning about images beside the folders of identities."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        advice = "; --flat makes every image an item without an identity" if "beside" in str(warning.message) else ""
        warnings.warn(f"{warning.message}{advice}", warning.category, stacklevel=2)


def filters(words: Sequence[str]) -> dict[str, Any] | None:
    """Return the filter of `--where`, which finds stored text and the number or boolean that is written like it."""
    found: dict[str, Any] = {}
    for key, text in key_values("where", words).items():
        try:
            value = json.loads(text, parse_constant=lambda constant: None)
        except (ValueError, RecursionError):  # also for deep lists
            value = None
        has_both = key != "identity" and isinstance(value, bool | int | float) and abs(value) < 2**63
        found[key] = [text, value] if has_both else text
    return found or None


def key_values(option: str, words: Sequence[str]) -> dict[str, str]:
    """Return the properties that are given as KEY=VALUE. A key that is given twice is an InputError."""
    pairs = [word.partition("=") for word in words]
    for (key, equals, _), word in zip(pairs, words, strict=True):
        if not key or not equals:
            raise InputError(f"`{option}`: expected KEY=VALUE, got {word!r}")
    keys = [key for key, _, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"`{option}`: expected each key once, got {twice[0]!r} {keys.count(twice[0])} times")
    return {key: value for key, _, value in pairs}


def _counts(gallery: Any) -> str:
    """Return the numbers of items and identities as text, such as "2 items of 1 identity"."""
    identities = quantity(gallery.count_identities(), "identity", "identities")
    return f"{quantity(len(gallery), 'item')} of {identities}"


def _numbers(gallery: Any) -> dict[str, int]:
    """Return the numbers of items and identities, for JSON."""
    return {"items": len(gallery), "identities": gallery.count_identities()}


def _added(ids: Sequence[int], files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the ids and paths of new items, for JSON."""
    return [{"id": id_, "path": os.path.abspath(file)} for id_, file in zip(ids, files, strict=True)]


def _index_text(index: Any) -> str:
    return (
        f"index: recall@10 {index.recall_at_10:.4f} with {index.candidates:,} candidates, measured with "
        f"{quantity(index.queries, 'query', 'queries')} among {quantity(index.items, 'item')}; "
        f"{index.bytes / 2**20:,.1f} MB"
    )


def _with_ids(ids: Sequence[int]) -> str:
    """Return ids as text, as " with id 7" or " with ids 7-12" (new ids are consecutive)."""
    return "" if not ids else f" with id {ids[0]}" if len(ids) == 1 else f" with ids {ids[0]}-{ids[-1]}"


def _print_thresholds(thresholds: Sequence[dict[str, Any]]) -> None:
    for threshold in thresholds:
        print_line(threshold["text"])
    if not thresholds:
        print_line("thresholds: none, because the calibration has too few images for the default rates")


def how_to_calibrate(gallery: str) -> str:
    """Return how to calibrate a gallery: the images that this needs, and the command."""
    command = f"simjax gallery calibrate {shown(gallery)} --images FOLDER"
    return f"calibrate with images of identities that are not in the gallery, `{command}`"
