"""Matrices over classes: what was taken for what, and which classes look alike to the model."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture

SMALL = 12  # classes up to which a matrix is readable in half the width of a page
ANNOTATED = 20  # classes up to which every cell shows its number
TICKS = 34  # labels that fit beside a matrix; of more classes every second, third, ... is named


def confusion_matrix(confusion: np.ndarray, names: list[str]) -> Picture:
    """How often each class was taken for each other one.

    Args:
        confusion: counts [c, c]; row i holds the images of class i, column j those predicted as j.
        names: of the classes.
    """
    total = confusion.sum(1, keepdims=True)
    share = confusion / np.maximum(total, 1)
    cells = np.where(confusion > 0, confusion.astype(int).astype(str), "")
    figure, axes = _matrix(share, cells, names, style.AMOUNT, 0, 1, "share of the true class")
    style.label_axes(axes, "predicted class", "true class")
    return Picture(
        "confusion",
        style.to_png(figure),
        f"Confusion matrix of {len(names)} classes; {numbers.percent(np.trace(confusion) / max(confusion.sum(), 1))} "
        f"of {numbers.count(confusion.sum())} test images lie on the diagonal.",
        "Rows are true classes, columns predicted ones: a perfect model fills the diagonal only, and every cell beside "
        "it that stands out is a confusion. Colour is the share of the row"
        f"{'; numbers are counts' if len(names) <= ANNOTATED else ''}.{_naming(len(names))}",
        wide=len(names) > SMALL,
    )


def class_similarity(similarity: np.ndarray, names: list[str]) -> Picture:
    """The mean cosine similarity of images of one class and of another, [c, c]."""
    cells = np.char.mod("%.2f", similarity)
    # A cell of a matrix of twenty classes is narrow: .31 says as much as 0.31.
    cells = np.char.replace(cells, "0.", ".") if len(names) > SMALL else cells
    figure, axes = _matrix(similarity, cells, names, style.SIGNED, -1, 1, "cosine similarity")
    style.label_axes(axes, "class", "class")
    off = similarity[~np.eye(len(names), dtype=bool)]
    mean = f"; between different classes it is {numbers.decimal(float(off.mean()))} on average" if off.size else ""
    return Picture(
        "class_similarity",
        style.to_png(figure),
        f"Matrix of the cosine similarity of {len(names)} classes{mean}.",
        "How alike the test images of two classes are to the model on average, and on the diagonal those of one "
        "class: 1 (blue) is the same direction, 0 (no colour) nothing in common, -1 (orange) the opposite. A model "
        "that separates well is blue on the diagonal only; what stands out beside it are classes that look alike."
        f"{_naming(len(names))}",
        wide=len(names) > SMALL,
    )


def _naming(classes: int) -> str:
    step = -(-classes // TICKS)
    return f" One class in {step} is named." if step > 1 else ""


def _matrix(
    values: np.ndarray, cells: np.ndarray, names: list[str], colours: object, low: float, high: float, title: str
) -> tuple[Figure, Axes]:
    """Coloured cells, annotated where there are few of them, with named rows and columns."""
    classes = len(names)
    side = 4.8 if classes <= SMALL else 6.2 if classes <= ANNOTATED else 7.6
    figure, axes = style.chart(side, 0.92 * side)
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=high)  # pyright: ignore[reportArgumentType]
    axes.grid(False)
    axes.spines[:].set_visible(False)
    ticks = np.arange(0, classes, -(-classes // TICKS))
    labels = [style.labels(names)[i] for i in ticks]
    size = 8 if classes <= SMALL else 7
    upright = max(map(len, labels)) > (2 if classes > ANNOTATED else 24 // classes)
    axes.set_xticks(ticks, labels, fontsize=size, parse_math=False, rotation=90 if upright else 0)
    axes.set_yticks(ticks, labels, fontsize=size, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label(title, fontsize=8, color=style.SOFT)
    bar.ax.tick_params(labelsize=7, colors=style.SOFT, length=2)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if classes <= ANNOTATED:
        size = min(8.0, 96 / classes)
        for (i, j), cell in np.ndenumerate(cells):
            red, green, blue, _ = image.cmap(image.norm(values[i, j]))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # how bright the eye takes the cell to be
            axes.text(j, i, cell, ha="center", va="center", fontsize=size, color="white" if dark else style.INK)
    return figure, axes
