"""A page that shows why two images are similar or an image has a class: heat maps, attention, faithfulness curves."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from simjax._files import write_file
from simjax.report import _numbers as numbers
from simjax.report import _photographs as photographs
from simjax.report import _style as style
from simjax.report._page import Chart, Page, Photo, PhotoRow, Photos, Row, Section, Table, Text
from simjax.report._render import to_html

MAX_BLOCKS, MAX_HEADS = 6, 6
CURVES = ("deletion", "insertion")
METHODS = {
    "grad_cam": (
        "Grad-CAM",
        "features of the network's last map, weighted by the gradient of the score; orange regions raise the score, "
        "those that lower it have no colour",
    ),
    "attention_rollout": (
        "Attention rollout",
        "where the network attends (orange), followed through all blocks; it depends on the image only, whatever is "
        "explained",
    ),
    "occlusion": ("Occlusion", "fall of the score when a patch is replaced"),
}
"""Title and meaning of the heat maps by their names."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Explanation of the similarity of two images, n = 2, or of a class of one image, n = 1.

    Attributes:
        names: Names of the images.
        images: The images as the network sees them, uint8 [n, h, w, c].
        heat_maps: Heat maps [n, h, w] by the name of the method.
        attention: Attention of a vision transformer by block and head, [n, blocks, heads, h, w], or None.
        patch_size: Side of the patches of the attention, in pixels.
        share: Share of the patches that are removed or added, [s].
        curves: Deletion and insertion curves of the images, [2 curves, n, s], by the name of the method.
        random_curves: The curves of each of several random orders, [orders, 2 curves, n, s].
        score: Name of the score, for the axis.
        class_name: The class that is explained, or None for a similarity.
    """

    names: Sequence[str]
    images: np.ndarray
    heat_maps: Mapping[str, np.ndarray]
    attention: np.ndarray | None
    patch_size: int
    share: np.ndarray
    curves: Mapping[str, np.ndarray]
    random_curves: np.ndarray
    score: str
    class_name: str | None = None

    def areas(self, curves: np.ndarray) -> np.ndarray:
        """Return the areas under curves [..., s]."""
        return np.trapezoid(curves, self.share)

    def random_ranges(self) -> np.ndarray:
        """Return the lowest and the highest area of the random orders, [2 curves, n, 2]."""
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
    other = "" if explanation.class_name is not None else ", while the other image is unchanged"
    how_to_read = (
        f"The most important patches of an image are removed (deletion) or are the only ones left (insertion){other}. "
        "A heat map is faithful to the encoder if the area under its curve is lower for deletion and higher for "
        "insertion than that of random regions. The difference is more than the random spread if the area is beyond "
        f"those of all {len(explanation.random_curves)} random orders, which a random order itself would be in one of "
        f"{len(explanation.random_curves) + 1} cases."
    )
    attention = [] if explanation.attention is None else _attention(explanation, explanation.attention)
    charts = [_chart(explanation, index) for index in range(len(CURVES))]
    verdicts = [Text(_verdict(explanation, name)) for name in explanation.heat_maps]
    sections = [
        Section("Attention by block and head", attention),
        Section("Faithfulness", [Text(how_to_read), *verdicts, _table(explanation), *charts]),
    ]
    meanings = [Text(f"{METHODS[name][0]}: {METHODS[name][1]}.") for name in explanation.heat_maps if name in METHODS]
    write_file(file, to_html(Page(title, lead, sections, overview=[_regions(explanation), *meanings])))


def _regions(explanation: Explanation) -> Photos:
    """Show the images, each with an overlay for each method."""
    rows = []
    for i, (image, name) in enumerate(zip(explanation.images, explanation.names, strict=True)):
        photos = [Photo(photographs.source(image), [name], "query")]
        for method, maps in explanation.heat_maps.items():
            scale = float(np.abs(maps).max())
            photos.append(Photo(photographs.heat_map(image, maps[i], scale), [_title(method)]))
        rows.append(PhotoRow(photos))
    effects = "make the images similar, blue regions dissimilar"
    caption = (
        "Each method has one scale for both images: no colour is 0, full colour the largest absolute value of both. "
        "The images are as the network sees them."
    )
    if explanation.class_name is not None:
        effects = f"make class {explanation.class_name} more probable, blue regions less probable"
        caption = (
            "Each method has its own scale: no colour is 0, full colour its largest absolute value. The image is as "
            "the network sees it."
        )
    # The other methods have no negative values, and attention rollout does not depend on what is explained.
    colours = f"Occlusion: orange regions {effects}. " if "occlusion" in explanation.heat_maps else ""
    return Photos(rows, f"{colours}{caption} Under the maps, pictures are grey.", size=15.5)


def _title(name: str) -> str:
    """Return the title of a heat map, or of another method by its name."""
    return METHODS[name][0] if name in METHODS else name.replace("_", " ")


def _verdict(explanation: Explanation, name: str) -> str:
    """Return a sentence that compares the areas of a heat map with those of all random orders."""
    areas, ranges = explanation.areas(explanation.curves[name]), explanation.random_ranges()
    is_better = np.stack([areas[0] < ranges[0, :, 0], areas[1] > ranges[1, :, 1]])  # [2 curves, n]
    parts = []
    for curve, better in zip(CURVES, is_better, strict=True):
        if not better.any():
            parts.append(f"by {curve}, some random order is at least as faithful")
            continue
        which = " for both images" if better.all() else f" for the {'first' if better[0] else 'second'} image only"
        parts.append(f"by {curve}, more faithful than all random orders{which if len(better) > 1 else ''}")
    return f"{_title(name)}: {'; '.join(parts)}."


def _attention(explanation: Explanation, attention: np.ndarray) -> list[Text | Photos]:
    """Show the attention by block and head, for one image after the other."""
    first = max(0, attention.shape[1] - MAX_BLOCKS)
    shown = attention[:, first:, :MAX_HEADS]
    scale, rows = float(shown.max()), []
    for i, (image, name) in enumerate(zip(explanation.images, explanation.names, strict=True)):
        for block, heads in enumerate(shown[i], start=first + 1):
            photos = [
                Photo(photographs.heat_map(image, head, scale, explanation.patch_size), [f"head {number}"])
                for number, head in enumerate(heads, start=1)
            ]
            rows.append(PhotoRow(photos, f"{name}, block {block}"))
    independent = "the other image" if explanation.class_name is None else "the class"
    left_out = ""
    if shown.shape != attention.shape:
        blocks, heads = numbers.quantity(shown.shape[1], "block"), numbers.quantity(shown.shape[2], "head")
        left_out = f" Shown: the last {blocks} and the first {heads}."
    caption = (
        "Attention of the class token, or the mean over all tokens, to each patch. All maps have one scale: no colour "
        f"is 0, full colour the largest attention of all. Attention does not depend on {independent}.{left_out}"
    )
    return [Text(caption), Photos(rows, "")]


def _table(explanation: Explanation) -> Table:
    columns = ["Area under the curve", *CURVES]
    if len(explanation.names) > 1:
        columns[1:] = [f"{curve}, {side}" for curve in CURVES for side in ("first", "second")]
    rows: list[Row] = [
        [_title(name), *map(numbers.decimal, explanation.areas(curves).ravel())]
        for name, curves in explanation.curves.items()
    ]
    orders = f"lowest to highest of {len(explanation.random_curves)} random orders"
    rows.append([orders, *(f"{low:.4f} to {high:.4f}" for low, high in explanation.random_ranges().reshape(-1, 2))])
    return Table(columns, rows, "l" + "r" * (len(columns) - 1))


def _chart(explanation: Explanation, index: int) -> Chart:
    """Plot the deletion or the insertion curves, the mean of the images."""
    curve = CURVES[index]
    figure, axes = style.chart()
    means = {name: curves[index].mean(axis=0) for name, curves in explanation.curves.items()}
    # strict=False because the line styles repeat without end
    for values, (colour, linestyle, marker) in zip(means.values(), style.line_styles(), strict=False):
        options = {"color": colour, "linestyle": linestyle, "marker": marker, "markersize": 3.5, "linewidth": 1.4}
        axes.plot(explanation.share, values, label="x", **options)
    style.legend(axes, [_title(name) for name in means])
    style.label_axes(axes, f"share of patches {'removed' if curve == 'deletion' else 'added'}", explanation.score)
    shown = "score of the pair, mean of both images"
    if explanation.class_name is not None:
        shown = f"{explanation.score} of class {explanation.class_name}"
    return Chart(
        curve,
        style.to_svg(figure, curve),
        f"{curve.capitalize()} curves of {', '.join(explanation.curves)}; the table has the areas.",
        f"{curve.capitalize()}: {shown}.",
        {"share": explanation.share.tolist(), **{name: values.tolist() for name, values in means.items()}},
    )
