"""The sections of the page of a study after its findings: results, common errors, layers, robustness, budgets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simjax.report import _numbers as numbers
from simjax.report._compare import mean_and_deviation
from simjax.report._metrics import METRICS
from simjax.report._page import Block, Cell, Chart, Row, Section, Table, Text
from simjax.report._recipes import shown_best
from simjax.report._run import read_arrays
from simjax.report._study_group import ACCURACY, Group, common_errors, file_name

RESULTS = tuple(
    metric for metric in METRICS if metric.name in ("accuracy", "knn_accuracy", "retrieval.mean_average_precision_at_r")
)


def group_sections(folder: Path, group: Group, analysis: dict[str, Any], *, alone: bool) -> list[Section]:
    """Return the sections about one group of networks; their titles name the group unless it is `alone`."""
    from simjax.report import _study_charts as charts  # imports Matplotlib
    from simjax.report import _study_images as images

    found, title = analysis.get(group.title, {}), file_name(group.title)
    names = {f"{network.model}-{network.measure}": network.name for network in group.networks}
    sections = [
        ("Results", _results(group)),
        ("Common errors", _common_errors(group)),
        ("Layers", charts.layers(found.get("layers", []), names)),
        ("Linear probes", charts.probes(found.get("probes", {}), names, title)),
        ("Attention distance", charts.attention_distance(found.get("attention_distance", {}), names, title)),
        ("Inside", images.inside(_pictures(folder, found), _class_names(group))),
        ("Robustness", charts.robustness(found.get("robustness", {}), names, title)),
        ("Calibration", charts.calibration(found.get("calibration", {}), names)),
    ]
    return [Section(title if alone else f"{title}: {group.title}", blocks) for title, blocks in sections]


def accuracies(group: Group) -> Chart:
    """Draw the mean accuracy of each network over its seeds, from the lowest to the highest seed."""
    from simjax.report._charts import values_with_intervals  # imports Matplotlib

    rows = []
    for network in group.networks:
        if values := network.recipe.values(ACCURACY):
            rows.append((network.name, sum(values) / len(values), [min(values), max(values)]))
    caption = (
        f"Accuracy of each network on {group.title}: mean over the seeds; the line is from the worst to the best seed."
    )
    return values_with_intervals(f"accuracies-{file_name(group.title)}", "accuracy", rows, caption)


def _pictures(folder: Path, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of the pictures of a group, an empty dictionary if it has none."""
    return read_arrays(folder / found["pictures"]) if "pictures" in found else {}


def _class_names(group: Group) -> list[str]:
    run = group.networks[0].runs[0]
    return run.class_names(len(run.part("data").get("class_names", [])))


def plan_sections(plan: dict[str, Any], groups: Sequence[Group], missing: Sequence[str]) -> list[Section]:
    """Return the sections about the budgets, the settings and the missing runs."""
    names = [Text(f"These runs are not finished: {', '.join(missing)}.")] if missing else []
    return [Section("Budgets", _budgets(plan, groups)), Section("Missing runs", names)]


def _results(group: Group) -> list[Block]:
    rows: list[Row] = []
    best = {metric.name: shown_best(metric, [n.recipe for n in group.networks]) for metric in RESULTS}
    for i, network in enumerate(group.networks):
        row: Row = [network.name]
        for metric in RESULTS:
            found = mean_and_deviation(network.recipe, metric) or {}
            mean, deviation = metric.show(found.get("mean")), found.get("standard_deviation")
            row.append(Cell(mean if deviation is None else f"{mean} ± {metric.show(deviation)}", best[metric.name][i]))
        rows.append([*row, numbers.count(network.planned["parameters"])])
    columns = ["Network", *(metric.title for metric in RESULTS), "Parameters"]
    seeds = max(len(network.runs) for network in group.networks)
    text = f"Mean ± standard deviation over {seeds} seeds." if seeds > 1 else "One seed of each network."
    if any(map(any, best.values())):
        text += " ★ marks a network that is shown to be better than every other one."
    return [Text(text), Table(columns, rows, align="l" + "r" * (len(RESULTS) + 1))]


def _common_errors(group: Group) -> list[Block]:
    """Return a table of the error consistency of each two networks, and of two seeds of each network."""
    rows: list[Row] = []
    for kind, pairs in common_errors(group).items():
        for a, b, found in pairs:
            low, high = found.interval() or (None, None)
            ends = "" if low is None else f" ({numbers.signed(low)} to {numbers.signed(high)})"
            rows.append([kind, a, b, numbers.signed(found.value) + ends])
    if not rows:
        return []
    text = (
        "Error consistency (Cohen's kappa, Geirhos et al. 2020): whether two networks fail on the same test images. 1: "
        "on the same ones; 0: as often as networks whose errors are independent. Two seeds of one network are the "
        "yardstick: networks that compute alike should fail alike. Mean over the seeds, with 95% intervals over images."
    )
    return [Text(text), Table(["Different", "Network", "Compared with", "Kappa"], rows, align="lllr")]


def _budgets(plan: dict[str, Any], groups: Sequence[Group]) -> list[Block]:
    rows: list[Row] = []
    for title, network in [(group.title, network) for group in groups for network in group.networks]:
        planned, seconds = network.planned, [run.value("train_seconds") for run in network.runs]
        known = [second for second in map(numbers.number, seconds) if second is not None]
        rows.append(
            [
                f"{network.name}" + (f" ({title})" if len(groups) > 1 else ""),
                numbers.count(planned["parameters"]),
                f"{planned['forward_flops'] / 1e6:,.2f} M",
                f"{planned['training_flops']:.2g}",
                f"{planned['settings']['epochs']:.3g}" + (" (limit)" if planned["is_capped"] else ""),
                numbers.seconds(sum(known) / len(known) if known else None),
            ]
        )
    rule = {
        "training_flops": "All networks have the same number of floating-point operations of training",
        "parameters": "The widths of each network are scaled so that all have about the same number of parameters",
        "seconds": "All networks have the same training time, from the measured time of a step",
        "epochs": "All networks see the training images equally often",
    }[plan["study"]["budget"]["rule"]]
    limit = plan["study"]["budget"]["max_epochs"]
    capped = (
        f", but at most {limit:g} epochs" if any(n.planned["is_capped"] for g in groups for n in g.networks) else ""
    )
    text = (
        f"{rule}{capped}. FLOPs are two for each multiplication and addition in a dot product; a training step counts "
        "three times the FLOPs of its images. All other settings are those of one recipe, see plan.json."
    )
    columns = ["Network", "Parameters", "FLOPs per image", "FLOPs of training", "Epochs", "Training time"]
    return [Text(text), Table(columns, rows, align="lrrrrr")]
