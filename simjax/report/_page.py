"""The content of a report, independent of Markdown and HTML. All strings are plain text, which `_render` escapes."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal


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
    """A cell of a table; `best` highlights it, `link` is a relative address."""

    text: str
    best: bool = False
    link: str = ""


Row = list[str | Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column contains the headers of the rows."""

    columns: list[str]
    rows: list[Row]
    align: str  # "l" (words) or "r" (numbers) for each column
    summary: str = ""  # if not empty, the page shows the summary, which opens the table


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A table of numbers with a colour for each cell."""

    rows: Sequence[str]
    columns: Sequence[str]
    texts: Sequence[Sequence[str]]
    shades: Sequence[Sequence[float]]  # from -1 (orange) to 0 (no colour) to 1 (blue)
    row_title: str
    column_title: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Points:
    """Images of the points of a scatter plot, shown when the pointer is on them or the keyboard reaches them.

    Attributes:
        sprite: One picture, a grid of all images, as a data URI.
        columns: Number of images in a row of the grid.
        size: Width and height of an image in the grid, in pixels.
        labels: A line of text for each point.
        position: Number of each point's image in the grid, in the order in which the points are drawn.
    """

    sprite: str
    columns: int
    size: tuple[int, int]
    labels: Sequence[str]
    position: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart on white as SVG. The page replaces its colours by those of the theme."""

    name: str  # name of the file, without extension
    svg: str
    alt: str  # description for readers who cannot see the chart
    caption: str
    data: Mapping[str, Sequence[Any]]  # columns of the CSV file that the page offers
    is_wide: bool = False
    points: Points | None = None


@dataclasses.dataclass(frozen=True)
class Photo:
    """A picture with lines of text below it.

    Attributes:
        source: The picture as a data URI; None shows the words "no picture".
        lines: Text below the picture; the first line is bold.
        mark: "right" and "wrong" have a frame and a sign, "query" has a frame.
        title: Text that is shown when the pointer is on the picture, such as a path.
        link: Address of a file to which the picture is a link.
    """

    source: str | None
    lines: Sequence[str]
    mark: Literal["", "right", "wrong", "query"] = ""
    title: str = ""
    link: str = ""

    @property
    def alt(self) -> str:
        return ", ".join([*self.lines, *([self.mark] if self.mark else [])])


@dataclasses.dataclass(frozen=True)
class PhotoRow:
    """Pictures that belong together, such as a query and its neighbours, with an optional title."""

    photos: Sequence[Photo]
    title: str = ""
    mark: Literal["", "right", "wrong"] = ""


@dataclasses.dataclass(frozen=True)
class Photos:
    """Rows of pictures. Narrow rows of small pictures, such as pairs, stand side by side."""

    rows: Sequence[PhotoRow]
    caption: str
    size: float = 6.0  # width of a picture, in units of the height of the text


@dataclasses.dataclass(frozen=True)
class Card:
    """A number of the first screen."""

    title: str
    value: str
    interval: str
    meaning: str


Block = Text | Code | Table | Matrix | Chart | Photos


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page. A section without blocks is left out."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A report: a title, the verdict in a sentence or two, numbers, a first figure, and sections.

    With `has_contents`, links to the sections are above them if there are more than two.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    cards: Sequence[Card] = ()
    overview: Sequence[Block] = ()
    has_contents: bool = True

    def charts(self) -> Iterator[Chart]:
        """Iterate over all charts in order."""
        for blocks in (self.overview, *(section.blocks for section in self.sections)):
            yield from (block for block in blocks if isinstance(block, Chart))
