"""What a comparison says: the table with the best of each column, seeds summed up, settings that differ, curves.

Runs that differ in nothing but their seed are summed up as mean and standard deviation: of two models whose means are
closer than that, neither has been shown to be better.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from simjax.report import _numbers as numbers
from simjax.report._curves import overlaid_curves
from simjax.report._metrics import METRICS, Metric, best
from simjax.report._page import Block, Cell, Page, Section, Table, Text
from simjax.report._run import Run

COLUMNS = tuple(metric for metric in METRICS if metric.compared)
# Settings that say which of several equal experiments a run was, where it was kept, and how it was started.
_INCIDENTAL = {"seed", "out", "resume", "overwrite", "config", "data_dir", "checkpoint_seconds"}


def comparison_page(runs: Sequence[Run]) -> Page:
    """The comparison as a page."""
    names, first = _names(runs), runs[0]
    tested = first.value("test_dataset")
    data = f"{numbers.text(first.value('dataset'))}{f', tested on {tested}' if tested else ''}"
    sections = [
        ("Results", _results(runs, names)),
        ("Over seeds", _over_seeds(runs, names)),
        ("Training", list(overlaid_curves(runs, names))),
        ("What differs", _differences(runs, names)),
        ("What the columns mean", [_meanings()]),
    ]
    return Page(
        f"{len(runs)} runs on {numbers.text(first.value('dataset'))}",
        f"Comparison of {', '.join(names)}: the same data and the same split ({data}).",
        [Section(title, blocks) for title, blocks in sections if blocks],
    )


def comparison_content(runs: Sequence[Run]) -> dict[str, Any]:
    """The comparison as data: compare.json."""
    names = _names(runs)
    marks = {metric.name: best(metric, _values(runs, metric)) for metric in COLUMNS}
    return {
        "dataset": runs[0].value("dataset"),
        "test_dataset": runs[0].value("test_dataset"),
        "fingerprint": runs[0].part("data").get("fingerprint"),
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                **{key: run.value(key) for key in ("model", "objective", "seed", "steps", "accuracy_of")},
                **{metric.name: numbers.number(run.value(*metric.keys)) for metric in COLUMNS},
                "best_in": [metric.name for metric in COLUMNS if marks[metric.name][i]],
            }
            for i, (run, name) in enumerate(zip(runs, names, strict=True))
        ],
        "over_seeds": [
            {
                "runs": [names[i] for i in members],
                "seeds": [runs[i].value("seed") for i in members],
                **{m.name: _spread([runs[i] for i in members], m) for m in COLUMNS},
            }
            for members in _groups(runs)
        ],
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or whole paths where a name is met twice."""
    names = [run.path.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for run, name in zip(runs, names, strict=True)]


def _values(runs: Sequence[Run], metric: Metric) -> list[Any]:
    return [run.value(*metric.keys) for run in runs]


def _results(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    judges = [numbers.text(run.value("accuracy_of")) for run in runs]
    titles, columns = ["Run"], []
    for metric in COLUMNS:
        values = _values(runs, metric)
        shown = list(map(metric.show, values))
        title = metric.title
        if metric.name == "accuracy" and len(set(judges)) > 1:
            shown = [f"{value} ({judge})" for value, judge in zip(shown, judges, strict=True)]
        elif metric.name == "accuracy":
            title = f"{title} ({judges[0]})"
        titles.append(title)
        columns.append(list(map(Cell, shown, best(metric, values))))
    rows: list[list[str | Cell]] = [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
    note = "★ marks the best of a column: the highest or the lowest, as fits; equals are all marked."
    if len(set(judges)) > 1:
        note += (
            " The accuracies were not all judged alike, by the model's own classifier here and by nearest neighbours "
            "there: the k-NN accuracy compares all runs on equal terms."
        )
    return [Table(titles, rows, "l" + "r" * len(COLUMNS)), Text(note)]


def _groups(runs: Sequence[Run]) -> list[list[int]]:
    """Indices of the runs that differ in nothing but their seed, groups of two and more."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        settings = {key: value for key, value in run.part("settings").items() if key not in _INCIDENTAL}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(i)
    return [members for members in groups.values() if len(members) > 1]


def _spread(runs: Sequence[Run], metric: Metric) -> dict[str, float] | None:
    """Mean and sample standard deviation, or None unless every run has the number."""
    values = [x for x in map(numbers.number, _values(runs, metric)) if x is not None]
    if len(values) < len(runs):
        return None
    return {"mean": statistics.fmean(values), "standard_deviation": statistics.stdev(values)}


def _over_seeds(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    groups = _groups(runs)
    if not groups:
        return []
    rows: list[list[str | Cell]] = []
    for metric in COLUMNS:
        spreads = [_spread([runs[i] for i in members], metric) or {} for members in groups]
        marks = best(metric, [spread.get("mean") for spread in spreads])
        rows.append(
            [metric.title, *(Cell(_plus_minus(metric, s), mark) for s, mark in zip(spreads, marks, strict=True))]
        )
    columns = ["Number", *(", ".join(names[i] for i in members) for members in groups)]
    text = (
        "Mean ± standard deviation of runs that differ in their seed only. Means that are closer to each other than "
        "that may well be equal: more seeds would tell."
    )
    return [Text(text), Table(columns, rows, "l" + "r" * len(groups))]


def _plus_minus(metric: Metric, spread: Mapping[str, float]) -> str:
    if not spread:
        return numbers.DASH
    return f"{metric.show(spread['mean'])} ± {metric.show(spread['standard_deviation'])}"


def _differences(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """A table of the settings in which the runs are not all alike."""
    settings = [_flat(run.part("settings")) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one if key not in _INCIDENTAL - {"seed"})
    rows: list[list[str | Cell]] = [
        [key, *(numbers.text(one.get(key)) for one in settings)]
        for key in keys
        if any(one.get(key) != settings[0].get(key) for one in settings)
    ]
    return [Table(["Setting", *names], rows, "l" + "l" * len(runs))] if rows else []


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _meanings() -> Table:
    return Table(["Column", "What it says"], [[metric.title, metric.meaning] for metric in COLUMNS], "ll")
