"""Charts: training curves, confusion and similarity of classes, the ROC curve, two-dimensional embeddings."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture
from simjax.report._run import Run

LONG_CURVE = 60  # a longer curve is drawn as its running mean, above the pale original
SMALL_MATRIX = 12  # classes of a matrix that is readable in half the width of a page
ANNOTATED_MATRIX = 20  # classes of a matrix whose cells have room for numbers
MAX_TICKS = 34  # labels along the side of a matrix
MAX_POINTS = 3000  # points of a scatter plot

Curve = tuple[str, list[float], list[float]]
"""Label, steps and values."""


def training_curves(run: Run) -> list[Picture]:
    """Draw the loss and the accuracy of training and validation by step, if the run has them."""
    pictures = []
    for name in ("loss", "accuracy"):
        curves = _curves([("training", run, name), ("validation", run, f"validation_{name}")])
        if curves:
            caption = f"{name.capitalize()} of the training batches and of the validation images at each step"
            advice = " Where training goes on improving and validation does not, the model learns by heart."
            pictures.append(_draw_curves(name, name, curves, caption, advice))
    return pictures


def overlaid_curves(runs: Sequence[Run], names: Sequence[str]) -> list[Picture]:
    """Draw the loss and the accuracy of several runs by step: of validation if all runs have it, else of training."""
    pictures = []
    for name in ("loss", "accuracy"):
        kind = "validation"
        curves = _curves([(label, run, f"validation_{name}") for label, run in zip(names, runs, strict=True)])
        if len(curves) < len(runs):
            kind = "training"
            curves = _curves([(label, run, name) for label, run in zip(names, runs, strict=True)])
        if curves:
            advice = " Losses of different objectives have different scales: compare their course, not their height."
            title = f"{kind} {name}"
            caption = f"{title.capitalize()} of each run by step"
            pictures.append(_draw_curves(name, title, curves, caption, advice if name == "loss" else ""))
    return pictures


def _curves(wanted: Sequence[tuple[str, Run, str]]) -> list[Curve]:
    curves = [(label, *run.series(key)) for label, run, key in wanted]
    return [curve for curve in curves if curve[1]]


def _draw_curves(name: str, title: str, curves: Sequence[Curve], caption: str, advice: str) -> Picture:
    """Draw the curves of the loss or the accuracy."""
    figure, axes = style.chart()
    note = "."
    for (_, at, heights), (colour, dash, marker) in zip(curves, style.line_styles(), strict=False):
        steps, values = np.asarray(at), np.asarray(heights)
        if len(values) > LONG_CURVE:
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
            window = len(values) // 20
            steps = np.convolve(steps, np.ones(window) / window, "valid")
            values = np.convolve(values, np.ones(window) / window, "valid")
            note = "; the strong line is a running mean of the pale one."
        marker = marker if len(values) <= 20 else ""
        axes.plot(steps, values, color=colour, linestyle=dash, linewidth=1.4, marker=marker, markersize=3.5, label="x")
    style.legend(axes, [label for label, _, _ in curves])
    heights = np.concatenate([values for _, _, values in curves])
    if name == "loss" and heights.min() > 0 and heights.max() > 20 * heights.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        note = ", on a logarithmic scale" + note
    if name == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.label_axes(axes, "step", name)
    show = numbers.percent if name == "accuracy" else numbers.decimal
    ends = "; ".join(f"{label} ends at {show(values[-1])}" for label, _, values in curves)
    return Picture(name, style.to_png(figure), f"{title.capitalize()} by step: {ends}.", caption + note + advice)


def confusion_matrix(confusion: np.ndarray, names: list[str]) -> Picture:
    """Draw counts [c, c] of the images of class i that were predicted as class j."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    cells = np.where(confusion > 0, confusion.astype(int).astype(str), "")
    figure = _matrix(
        share, cells, names, style.AMOUNT, (0, 1), "share of the true class", "predicted class", "true class"
    )
    accuracy = numbers.percent(np.trace(confusion) / max(confusion.sum(), 1))
    return Picture(
        "confusion",
        style.to_png(figure),
        f"Confusion matrix of {len(names)} classes; {accuracy} of {numbers.count(confusion.sum())} test images lie on "
        "the diagonal.",
        "Rows are true classes, columns predicted ones: a perfect model fills the diagonal only, and every cell beside "
        "it that stands out is a confusion. Colour is the share of the row"
        f"{'; numbers are counts' if len(names) <= ANNOTATED_MATRIX else ''}.{_tick_note(len(names))}",
        wide=len(names) > SMALL_MATRIX,
    )


def class_similarity(similarity: np.ndarray, names: list[str]) -> Picture:
    """Draw the mean cosine similarity [c, c] of the images of two classes."""
    cells = np.char.mod("%.2f", similarity)
    cells = np.char.replace(cells, "0.", ".") if len(names) > SMALL_MATRIX else cells  # the cells are narrow
    figure = _matrix(similarity, cells, names, style.SIGNED, (-1, 1), "cosine similarity", "class", "class")
    off = similarity[~np.eye(len(names), dtype=bool)]
    mean = f"; between different classes it is {numbers.decimal(float(off.mean()))} on average" if off.size else ""
    return Picture(
        "class_similarity",
        style.to_png(figure),
        f"Matrix of the cosine similarity of {len(names)} classes{mean}.",
        "How alike the test images of two classes are to the model on average, and on the diagonal those of one "
        "class: 1 (blue) is the same direction, 0 (no colour) nothing in common, -1 (orange) the opposite. A model "
        "that separates well is blue on the diagonal only; what stands out beside it are classes that look alike."
        f"{_tick_note(len(names))}",
        wide=len(names) > SMALL_MATRIX,
    )


def _tick_note(classes: int) -> str:
    step = -(-classes // MAX_TICKS)
    return f" One class in {step} is named." if step > 1 else ""


def _matrix(
    values: np.ndarray,
    cells: np.ndarray,
    names: list[str],
    colours: Colormap,
    limits: tuple[float, float],
    title: str,
    x: str,
    y: str,
) -> Figure:
    """Draw coloured cells, with their texts if there are few classes, and named rows and columns."""
    classes = len(names)
    side = 4.8 if classes <= SMALL_MATRIX else 6.2 if classes <= ANNOTATED_MATRIX else 7.6
    figure, axes = style.chart(side, 0.92 * side)
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    ticks = np.arange(0, classes, -(-classes // MAX_TICKS))
    labels = [style.class_labels(names)[i] for i in ticks]
    size = 8 if classes <= SMALL_MATRIX else 7
    upright = max(map(len, labels)) > (2 if classes > ANNOTATED_MATRIX else 24 // classes)
    axes.set_xticks(ticks, labels, fontsize=size, parse_math=False, rotation=90 if upright else 0)
    axes.set_yticks(ticks, labels, fontsize=size, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label(title, fontsize=8, color=style.SOFT)
    bar.ax.tick_params(labelsize=7, colors=style.SOFT, length=2)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if classes <= ANNOTATED_MATRIX:
        size = min(8.0, 96 / classes)
        for (i, j), cell in np.ndenumerate(cells):
            red, green, blue, _ = image.cmap(image.norm(values[i, j]))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # perceived brightness
            axes.text(j, i, cell, ha="center", va="center", fontsize=size, color="white" if dark else style.INK)
    style.label_axes(axes, x, y)
    return figure


def roc_curve(false_positive: np.ndarray, true_positive: np.ndarray, point: np.ndarray | None, area: object) -> Picture:
    """Draw the ROC curve.

    Args:
        false_positive: False positive rate of each threshold, [n], increasing from 0 to 1.
        true_positive: True positive rate of each threshold, [n].
        point: False and true positive rate at the chosen threshold, or None.
        area: Area under the curve, or None.
    """
    figure, axes = style.chart()
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9, linestyle=":", label="x")
    axes.plot(false_positive, true_positive, color=style.BLUE, linewidth=1.6, label="x")
    names, chosen = ["chance", "this model"], ""
    if point is not None and np.isfinite(point).all():
        axes.plot(*point, "o", color=style.VERMILLION, markersize=7, label="x")
        names.append("chosen threshold")
        right, wrong = numbers.percent(float(point[1])), numbers.percent(float(point[0]))
        chosen = f" At the chosen threshold {right} of the pairs of one class are accepted, and {wrong} of the others."
    style.legend(axes, names, "lower right")
    style.label_axes(axes, "pairs of two classes accepted", "pairs of one class accepted")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return Picture(
        "roc",
        style.to_png(figure),
        f"ROC curve; area under it {numbers.decimal(area)}.{chosen}",
        "Every threshold is a point: up are pairs of one class that are accepted as such, to the right pairs of two "
        f"classes that are accepted by mistake. The upper left corner is perfect, the dotted line chance.{chosen}",
    )


def embedding_scatter(embedding: np.ndarray, label: np.ndarray, names: list[str]) -> Picture:
    """Draw two-dimensional embeddings [n, 2] as points, with a colour and a marker for each class."""
    rows = np.linspace(0, len(label) - 1, min(len(label), MAX_POINTS)).astype(int)
    embedding, label = embedding[rows], label[rows]
    figure, axes = style.chart(6.0, 5.0)
    named = len(names) <= 20
    for i, (name, (colour, _, marker)) in enumerate(zip(style.class_labels(names), style.line_styles(), strict=False)):
        points = embedding[label == i]
        if len(points):
            axes.plot(*points.T, marker, color=colour, markersize=3, alpha=0.55, markeredgewidth=0)
        if len(points) and named:
            x, y = np.median(points, axis=0)
            box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "boxstyle": "round,pad=0.2"}
            text = axes.text(x, y, name, fontsize=8, color=style.INK, ha="center", va="center", bbox=box, zorder=3)
            text.set_parse_math(False)
    style.label_axes(axes, "first number of the embedding", "second number")
    where = "each class is named at its middle" if named else "there are too many classes to name them"
    return Picture(
        "embedding",
        style.to_png(figure),
        f"Scatter plot of {numbers.count(len(label))} test images by their two-dimensional embedding.",
        f"Where the model puts test images: close points are similar to it, colours are true classes, and {where}. "
        "Islands of one colour are classes it keeps apart.",
        wide=True,
    )
