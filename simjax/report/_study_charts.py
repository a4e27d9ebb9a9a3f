"""The charts of a study: similarity of layers, linear probes, attention distances, robustness, calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Block, Picture, Row, Table, Text

MAX_MATRICES = 6  # heat maps of layers on a page, the first ones
KINDS = {
    "model": "another model",
    "measure": "another measure",
    "seeds": "another seed",
    "shuffled": "shuffled images",
}
"""What differs in the second network, in the order of the page."""


def layers(comparisons: Sequence[Mapping[str, Any]], names: Mapping[str, str], title: str) -> list[Block]:
    """Draw the similarity of the layers of pairs of networks, and tabulate how similar the best matching ones are."""
    if not comparisons:
        return []
    rows: list[Any] = []
    comparisons = sorted(comparisons, key=lambda found: list(KINDS).index(found["kind"]))
    for found in comparisons:
        best = np.max(found["cka"], axis=1)  # of each layer of the first network, the most similar layer of the other
        pair = [names.get(found["a"], found["a"]), names.get(found["b"], found["b"])]
        rows.append([KINDS[found["kind"]], *pair, numbers.signed(float(best.mean()))])
    text = (
        "Similarity of the layers by linear CKA (debiased): 1 is the same up to a rotation and a scale, 0 is "
        "unrelated. Each layer of the first network is matched with the most similar one of the second; the table has "
        "the mean over layers. Two seeds of one network show how high it can be, shuffled images how low."
    )
    drawn = [found for found in comparisons if found["kind"] != "shuffled"][:MAX_MATRICES]
    pictures = [_matrix(found, names, title) for found in drawn]
    return [Text(text), Table(["Different", "Network", "Compared with", "CKA"], rows, align="lllr"), *pictures]


def _matrix(found: Mapping[str, Any], names: Mapping[str, str], title: str) -> Picture:
    values = np.array(found["cka"])
    a, b = (names.get(found[key], found[key]) for key in ("a", "b"))
    is_same = found["a"] == found["b"]
    figure, axes = style.chart(4.8, 4.2)
    image = axes.imshow(values, cmap=style.AMOUNT, vmin=0, vmax=1, aspect="auto", origin="lower")
    axes.grid(False)
    axes.set_xticks(range(len(found["columns"])), found["columns"], rotation=90, fontsize=6)
    axes.set_yticks(range(len(found["rows"])), found["rows"], fontsize=6)
    style.label_axes(axes, f"{b}{' (another seed)' if is_same else ''}", a)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label("CKA", fontsize=8, color=style.SOFT)
    bar.ax.tick_params(labelsize=7, colors=style.SOFT, length=2)
    best = numbers.signed(float(values.max(axis=1).mean()))
    other = "another seed of it" if is_same else b
    return Picture(
        f"cka-{found['a']}-{found['b']}-{title}",
        style.to_png(figure),
        f"Heat map of the CKA of the layers of {a} and {other}; mean of the best matches {best}.",
        f"CKA of each layer of {a} (rows, from the image upwards) with each layer of {other} (columns).",
    )


def probes(results: Mapping[str, Any], names: Mapping[str, str], title: str) -> list[Block]:
    """Draw the accuracy of a linear classifier on each layer, by the depth of the layer in its network."""
    if not results:
        return []
    curves = {}
    for network, of_layers in results.items():
        values = [one["accuracy"] for one in of_layers.values()]
        curves[names.get(network, network)] = (np.linspace(0, 1, len(values)), values)
    figure = _curves(curves, "depth of the layer: 0 first, 1 embedding", "accuracy of a linear probe")
    alt = "; ".join(f"{name} from {values[0]:.1%} to {values[-1]:.1%}" for name, (_, values) in curves.items())
    caption = (
        "Test accuracy of a logistic regression on the output of each layer, by depth: how early the classes can be "
        "told apart by a plane. The first seed of each network."
    )
    return [Picture(f"probes-{title}", style.to_png(figure), f"Linear probes by layer: {alt}.", caption)]


def attention_distance(results: Mapping[str, Any], names: Mapping[str, str], title: str) -> list[Block]:
    """Draw the mean attention distance of each head by block."""
    if not results:
        return []
    figure, axes = style.chart()
    for (_, of_blocks), (colour, _, marker) in zip(results.items(), style.line_styles(), strict=False):
        for block, heads in enumerate(of_blocks):
            label = "x" if block == 0 else None
            axes.plot([block] * len(heads), heads, marker, color=colour, markersize=5, alpha=0.7, label=label)
    axes.set_xticks(range(max(map(len, results.values()))))
    style.legend(axes, [names.get(network, network) for network in results])
    style.label_axes(axes, "block", "mean attention distance, patches")
    ends = "; ".join(f"{names.get(n, n)} {np.mean(v[0]):.2f} to {np.mean(v[-1]):.2f}" for n, v in results.items())
    caption = (
        "Each point is a head: the mean distance, in patches, from a patch to the patches that it attends to. Heads "
        "with a small distance look at the neighbourhood, as a filter does (Raghu et al. 2021)."
    )
    alt = f"Mean attention distance from the first to the last block: {ends}."
    return [Picture(f"attention-{title}", style.to_png(figure), alt, caption)]


def robustness(results: Mapping[str, Any], names: Mapping[str, str], title: str) -> list[Block]:
    """Draw the accuracy under each corruption by its strength, with intervals."""
    if not results:
        return []
    pictures: list[Block] = []
    for corruption in next(iter(results.values())):
        found = {names.get(n, n): of[corruption] for n, of in results.items()}
        curves = {name: (np.arange(6), one["accuracy"]) for name, one in found.items()}
        intervals = [one["accuracy_interval"] for one in found.values()]
        figure = _curves(curves, f"strength of the {corruption}", "accuracy", intervals)
        alt = "; ".join(f"{name} {values[0]:.1%} to {values[-1]:.1%}" for name, (_, values) in curves.items())
        caption = (
            f"Accuracy with {corruption} of five strengths; 0 is none. Mean over the seeds, with 95% intervals for "
            "other test images."
        )
        pictures.append(Picture(f"{corruption}-{title}", style.to_png(figure), f"{corruption}: {alt}.", caption))
    return pictures


def calibration(results: Mapping[str, Any], names: Mapping[str, str]) -> list[Block]:
    """Tabulate the confidence, the accuracy and the calibration error of each network."""
    if not results:
        return []
    rows: list[Row] = []
    for network, found in results.items():
        low, high = map(numbers.percent, found["expected_calibration_error_interval"] or (None, None))
        error = f"{numbers.percent(found['expected_calibration_error'])} ({low.removesuffix('%')}–{high})"
        values = [numbers.percent(found[name]) for name in ("confidence", "accuracy")]
        rows.append([names.get(network, network), *values, error])
    text = (
        "Whether a network knows how often it is right. Confidence is the probability that a network gives to the "
        "class it predicts; on average it should equal the accuracy. The calibration error (ECE) is their difference "
        "at each level of confidence, averaged, with its 95% interval. A network trained with label smoothing gives "
        "lower probabilities on purpose."
    )
    return [Text(text), Table(["Network", "Mean confidence", "Accuracy", "Calibration error"], rows, align="lrrr")]


def _curves(
    curves: Mapping[str, tuple[Any, Sequence[float]]],
    x: str,
    y: str,
    intervals: Sequence[Sequence[Sequence[float] | None]] = (),
) -> Figure:
    """Plot shares in [0, 1] by name, with vertical bars for the intervals of each point, if given."""
    figure, axes = style.chart()
    for i, ((steps, values), (colour, line, marker)) in enumerate(
        zip(curves.values(), style.line_styles(), strict=False)
    ):
        axes.plot(steps, values, color=colour, linestyle=line, marker=marker, markersize=3.5, linewidth=1.4, label="x")
        if intervals:
            ends = np.array([interval or (np.nan, np.nan) for interval in intervals[i]])
            axes.vlines(steps, *ends.T, color=colour, linewidth=1, alpha=0.5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.legend(axes, list(curves))
    style.label_axes(axes, x, y)
    return figure
