"""The style of all figures: sizes, colours, fonts, PNG files.

The palette of Okabe and Ito is distinguishable for colour-blind readers, and no information is in a colour alone.
Figures are made without pyplot, which has global state that the calling program may use.

References:
    Masataka Okabe, Kei Ito (2008), Color Universal Design: how to make figures and presentations that are friendly
    to colorblind people.
"""

import functools
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from simjax.report._render import printable

BLUE, VERMILLION, GREEN, ORANGE, GREY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#666666"
PALETTE = (BLUE, VERMILLION, GREEN, "#cc79a7", ORANGE, "#56b4e9", GREY)
INK, SOFT, LINE = "#1d1f21", "#5c6166", "#d9dcdf"
NEUTRAL = "#7a7a7a"  # text below photographs: readable on a white and on a dark page
AMOUNT = LinearSegmentedColormap.from_list("amount", ["#f4f7fa", "#8fbfdf", BLUE, "#00304d"])
SIGNED = LinearSegmentedColormap.from_list("signed", [VERMILLION, "#f7f7f7", BLUE])
DPI = 150


def chart(width: float = 4.8, height: float = 3.4) -> tuple[Figure, Axes]:
    """Return an empty chart on white; sizes are in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8, colors=SOFT, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.set_axisbelow(True)
    axes.grid(color=LINE, linewidth=0.5)
    return figure, axes


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a transparent canvas for photographs.

    Coordinates begin in the upper left corner and point right and down. All lengths are in units of 0.9 inches.
    """
    figure = Figure(figsize=(0.9 * width, 0.9 * height), dpi=DPI, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def label_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)


def legend(axes: Axes, names: Sequence[str], place: Literal["best", "lower right", "upper left"] = "best") -> None:
    """Add a legend of the labelled lines in the order of drawing; the names are not parsed as formulas."""
    box = axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc=place)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(shorten(name, 40))


def line_styles() -> Iterator[tuple[str, str, str]]:
    """Iterate over distinct combinations of colour, line style and marker."""
    for linestyle, marker in itertools.cycle([("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")]):
        yield from ((colour, linestyle, marker) for colour in PALETTE)


def shorten(text: str, length: int) -> str:
    """Return printable text of at most `length` characters, with an ellipsis if characters were removed."""
    text = printable(text).strip()
    return text if len(text) <= length else text[: length - 1] + "…"


@functools.cache
def _code_points() -> frozenset[int]:
    """Return the code points of the letters that the font of the figures has."""
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def class_labels(names: Sequence[str], length: int = 16) -> list[str]:
    """Return the labels of classes in figures: the shortened name, or #NUMBER if the font lacks one of its letters."""
    shortened = [shorten(name, length) for name in names]
    known = _code_points()
    return [text if text and known.issuperset(map(ord, text)) else f"#{i}" for i, text in enumerate(shortened)]


def to_png(figure: Figure) -> bytes:
    """Return the figure as the content of a PNG file."""
    with io.BytesIO() as buffer, warnings.catch_warnings():
        # Names of runs may have letters that the font lacks; Matplotlib draws boxes for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()
