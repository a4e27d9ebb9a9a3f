"""The content of a report, independent of Markdown and HTML. All strings are plain text, which the renderers escape."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text, hidden below `summary` if it is not empty."""

    text: str
    summary: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table; `best` highlights it."""

    text: str
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column contains the headers of the rows.

    Attributes:
        columns: Header of each column.
        rows: Cells of each row.
        align: "l" (words) or "r" (numbers) for each column.
    """

    columns: list[str]
    rows: list[list[str | Cell]]
    align: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: Name of its file, without extension.
        png: Content of the file.
        alt: Description for readers who cannot see the figure.
        caption: Text below the figure.
        photo: Whether it shows photographs on a transparent background. Default: a chart on white.
        wide: Whether a chart needs the whole width of the page, as photographs do.
    """

    name: str
    png: bytes
    alt: str
    caption: str
    photo: bool = False
    wide: bool = False


Block = Text | Code | Table | Picture


@dataclasses.dataclass(frozen=True)
class Page:
    """A report: its title, a summary in one sentence, and sections of a title and blocks."""

    title: str
    lead: str
    sections: list[tuple[str, list[Block]]]

    def pictures(self) -> Iterator[Picture]:
        """Iterate over all figures in order."""
        for _, blocks in self.sections:
            yield from (block for block in blocks if isinstance(block, Picture))
