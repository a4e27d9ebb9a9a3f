"""The style of all charts: sizes, colours, fonts, SVG files.

The palette of Okabe and Ito is distinguishable for colour-blind readers, and no information is in a colour alone.
Charts are made without pyplot, which has global state that the calling program may use.

References:
    Masataka Okabe, Kei Ito (2008), Color Universal Design: how to make figures and presentations that are friendly
    to colorblind people.
"""

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simjax.report._render import shorten

BLUE, VERMILLION, GREEN, ORANGE, GREY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#666666"
PALETTE = (BLUE, VERMILLION, GREEN, "#cc79a7", ORANGE, "#56b4e9", GREY)
INK, SOFT, LINE = "#1d1f21", "#5c6166", "#d9dcdf"
SIZE = 8.5  # of texts, in points; a chart is about 300 points wide
_REDUNDANT = re.compile(
    r"<\?xml.*?(?=<svg )|<metadata>.*?</metadata>|<style.*?</style>"
    r'|(?<=<g) id="(?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|[xy]tick|[A-Za-z]*Collection)_\d+"'
    r"|font-family: [^;\"]*; ?",
    re.DOTALL,
)


def chart(width: float = 4.2, height: float = 3.0) -> tuple[Figure, Axes]:
    """Return an empty chart on white; sizes are in inches."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.tick_params(which="both", labelsize=SIZE, colors=SOFT, labelcolor=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.set_axisbelow(True)
    axes.grid(color=LINE, linewidth=0.5)
    return figure, axes


def label_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=SIZE + 0.5, color=INK)
    axes.set_ylabel(y, fontsize=SIZE + 0.5, color=INK)


def legend(axes: Axes, names: Sequence[str], place: Literal["best", "lower right", "below"] = "best") -> None:
    """Add a legend of the labelled lines in the order of drawing; the names are not parsed as formulas.

    More than four names are below the chart, which becomes higher, as with `place` "below".
    """
    options: dict[str, Any] = {"fontsize": SIZE, "frameon": False, "labelcolor": INK}
    figure = axes.get_figure(root=True)
    if figure is not None and (len(names) > 4 or place == "below"):
        figure.set_figheight(figure.get_figheight() + 0.18 * -(-len(names) // 2))
        box = figure.legend(loc="outside lower left", ncols=2, **options)
    else:
        box = axes.legend(loc="best" if place == "below" else place, **options)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(shorten(name, 32))


def line_styles(groups: Sequence[int] | None = None) -> Iterator[tuple[str, str, str]]:
    """Iterate over distinct combinations of colour, line style and marker.

    With groups, one for each line, all lines of a group have one colour.
    """
    shapes = [("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")]
    if groups is None:
        for linestyle, marker in itertools.cycle(shapes):
            yield from ((colour, linestyle, marker) for colour in PALETTE)
    else:
        for i, group in enumerate(groups):
            yield PALETTE[group % len(PALETTE)], *shapes[list(groups[:i]).count(group) % len(shapes)]


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as SVG with real text; `name` makes the names of its parts unique within a page."""
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": name}
    with io.StringIO() as file, warnings.catch_warnings(), matplotlib.rc_context(options):
        # Text is laid out with a font that may lack letters of names; the browser draws it with fonts that have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata={"Date": None})
        svg = _REDUNDANT.sub("", file.getvalue()).strip()
    return svg.replace("<svg ", '<svg font-family="system-ui, sans-serif" ', 1)
