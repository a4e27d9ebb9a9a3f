"""A page with rows of thumbnails: each query and its hits."""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from simjax._files import write_file
from simjax.report._render import escape_html, page_html

SIDE = 128  # largest side of a thumbnail in pixels
ImageRow = tuple[str, Path | str | int | None, Sequence[tuple[Path | str | None, str]]]
"""The title of a row, the path of the query (anything else has no picture), and the path and caption of each hit."""


def write_image_rows(file: Path, title: str, rows: Sequence[ImageRow]) -> None:
    """Write a self-contained HTML page with a row of thumbnails for each query.

    Images are embedded as thumbnails; one that cannot be read is replaced by the words "no picture". All text is
    escaped.

    Raises:
        InputError: If the file cannot be written.
    """
    sections = []
    for name, query, hits in rows:
        shown = _figure(query, "query", "query") if isinstance(query, Path | str) else ""
        figures = "\n".join(_figure(path, caption, "") for path, caption in hits)
        sections.append(f'<h2>{escape_html(name)}</h2>\n<div class="row">\n{shown}{figures}\n</div>')
    lead = f"{len(rows):,} quer{'y' if len(rows) == 1 else 'ies'}"
    write_file(file, page_html(title, lead, "\n".join(sections)))


def _figure(path: Path | str | None, caption: str, kind: str) -> str:
    data = None if path is None else _thumbnail(Path(path))
    picture = '<div class="missing">no picture</div>'
    if data is not None:
        picture = f'<img alt="{escape_html(caption)}" src="data:image/webp;base64,{data}">'
    return f'<figure class="{kind}">{picture}<figcaption>{escape_html(caption)}</figcaption></figure>\n'


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
