"""One look for all figures: size, palette, ink, and how a figure becomes a PNG.

The palette is Okabe and Ito's, which colour-blind readers can tell apart; nothing is said by colour alone.
Figures are made without pyplot, so that nothing global changes in a program that draws as well.

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

from simjax.report._escape import short

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#666666",
)
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
INK, SOFT, LINE = "#1d1f21", "#5c6166", "#d9dcdf"
NEUTRAL = "#7a7a7a"  # lettering beside photographs: readable on a white and on a dark page
AMOUNT = LinearSegmentedColormap.from_list("amount", ["#f4f7fa", "#8fbfdf", BLUE, "#00304d"])
SIGNED = LinearSegmentedColormap.from_list("signed", [VERMILLION, "#f7f7f7", BLUE])
DPI = 150


def chart(width: float = 4.8, height: float = 3.4) -> tuple[Figure, Axes]:
    """An empty chart on white, sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8, colors=SOFT, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.set_axisbelow(True)
    axes.grid(color=LINE, linewidth=0.5)
    return figure, axes


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A transparent ground for photographs, in units that are square and run down from the top left corner.

    Args:
        width: in units; a unit is 0.9 inches.
        height: in units.
    """
    figure = Figure(figsize=(0.9 * width, 0.9 * height), dpi=DPI, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Name both axes."""
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)


def legend(axes: Axes, names: Sequence[str], place: Literal["best", "lower right"] = "best") -> None:
    """Name the lines that carry a label, in the order they were drawn; names may be anything, formulas included."""
    box = axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc=place)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(short(name, 40))


def looks() -> Iterator[tuple[str, str, str]]:
    """Colour, line style and marker of one curve after another; the next round of colours changes the other two."""
    for dash, marker in itertools.cycle([("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")]):
        yield from ((colour, dash, marker) for colour in PALETTE)


@functools.cache
def _letters() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def labels(names: Sequence[str], length: int = 16) -> list[str]:
    """What figures call the classes: the name, cut to that length, or #number where the font has no such letters."""
    drawn = [short(name, length) for name in names]
    return [text if text and _letters().issuperset(map(ord, text)) else f"#{i}" for i, text in enumerate(drawn)]


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    with io.BytesIO() as file, warnings.catch_warnings():
        # A run's name in letters that the font lacks is drawn as boxes: no reason to fail or to speak up.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()
