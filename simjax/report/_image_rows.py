"""A page with rows of thumbnails: each query and its hits, or the two images of a pair."""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from simjax._files import write_file
from simjax.report._render import escape_html, page_html

SIDE = 192  # largest side of a thumbnail in pixels


class Thumbnail(NamedTuple):
    """An image and its caption.

    Attributes:
        path: File of the image; None has no picture.
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
        figures = "\n".join(map(_figure, images))
        sections.append(f'<h2>{escape_html(name)}</h2>\n<div class="row">\n{figures}\n</div>')
    write_file(file, page_html(title, lead, "\n".join(sections)))


def _figure(image: Thumbnail) -> str:
    data = None if image.path is None else _thumbnail(Path(image.path))
    picture = '<div class="missing">no picture</div>'
    if data is not None:
        alt = escape_html(", ".join(image.lines))
        picture = f'<img alt="{alt}" src="data:image/webp;base64,{data}">'
    first, *rest = map(escape_html, image.lines)
    caption = f"<strong>{first}</strong>" + "".join(f"<span>{line.replace('/', '/<wbr>')}</span>" for line in rest)
    kind = ' class="query"' if image.is_query else ""
    return f"<figure{kind}>{picture}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(path: Path) -> str | None:
    """Return a thumbnail as base64, or None if the image cannot be read."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(), Image.open(path) as image, io.BytesIO() as buffer:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((SIDE, SIDE))
            upright.save(buffer, "webp", quality=85)
            return base64.b64encode(buffer.getvalue()).decode("ascii")
    # Pillow's decoders raise all of these for broken files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
