"""Figures of photographs: nearest neighbours, pairs with their predicted dissimilarity, attention maps.

Images are uint8, labels are class ids, which count from 0, and `names` are the names of all classes.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture

MAX_QUERIES, MAX_NEIGHBOURS, MAX_PAIRS, MAX_IMAGES, MAX_HEADS = 8, 5, 12, 6, 4
LINE = 0.2  # height of a line of text, relative to the width of a photograph


def nearest_neighbours(
    query: np.ndarray,
    query_label: np.ndarray,
    image: np.ndarray,
    label: np.ndarray,
    score: np.ndarray,
    names: list[str],
    measure: str,
) -> Picture:
    """Draw test images [q, h, w, c] with their neighbours [q, k, h, w, c], nearest first, and the scores [q, k]."""
    rows, columns = min(len(query), MAX_QUERIES), min(image.shape[1], MAX_NEIGHBOURS)
    is_correct = label[:rows, :columns] == query_label[:rows, None]
    class_names = style.class_labels(names, 12)
    height, gap = 1.1 + 2 * LINE, 0.25
    figure, axes = style.canvas(columns + 1 + gap, rows * height)
    for i in range(rows):
        photo(axes, query[i], 0, i * height, [class_names[query_label[i]]])
        for j in range(columns):
            colour, sign = (style.GREEN, "✓") if is_correct[i, j] else (style.VERMILLION, "✗")
            lines = [class_names[label[i, j]], f"{score[i, j]:.2f}"]
            photo(axes, image[i, j], j + 1 + gap, i * height, lines, colour, sign)
    return Picture(
        "neighbours",
        style.to_png(figure),
        f"{rows} test images, each with its {columns} nearest neighbours; {is_correct.sum()} of {is_correct.size} "
        "neighbours are of the query's class.",
        "Each row: a test image and its nearest neighbours, nearest first, with their class and score "
        f"({measure}). A green frame with ✓ marks the class of the test image, a red frame with ✗ another class.",
        is_photo=True,
    )


def pairs(image: np.ndarray, label: np.ndarray, dissimilarity: np.ndarray, names: list[str]) -> Picture:
    """Draw pairs of test images [p, 2, h, w, c] with their predicted dissimilarity [p], in [0, 1]."""
    count = min(len(image), MAX_PAIRS)
    columns = min(count, 3)
    class_names = style.class_labels(names, 10)
    wide, high = 2.25, 1.15 + 2 * LINE
    figure, axes = style.canvas(columns * wide - 0.25, -(-count // columns) * high)
    for i in range(count):
        x, y = i % columns * wide, i // columns * high
        first, second = label[i]
        colour, sign = (style.BLUE, "=") if first == second else (style.ORANGE, "≠")
        for j in range(2):
            photo(axes, image[i, j], x + j, y, [], colour)
        _text(axes, x + 1, y, f"{class_names[first]} {sign} {class_names[second]}")
        _text(axes, x + 1, y + LINE, f"dissimilarity {dissimilarity[i]:.2f}")
    same = label[:count, 0] == label[:count, 1]
    means = "; ".join(
        f"{title} {numbers.decimal(float(dissimilarity[:count][mask].mean()))} on average"
        for title, mask in (("pairs of one class", same), ("pairs of two classes", ~same))
        if mask.any()
    )
    return Picture(
        "pairs",
        style.to_png(figure),
        f"{count} pairs of test images with their predicted dissimilarity: {means}.",
        "Pairs of test images with their predicted dissimilarity, from 0 (similar) to 1 (dissimilar). Blue frames and "
        "= are pairs of one class and should be near 0; orange frames and ≠ are pairs of two classes, near 1.",
        is_photo=True,
    )


def attention_maps(image: np.ndarray, attention: np.ndarray, label: np.ndarray, names: list[str]) -> Picture:
    """Draw images [a, h, w, c] with the attention weights of the last transformer block, [a, heads, gh, gw]."""
    rows, heads = min(len(image), MAX_IMAGES), min(attention.shape[1], MAX_HEADS)
    height = 1.1 + LINE
    class_names = style.class_labels(names, 12)
    titles = ["all heads", *(f"head {h + 1}" for h in range(heads))] if heads > 1 else ["attention"]
    figure, axes = style.canvas(1 + len(titles), rows * height)
    for i in range(rows):
        photo(axes, image[i], 0, i * height, [class_names[label[i]]])
        maps = [attention[i].mean(0), *attention[i, :heads]]
        for j, (title, weights) in enumerate(zip(titles, maps, strict=False), start=1):
            photo(axes, image[i], j, i * height, [title])
            weights = weights - weights.min()
            overlay(axes, weights, j, i * height, weights.max(), shape=image.shape[1:3])
    return Picture(
        "attention",
        style.to_png(figure),
        f"{rows} test images with the attention of the last transformer block as an overlay.",
        "Attention of the last transformer block to each patch, in orange, each map on its own scale. Heads may attend "
        "to different patches; the first map is the mean of all heads.",
        is_photo=True,
    )


def overlay(
    axes: Axes,
    values: np.ndarray,
    x: float,
    y: float,
    scale: float,
    patch_size: int | None = None,
    shape: Sequence[int] = (),
) -> None:
    """Draw values [h, w] over the photograph at (x, y), and the grid of the patches if their size is given.

    The photograph has another height and width than the values if its `shape` is given. Positive values are orange,
    negative ones blue; the opacity is 0.8 times the absolute value divided by `scale`.
    """
    left, right, bottom, top = _box(shape or values.shape, x, y)
    rgb = np.where(values[..., None] < 0, to_rgb(style.BLUE), to_rgb(style.ORANGE))
    opacity = 0.8 * np.abs(values) / max(scale, np.finfo(np.float32).tiny)
    coloured = np.concatenate([rgb, opacity[..., None]], axis=-1)
    axes.imshow(coloured, extent=(left, right, bottom, top), interpolation="bilinear", zorder=1.5)
    if patch_size is not None:
        height, width = values.shape
        options = {"colors": style.NEUTRAL, "linewidth": 0.4, "zorder": 1.7}
        axes.hlines(top + (bottom - top) * np.arange(0, height, patch_size) / height, left, right, **options)
        axes.vlines(left + (right - left) * np.arange(0, width, patch_size) / width, top, bottom, **options)


def _box(shape: Sequence[int], x: float, y: float) -> tuple[float, float, float, float]:
    """Return the left, right, lower and upper edge of an image [h, w, ...] in the unit square at (x, y)."""
    height, width = (0.9 * side / max(shape[:2]) for side in shape[:2])
    return x + 0.5 - width / 2, x + 0.5 + width / 2, y + 0.95, y + 0.95 - height


def photo(
    axes: Axes, image: np.ndarray, x: float, y: float, lines: list[str], colour: str = style.NEUTRAL, sign: str = ""
) -> None:
    """Draw a framed photograph in the box at (x, y), lines of text below, and a sign on a disc in its corner."""
    left, right, bottom, top = _box(image.shape, x, y)
    shown = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top), zorder=1)
    width = 2.2 if colour != style.NEUTRAL else 0.6
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width, zorder=2)
    axes.add_patch(frame)
    if sign:
        disc = {"facecolor": colour, "edgecolor": "none", "boxstyle": "circle,pad=0.25"}
        axes.text(right - 0.09, top + 0.1, sign, fontsize=7, color="white", ha="center", va="center", bbox=disc)
    for row, line in enumerate(lines):
        _text(axes, x + 0.5, y + row * LINE, line)


def _text(axes: Axes, x: float, y: float, text: str) -> None:
    """Draw a line of text centred at x, below a photograph at height y."""
    drawn = axes.text(x, y + 1.07, text, fontsize=7.5, color=style.NEUTRAL, ha="center", va="center")
    drawn.set_parse_math(False)
