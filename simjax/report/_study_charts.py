"""The charts of a study: similarity of layers, linear probes, attention distances, robustness, calibration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._charts import row_chart
from simjax.report._page import Block, Chart, Matrix, Row, Table, Text
from simjax.report._run import MODEL_NAMES

MAX_MATRICES = 6  # heat maps of layers on a page, the first ones
KINDS = {
    "model": "another model",
    "measure": "another measure",
    "seeds": "another seed",
    "shuffled": "shuffled images",
}
"""What differs in the second network, in the order of the page."""
AMOUNTS = {
    "noise": "standard deviation of the noise, as a share of white",
    "blur": "standard deviation of the blur, as a share of the side",
    "shift": "shift, as a share of the side",
    "rotation": "rotation in degrees",
    "occlusion": "side of the black square, as a share of the image",
}
PIXELS = "pixels"  # stands in the results of the probes for the image itself
MEDIUM = 3  # the strength of the corruptions in the table


def values_by_network(name: str, values: Mapping[str, Sequence[float]], caption: str) -> Chart:
    """Draw the accuracies of the runs of each network as points and their mean as a line."""
    figure, axes = row_chart([*values], "accuracy")
    for y, (of, group) in enumerate(zip(values.values(), _groups(values), strict=True)):
        colour = style.PALETTE[group % len(style.PALETTE)]
        axes.vlines(np.mean(of), y - 0.3, y + 0.3, color=colour, linewidth=1.6)
        axes.plot(of, [y] * len(of), "o", color=colour, markersize=4, alpha=0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    alt = "; ".join(f"{network} {numbers.percent(float(np.mean(of)))}" for network, of in values.items())
    runs = [(network, value) for network, of in values.items() for value in of]
    data = {"network": [network for network, _ in runs], "accuracy": [value for _, value in runs]}
    return Chart(name, style.to_svg(figure, name), f"Accuracy: {alt}.", caption, data, is_wide=True)


def _groups(networks: Iterable[str]) -> list[int]:
    """Return the place of the model of each network among all models: networks of one model have one colour."""
    order = list(MODEL_NAMES.values())
    models = [network.partition(",")[0] for network in networks]
    order += [model for model in dict.fromkeys(models) if model not in order]
    return [order.index(model) for model in models]


def layers(comparisons: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Block]:
    """Draw the similarity of the layers of pairs of networks, and tabulate how similar the best matching ones are."""
    if not comparisons:
        return []
    rows: list[Any] = []
    by_kind: dict[str, list[float]] = {}
    comparisons = sorted(comparisons, key=lambda found: list(KINDS).index(found["kind"]))
    for found in comparisons:
        best, kind = _best_matches(found["cka"]), KINDS[found["kind"]]
        by_kind.setdefault(kind, []).append(best)
        rows.append([kind, *(names.get(found[key], found[key]) for key in ("a", "b")), f"{best:.2f}"])
    means = "; ".join(f"{np.mean(values):.2f} with {kind}" for kind, values in by_kind.items())
    text = (
        "Do the layers represent the test images alike? Linear CKA (centred kernel alignment, debiased; Kornblith et "
        "al. 2019) compares the similarities of all pairs of images in two layers: 1 if they are the same up to a "
        "rotation and a scale, 0 if they are unrelated. Each layer is matched with the most similar one of the other "
        f"network, in both directions; the table has the mean. On average it is {means}."
    )
    note = "First seeds. Networks with many layers match more easily; no intervals."
    drawn = [found for found in comparisons if found["kind"] != "shuffled"][:MAX_MATRICES]
    pictures = [_matrix(found, names) for found in drawn]
    table = Table(["Differs in", "Network", "Compared with", "CKA"], rows, align="lllr")
    return [Text(text), table, Text(note), *pictures]


def _best_matches(cka: Any) -> float:
    """Return the mean similarity of the layers of each network to the most similar layer of the other one."""
    return float(np.mean([np.max(cka, axis=axis).mean() for axis in (0, 1)]))


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
        f"CKA of each layer of {a} (rows, the first layer at the bottom) with each layer of {other} (columns).",
    )


def probes(results: Mapping[str, Any], names: Mapping[str, str], title: str, images: str) -> list[Block]:
    """Draw the accuracy of a linear classifier on each layer, by the depth of the layer in its network."""
    if not results:
        return []
    pixels = [one["accuracy"] for one in results.get(PIXELS, {}).values()]
    curves = {}
    for network, of_layers in results.items():
        values = [*pixels, *(one["accuracy"] for one in of_layers.values())]
        if network != PIXELS:
            curves[names.get(network, network)] = (np.linspace(0, 1, len(values)), values)
    if not curves:
        return []
    caption = (
        f"Accuracy on {images} of a logistic regression on the output of each layer (a linear probe): how early the "
        "classes can be told apart by a linear classifier. The depth is 0 for the image and 1 for the embedding, the "
        "last layer before the classes. The first seed of each network; differences of a few images are chance."
    )
    axes = ("depth of the layer", "accuracy of a linear probe")
    return [_curves(f"probes-{title}", "Linear probes by layer", caption, curves, axes)]


def attention_distance(
    results: Mapping[str, Any], uniform: Mapping[str, float], names: Mapping[str, str], title: str
) -> list[Block]:
    """Draw the mean attention distance of each head by block, with that of `uniform` attention as a line."""
    if not results:
        return []
    figure, axes = style.chart()
    groups = _groups([names.get(network, network) for network in results])
    for of_blocks, (colour, _, marker) in zip(results.values(), style.line_styles(groups), strict=False):
        for block, heads in enumerate(of_blocks):
            label = "x" if block == 0 else None
            axes.plot([block] * len(heads), heads, marker, color=colour, markersize=5, alpha=0.7, label=label)
    axes.set_xticks(range(max(map(len, results.values()))))
    for distance in set(uniform.values()):
        axes.axhline(distance, color=style.INK, linewidth=1, linestyle="--")
    axes.set_ylim(bottom=0)
    style.legend(axes, [names.get(network, network) for network in results], "lower right")
    style.label_axes(axes, "block", "mean attention distance, patches")
    ends = "; ".join(f"{names.get(n, n)} {np.mean(v[0]):.2f} to {np.mean(v[-1]):.2f}" for n, v in results.items())
    caption = (
        "Each point is a head of the first seed: the mean distance, in patches, from a patch to the patches that it "
        "attends to (Raghu et al. 2021). A head far below the dashed line attends to the neighbourhood, like a "
        "filter; a head on the line may as well attend to all patches alike."
    )
    name = f"attention-{title}"
    points = [(names.get(n, n), i, d) for n, of in results.items() for i, heads in enumerate(of) for d in heads]
    columns = zip(*points, strict=True)
    data: dict[str, Any] = dict(zip(("network", "block", "distance"), columns, strict=True))
    alt = f"Mean attention distance from the first to the last block: {ends}."
    return [Chart(name, style.to_svg(figure, name), alt, caption, data)]


def robustness(results: Mapping[str, Any], names: Mapping[str, str], title: str, images: str) -> list[Block]:
    """Tabulate the accuracy under each corruption of medium strength, and draw it by strength with intervals."""
    if not results:
        return []
    rows: list[Row] = []
    for network, of in results.items():
        values = [next(iter(of.values()))["accuracy"][0], *(one["accuracy"][MEDIUM] for one in of.values())]
        rows.append([names.get(network, network), *map(numbers.percent, values)])
    corruptions = list(next(iter(results.values())))
    text = f"Accuracy on {images} with a corruption of medium strength ({MEDIUM} of 5), mean over the seeds."
    table = Table(["Network", "unchanged", *corruptions], rows, align="l" + "r" * (1 + len(corruptions)))
    found: list[Block] = [Text(text), table]
    for corruption in corruptions:
        curves = {names.get(n, n): (of[corruption]["amount"], of[corruption]["accuracy"]) for n, of in results.items()}
        intervals = [of[corruption]["accuracy_interval"] for of in results.values()]
        caption = (
            f"Accuracy by {corruption}. Mean over the seeds; the bars are 95% intervals for other test images, not for "
            "other seeds."
        )
        axes = (AMOUNTS[corruption], "accuracy")
        found.append(_curves(f"{corruption}-{title}", f"Accuracy by {corruption}", caption, curves, axes, intervals))
    return found


def calibration(results: Mapping[str, Any], names: Mapping[str, str], smoothing: float, images: str) -> list[Block]:
    """Tabulate the confidence, the accuracy and the calibration error of networks trained with label smoothing."""
    if not results:
        return []
    rows: list[Row] = []
    for network, found in results.items():
        error, interval = (
            numbers.percent(found["expected_calibration_error"]),
            found["expected_calibration_error_interval"],
        )
        if interval:
            low, high = map(numbers.percent, interval)
            error += f" ({low.removesuffix('%')}–{high})"
        values = [numbers.percent(found[name]) for name in ("confidence", "accuracy")]
        rows.append([names.get(network, network), *values, error])
    text = (
        f"Whether a network knows how often it is right, on {images}. Confidence is the probability that a network "
        "gives to the class it predicts; on average it should equal the accuracy. The calibration error (ECE) is their "
        "difference at each level of confidence, without its sign, averaged, with its 95% interval for other test "
        "images. Lower is better."
    )
    if smoothing:
        text += (
            f" These networks are trained with label smoothing {smoothing:g}, towards a probability of about "
            f"{1 - smoothing:.0%} of the right class, so that a good one is less confident than accurate."
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
    """Plot shares in [0, 1] by the name of the network, with vertical bars for the intervals of points, if given."""
    figure, axes = style.chart()
    bars = [[interval or (np.nan, np.nan) for interval in of_curve] for of_curve in intervals]
    for i, ((steps, values), (colour, line, marker)) in enumerate(
        zip(curves.values(), style.line_styles(_groups(curves)), strict=True)
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
