"""`simjax gallery search | recommend | identify | verify`: questions to a gallery of images."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from simjax.cli._arguments import check_rate, parse
from simjax.cli._gallery import filters, how_to_calibrate, open_gallery, shown
from simjax.cli._images import image_files, of_readable, one_image
from simjax.cli._results import (
    PRIOR,
    PROBABILITY,
    calibration_size,
    check_page,
    plain,
    print_json,
    print_verification,
    write_page,
)
from simjax.core import InputError
from simjax.report._numbers import quantity
from simjax.train._progress import print_line

K = Annotated[int, arg(aliases=("-k",))]


@dataclasses.dataclass(frozen=True)
class SearchArguments:
    """Find the items that are most similar to an image."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    images: Positional[tuple[str, ...]] = ()
    """Images, and folders of images."""
    id: int | None = None
    """Search with an item of the gallery instead."""
    k: K = 5
    """Number of hits."""
    where: UseAppendAction[tuple[str, ...]] = ()
    """Search only items with all of these properties, KEY=VALUE each; the key `identity` is the identity. VALUE finds
    text, and a number or a boolean that is written like it."""
    approximate: bool = False
    """Search only candidates of the index that `simjax gallery index` creates."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""
    open: bool = False
    """Open the page in the web browser."""


@dataclasses.dataclass(frozen=True)
class IdentifyArguments:
    """Name the identity that an image shows, or none if it is not in the gallery."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    images: Positional[tuple[str, ...]]
    """Images, and folders of images."""
    fpir: float = 0.01
    """Wanted false positive identification rate: share of images of unknown identities that are named."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""
    open: bool = False
    """Open the page in the web browser."""


@dataclasses.dataclass(frozen=True)
class RecommendArguments:
    """Find items that are similar to several items, and of other identities."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
    like: UseAppendAction[tuple[int, ...]]
    """Ids of the items."""
    k: K = 5
    """Number of hits."""
    where: UseAppendAction[tuple[str, ...]] = ()
    """Search only items with all of these properties, KEY=VALUE each; the key `identity` is the identity. VALUE finds
    text, and a number or a boolean that is written like it."""
    same_identity: bool = False
    """Find also other items of the identities of these items."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""
    open: bool = False
    """Open the page in the web browser."""


@dataclasses.dataclass(frozen=True)
class GalleryVerifyArguments:
    """Decide whether two images show the same identity, with the calibration of a gallery."""

    gallery: Positional[str]
    """Folder of the gallery, or URL of a database."""
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
        raise InputError(f"expected images or `id`, {'not both' if parsed.images else 'got neither'}")
    check_page(parsed.html, is_opened=parsed.open)
    with open_gallery(parsed.gallery) as gallery:
        options: dict[str, Any] = {"where": filters(parsed.where), "approximate": parsed.approximate}
        if parsed.id is not None:
            results = gallery.search([parsed.id], parsed.k, **options)
        else:
            _, results = of_readable(
                lambda files: gallery.search(files, parsed.k, **options),
                image_files(parsed.images),
                gallery.encoder,
                skip_unreadable=parsed.skip_unreadable,
            )
        _print_hits(results, parsed, gallery, "Search in")


def recommend(arguments: Sequence[str]) -> None:
    """Find items that are similar to several items."""
    parsed = parse(RecommendArguments, arguments)
    if not parsed.like:
        raise InputError("missing --like; --help describes the options")
    check_page(parsed.html, is_opened=parsed.open)
    with open_gallery(parsed.gallery) as gallery:
        options: dict[str, Any] = {"where": filters(parsed.where), "same_identity": parsed.same_identity}
        result = gallery.recommend(parsed.like, parsed.k, **options)
        _print_hits([result], parsed, gallery, "Recommendations from")


def identify(arguments: Sequence[str]) -> None:
    """Name the identities of images."""
    parsed = parse(IdentifyArguments, arguments)
    check_page(parsed.html, is_opened=parsed.open)
    check_rate("fpir", parsed.fpir)
    with open_gallery(parsed.gallery) as gallery:
        if not gallery.count_identities():
            raise InputError(
                f"{shown(parsed.gallery)}: no item has an identity, which `simjax gallery add --identity` gives"
            )
        _, found = of_readable(
            lambda files: gallery.identify(files, fpir=parsed.fpir),
            image_files(parsed.images),
            gallery.encoder,
            skip_unreadable=parsed.skip_unreadable,
        )
        calibration, measure = gallery.calibration, gallery.measure.name
        summary = f"no decision without a calibration: {how_to_calibrate(parsed.gallery)}"
        if calibration is not None:
            summary = str(gallery.search_threshold(parsed.fpir))
        if parsed.json:
            rate: dict[str, Any] = {"fpir": None, "images": None, "identities": None, "calibrated": False}
            if calibration is not None:
                rate = {"fpir": parsed.fpir, **calibration_size(calibration), "calibrated": True}
            print_json([{name: plain(value) for name, value in result._asdict().items()} | rate for result in found])
        else:
            for result in found:
                name = _name(result, is_calibrated=calibration is not None)
                print_line(f"{result.query}: {', '.join([name, *_scores(result, measure)])}")
            print_line(summary)
            if calibration is not None:
                print_line(PROBABILITY)
    if parsed.html:
        from simjax.report import ImageRow, Thumbnail

        rows = []
        for result in found:
            decision = result.identity or ("no decision" if calibration is None else "unknown")
            closest = f"closest {result.closest}" if result.identity is None else None
            lines = [decision, closest, f"item {result.id}", *_scores(result, measure), _file_name(result.path)]
            images = [_query(result.query), Thumbnail(result.path, [line for line in lines if line])]
            rows.append(ImageRow(f"{result.query}: {decision}", images))
        note = "" if calibration is None else f". {PROBABILITY.capitalize()}"
        write_page(
            parsed.html,
            f"Identification in {Path(shown(parsed.gallery)).name}",
            f"{summary[0].upper()}{summary[1:]}{note}.",
            rows,
            is_opened=parsed.open,
        )


def verify(arguments: Sequence[str]) -> None:
    """Compare two images by the calibration of a gallery."""
    parsed = parse(GalleryVerifyArguments, arguments)
    check_rate("fmr", parsed.fmr)
    with open_gallery(parsed.gallery) as gallery:
        pair = gallery.encoder.encode([one_image(parsed.a), one_image(parsed.b)])
        score = float(gallery.encoder.similarity(pair[:1], pair[1:])[0, 0])
        advice = how_to_calibrate(parsed.gallery)
        print_verification(score, gallery.measure, gallery.calibration, parsed.fmr, advice, as_json=parsed.json)


def _name(result: Any, *, is_calibrated: bool) -> str:
    """Return the identity, "unknown" with the closest identity or, without a calibration, only the closest one."""
    closest = f"closest {result.closest} (item {result.id})"
    return result.identity or (f"unknown, {closest}" if is_calibrated else closest)


def _scores(result: Any, measure: str) -> list[str]:
    """Return the score and the probability, if there is one, as text."""
    probability = [] if result.probability is None else [f"probability {result.probability:.3f}"]
    return [f"{measure} {result.score:.4f}", *probability]


def _print_hits(results: Sequence[Any], parsed: Any, gallery: Any, title: str) -> None:
    """Print search results, as a JSON document or as lines, and write the page."""
    measure = gallery.measure.name
    has_probabilities = any(hit.probability is not None for result in results for hit in result.hits)
    meaning = f"that both images show the same {_calibrated_for(gallery)}, {PRIOR}"
    if parsed.json:
        hits = [[{name: plain(value) for name, value in hit._asdict().items()} for hit in r.hits] for r in results]
        print_json([{"query": plain(r.query), "hits": found} for r, found in zip(results, hits, strict=True)])
    else:
        if any(result.hits for result in results):
            print_line(f"id  identity  path  ({measure}{', probability' if has_probabilities else ''})")
        for result in results:
            print_line(f"{_title(result.query)}:")
            for hit in result.hits:
                print_line(f"  {hit.id}  {_identity_and_path(hit)}  ({', '.join(_scores(hit, measure))})")
        if has_probabilities:
            print_line(f"probability: {meaning}")
    if parsed.html:
        from simjax.report import ImageRow, Thumbnail

        queries_of = [result.query if isinstance(result.query, list) else [result.query] for result in results]
        ids = {query for queries in queries_of for query in queries if isinstance(query, int)}
        items = {item.id: item for item in gallery.get(sorted(ids))}
        rows = []
        for result, queries in zip(results, queries_of, strict=True):
            images = [_query(query, items.get(query)) for query in queries]
            for hit in result.hits:
                lines = [hit.identity, f"item {hit.id}", *_scores(hit, measure), _file_name(hit.path)]
                images.append(Thumbnail(hit.path, [line for line in lines if line]))
            rows.append(ImageRow(_title(result.query), images))
        hits = sum(len(result.hits) for result in results)
        lead = f"{quantity(hits, 'item')} found"
        if has_probabilities:
            lead += f". Probability: {meaning}."
        write_page(parsed.html, f"{title} {Path(shown(parsed.gallery)).name}", lead, rows, is_opened=parsed.open)


def _title(query: Any) -> str:
    """Return the name of a query: a path, an item, or the items of a recommendation."""
    if isinstance(query, list):
        return f"similar to {'item' if len(query) == 1 else 'items'} {', '.join(map(str, query))}"
    return f"item {query}" if isinstance(query, int) else str(query)


def _identity_and_path(item: Any) -> str:
    return "  ".join(filter(None, (item.identity, item.path)))


def _calibrated_for(gallery: Any) -> str:
    """Return what two images with a high probability have in common; a calibration of the gallery is for identities."""
    encoder = gallery.encoder
    is_of_encoder = gallery.calibration is encoder.calibration
    return encoder.config.about.get("calibrated_for", "identity") if is_of_encoder else "identity"


def _file_name(path: str | None) -> str | None:
    return None if path is None else Path(path).name


def _query(query: Any, item: Any = None) -> Any:
    """Return the thumbnail of a query: an item of the gallery, or the path of an image."""
    from simjax.report import Thumbnail

    if item is None:
        return Thumbnail(query, ["query", Path(query).name], is_query=True)
    lines = [item.identity, f"item {item.id}", _file_name(item.path)]
    return Thumbnail(item.path, [line for line in lines if line], is_query=True)
