"""`simjax gallery duplicates`: groups of images that show the same, in a gallery or in a folder."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from tyro.conf import Positional, arg

from simjax._compilation_cache import enable_compilation_cache
from simjax.cli._arguments import parse
from simjax.cli._gallery import open_gallery, shown
from simjax.cli._images import encode_files
from simjax.cli._results import check_page, print_json, write_page
from simjax.core import InputError, check_at_least
from simjax.report._numbers import quantity
from simjax.train._progress import print_line


@dataclasses.dataclass(frozen=True)
class DuplicatesArguments:
    """Find images that show the same, in a gallery or in a folder.

    Pairs of duplicates that share an image form a group. A group is printed below its scores; --json has the pairs.
    """

    gallery: Positional[str]
    """Folder of the gallery, URL of a database, or a folder of images."""
    encoder: str | None = None
    """Encoder for a folder of images; a gallery has its own."""
    min_score: float | None = None
    """Score from which pairs are duplicates; for a distance, the largest. Default: the threshold at which the
    calibration of the gallery or of the encoder lets one false pair be expected among all pairs."""
    k: Annotated[int | None, arg(aliases=("-k",))] = None
    """At most this many pairs of each image, its closest ones. Default: all."""
    skip_unreadable: bool = False
    """Leave out images of a folder that cannot be read, with a warning."""
    json: bool = False
    """Print one JSON document."""
    html: str | None = None
    """Write a page with thumbnails to this file."""
    open: bool = False
    """Open the page in the web browser."""


GROUPS = "Images in one row are connected by pairs of duplicates; two images of a row are not always a pair themselves."


class _Image(NamedTuple):
    """An image that is compared: the id of its item, or its path in a folder; its identity and its path."""

    name: int | str
    identity: str | None
    path: str | None


class _Found(NamedTuple):
    """Duplicates: the pairs, all images by id or position, the name of the measure, the threshold and a sentence."""

    pairs: Sequence[Any]
    images: dict[int, _Image]
    measure: str
    min_score: float
    threshold: str


def duplicates(arguments: Sequence[str]) -> None:
    """Find duplicates in a gallery or in a folder of images."""
    parsed = parse(DuplicatesArguments, arguments)
    check_page(parsed.html, is_opened=parsed.open)
    check_at_least("k", parsed.k, 1)
    found = (_in_folder if _is_folder_of_images(parsed) else _in_gallery)(parsed)
    images, groups = found.images, groups_of([(pair.a, pair.b) for pair in found.pairs])
    number_of = {image: number for number, group in enumerate(groups, start=1) for image in group}
    compared = len(images) * (len(images) - 1) // 2
    summary = (
        f"{quantity(len(found.pairs), 'pair')} of duplicates in {quantity(len(groups), 'group')} among "
        f"{quantity(compared, 'compared pair')}; {found.threshold}"
    )
    scores_of: list[list[float]] = [[] for _ in groups]
    for pair in found.pairs:
        scores_of[number_of[pair.a] - 1].append(pair.score)
    titles = [
        f"{quantity(len(group), 'image')}: {found.measure} {_range(scores)}"
        for group, scores in zip(groups, scores_of, strict=True)
    ]
    if parsed.json:
        print_json(
            [
                {
                    **{"a": images[a].name, "b": images[b].name, "score": score, "threshold": found.min_score},
                    **{"identity_a": images[a].identity, "identity_b": images[b].identity},
                    **{"path_a": images[a].path, "path_b": images[b].path, "group": number_of[a]},
                }
                for a, b, score in found.pairs
            ]
        )
        print_line(summary, stderr=True)
    else:
        for title, group in zip(titles, groups, strict=True):
            for line in (title, *(f"  {_as_text(images[i])}" for i in group)):
                print_line(line)
        print_line(summary)
    if parsed.html:
        from simjax.report import ImageRow, Thumbnail

        rows = [
            ImageRow(title, [Thumbnail(images[i].path, _lines(images[i])) for i in group])
            for title, group in zip(titles, groups, strict=True)
        ]
        title, lead = (
            f"Duplicates in {Path(shown(parsed.gallery)).name}",
            f"{summary}." + (f" {GROUPS}" if groups else ""),
        )
        write_page(parsed.html, title, lead, rows, is_opened=parsed.open)


def groups_of(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the connected groups of a graph.

    Args:
        pairs: Edges, in the order of the groups of equal size.

    Returns:
        The numbers in each group in ascending order, the largest group first.

    Example:
        >>> groups_of([(7, 8), (1, 4), (4, 2)])
        [[1, 2, 4], [7, 8]]
    """
    group_of: dict[int, set[int]] = {}
    for a, b in pairs:
        small, large = sorted((group_of.get(a, {a}), group_of.get(b, {b})), key=len)
        if small is not large:
            large |= small
            group_of |= dict.fromkeys(small | {a, b}, large)
    groups = {id(group): sorted(group) for group in group_of.values()}
    return sorted(groups.values(), key=len, reverse=True)


def _is_folder_of_images(parsed: DuplicatesArguments) -> bool:
    """Return whether the argument is a folder of images and not a gallery; an InputError if --encoder contradicts."""
    from simjax.gallery._folder import DATABASE
    from simjax.gallery._locations import split_url

    path, name = Path(parsed.gallery), shown(parsed.gallery)
    is_gallery = split_url(parsed.gallery) is not None or os.path.isfile(path / DATABASE)
    if is_gallery and parsed.encoder is not None:
        raise InputError(
            f"`encoder`: {name} is a gallery, which is searched with its own encoder; leave the option out"
        )
    if not is_gallery and parsed.encoder is None and os.path.isdir(path):
        raise InputError(f"`encoder`: expected an encoder, because {path} is a folder of images and not a gallery")
    return parsed.encoder is not None


def _in_gallery(parsed: DuplicatesArguments) -> _Found:
    """Return the duplicates in a gallery."""
    with open_gallery(parsed.gallery) as gallery:
        min_score, text = parsed.min_score, f"threshold {parsed.min_score}, as given"
        if min_score is None:
            if (calibration := gallery.calibration) is None:
                raise InputError("`min_score`: expected a score; without a calibration there is no default")
            min_score, text = _default(calibration, len(gallery))
        pairs = gallery.duplicates(min_score, parsed.k)
        images = {item.id: _Image(item.id, item.identity, item.path) for item in gallery.items()}
        return _Found(pairs, images, gallery.measure.name, min_score, text)


def _in_folder(parsed: DuplicatesArguments) -> _Found:
    """Return the duplicates in a folder."""
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
    files, embeddings = encode_files(encoder, find_images(parsed.gallery), skip_unreadable=parsed.skip_unreadable)
    min_score, text = parsed.min_score, f"threshold {parsed.min_score}, as given"
    if min_score is None:
        min_score, text = _default(encoder.calibration, len(files))
    pairs = duplicates_of(embeddings, encoder.measure, min_score, parsed.k)
    images = {i: _Image(str(file), None, str(file)) for i, file in enumerate(files)}
    return _Found(pairs, images, encoder.measure.name, min_score, text)


def _default(calibration: Any, size: int) -> tuple[float, str]:
    """Return the default threshold of duplicates, and a sentence: its rate and the false pairs to expect."""
    from simjax.gallery import duplicates_threshold

    threshold = duplicates_threshold(calibration, size)
    expected = threshold.rate * (size * (size - 1) // 2)
    text = f"{threshold}; expected number of false pairs: {expected:.2g}"
    if expected > 1.5:
        text += ", as the calibration has too few pairs for a smaller rate"
    return threshold.value, text


def _range(scores: Sequence[float]) -> str:
    low, high = f"{min(scores):.4f}", f"{max(scores):.4f}"
    return low if low == high else f"{low} to {high}"


def _as_text(image: _Image) -> str:
    return "  ".join(str(part) for part in dict.fromkeys(image) if part)


def _lines(image: _Image) -> list[str]:
    """Return the lines of a caption: the name of the file, its size, and of an item its id and its identity."""
    from simjax.report import file_size

    lines = [] if image.path is None else [Path(image.path).name, file_size(image.path)]
    if isinstance(image.name, int):
        lines += [f"item {image.name}", image.identity]
    return [line for line in lines if line]
