"""The sections of the page of a study after its findings: results, common errors, layers, robustness, budgets."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simjax.report import _numbers as numbers
from simjax.report._compare import mean_and_deviation
from simjax.report._metrics import METRICS
from simjax.report._page import Block, Chart, Row, Section, Table, Text
from simjax.report._run import read_arrays
from simjax.report._study_group import ACCURACY, Group, common_errors, file_name

RESULTS = tuple(
    metric for metric in METRICS if metric.name in ("accuracy", "knn_accuracy", "retrieval.mean_average_precision_at_r")
)


FEWEST_ERRORS = 10  # on average over the seeds; with fewer, kappa is chance


def group_sections(folder: Path, group: Group, found: dict[str, Any], *, alone: bool) -> list[Section]:
    """Return the sections about one group of networks; their titles name the group unless it is `alone`."""
    from simjax.report import _study_charts as charts  # imports Matplotlib
    from simjax.report import _study_images as images

    title, images_used = file_name(group.title), f"{numbers.count(found.get('images'))} test images"
    names = {f"{network.model}-{network.measure}": network.name for network in group.networks}
    sections = [
        ("Results", _results(group)),
        ("Common errors", _common_errors(group)),
        ("Layers", charts.layers(found.get("layers", []), names)),
        ("Linear probes", charts.probes(found.get("probes", {}), names, title, images_used)),
        (
            "Attention distance",
            charts.attention_distance(
                found.get("attention_distance", {}), found.get("uniform_attention_distance", {}), names, title
            ),
        ),
        ("Inside", images.inside(_pictures(folder, found), _class_names(group))),
        ("Robustness", charts.robustness(found.get("robustness", {}), names, title, images_used)),
        ("Calibration", charts.calibration(found.get("calibration", {}), names, _smoothing(group), images_used)),
    ]
    return [Section(name if alone else f"{name}: {group.title}", blocks) for name, blocks in sections]


def accuracies(group: Group) -> Chart:
    """Draw the accuracy of each run, by network."""
    from simjax.report._study_charts import values_by_network  # imports Matplotlib

    values = {network.name: network.recipe.values(ACCURACY) for network in group.networks}
    return values_by_network(
        f"accuracies-{file_name(group.title)}",
        {name: of for name, of in values.items() if of},
        f"Test accuracy on {group.dataset}: a point is a run, a line the mean of a network over its seeds.",
    )


def gains_by_corruption(robustness: Mapping[str, Any], group: Group) -> str:
    """Name the networks that are more accurate on corrupted test images than on unchanged ones, if there are any.

    A gain is named if the interval of the accuracy with a corruption is above that without one.
    """
    gains = []
    for network in group.networks:
        of = robustness.get(f"{network.model}-{network.measure}", {})
        best = max(
            (
                (accuracy, name)
                for name, found in of.items()
                for accuracy, interval in zip(found["accuracy"][1:], found["accuracy_interval"][1:], strict=True)
                if interval and found["accuracy_interval"][0] and interval[0] > found["accuracy_interval"][0][1]
            ),
            default=None,
        )
        if best:
            clean = numbers.percent(next(iter(of.values()))["accuracy"][0])
            gains.append(f"{network.name} ({numbers.percent(best[0])} with {best[1]}, {clean} without)")
    if not gains:
        return ""
    return (
        f"More accurate on corrupted test images than on unchanged ones: {'; '.join(gains)}. This can happen if the "
        "training images are changed at random, and the training is too short to learn images without these changes; a "
        "longer training or another augmentation may change the place of such a network."
    )


def _smoothing(group: Group) -> float:
    return group.settings.get("loss", {}).get("label_smoothing") or 0.0


def _pictures(folder: Path, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of the pictures of a group, an empty dictionary if it has none."""
    return read_arrays(folder / found["pictures"]) if "pictures" in found else {}


def _class_names(group: Group) -> list[str]:
    run = group.networks[0].runs[0]
    return run.class_names(len(run.part("data").get("class_names", [])))


def plan_sections(groups: Sequence[Group], missing: Sequence[str]) -> list[Section]:
    """Return the sections about the budgets, the settings and the missing runs."""
    unfinished = [Text(f"These runs are not finished: {', '.join(missing)}.")] if missing else []
    return [Section("Budgets", _budgets(groups)), Section("Missing runs", unfinished)]


def _results(group: Group) -> list[Block]:
    rows: list[Row] = []
    for network in group.networks:
        row: Row = [network.name]
        for metric in RESULTS:
            found = mean_and_deviation(network.recipe, metric) or {}
            mean, deviation = metric.show(found.get("mean")), found.get("standard_deviation")
            row.append(mean if deviation is None else f"{mean} ± {metric.show(deviation)}")
        rows.append([*row, numbers.count(network.planned["parameters"])])
    columns = ["Network", *(metric.title for metric in RESULTS), "Parameters"]
    seeds = max(len(network.runs) for network in group.networks)
    text = "Mean ± standard deviation over the seeds of each network." if seeds > 1 else "One seed of each network."
    text += "".join(f" {metric.title}: {metric.meaning}" for metric in RESULTS[1:])
    if "logistic" in group.models:
        text += " The embedding of logistic regression is the image itself."
    return [Text(text), Table(columns, rows, align="l" + "r" * (len(RESULTS) + 1))]


def _common_errors(group: Group) -> list[Block]:
    """Return a table of the error consistency of each two networks, and of two seeds of each network."""
    errors = {
        network.name: sum(np.sum(~correct) for correct in network.correct.values()) / len(network.correct)
        for network in group.networks
        if network.correct
    }
    rows: list[Row] = []
    means, left_out = [], 0
    for kind, pairs in common_errors(group).items():
        known = [
            pair for pair in pairs if pair[2].value is not None and min(errors[n] for n in pair[:2]) >= FEWEST_ERRORS
        ]
        left_out += len(pairs) - len(known)
        for a, b, found in known:
            low, high = map(numbers.signed, found.interval() or (None, None))
            rows.append([kind, a, b, f"{errors[a]:,.1f}", f"{errors[b]:,.1f}", f"{found.value:.2f} ({low} to {high})"])
        if known:
            means.append(f"{statistics.fmean(found.value or 0.0 for _, _, found in known):.2f} with {kind}")
    if not rows and not left_out:
        return []
    text = (
        "Do two networks fail on the same test images? Kappa (error consistency, Geirhos et al. 2020) is 1 if they "
        "fail on the same ones, and 0 if their errors coincide as often as independent errors. Networks that compute "
        "alike should fail alike, as two seeds of one network do. Networks of very different accuracy cannot reach 1. "
    )
    if not rows:
        return [Text(f"{text}Here no two networks make {FEWEST_ERRORS} errors each, too few to tell.")]
    text += f"On average kappa is {'; '.join(means)}."
    note = (
        "Errors: wrong test images, mean over the seeds. Kappa: mean over the seeds, with 95% intervals for other "
        "test images, not corrected for the number of rows."
    )
    if left_out:
        note += f" Pairs left out, as one of the networks makes fewer than {FEWEST_ERRORS} errors: {left_out}."
    columns = ["Differs in", "Network", "Compared with", "Errors", "Errors", "Kappa"]
    return [Text(text), Table(columns, rows, align="lllrrr"), Text(note)]


def _digits(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _budgets(groups: Sequence[Group]) -> list[Block]:
    rows: list[Row] = []
    for title, network in [(group.title, network) for group in groups for network in group.networks]:
        planned, seconds = network.planned, [run.value("train_seconds") for run in network.runs]
        known = [second for second in map(numbers.number, seconds) if second is not None]
        rows.append(
            [
                f"{network.name}" + (f" ({title})" if len(groups) > 1 else ""),
                numbers.count(planned["parameters"]),
                _digits(planned["forward_flops"] / 1e6),
                _digits(planned["training_flops"] / 1e9),
                f"{planned['settings']['epochs']:.3g}" + (" (limit)" if planned["is_capped"] else ""),
                numbers.seconds(sum(known) / len(known) if known else None),
            ]
        )
    text = (
        "Operations are the multiplications and the additions of the dot products; a training step counts three times "
        "those of its images. The same number is counted for the other measures, whose norms and distances take "
        "longer, see the training time (mean over the seeds, with compilation)."
    )
    columns = ["Network", "Parameters", "Millions of operations per image", "Billions in training", "Epochs", "Time"]
    return [Text(text), Table(columns, rows, align="lrrrrr")]
