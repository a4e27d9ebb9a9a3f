"""`simjax gallery search | recommend | identify | verify | duplicates`: questions to a gallery of images."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from simjax.cli._arguments import parse
from simjax.cli._encoders import one_image, print_json, print_verification
from simjax.cli._gallery import count, encoding_progress, how_to_calibrate, key_values, open_gallery
from simjax.cli._train import enable_compilation_cache
from simjax.core import InputError

K = Annotated[int, arg(aliases=("-k",))]


@dataclasses.dataclass(frozen=True)
class SearchArguments:
    """Find the items of a gallery that are most similar to an image."""

    gallery: Positional[str]
    """Folder of the gallery."""
    images: Positional[tuple[str, ...]] = ()
    """Images, and folders of images."""
    id: int | None = None
    """Search with an item of the gallery instead."""
    k: K = 5
    """Number of hits."""
    where: tuple[str, ...] = ()
    """Search only items with these properties, KEY=VALUE each; the key `identity` is the identity."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""


@dataclasses.dataclass(frozen=True)
class IdentifyArguments:
    """Name the identity that an image shows, or none if it is not in the gallery."""

    gallery: Positional[str]
    """Folder of the gallery."""
    images: Positional[tuple[str, ...]]
    """Images, and folders of images."""
    fpir: float = 0.01
    """Wanted false positive identification rate: share of images of unknown identities that are named."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""


@dataclasses.dataclass(frozen=True)
class RecommendArguments:
    """Find items that are similar to several items of a gallery, which are left out."""

    gallery: Positional[str]
    """Folder of the gallery."""
    like: tuple[int, ...]
    """Ids of the items."""
    k: K = 5
    """Number of hits."""
    where: tuple[str, ...] = ()
    """Search only items with these properties, KEY=VALUE each; the key `identity` is the identity."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""


@dataclasses.dataclass(frozen=True)
class DuplicatesArguments:
    """Find pairs of images that show the same, in a gallery or in a folder."""

    gallery: Positional[str]
    """Folder of the gallery, or a folder of images."""
    encoder: str | None = None
    """Encoder for a folder of images."""
    min_score: float | None = None
    """Score from which pairs are duplicates; for a distance, the largest. Default: a false match rate of 0.001."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""


@dataclasses.dataclass(frozen=True)
class GalleryVerifyArguments:
    """Decide whether two images show the same identity, with the calibration of a gallery."""

    gallery: Positional[str]
    """Folder of the gallery."""
    a: Positional[str]
    """First image."""
    b: Positional[str]
    """Second image."""
    fmr: float = 0.001
    """Wanted false match rate: share of pairs of different identities that are accepted."""
    json: bool = False
    """Print one JSON document."""


def search(arguments: Sequence[str]) -> None:
    """Search a gallery with images or with one of its items."""
    parsed = parse(SearchArguments, arguments)
    if bool(parsed.images) == (parsed.id is not None):
        raise InputError("expected images or `id`, one of both")
    from simjax.encoder import find_images

    with open_gallery(parsed.gallery) as gallery:
        queries = [parsed.id] if parsed.id is not None else find_images(parsed.images)
        results = gallery.search(queries, parsed.k, where=key_values("where", parsed.where) or None)
        _print_hits(results, parsed, gallery.measure.name)


def recommend(arguments: Sequence[str]) -> None:
    """Find items that are similar to several items."""
    parsed = parse(RecommendArguments, arguments)
    with open_gallery(parsed.gallery) as gallery:
        result = gallery.recommend(parsed.like, parsed.k, where=key_values("where", parsed.where) or None)
        _print_hits([result], parsed, gallery.measure.name)


def identify(arguments: Sequence[str]) -> None:
    """Name the identities of images."""
    parsed = parse(IdentifyArguments, arguments)
    from simjax.encoder import find_images

    with open_gallery(parsed.gallery) as gallery:
        paths = find_images(parsed.images)
        found = gallery.identify(paths, fpir=parsed.fpir)
        is_calibrated = gallery.calibration is not None
        if parsed.json:
            names = ("query", "identity", "score", "probability", "threshold")
            print_json([{name: _plain(getattr(result, name)) for name in names} for result in found])
        else:
            for result in found:
                print(f"{result.query}: {_name(result, gallery.measure.name, is_calibrated)}")
            if is_calibrated:
                print(str(gallery.search_threshold(parsed.fpir)))
            else:
                print(f"no decision without a calibration: {how_to_calibrate(parsed.gallery)}")
        if parsed.html:
            measure = gallery.measure.name
            rows = [(str(r.query), r.query, [(r.path, _name(r, measure, is_calibrated))]) for r in found]
            _write_page(parsed.html, f"Identification in {Path(parsed.gallery).name}", rows)


def duplicates(arguments: Sequence[str]) -> None:
    """Find duplicates in a gallery or in a folder of images."""
    parsed = parse(DuplicatesArguments, arguments)
    if parsed.encoder is None:
        with open_gallery(parsed.gallery) as gallery:
            pairs, measure = gallery.duplicates(parsed.min_score), gallery.measure.name
            items = {item.id: item for item in gallery.items()}
        paths = {key: item.path for key, item in items.items()}
        names: dict[int, Any] = {key: key for key in items}
        captions = {key: f"{key}  {item.path or item.identity or ''}".strip() for key, item in items.items()}
    else:
        from simjax.encoder import find_images, load_encoder
        from simjax.gallery import duplicates_of

        if parsed.min_score is None:
            raise InputError("`min_score`: expected the score from which images of a folder are duplicates")
        enable_compilation_cache()
        encoder = load_encoder(parsed.encoder)
        files = find_images(parsed.gallery)
        embeddings = encoder.encode(files, progress=encoding_progress())
        pairs, measure = duplicates_of(embeddings, encoder.measure, parsed.min_score), encoder.measure.name
        paths = {row: str(file) for row, file in enumerate(files)}
        names, captions = dict(paths), dict(paths)
    if parsed.json:
        print_json([{"a": names[pair.a], "b": names[pair.b], "score": pair.score} for pair in pairs])
    else:
        for pair in pairs:
            print(f"{pair.score:.4f}  {captions[pair.a]}  {captions[pair.b]}")
        print(f"{count(len(pairs), 'pair')} of duplicates ({measure})")
    if parsed.html:
        rows = [(f"{measure} {pair.score:.4f}", paths[pair.a], [(paths[pair.b], captions[pair.b])]) for pair in pairs]
        _write_page(parsed.html, f"Duplicates in {Path(parsed.gallery).name}", rows)


def verify(arguments: Sequence[str]) -> None:
    """Compare two images by the calibration of a gallery."""
    parsed = parse(GalleryVerifyArguments, arguments)
    with open_gallery(parsed.gallery) as gallery:
        found = gallery.verify(one_image(parsed.a), one_image(parsed.b), fmr=parsed.fmr)
        result = {name: _plain(getattr(found, name)) for name in ("score", "probability", "same", "threshold", "fmr")}
        print_verification(result, gallery.measure.name, how_to_calibrate(parsed.gallery), parsed.json)


def _name(result: Any, measure: str, is_calibrated: bool) -> str:
    """Return the identity, "unknown" or, without a calibration, the closest identity, with score and probability."""
    if result.score is None:
        return "no item of the gallery has an identity"
    name = result.identity or ("unknown" if is_calibrated else f"closest: {result.closest}")
    probability = "" if result.probability is None else f", probability {result.probability:.3f}"
    return f"{name} ({measure} {result.score:.4f}{probability})"


def _print_hits(results: Sequence[Any], parsed: Any, measure: str) -> None:
    """Print search results, as a JSON document or as lines, and write the page."""
    if parsed.json:
        print_json(
            [
                {
                    "query": _plain(result.query),
                    "hits": [{name: _plain(value) for name, value in hit._asdict().items()} for hit in result.hits],
                }
                for result in results
            ]
        )
    else:
        for result in results:
            print(f"{_plain(result.query)}:")
            for hit in result.hits:
                print(f"  {_describe(hit, measure)}")
    if parsed.html:
        rows = [
            (str(_plain(result.query)), result.query, [(hit.path, _describe(hit, measure)) for hit in result.hits])
            for result in results
        ]
        _write_page(parsed.html, f"Search in {Path(parsed.gallery).name}", rows)


def _describe(hit: Any, measure: str) -> str:
    probability = "" if hit.probability is None else f", probability {hit.probability:.3f}"
    name = "  ".join(str(part) for part in (hit.identity, hit.path) if part)
    return f"{hit.id}  {name}  ({measure} {hit.score:.4f}{probability})"


def _write_page(file: str, title: str, rows: Sequence[tuple[str, Any, Sequence[tuple[Any, str]]]]) -> None:
    """Write a page with a row of thumbnails for each query: the query and its hits, each a path and a caption."""
    from simjax.report import write_image_rows

    write_image_rows(Path(file), title, rows)
    sys.stderr.write(f"page: {file}\n")


def _plain(value: Any) -> Any:
    """Return a value that JSON can store."""
    return str(value) if isinstance(value, Path) else value
