"""Charts of points: the trade-off of a verification threshold, and embeddings that are two numbers."""

import numpy as np

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture

POINTS = 3000  # as many points as a scatter plot needs to show where a class lies


def roc_curve(false_positive: np.ndarray, true_positive: np.ndarray, point: np.ndarray | None, area: object) -> Picture:
    """The share of right pairs accepted against the share of wrong ones, for every threshold.

    Args:
        false_positive: [n], rising from 0 to 1.
        true_positive: [n].
        point: (false positive rate, true positive rate) at the chosen threshold, or None.
        area: under the curve, or None.
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
    """Two-dimensional embeddings as points, a colour and a marker for each class.

    Args:
        embedding: [n, 2].
        label: [n].
        names: of the classes.
    """
    keep = np.linspace(0, len(label) - 1, min(len(label), POINTS)).astype(int)  # evenly, so that it is reproducible
    embedding, label = embedding[keep], label[keep]
    figure, axes = style.chart(6.0, 5.0)
    few = len(names) <= 20
    for i, (name, (colour, _, marker)) in enumerate(zip(style.labels(names), style.looks(), strict=False)):
        points = embedding[label == i]
        if len(points):
            axes.plot(*points.T, marker, color=colour, markersize=3, alpha=0.55, markeredgewidth=0)
            if few:
                box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "boxstyle": "round,pad=0.2"}
                x, y = np.median(points, axis=0)
                axes.text(x, y, name, fontsize=8, color=style.INK, ha="center", va="center", bbox=box,
                          parse_math=False, zorder=3)  # fmt: skip
    style.label_axes(axes, "first number of the embedding", "second number")
    where = "each class is named at its middle" if few else "there are too many classes to name them"
    return Picture(
        "embedding",
        style.to_png(figure),
        f"Scatter plot of {numbers.count(len(label))} test images by their two-dimensional embedding.",
        f"Where the model puts test images: close points are similar to it, colours are true classes, and {where}. "
        "Islands of one colour are classes it keeps apart.",
        wide=True,
    )
