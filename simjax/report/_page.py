"""The content of a report, independent of Markdown and HTML. All strings are plain text, which `_render` escapes."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text. If `summary` is not empty, the page shows the summary, which opens the text."""

    text: str
    summary: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table; `best` highlights it."""

    text: str
    best: bool = False


Row = list[str | Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column contains the headers of the rows."""

    columns: list[str]
    rows: list[Row]
    align: str  # "l" (words) or "r" (numbers) for each column


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: a chart on white, or photographs on a transparent background."""

    name: str  # name of the file, without extension
    png: bytes
    alt: str  # description for readers who cannot see the figure
    caption: str
    is_photo: bool = False
    is_wide: bool = False  # a chart that needs the whole width of the page, as photographs do


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
