"""Charts: training curves, verification, calibration, a map of embeddings, values with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Chart, Points
from simjax.report._render import shorten
from simjax.report._run import Run

LONG_CURVE = 60  # curves of more points are smoothed, and the original is drawn as a faint line
LABELLED_CLASSES = 20  # classes of a map have names and colours if there are at most this many
RATES = (1e-4, 1e-3, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99, 0.999)  # ticks of scales of rates

Curve = tuple[str, list[float], list[float]]  # label, steps and values


def training_curves(run: Run) -> list[Chart]:
    """Plot loss and accuracy of training and validation against the step, if the run logged them.

    A loss that depends on the classes of its batch or on mined pairs has a chart of its own for the validation images,
    whose batches are random.
    """
    settings = run.part("settings")
    is_mined = (settings.get("mining") or {}).get("miner", "none") != "none"
    same_loss = not is_mined and (settings.get("loss") or {}).get("samples_per_class") is None
    found = []
    for metric in ("loss", "accuracy"):
        requests = [("training", run, metric), ("validation", run, f"validation_{metric}")]
        groups = [requests] if metric == "accuracy" or same_loss else [[request] for request in requests]
        for group in groups:
            if curves := _curves(group):
                names = " and ".join(label for label, _, _ in curves)
                advice = (
                    " If training improves while validation does not, the model may overfit." if len(curves) > 1 else ""
                )
                name = metric if len(groups) == 1 else f"{curves[0][0]}-{metric}"
                found.append(_draw_curves(name, metric, f"{metric} of {names} images".capitalize(), curves, advice))
    return found


def overlaid_curves(runs: Sequence[Run], run_names: Sequence[str], groups: Sequence[int]) -> list[Chart]:
    """Plot loss and accuracy against the training step, one curve per run, one colour per group.

    Uses the validation series if every run has one, otherwise the training series.
    """
    found = []
    for metric in ("loss", "accuracy"):
        for prefix in ("validation_", ""):
            curves = _curves([(name, run, prefix + metric) for name, run in zip(run_names, runs, strict=True)])
            if len(curves) == len(runs) or not prefix:
                break
        title = f"{'Validation' if prefix else 'Training'} {metric} of each run"
        objectives = {run.value("objective") for run in runs}
        advice = " The losses are of different objectives: compare shapes, not values." if len(objectives) > 1 else ""
        advice = advice if metric == "loss" else ""
        colours = [groups[run_names.index(name)] for name, _, _ in curves]
        found += [_draw_curves(metric, metric, title, curves, advice, colours)] if curves else []
    return found


def _curves(requests: Sequence[tuple[str, Run, str]]) -> list[Curve]:
    """Return the curves of (label, run, name of a series), without curves that have no values."""
    curves = [(label, *run.series(series)) for label, run, series in requests]
    return [(label, steps, values) for label, steps, values in curves if values]


def _draw_curves(
    name: str, metric: str, title: str, curves: Sequence[Curve], advice: str, groups: Sequence[int] | None = None
) -> Chart:
    """Plot the curves of one metric, "loss" or "accuracy", with a colour for each group or else for each curve."""
    figure, axes = style.chart()
    note = "."
    # strict=False because the line styles repeat without end
    for (_, steps, values), (colour, linestyle, marker) in zip(curves, style.line_styles(groups), strict=False):
        x, y = np.asarray(steps), np.asarray(values)
        if len(y) > LONG_CURVE:
            axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.3)
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
    data = {
        "curve": [label for label, steps, _ in curves for _ in steps],
        "step": [step for _, steps, _ in curves for step in steps],
        metric: [value for _, _, values in curves for value in values],
    }
    return Chart(name, style.to_svg(figure, name), f"{title}: {ends}.", f"{title} by training step{note}{advice}", data)


def score_histogram(
    edges: np.ndarray, same: np.ndarray, different: np.ndarray, threshold: float | None, measure: str
) -> Chart:
    """Draw the distribution of the scores of same and of different pairs, counts [b] between edges [b + 1]."""
    figure, axes = style.chart()
    names = ["same class", "different classes"]
    for counts, colour, hatch in ((same, style.BLUE, ""), (different, style.ORANGE, "////")):
        shares = counts / max(counts.sum(), 1)
        options = {"facecolor": colour, "alpha": 0.45, "hatch": hatch, "edgecolor": "none"}
        axes.stairs(shares, edges, fill=True, label="x", **options)
        axes.stairs(shares, edges, color=colour, linewidth=1.2)
    at = ""
    if threshold is not None:
        axes.axvline(threshold, color=style.INK, linewidth=1.2, linestyle="--", label="x")
        names.append("threshold")
        at = f" The dashed line is the threshold, {numbers.decimal(threshold)}, which decides about each pair."
    style.legend(axes, names, "below")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.label_axes(axes, f"score ({measure})", "share of the pairs of a kind")
    return Chart(
        "scores",
        style.to_svg(figure, "scores"),
        f"Histogram of the scores of pairs of test images.{at}",
        "Scores of pairs of the same class and of different classes, on a logarithmic scale. The less they overlap, "
        f"the fewer decisions are wrong.{at}",
        {"from": edges[:-1].tolist(), "to": edges[1:].tolist(), "same": same.tolist(), "different": different.tolist()},
    )


def roc_curve(false_positive: np.ndarray, true_positive: np.ndarray, point: np.ndarray | None, area: object) -> Chart:
    """Draw the ROC curve of the rates at each threshold [n]; `point` has both rates at the chosen one, or is None.

    The horizontal axis is logarithmic and the vertical one begins at the lowest rate of the curve, so that good
    verification is not a corner of the chart.
    """
    is_shown = false_positive > 0
    x, y = false_positive[is_shown], true_positive[is_shown]
    figure, axes = style.chart()
    axes.plot(x, y, color=style.BLUE, linewidth=1.6, label="x")
    names, at_threshold = ["this model"], ""
    if point is not None and np.isfinite(point).all():
        false_rate, true_rate = (numbers.percent(float(rate)) for rate in point)
        at_threshold = f" At the threshold, {true_rate} of the same and {false_rate} of the different pairs match."
        if point[0] > 0:
            axes.plot(*point, "o", color=style.VERMILLION, markersize=6, label="x")
            names.append("threshold")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.legend(axes, names, "lower right")
    style.label_axes(axes, "false match rate", "true match rate")
    return Chart(
        "roc",
        style.to_svg(figure, "roc"),
        f"ROC curve; area under it {numbers.decimal(area)}.{at_threshold}",
        "ROC curve: for each threshold, the share of different pairs that match by mistake and the share of same pairs "
        "that match. The higher, the better. Both axes are cut to the curve, the lower one is logarithmic."
        f"{at_threshold}",
        {"false_positive_rate": false_positive.tolist(), "true_positive_rate": true_positive.tolist()},
    )


def det_curve(fmr: np.ndarray, fnmr: np.ndarray, point: np.ndarray | None) -> Chart:
    """Draw the false non-match rate against the false match rate on scales of normal deviates."""
    from scipy.special import ndtri

    is_shown = (fmr > 0) & (fmr < 1) & (fnmr > 0) & (fnmr < 1)
    figure, axes = style.chart()
    axes.plot(ndtri(fmr[is_shown]), ndtri(fnmr[is_shown]), color=style.BLUE, linewidth=1.6)
    dot = ""
    if point is not None and 0 < point[0] < 1 and 0 < point[1] < 1:
        dot = "; the dot is the threshold"
        axes.plot(ndtri(point[0]), ndtri(1 - point[1]), "o", color=style.VERMILLION, markersize=6)
    for axis, rates in ((axes.xaxis, fmr[is_shown]), (axes.yaxis, fnmr[is_shown])):
        shown = [rate for rate in RATES if rates.min() <= rate <= rates.max()] if rates.size else []
        axis.set_ticks(ndtri(shown), [f"{100 * rate:g}%" for rate in shown])
    style.label_axes(axes, "false match rate", "missed match rate")
    return Chart(
        "det",
        style.to_svg(figure, "det"),
        "DET curve: the false non-match rate against the false match rate at each threshold.",
        "DET curve: both kinds of error at each threshold, false matches and missed matches (false non-matches). "
        f"Nearer to the lower left is better. The scales stretch small rates{dot}.",
        {"false_match_rate": fmr.tolist(), "false_non_match_rate": fnmr.tolist()},
    )


def reliability_diagram(bins: Sequence[Mapping[str, Any]], error: object) -> Chart:
    """Draw the fraction of "same" pairs against their predicted probability, from the bins of `evaluate.reliability`.

    `error` is the expected calibration error.
    """
    full = [part for part in bins if part["count"]]
    x, y = (np.array([part[name] for part in full]) for name in ("mean_probability", "fraction_same"))
    pairs = np.array([part["count"] for part in full])
    extreme = pairs[(x < 0.1) | (x > 0.9)].sum() / max(pairs.sum(), 1)
    ends = np.array([part["fraction_same_interval"] or (np.nan, np.nan) for part in full])
    figure, axes = style.chart()
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9, linestyle=":", label="x")
    axes.plot(x, y, color=style.BLUE, marker="o", markersize=4, linewidth=1.4, label="x")
    axes.vlines(x, *ends.T, color=style.BLUE, linewidth=1.2, alpha=0.6)
    style.legend(axes, ["perfect calibration", "this model, 95% intervals"], "below")
    style.label_axes(axes, "predicted probability of the same class", "share of pairs of the same class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return Chart(
        "reliability",
        style.to_svg(figure, "reliability"),
        f"Reliability diagram; expected calibration error {numbers.percent(error)}.",
        "Whether predicted probabilities are right: each point is a group of pairs with similar probabilities. Above "
        "the dotted line the prediction is too low, below it too high; bars are 95% intervals, and groups of few pairs "
        f"have wide ones. Over all pairs, the mean gap is {numbers.percent(error)} (ECE); {extreme:.0%} of the pairs "
        "have a probability below 10% or above 90%. The probabilities are for data in which half of all pairs are of "
        "the same class.",
        {
            "probability": x.tolist(),
            "share_of_one_class": y.tolist(),
            "low": ends[:, 0].tolist(),
            "high": ends[:, 1].tolist(),
            "pairs": [part["count"] for part in full],
        },
    )


def embedding_map(
    xy: np.ndarray, label: np.ndarray, is_wrong: np.ndarray, names: list[str], caption: str, points: Points | None
) -> Chart:
    """Draw embeddings in two dimensions [n, 2] as points, with a colour and a marker for each of a few classes.

    Wrongly classified images have a ring. The points are drawn class by class, in the order of
    `np.argsort(label, kind="stable")`.
    """
    figure, axes = style.chart(5.2, 3.6)
    is_few = len(names) <= LABELLED_CLASSES
    for i, (name, (colour, _, marker)) in enumerate(zip(names, style.line_styles(), strict=False)):
        of_class = xy[label == i]
        if not len(of_class):
            continue
        colour, marker = (colour, marker) if is_few else (style.BLUE, "o")
        options = {"color": colour, "markersize": 3.2, "alpha": 0.6, "markeredgewidth": 0, "gid": f"points-{i}"}
        axes.plot(*of_class.T, marker, **options)
        if is_few:
            x, y = np.median(of_class, axis=0)
            box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "boxstyle": "round,pad=0.2"}
            text = axes.text(x, y, shorten(name, 16), fontsize=style.SIZE, color=style.INK, bbox=box, zorder=3)
            text.set(ha="center", va="center", parse_math=False)
    if is_wrong.any():
        ring = {"markersize": 8, "markeredgecolor": style.INK, "markeredgewidth": 1.2, "fillstyle": "none"}
        axes.plot(*xy[is_wrong].T, "o", linestyle="", **ring)
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    shown = " Point at one to see the image, or use the arrow keys." if points else ""
    colours = "Colour and shape are the true class" if is_few else f"There are {numbers.count(len(names))} classes"
    colours += "; wrongly classified images have a ring." if is_wrong.any() else "."
    return Chart(
        "embeddings",
        style.to_svg(figure, "embeddings"),
        f"Map of {numbers.count(len(label))} test images by their embeddings.",
        f"Map of the embeddings: each point is a test image. {colours} {caption}{shown}",
        {"x": xy[:, 0].tolist(), "y": xy[:, 1].tolist(), "class": [names[i] for i in label]},
        is_wide=True,
        points=points,
    )


def values_with_intervals(
    name: str,
    title: str,
    rows: Sequence[tuple[str, float, Sequence[float] | None]],
    caption: str,
    groups: Sequence[int] | None = None,
) -> Chart:
    """Draw shares in [0, 1] by name, one below the other, as points with their intervals as lines.

    Every group has a colour. Default: one for all.
    """
    figure, axes = row_chart([label for label, _, _ in rows], title)
    for y, (_, value, interval) in enumerate(rows):
        colour = style.PALETTE[groups[y] % len(style.PALETTE)] if groups else style.BLUE
        if interval is not None:
            axes.plot(interval, [y, y], color=colour, linewidth=1.6, alpha=0.6)
        axes.plot(value, y, "o", color=colour, markersize=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    shown = "; ".join(f"{label} {numbers.percent(value)}" for label, value, _ in rows)
    alt, data = f"{numbers.capitalize(title)}: {shown}.", _columns(rows)
    return Chart(name, style.to_svg(figure, name), alt, caption, data, is_wide=True)


def differences_with_intervals(rows: Sequence[tuple[str, float, Sequence[float]]], *, is_single: bool) -> Chart:
    """Draw differences of accuracies by name as points with their intervals as lines, beside a line at 0.

    `is_single`: they are differences of single runs, not of recipes.
    """
    figure, axes = row_chart([label for label, _, _ in rows], "difference of accuracy, percentage points")
    axes.axvline(0, color=style.INK, linewidth=1, linestyle="--")
    for y, (_, value, interval) in enumerate(rows):
        axes.plot(100 * np.asarray(interval), [y, y], color=style.INK, linewidth=1.6, alpha=0.6)
        axes.plot(100 * value, y, "D", color=style.INK, markersize=5)
    shown = "; ".join(f"{label} {100 * value:+.2f} points" for label, value, _ in rows)
    caption = (
        "Differences of the accuracies of single runs with 95% intervals; with another seed, either may win."
        if is_single
        else "Differences of the mean accuracies with 95% intervals. If a line crosses 0, these runs cannot tell which "
        "recipe is better."
    )
    svg = style.to_svg(figure, "differences")
    return Chart("differences", svg, f"Differences of accuracy: {shown}.", caption, _columns(rows), is_wide=True)


def row_chart(names: Sequence[str], label: str) -> tuple[Figure, Axes]:
    """Return an empty chart with a row for each name, the first one at the top, and a label of its horizontal axis."""
    figure, axes = style.chart(4.8, 0.7 + 0.24 * len(names))
    axes.set_yticks(range(len(names)), [shorten(name, 40) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    style.label_axes(axes, label, "")
    return figure, axes


def _columns(rows: Sequence[tuple[str, float, Sequence[float] | None]]) -> dict[str, list[Any]]:
    """Return the data of values with intervals."""
    ends = [interval or (None, None) for _, _, interval in rows]
    return {
        "name": [label for label, _, _ in rows],
        "value": [value for _, value, _ in rows],
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
    }
