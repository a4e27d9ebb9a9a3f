"""Charts: training curves, matrices of classes, ROC curve, reliability diagram, two-dimensional embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture
from simjax.report._run import Run

LONG_CURVE = 60  # curves of more points are smoothed, and the original is drawn as a faint line
SMALL_MATRIX = 12  # matrices of more classes get the full width of the page
ANNOTATED_MATRIX = 20  # matrices of more classes have no text in their cells
MAX_TICKS = 34  # largest number of labels along one side of a matrix
MAX_POINTS = 3000  # largest number of points of a scatter plot

Curve = tuple[str, list[float], list[float]]  # label, steps and values


def training_curves(run: Run) -> list[Picture]:
    """Plot training and validation loss and accuracy against the training step, if the run logged them."""
    pictures = []
    for metric in ("loss", "accuracy"):
        curves = _curves([("training", run, metric), ("validation", run, f"validation_{metric}")])
        caption = f"{metric.capitalize()} of the training batches and of the validation images at each step"
        advice = " If training improves while validation does not, the model overfits."
        pictures += [_draw_curves(metric, metric, curves, caption, advice)] if curves else []
    return pictures


def overlaid_curves(runs: Sequence[Run], run_names: Sequence[str]) -> list[Picture]:
    """Plot loss and accuracy against the training step, one curve per run.

    Uses the validation series if every run has one, otherwise the training series.
    """
    pictures = []
    for metric in ("loss", "accuracy"):
        title = f"validation {metric}"
        curves = _curves([(name, run, f"validation_{metric}") for name, run in zip(run_names, runs, strict=True)])
        if len(curves) < len(runs):
            title = f"training {metric}"
            curves = _curves([(name, run, metric) for name, run in zip(run_names, runs, strict=True)])
        advice = " Different losses have different scales: compare the shapes of the curves, not their values."
        caption = f"{title.capitalize()} of each run by step"
        advice = advice if metric == "loss" else ""
        pictures += [_draw_curves(metric, title, curves, caption, advice)] if curves else []
    return pictures


def _curves(requests: Sequence[tuple[str, Run, str]]) -> list[Curve]:
    """Return the curves of (label, run, name of a series), without curves that have no values."""
    curves = [(label, *run.series(series)) for label, run, series in requests]
    return [(label, steps, values) for label, steps, values in curves if values]


def _draw_curves(metric: str, title: str, curves: Sequence[Curve], caption: str, advice: str) -> Picture:
    """Plot the curves of one metric, "loss" or "accuracy"."""
    figure, axes = style.chart()
    note = "."
    # strict=False because the line styles repeat without end
    for (_, steps, values), (colour, linestyle, marker) in zip(curves, style.line_styles(), strict=False):
        x, y = np.asarray(steps), np.asarray(values)
        if len(y) > LONG_CURVE:
            axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
            window = len(y) // 20
            x = np.convolve(x, np.ones(window) / window, "valid")
            y = np.convolve(y, np.ones(window) / window, "valid")
            note = "; bold lines are moving averages of the faint lines."
        marker = marker if len(y) <= 20 else ""
        # The legend lists only lines with a label; `style.legend` replaces the "x" by the name.
        axes.plot(x, y, color=colour, linestyle=linestyle, linewidth=1.4, marker=marker, markersize=3.5, label="x")
    style.legend(axes, [label for label, _, _ in curves])
    all_values = np.concatenate([values for _, _, values in curves])
    if metric == "loss" and all_values.min() > 0 and all_values.max() > 20 * all_values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        note = ", on a logarithmic scale" + note
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.label_axes(axes, "step", metric)
    format_value = numbers.percent if metric == "accuracy" else numbers.decimal
    ends = "; ".join(f"{label} ends at {format_value(values[-1])}" for label, _, values in curves)
    return Picture(metric, style.to_png(figure), f"{title.capitalize()} by step: {ends}.", caption + note + advice)


def confusion_matrix(confusion: np.ndarray, names: list[str]) -> Picture:
    """Draw a confusion matrix, counts [c, c] of the images of class i that were predicted as class j."""
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
        "Rows are true classes, columns predicted classes. Images on the diagonal are classified correctly; a dark "
        "cell off the diagonal is a frequent confusion. Colour is the share of the row"
        f"{'; numbers are counts' if len(names) <= ANNOTATED_MATRIX else ''}.{_tick_note(len(names))}",
        is_wide=len(names) > SMALL_MATRIX,
    )


def class_similarity(similarity: np.ndarray, names: list[str]) -> Picture:
    """Draw the mean cosine similarity [c, c] of the images of each two classes."""
    cells = np.char.mod("%.2f", similarity)
    cells = np.char.replace(cells, "0.", ".") if len(names) > SMALL_MATRIX else cells  # ".12" fits into narrow cells
    figure = _matrix(similarity, cells, names, style.SIGNED, (-1, 1), "cosine similarity", "class", "class")
    others = similarity[~np.eye(len(names), dtype=bool)]
    mean = (
        f"; between different classes it is {numbers.decimal(float(others.mean()))} on average" if others.size else ""
    )
    return Picture(
        "class_similarity",
        style.to_png(figure),
        f"Matrix of the cosine similarity of {len(names)} classes{mean}.",
        "Mean cosine similarity of the test images of two classes, and on the diagonal of the images of one class: 1 "
        "(blue) is the same direction, 0 (no colour) is orthogonal, -1 (orange) is the opposite direction. If the "
        "model separates the classes well, only the diagonal is blue; a blue cell off the diagonal is a pair of "
        "similar classes."
        f"{_tick_note(len(names))}",
        is_wide=len(names) > SMALL_MATRIX,
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
    """Draw a matrix of classes as colours, explained by `title`, and the texts `cells` if there are few classes."""
    classes = len(names)
    inches = 4.8 if classes <= SMALL_MATRIX else 6.2 if classes <= ANNOTATED_MATRIX else 7.6
    figure, axes = style.chart(inches, 0.92 * inches)
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    ticks = np.arange(0, classes, -(-classes // MAX_TICKS))
    labels = [style.class_labels(names)[i] for i in ticks]
    size = 8 if classes <= SMALL_MATRIX else 7
    is_vertical = max(map(len, labels)) > (2 if classes > ANNOTATED_MATRIX else 24 // classes)
    axes.set_xticks(ticks, labels, fontsize=size, parse_math=False, rotation=90 if is_vertical else 0)
    axes.set_yticks(ticks, labels, fontsize=size, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label(title, fontsize=8, color=style.SOFT)
    bar.ax.tick_params(labelsize=7, colors=style.SOFT, length=2)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if classes <= ANNOTATED_MATRIX:
        size = min(8.0, 96 / classes)
        for (i, j), cell in np.ndenumerate(cells):
            red, green, blue, _ = image.cmap(image.norm(values[i, j]))
            is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # perceived brightness
            axes.text(j, i, cell, ha="center", va="center", fontsize=size, color="white" if is_dark else style.INK)
    style.label_axes(axes, x, y)
    return figure


def roc_curve(false_positive: np.ndarray, true_positive: np.ndarray, point: np.ndarray | None, area: object) -> Picture:
    """Draw the ROC curve of the rates at each threshold [n]; `point` has both rates at the chosen one, or is None."""
    figure, axes = style.chart()
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9, linestyle=":", label="x")
    axes.plot(false_positive, true_positive, color=style.BLUE, linewidth=1.6, label="x")
    names, at_threshold = ["chance", "this model"], ""
    if point is not None and np.isfinite(point).all():
        axes.plot(*point, "o", color=style.VERMILLION, markersize=7, label="x")
        names.append("chosen threshold")
        false_rate, true_rate = (numbers.percent(float(rate)) for rate in point)
        at_threshold = (
            f" At the chosen threshold {true_rate} of the positive and {false_rate} of the negative pairs are accepted."
        )
    style.legend(axes, names, "lower right")
    style.label_axes(axes, "negative pairs accepted", "positive pairs accepted")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return Picture(
        "roc",
        style.to_png(figure),
        f"ROC curve; area under it {numbers.decimal(area)}.{at_threshold}",
        "Each point of the curve is a threshold. The vertical axis is the share of positive pairs (one class) that are "
        "accepted, the horizontal axis the share of negative pairs (two classes). The upper left corner is perfect, "
        f"the dotted line is chance.{at_threshold}",
    )


def reliability_diagram(bins: Sequence[Mapping[str, Any]], error: object) -> Picture:
    """Draw the fraction of "same" pairs against their predicted probability, from the bins of `evaluate.reliability`.

    `error` is the expected calibration error.
    """
    full = [part for part in bins if part["count"]]
    x, y = (np.array([part[name] for part in full]) for name in ("mean_probability", "fraction_same"))
    ends = np.array([part["fraction_same_interval"] or (np.nan, np.nan) for part in full])
    figure, axes = style.chart()
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9, linestyle=":", label="x")
    axes.plot(x, y, color=style.BLUE, marker="o", markersize=4, linewidth=1.4, label="x")
    axes.vlines(x, *ends.T, color=style.BLUE, linewidth=1.2, alpha=0.6)
    style.legend(axes, ["perfect calibration", "this model, 95% intervals"], "upper left")
    style.label_axes(axes, "predicted probability of one class", "share of pairs of one class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    sizes = ", ".join(f"{100 * part['low']:g}–{100 * part['high']:g}%: {numbers.count(part['count'])}" for part in full)
    return Picture(
        "reliability",
        style.to_png(figure),
        f"Reliability diagram; expected calibration error {numbers.percent(error)}.",
        "Each point is a group of pairs with a similar predicted probability of being of one class. On the dotted line "
        "the prediction is right on average; below it the model is too confident that pairs are of one class. Vertical "
        "bars are 95% intervals. The probabilities are for data in which half of all pairs are of one class. "
        f"Pairs in each group: {sizes}.",
    )


def embedding_scatter(embedding: np.ndarray, label: np.ndarray, names: list[str]) -> Picture:
    """Draw two-dimensional embeddings [n, 2] as points, with a colour and a marker for each class."""
    rows = np.linspace(0, len(label) - 1, min(len(label), MAX_POINTS)).astype(int)
    embedding, label = embedding[rows], label[rows]
    figure, axes = style.chart(6.0, 5.0)
    has_labels = len(names) <= 20
    for i, (name, (colour, _, marker)) in enumerate(zip(style.class_labels(names), style.line_styles(), strict=False)):
        points = embedding[label == i]
        if len(points):
            axes.plot(*points.T, marker, color=colour, markersize=3, alpha=0.55, markeredgewidth=0)
        if len(points) and has_labels:
            x, y = np.median(points, axis=0)
            box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "boxstyle": "round,pad=0.2"}
            text = axes.text(x, y, name, fontsize=8, color=style.INK, ha="center", va="center", bbox=box, zorder=3)
            text.set_parse_math(False)
    style.label_axes(axes, "first feature of the embedding", "second feature")
    labels = "each class is labelled at its median" if has_labels else "there are too many classes to label them"
    return Picture(
        "embedding",
        style.to_png(figure),
        f"Scatter plot of {numbers.count(len(label))} test images by their two-dimensional embedding.",
        f"Each point is a test image: close points are similar images for the model, colours are true classes, and "
        f"{labels}. Clusters of one colour are classes that the model separates.",
        is_wide=True,
    )
