"""A page that shows why two images are similar: heat maps, attention, deletion and insertion curves."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from simjax._files import write_file
from simjax.report import _numbers as numbers
from simjax.report import _photographs as photographs
from simjax.report import _style as style
from simjax.report._page import Block, Page, Picture, Row, Table, Text
from simjax.report._render import to_html

MAX_BLOCKS, MAX_HEADS = 6, 6
CURVES = ("deletion", "insertion")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Explanation of the similarity of two images.

    Attributes:
        names: Names of both images.
        images: Both images as the network sees them, uint8 [2, h, w, c].
        heat_maps: Heat maps [2, h, w] by the name of the method.
        attention: Attention of a vision transformer by block and head, [2, blocks, heads, h, w], or None.
        patch_size: Side of the patches of the attention, in pixels.
        share: Share of the patches that are removed or added, [s].
        curves: Deletion and insertion curves of both images, [2 curves, 2 images, s], by the name of the method.
        random_curves: The curves of each of several random orders, [orders, 2 curves, 2 images, s].
        measure: Name of the score, for the axis.
    """

    names: tuple[str, str]
    images: np.ndarray
    heat_maps: Mapping[str, np.ndarray]
    attention: np.ndarray | None
    patch_size: int
    share: np.ndarray
    curves: Mapping[str, np.ndarray]
    random_curves: np.ndarray
    measure: str

    def areas(self, curves: np.ndarray) -> np.ndarray:
        """Return the areas under curves [..., s]."""
        return np.trapezoid(curves, self.share)

    def random_ranges(self) -> np.ndarray:
        """Return the lowest and the highest area of the random orders, [2 curves, 2 images, 2]."""
        areas = self.areas(self.random_curves)
        return np.stack([areas.min(axis=0), areas.max(axis=0)], axis=-1)


def write_explanation(file: Path, title: str, lead: str, explanation: Explanation) -> None:
    """Write a self-contained HTML page of an explanation.

    Args:
        file: File to write.
        title: Title of the page.
        lead: Summary in one sentence.
        explanation: Content of the page.

    Raises:
        InputError: If the file cannot be written.
    """
    regions: list[Block] = [_regions(explanation)]
    sections = [("Regions", regions)]
    if explanation.attention is not None:
        sections.append(("Attention by block and head", [_attention(explanation, explanation.attention)]))
    how_to_read = (
        "The most important patches of an image are removed (deletion) or are the only ones left (insertion), while "
        "the other image is unchanged. A heat map is faithful to the encoder if its area is lower for deletion and "
        "higher for insertion than that of random regions."
    )
    charts = [_chart(explanation, index) for index in range(len(CURVES))]
    sections.append(("Faithfulness", [Text(how_to_read), _table(explanation), *charts]))
    write_file(file, to_html(Page(title, lead, sections)))


def _regions(explanation: Explanation) -> Picture:
    """Draw both images, each with an overlay for each method."""
    height = 1.1 + photographs.LINE
    figure, axes = style.canvas(1 + len(explanation.heat_maps), 2 * height)
    figure.set_size_inches(*(2 * figure.get_size_inches()))  # larger photographs with text of the same size
    for i, (image, name) in enumerate(zip(explanation.images, explanation.names, strict=True)):
        photographs.photo(axes, image, 0, i * height, [style.shorten(name, 24)])
        for j, (method, maps) in enumerate(explanation.heat_maps.items(), start=1):
            photographs.photo(axes, image, j, i * height, [method])
            photographs.overlay(axes, maps[i], j, i * height, np.abs(maps).max())
    names = " and ".join(explanation.names)
    return Picture(
        "regions",
        style.to_png(figure),
        f"{names} with overlays of {', '.join(explanation.heat_maps)}.",
        "Orange regions make the images similar, blue regions dissimilar. Each method has one scale for both images: "
        "no colour is 0, full colour the largest absolute value of both. The images are as the network sees them.",
        is_photo=True,
    )


def _attention(explanation: Explanation, attention: np.ndarray) -> Picture:
    """Draw the attention by block (rows) and head (columns), for both images side by side."""
    first = max(0, attention.shape[1] - MAX_BLOCKS)
    shown = attention[:, first:, :MAX_HEADS]
    _, blocks, heads, _, _ = shown.shape
    height, gap = 1.1 + photographs.LINE, 0.3
    figure, axes = style.canvas(2 * heads + gap, blocks * height)
    for i, block, head in np.ndindex(2, blocks, heads):
        x, y = i * (heads + gap) + head, block * height
        photographs.photo(axes, explanation.images[i], x, y, [f"{first + block + 1}.{head + 1}"])
        photographs.overlay(axes, shown[i, block, head], x, y, shown.max(), explanation.patch_size)
    left_out = "" if shown.shape == attention.shape else f" Shown are the last {blocks} blocks and first {heads} heads."
    return Picture(
        "attention",
        style.to_png(figure),
        f"Attention of {blocks} blocks with {heads} heads each to the patches of both images.",
        "Attention of the class token, or the mean over all tokens, to each patch; 2.3 is the third head of the second "
        "block. Left is the first image, right the second. All maps have one scale: no colour is 0, full colour the "
        f"largest attention of all. Attention does not depend on the other image.{left_out}",
        is_photo=True,
    )


def _table(explanation: Explanation) -> Table:
    columns = ["area under the curve", *(f"{curve}, {side}" for curve in CURVES for side in ("first", "second"))]
    rows: list[Row] = [
        [name, *map(numbers.decimal, explanation.areas(curves).ravel())] for name, curves in explanation.curves.items()
    ]
    orders = f"lowest to highest of {len(explanation.random_curves)} random orders"
    rows.append([orders, *(f"{low:.4f} to {high:.4f}" for low, high in explanation.random_ranges().reshape(-1, 2))])
    return Table(columns, rows, "lrrrr")


def _chart(explanation: Explanation, index: int) -> Picture:
    """Plot the deletion or the insertion curves, the mean of both images."""
    curve = CURVES[index]
    figure, axes = style.chart()
    # strict=False because the line styles repeat without end
    for curves, (colour, linestyle, marker) in zip(explanation.curves.values(), style.line_styles(), strict=False):
        values = curves[index].mean(axis=0)
        options = {"color": colour, "linestyle": linestyle, "marker": marker, "markersize": 3.5, "linewidth": 1.4}
        axes.plot(explanation.share, values, label="x", **options)
    style.legend(axes, list(explanation.curves))
    style.label_axes(axes, f"share of patches {'removed' if curve == 'deletion' else 'added'}", explanation.measure)
    areas = "; ".join(
        f"{name} {numbers.decimal(float(explanation.areas(curves[index]).mean()))}"
        for name, curves in explanation.curves.items()
    )
    better = "lower" if curve == "deletion" else "higher"
    return Picture(
        curve,
        style.to_png(figure),
        f"{curve.capitalize()} curves; areas: {areas}.",
        f"{curve.capitalize()}: score of the pair, mean of both images. A {better} curve is more faithful.",
    )
