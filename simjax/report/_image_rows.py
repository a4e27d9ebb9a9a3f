"""A page with rows of thumbnails: each query and its hits, or the two images of a pair."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from simjax._files import write_file
from simjax._reading import open_image
from simjax.report._page import Page, Photo, PhotoRow, Photos, Section
from simjax.report._render import to_html

SIDE = 192  # largest side of a thumbnail in pixels


class Thumbnail(NamedTuple):
    """An image and its caption.

    Attributes:
        path: File of the image, to which the picture is a link if it exists; None has no picture.
        lines: Lines of the caption, the first one in bold.
        is_query: Whether the image is what was searched for, which has a frame.
    """

    path: Path | str | None
    lines: Sequence[str]
    is_query: bool = False


class ImageRow(NamedTuple):
    """A row of thumbnails below a title."""

    title: str
    images: Sequence[Thumbnail]


def write_image_rows(file: Path, title: str, lead: str, rows: Sequence[ImageRow]) -> None:
    """Write a self-contained HTML page with rows of thumbnails.

    Images are embedded; one that cannot be read is replaced by the words "no picture". All text is escaped.

    Args:
        file: File to write.
        title: Title of the page.
        lead: Summary in one sentence.
        rows: Rows in the order of the page.

    Raises:
        InputError: If the file cannot be written.
    """
    sections = []
    for name, images in rows:
        sections.append(Section(name, [Photos([PhotoRow(list(map(_photo, images)))], "", size=9.0)]))
    write_file(file, to_html(Page(title, lead, sections, has_contents=False)))


def file_size(path: Path | str) -> str | None:
    """Return the size of an image file in pixels and in bytes, or None if it cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), open_image(path) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = picture.size
        return f"{width:,} x {height:,} pixels, {os.path.getsize(path):,} bytes"
    except Exception:  # a decoder can raise any error for a damaged file
        return None


def _photo(image: Thumbnail) -> Photo:
    """Return a thumbnail that is a link to its file, if the file exists, and has its path as a title."""
    mark = "query" if image.is_query else ""
    if image.path is None:
        return Photo(None, image.lines, mark)
    path = Path(image.path).absolute()
    return Photo(_thumbnail(image), image.lines, mark, str(image.path), path.as_uri() if _is_file(path) else "")


def _is_file(path: Path) -> bool:
    """Return whether a path, which can be any text that is stored in a gallery, is a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _thumbnail(image: Thumbnail) -> str | None:
    """Return a thumbnail as a data URI, or None if there is none or it cannot be read."""
    if image.path is None:
        return None
    from PIL import Image, ImageOps

    from simjax.report._photographs import source_of

    try:
        with warnings.catch_warnings(), open_image(image.path) as picture:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture.draft("RGB", (2 * SIDE, 2 * SIDE))
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            upright.thumbnail((SIDE, SIDE))
            return source_of(upright)
    except Exception:  # a decoder can raise any error for a damaged file
        return None
