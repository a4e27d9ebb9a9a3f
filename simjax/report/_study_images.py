"""The pictures of a study: first filters, images on which two networks disagree, neighbours of the same query."""

from collections.abc import Mapping, Sequence

import numpy as np

from simjax.report import _style as style
from simjax.report._page import Block, Picture, Text
from simjax.report._photographs import LINE, overlay, photo

MAX_FILTERS = 32


def inside(arrays: Mapping[str, np.ndarray], names: Sequence[str], title: str) -> list[Block]:
    """Draw what `simjax.study.look_inside` found; `names` are those of the classes."""
    if not arrays:
        return []
    pictures: list[Block] = [_filters(arrays, title)]
    if len(arrays["label"]):
        pictures.append(_disagreements(arrays, names, title))
    else:
        pictures.append(Text("CNN and ViT have the same class for every one of the test images."))
    return [*pictures, _neighbours(arrays, names, title)]


def _filters(arrays: Mapping[str, np.ndarray], title: str) -> Picture:
    """Draw the weights of the first layers, each filter on its own scale."""
    columns = 16
    shown = [arrays[f"{name}_filters"][:MAX_FILTERS] for name in ("cnn", "vit")]
    heights = [-(-len(filters) // columns) for filters in shown]
    figure, axes = style.canvas(columns * 0.6, 0.6 * sum(heights) + 4 * LINE)
    y = 2 * LINE
    for filters, height, name in zip(shown, heights, ("CNN", "ViT"), strict=True):
        label = f"{name}: {len(filters)} filters of {filters.shape[1]}x{filters.shape[2]} pixels"
        axes.text(0.05, y - LINE, label, fontsize=8, color=style.NEUTRAL, va="center")
        for i, weights in enumerate(filters):
            left, top = 0.6 * (i % columns), y + 0.6 * (i // columns)
            largest = np.abs(weights).max() or 1.0
            picture = 0.5 + weights / (2 * largest)
            shape = (left + 0.04, left + 0.56, top + 0.56, top + 0.04)
            if weights.shape[-1] == 3:
                axes.imshow(picture, extent=shape, interpolation="nearest")
            else:
                axes.imshow(picture[..., 0], cmap=style.SIGNED, vmin=0, vmax=1, extent=shape, interpolation="nearest")
        y += 0.6 * height + 2 * LINE
    is_grey = shown[0].shape[-1] != 3
    colours = "blue is positive, orange negative" if is_grey else "grey is 0 in each colour channel"
    return Picture(
        f"filters-{title}",
        style.to_png(figure),
        f"First filters: {len(shown[0])} of the CNN and {len(shown[1])} of the vision transformer.",
        "Weights of the first layer, each filter on its own scale: what a patch is compared with. In the CNN, patches "
        f"overlap; in the ViT, every patch of the grid is compared once ({colours}).",
        is_photo=True,
    )


def _disagreements(arrays: Mapping[str, np.ndarray], names: Sequence[str], title: str) -> Picture:
    """Draw images with the classes of both networks, Grad-CAM and attention rollout."""
    labels = style.class_labels(list(names), 12)
    count, height = len(arrays["label"]), 1.1 + 2 * LINE
    columns = 2 if count > 4 else 1
    figure, axes = style.canvas(3.4 * columns - 0.4, -(-count // columns) * height)
    for i in range(count):
        x, y = 3.4 * (i % columns), i // columns * height
        true = arrays["label"][i]
        photo(axes, arrays["image"][i], x, y, ["true class", labels[true]])
        for j, name in enumerate(("cnn", "vit"), start=1):
            predicted = arrays[f"{name}_class"][i]
            colour, sign = (style.GREEN, "✓") if predicted == true else (style.VERMILLION, "✗")
            lines = [f"{'CNN' if name == 'cnn' else 'ViT'}:", labels[predicted]]
            photo(axes, arrays["image"][i], x + j, y, lines, colour, sign)
            values = arrays[f"{name}_map"][i] - arrays[f"{name}_map"][i].min()
            overlay(axes, values, x + j, y, values.max())
    return Picture(
        f"disagreements-{title}",
        style.to_png(figure),
        f"{count} test images that CNN and ViT classify differently, with the regions that matter to each.",
        "Test images that the two networks classify differently, those first for which both are most certain. Orange: "
        "the regions that the CNN's class depends on (Grad-CAM), and the patches that the ViT attends to (attention "
        "rollout), each on its own scale. `simjax explain` draws the same for any image. First seed, dot product.",
        is_photo=True,
    )


def _neighbours(arrays: Mapping[str, np.ndarray], names: Sequence[str], title: str) -> Picture:
    """Draw queries with their nearest neighbours in both networks."""
    labels = style.class_labels(list(names), 12)
    rows, columns = arrays["cnn_neighbour_label"].shape
    height, gap = 1.1 + LINE, 0.3
    figure, axes = style.canvas(1 + 2 * (columns + gap), rows * height + 2 * LINE)
    for name, x in (("CNN", 1 + gap), ("ViT", 1 + columns + 2 * gap)):
        axes.text(x + 0.05, LINE, f"nearest in the {name}", fontsize=8, color=style.NEUTRAL, va="center")
    for i in range(rows):
        y, query = i * height + 2 * LINE, arrays["query_label"][i]
        photo(axes, arrays["query"][i], 0, y, [labels[query]])
        for name, x in (("cnn", 1 + gap), ("vit", 1 + columns + 2 * gap)):
            for j in range(columns):
                label = arrays[f"{name}_neighbour_label"][i, j]
                colour, sign = (style.GREEN, "✓") if label == query else (style.VERMILLION, "✗")
                photo(axes, arrays[f"{name}_neighbour"][i, j], x + j, y, [labels[label]], colour, sign)
    return Picture(
        f"neighbours-{title}",
        style.to_png(figure),
        f"{rows} test images with their {columns} nearest neighbours in the CNN and in the ViT.",
        "Each row: a test image, its nearest other test images by the embeddings of the CNN, and those of the ViT. ✓ "
        "marks the class of the query.",
        is_photo=True,
    )
