"""What the model sees, in photographs: nearest neighbours, pairs and their dissimilarity, attention."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture

QUERIES, NEIGHBOURS, PAIRS, IMAGES, HEADS = 8, 5, 12, 6, 4  # what a page shows at most
LINE = 0.2  # height of a line under a picture, in widths of a picture


def neighbour_strips(
    query: np.ndarray,
    query_label: np.ndarray,
    image: np.ndarray,
    label: np.ndarray,
    score: np.ndarray,
    names: list[str],
    measure: str,
) -> Picture:
    """Test images with what the model finds closest to them.

    Args:
        query: uint8 [q, h, w, c].
        query_label: [q].
        image: the neighbours, closest first, uint8 [q, k, h, w, c].
        label: [q, k].
        score: [q, k], by the measure.
        names: of the classes.
        measure: what similarity was measured by.
    """
    rows, columns = min(len(query), QUERIES), min(image.shape[1], NEIGHBOURS)
    right = label[:rows, :columns] == query_label[:rows, None]
    called = style.labels(names, 12)
    height, gap = 1.1 + 2 * LINE, 0.25
    figure, axes = style.canvas(columns + 1 + gap, rows * height)
    for i in range(rows):
        _photo(axes, query[i], 0, i * height, style.NEUTRAL, "")
        _letter(axes, 0, i * height, called[query_label[i]])
        for j in range(columns):
            colour, sign = (style.GREEN, "✓") if right[i, j] else (style.VERMILLION, "✗")
            _photo(axes, image[i, j], j + 1 + gap, i * height, colour, sign)
            _letter(axes, j + 1 + gap, i * height, called[label[i, j]])
            _letter(axes, j + 1 + gap, i * height + LINE, f"{score[i, j]:.2f}")
    return Picture(
        "neighbours",
        style.to_png(figure),
        f"{rows} test images, each with its {columns} nearest neighbours; {right.sum()} of {right.size} neighbours "
        "are of the query's class.",
        "Each row: a test image, then the images that the model finds closest to it, closest first, with their class "
        f"and score ({measure}). A green frame with ✓ is the same class, a red one with ✗ another.",
        photo=True,
        wide=True,
    )


def pair_pictures(image: np.ndarray, label: np.ndarray, dissimilarity: np.ndarray, names: list[str]) -> Picture:
    """Pairs of test images with their predicted dissimilarity.

    Args:
        image: uint8 [p, 2, h, w, c].
        label: [p, 2].
        dissimilarity: [p], in [0, 1].
        names: of the classes.
    """
    pairs = min(len(image), PAIRS)
    columns = min(pairs, 3)
    called = style.labels(names, 10)
    wide, high = 2.25, 1.15 + 2 * LINE
    figure, axes = style.canvas(columns * wide - 0.25, -(-pairs // columns) * high)
    for i in range(pairs):
        x, y = i % columns * wide, i // columns * high
        one, two = label[i]
        colour, sign = (style.BLUE, "=") if one == two else (style.ORANGE, "≠")
        for j in range(2):
            _photo(axes, image[i, j], x + j, y, colour, "")
        _letter(axes, x, y, f"{called[one]} {sign} {called[two]}", width=2)
        _letter(axes, x, y + LINE, f"dissimilarity {dissimilarity[i]:.2f}", width=2)
    same = label[:pairs, 0] == label[:pairs, 1]
    means = "; ".join(
        f"{title} {numbers.decimal(float(dissimilarity[:pairs][which].mean()))} on average"
        for title, which in (("pairs of one class", same), ("pairs of two classes", ~same))
        if which.any()
    )
    return Picture(
        "pairs",
        style.to_png(figure),
        f"{pairs} pairs of test images with their predicted dissimilarity: {means}.",
        "Pairs of test images and how different the model finds them: 0 is the same, 1 as different as can be. Blue "
        "frames and = are pairs of one class and should be near 0; orange frames and ≠ are two classes, near 1.",
        photo=True,
        wide=True,
    )


def attention_maps(image: np.ndarray, attention: np.ndarray, label: np.ndarray, names: list[str]) -> Picture:
    """Images with what the last block's heads look at.

    Args:
        image: uint8 [a, h, w, c].
        attention: [a, heads, gh, gw], how much each patch is looked at.
        label: [a].
        names: of the classes.
    """
    rows, heads = min(len(image), IMAGES), min(attention.shape[1], HEADS)
    height = 1.1 + LINE
    called = style.labels(names, 12)
    titles = ["all heads", *(f"head {h + 1}" for h in range(heads))] if heads > 1 else ["attention"]
    figure, axes = style.canvas(1 + len(titles), rows * height)
    for i in range(rows):
        _photo(axes, image[i], 0, i * height, style.NEUTRAL, "")
        _letter(axes, 0, i * height, called[label[i]])
        maps = [attention[i].mean(0), *attention[i, :heads]]
        for j, (title, weights) in enumerate(zip(titles, maps, strict=False), start=1):
            _photo(axes, image[i], j, i * height, style.NEUTRAL, "")
            axes.imshow(_glow(weights), extent=_box(j, i * height), interpolation="bilinear", zorder=1.5)
            _letter(axes, j, i * height, title)
    return Picture(
        "attention",
        style.to_png(figure),
        f"{rows} test images with the attention of the last transformer block laid over them.",
        "What the last block of the transformer looks at to describe the image: the more orange a patch, the more it "
        "counts, each map on its own scale. Heads may look at different things; the second picture is their mean.",
        photo=True,
        wide=True,
    )


def _glow(weights: np.ndarray) -> np.ndarray:
    """Weights [gh, gw] as a colour [gh, gw, 4] that covers more where they are larger, relative to their own range."""
    weights = weights - weights.min()
    cover = 0.8 * weights / max(weights.max(), np.finfo(np.float32).tiny)
    return np.concatenate([np.broadcast_to(to_rgb(style.ORANGE), (*weights.shape, 3)), cover[..., None]], axis=-1)


def _box(x: float, y: float) -> tuple[float, float, float, float]:
    return x + 0.05, x + 0.95, y + 0.95, y + 0.05


def _photo(axes: Axes, image: np.ndarray, x: float, y: float, colour: str, sign: str) -> None:
    """A picture in a frame in the unit square at (x, y), with a sign on a disc in its corner."""
    left, right, bottom, top = _box(x, y)
    shown = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top), zorder=1)
    width = 2.2 if colour != style.NEUTRAL else 0.6
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width, zorder=2)
    axes.add_patch(frame)
    if sign:
        disc = {"facecolor": colour, "edgecolor": "none", "boxstyle": "circle,pad=0.25"}
        axes.text(right - 0.09, top + 0.1, sign, fontsize=7, color="white", ha="center", va="center", bbox=disc)


def _letter(axes: Axes, x: float, y: float, text: str, *, width: float = 1.0) -> None:
    """A line under the picture at (x, y)."""
    axes.text(
        x + width / 2, y + 1.07, text, fontsize=7.5, color=style.NEUTRAL, ha="center", va="center", parse_math=False
    )
