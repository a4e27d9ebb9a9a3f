"""The charts of a study: similarity of layers, linear probes, attention distances, robustness, calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Block, Chart, Matrix, Row, Table, Text

MAX_MATRICES = 6  # heat maps of layers on a page, the first ones
KINDS = {
    "model": "another model",
    "measure": "another measure",
    "seeds": "another seed",
    "shuffled": "shuffled images",
}
"""What differs in the second network, in the order of the page."""


def layers(comparisons: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Block]:
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
    pictures = [_matrix(found, names) for found in drawn]
    return [Text(text), Table(["Different", "Network", "Compared with", "CKA"], rows, align="lllr"), *pictures]


def _matrix(found: Mapping[str, Any], names: Mapping[str, str]) -> Matrix:
    values = np.array(found["cka"])
    a, b = (names.get(found[key], found[key]) for key in ("a", "b"))
    other = f"{b} (another seed)" if found["a"] == found["b"] else b
    return Matrix(
        found["rows"][::-1],
        found["columns"],
        [[f"{cell:.2f}" for cell in row] for row in values[::-1]],
        values[::-1].clip(0, 1).tolist(),
        a,
        other,
        f"CKA of each layer of {a} (rows, the image at the bottom) with each layer of {other} (columns). On average "
        f"the best match of a layer has {values.max(axis=1).mean():.2f}.",
    )


def probes(results: Mapping[str, Any], names: Mapping[str, str], title: str) -> list[Block]:
    """Draw the accuracy of a linear classifier on each layer, by the depth of the layer in its network."""
    if not results:
        return []
    curves = {}
    for network, of_layers in results.items():
        values = [one["accuracy"] for one in of_layers.values()]
        curves[names.get(network, network)] = (np.linspace(0, 1, len(values)), values)
    caption = (
        "Test accuracy of a logistic regression on the output of each layer, by depth: how early the classes can be "
        "told apart by a plane. The first seed of each network."
    )
    axes = ("depth of the layer: 0 first, 1 embedding", "accuracy of a linear probe")
    return [_curves(f"probes-{title}", "Linear probes by layer", caption, curves, axes)]


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
    name = f"attention-{title}"
    points = [(names.get(n, n), i, d) for n, of in results.items() for i, heads in enumerate(of) for d in heads]
    columns = zip(*points, strict=True)
    data: dict[str, Any] = dict(zip(("network", "block", "distance"), columns, strict=True))
    alt = f"Mean attention distance from the first to the last block: {ends}."
    return [Chart(name, style.to_svg(figure, name), alt, caption, data)]


def robustness(results: Mapping[str, Any], names: Mapping[str, str], title: str) -> list[Block]:
    """Draw the accuracy under each corruption by its strength, with intervals."""
    found: list[Block] = []
    for corruption in next(iter(results.values()), ()):
        curves = {names.get(n, n): (np.arange(6), of[corruption]["accuracy"]) for n, of in results.items()}
        intervals = [of[corruption]["accuracy_interval"] for of in results.values()]
        caption = (
            f"Accuracy with {corruption} of five strengths; 0 is none. Mean over the seeds, with 95% intervals for "
            "other test images."
        )
        axes = (f"strength of the {corruption}", "accuracy")
        found.append(_curves(f"{corruption}-{title}", f"Accuracy by {corruption}", caption, curves, axes, intervals))
    return found


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
    name: str,
    title: str,
    caption: str,
    curves: Mapping[str, tuple[Any, Sequence[float]]],
    labels: tuple[str, str],
    intervals: Sequence[Sequence[Sequence[float] | None]] = (),
) -> Chart:
    """Plot shares in [0, 1] by name, with vertical bars for the intervals of each point, if given.

    Networks with the same model, the part of the name before the comma, have one colour.
    """
    figure, axes = style.chart()
    models = [curve.partition(",")[0] for curve in curves]
    groups = [list(dict.fromkeys(models)).index(model) for model in models]
    bars = [[interval or (np.nan, np.nan) for interval in of_curve] for of_curve in intervals]
    for i, ((steps, values), (colour, line, marker)) in enumerate(
        zip(curves.values(), style.line_styles(groups), strict=True)
    ):
        axes.plot(steps, values, color=colour, linestyle=line, marker=marker, markersize=3.5, linewidth=1.4, label="x")
        if bars:
            axes.vlines(steps, *np.transpose(bars[i]), color=colour, linewidth=1, alpha=0.5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.legend(axes, list(curves))
    style.label_axes(axes, *labels)
    ends = "; ".join(f"{curve} {values[0]:.1%} to {values[-1]:.1%}" for curve, (_, values) in curves.items())
    data: dict[str, list[Any]] = {
        "curve": [curve for curve, (steps, _) in curves.items() for _ in steps],
        labels[0]: [float(step) for steps, _ in curves.values() for step in steps],
        labels[1]: [value for _, values in curves.values() for value in values],
    }
    if bars:
        ends_of_bars = [ends for of_curve in bars for ends in of_curve]
        data |= {"low": [low for low, _ in ends_of_bars], "high": [high for _, high in ends_of_bars]}
    return Chart(name, style.to_svg(figure, name), f"{title}: {ends}.", caption, data)
