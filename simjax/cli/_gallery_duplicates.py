"""`simjax gallery duplicates`: pairs of images that show the same, in a gallery or in a folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tyro.conf import Positional

from simjax._compilation_cache import enable_compilation_cache
from simjax.cli._arguments import parse
from simjax.cli._gallery import encoding_progress, open_gallery, shown
from simjax.cli._results import check_page, count, escaped, print_json, write_page
from simjax.core import InputError


@dataclasses.dataclass(frozen=True)
class DuplicatesArguments:
    """Find pairs of images that show the same, in a gallery or in a folder."""

    gallery: Positional[str]
    """Folder of the gallery, URL of a database, or a folder of images."""
    encoder: str | None = None
    """Encoder for a folder of images; a gallery has its own."""
    min_score: float | None = None
    """Score from which pairs are duplicates; for a distance, the largest. Default: the threshold at which the
    calibration of the gallery or of the encoder lets one false pair be expected among all pairs."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""
    open: bool = False
    """Open the page in the web browser."""


class _Image(NamedTuple):
    """An image that is compared: the id of its item, or its path in a folder; its identity and its path."""

    name: int | str
    identity: str | None
    path: str | None


def duplicates(arguments: Sequence[str]) -> None:
    """Find duplicates in a gallery or in a folder of images."""
    parsed = parse(DuplicatesArguments, arguments)
    check_page(parsed.html, is_opened=parsed.open)
    find = _in_folder if _is_folder_of_images(parsed) else _in_gallery
    pairs, images, measure, threshold = find(parsed)
    compared = len(images) * (len(images) - 1) // 2
    summary = f"{count(len(pairs), 'pair')} of duplicates among {count(compared, 'compared pair')}; {threshold}"
    found = [(images[pair.a], images[pair.b], pair.score) for pair in pairs]
    if parsed.json:
        print_json(
            [
                {
                    **{"a": a.name, "b": b.name, "score": score},
                    **{"identity_a": a.identity, "identity_b": b.identity, "path_a": a.path, "path_b": b.path},
                }
                for a, b, score in found
            ]
        )
    else:
        for a, b, score in found:
            print(f"{score:.4f}  {_as_text(a)}  {_as_text(b)}")
        print(summary)
    if parsed.html:
        from simjax.report import ImageRow, Thumbnail

        rows = [
            ImageRow(f"{measure} {score:.4f}", [Thumbnail(image.path, _lines(image)) for image in (a, b)])
            for a, b, score in found
        ]
        write_page(
            parsed.html, f"Duplicates in {Path(shown(parsed.gallery)).name}", f"{summary}.", rows, is_opened=parsed.open
        )


def _is_folder_of_images(parsed: DuplicatesArguments) -> bool:
    """Return whether the argument is a folder of images and not a gallery; an InputError if --encoder contradicts."""
    from simjax.gallery._folder import DATABASE
    from simjax.gallery._locations import split_url

    path, name = Path(parsed.gallery), shown(parsed.gallery)
    is_gallery = split_url(parsed.gallery) is not None or (path / DATABASE).is_file()
    if is_gallery and parsed.encoder is not None:
        raise InputError(
            f"`encoder`: {name} is a gallery, which is searched with its own encoder; leave the option out"
        )
    if not is_gallery and parsed.encoder is None and path.is_dir():
        raise InputError(f"`encoder`: expected an encoder, because {path} is a folder of images and not a gallery")
    return parsed.encoder is not None


def _in_gallery(parsed: DuplicatesArguments) -> tuple[Sequence[Any], dict[int, _Image], str, str]:
    """Return the duplicates in a gallery, all items by id, the measure and a sentence about the threshold."""
    with open_gallery(parsed.gallery) as gallery:
        size = len(gallery)
        min_score, text = parsed.min_score, f"threshold {parsed.min_score}, as given"
        if min_score is None and gallery.calibration is not None:
            min_score, text = _default(gallery.calibration, size)
        pairs = gallery.duplicates(min_score)
        images = {item.id: _Image(item.id, item.identity, item.path) for item in gallery.items()}
        return pairs, images, gallery.measure.name, text


def _in_folder(parsed: DuplicatesArguments) -> tuple[Sequence[Any], dict[int, _Image], str, str]:
    """Return the duplicates in a folder, its images by position, the measure and a sentence about the threshold."""
    from simjax.encoder import find_images, load_encoder
    from simjax.gallery import duplicates_of

    enable_compilation_cache()
    assert parsed.encoder is not None
    encoder = load_encoder(parsed.encoder)
    if parsed.min_score is None and encoder.calibration is None:
        raise InputError(
            f"`min_score`: expected the score from which images are duplicates: the encoder {encoder.name} is not "
            "calibrated, so that there is no default"
        )
    files = find_images(parsed.gallery)
    min_score, text = parsed.min_score, f"threshold {parsed.min_score}, as given"
    if min_score is None:
        min_score, text = _default(encoder.calibration, len(files))
    embeddings = encoder.encode(files, progress=encoding_progress())
    pairs = duplicates_of(embeddings, encoder.measure, min_score)
    return pairs, {i: _Image(str(file), None, str(file)) for i, file in enumerate(files)}, encoder.measure.name, text


def _default(calibration: Any, size: int) -> tuple[float, str]:
    """Return the default threshold of duplicates, and a sentence: its rate and the false pairs to expect."""
    from simjax.gallery import duplicates_threshold

    threshold = duplicates_threshold(calibration, size)
    expected = threshold.rate * (size * (size - 1) // 2)
    text = f"{threshold}; expected number of false pairs: {expected:.2g}"
    if expected > 1.5:
        text += ", as the calibration has too few pairs for a smaller rate"
    return threshold.value, text


def _as_text(image: _Image) -> str:
    return "  ".join(escaped(part) for part in dict.fromkeys(image) if part)


def _lines(image: _Image) -> list[str]:
    """Return the lines of a caption: the item and its identity, or the name of the file, and the path."""
    if isinstance(image.name, int):
        return [line for line in (f"item {image.name}", image.identity, image.path) if line]
    return [Path(image.name).name, image.name]
