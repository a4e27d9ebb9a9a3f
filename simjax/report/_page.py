"""A page: what a report says, before it is Markdown or HTML.

Strings are plain text; both renderers escape all of them, so a page can be filled with class names and paths as
they are.
"""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Text to be shown as it is."""

    text: str


@dataclasses.dataclass(frozen=True)
class Folded:
    """Text to be shown as it is, behind a line that opens it."""

    summary: str
    text: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table; `best` marks the best of its column."""

    text: str
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        columns: header of each column.
        rows: cells; a plain string is a cell.
        align: for each column "l" (words) or "r" (numbers).
    """

    columns: list[str]
    rows: list[list[str | Cell]]
    align: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its file, without the ending.
        png: the file.
        alt: what it shows, for those who cannot see it.
        caption: what it shows and how to read it.
        photo: it holds photographs, on a transparent ground; other figures are charts on white.
        wide: it needs the whole width of the page.
    """

    name: str
    png: bytes
    alt: str
    caption: str
    photo: bool = False
    wide: bool = False


Block = Text | Code | Folded | Table | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: list[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report: title, a sentence that sums it up, sections."""

    title: str
    lead: str
    sections: list[Section]

    def pictures(self) -> Iterator[Picture]:
        """All figures, in order."""
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Picture))
