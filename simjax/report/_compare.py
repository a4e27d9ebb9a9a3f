"""Comparisons of runs on the same data: a table with the best values, means over seeds, settings, curves."""

import itertools
import json
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simjax._files import replace_folder, write_file
from simjax.core import InputError
from simjax.report import _numbers as numbers
from simjax.report._metrics import METRICS, Metric, best
from simjax.report._page import Block, Cell, Page, Row, Table, Text
from simjax.report._render import to_html, to_markdown
from simjax.report._run import Run, read_run

COLUMNS = tuple(metric for metric in METRICS if metric.compared)
_FILES = {"compare.json", "compare.md", "compare.html", "figures"}
# Runs that differ only in these settings are repetitions of one experiment.
_IGNORED_SETTINGS = {"seed", "out", "resume", "overwrite", "config", "data_dir", "checkpoint_seconds"}


def compare(runs: Sequence[Path], out: Path) -> None:
    """Write a comparison of runs: compare.html (self-contained), compare.md with figures/*.png, and compare.json.

    The files are written into a temporary folder, which is renamed to `out` at the end.

    Args:
        runs: Folders of two or more finished runs on the same data with the same split.
        out: Folder to write. It may be empty or contain an earlier comparison, which is replaced.

    Raises:
        InputError: For fewer than two runs, the same run twice, a folder that is not a finished run, a file that cannot
            be read, runs on different data or splits, or a folder `out` with other files.
    """
    paths, out = [Path(run) for run in runs], Path(out).resolve()
    if len(paths) < 2:
        raise InputError(f"runs: expected two or more runs to compare, got {len(paths)}")
    for first, second in itertools.combinations(paths, 2):
        if first.resolve() == second.resolve():
            raise InputError(f"runs: expected different runs, got {first} and {second}, which are the same folder")
    _check_out(out)
    loaded = [read_run(path) for path in paths]
    _check_same_data(loaded)
    page, content = _page(loaded), _content(loaded)

    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        (temporary / "figures").mkdir(parents=True)
        for picture in page.pictures():
            write_file(temporary / "figures" / f"{picture.name}.png", picture.png)
        write_file(temporary / "compare.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        write_file(temporary / "compare.md", to_markdown(page))
        write_file(temporary / "compare.html", to_html(page))
        replace_folder(temporary, out)
    except OSError as error:
        raise InputError(f"out: cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out: expected a folder, got {out}, which is a file")
    entries = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if entries and (entries - _FILES or "compare.json" not in entries):
        other = min(entries - _FILES, default=min(entries))
        raise InputError(
            f"out: expected a new or empty folder or an earlier comparison, got {out}, which holds {other}"
        )


def _check_same_data(runs: Sequence[Run]) -> None:
    expected = _data_facts(runs[0])
    for other in runs[1:]:
        for name, value in _data_facts(other).items():
            if value != expected[name]:
                raise InputError(
                    f"runs: expected the same data and split in all runs, got {name} {expected[name]!r} in "
                    f"{runs[0].path} and {value!r} in {other.path}"
                )


def _data_facts(run: Run) -> dict[str, Any]:
    data = run.part("data")
    datasets = {name: run.value(name) for name in ("dataset", "test_dataset")}
    return {
        # A folder of images may have moved: only its fingerprint is compared.
        **{name: "folder:" if "folder:" in str(value) else value for name, value in datasets.items()},
        "image shape": data.get("image_shape"),
        **{f"number of {kind} images": data.get(f"{kind}_images") for kind in ("train", "validation", "test")},
        "data fingerprint": data.get("fingerprint"),
    }


def _page(runs: Sequence[Run]) -> Page:
    from simjax.report._charts import overlaid_curves  # imports Matplotlib

    names, first = _names(runs), runs[0]
    tested = first.value("test_dataset")
    data = f"{numbers.text(first.value('dataset'))}{f', tested on {tested}' if tested else ''}"
    meanings: list[Row] = [[metric.title, metric.meaning] for metric in COLUMNS]
    sections: list[tuple[str, list[Block]]] = [
        ("Results", _results(runs, names)),
        ("Mean over seeds", _means_over_seeds(runs, names)),
        ("Training", [*overlaid_curves(runs, names)]),
        ("Different settings", _different_settings(runs, names)),
        ("Metrics", [Table(["Metric", "Meaning"], meanings, align="ll")]),
    ]
    return Page(
        f"{len(runs)} runs on {numbers.text(first.value('dataset'))}",
        f"Comparison of {', '.join(names)}: the same data and the same split ({data}).",
        [(title, blocks) for title, blocks in sections if blocks],
    )


def _content(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the content of compare.json."""
    names = _names(runs)
    is_best = {metric.name: best(metric, _values(runs, metric)) for metric in COLUMNS}
    return {
        "dataset": runs[0].value("dataset"),
        "test_dataset": runs[0].value("test_dataset"),
        "fingerprint": runs[0].part("data").get("fingerprint"),
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                **{key: run.value(key) for key in ("model", "objective", "seed", "steps", "accuracy_of")},
                **{metric.name: numbers.number(run.value(metric.name)) for metric in COLUMNS},
                "best_in": [metric.name for metric in COLUMNS if is_best[metric.name][i]],
            }
            for i, (run, name) in enumerate(zip(runs, names, strict=True))
        ],
        "over_seeds": [
            {
                "runs": [names[i] for i in group],
                "seeds": [runs[i].value("seed") for i in group],
                **{metric.name: _mean_and_deviation([runs[i] for i in group], metric) for metric in COLUMNS},
            }
            for group in _groups(runs)
        ],
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the name of each folder, or its whole path if several folders have the same name."""
    names = [run.path.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for run, name in zip(runs, names, strict=True)]


def _values(runs: Sequence[Run], metric: Metric) -> list[Any]:
    return [run.value(metric.name) for run in runs]


def _results(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    methods = [numbers.text(run.value("accuracy_of")) for run in runs]  # "classifier" or "knn"
    same_method = len(set(methods)) == 1
    titles, columns = ["Run"], []
    for metric in COLUMNS:
        values = _values(runs, metric)
        texts, title = list(map(metric.show, values)), metric.title
        if metric.name == "accuracy" and same_method:
            title += f" ({methods[0]})"
        elif metric.name == "accuracy":
            texts = [f"{text} ({method})" for text, method in zip(texts, methods, strict=True)]
        titles.append(title)
        columns.append(list(map(Cell, texts, best(metric, values))))
    rows: list[Row] = [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
    note = "★ marks the best value of a column, or all of them if several are equal."
    if not same_method:
        note += (
            " The accuracies are not comparable: some runs use their own classifier, others the nearest neighbours. "
            "Compare the k-NN accuracy, which all runs measure in the same way."
        )
    return [Table(titles, rows, align="l" + "r" * len(COLUMNS)), Text(note)]


def _groups(runs: Sequence[Run]) -> list[list[int]]:
    """Return the indices of each group of two or more runs with the same settings, apart from the seed."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        settings = {key: value for key, value in run.part("settings").items() if key not in _IGNORED_SETTINGS}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _mean_and_deviation(runs: Sequence[Run], metric: Metric) -> dict[str, float] | None:
    """Return the mean and the sample standard deviation, or None if a run lacks the metric."""
    values = [value for value in map(numbers.number, _values(runs, metric)) if value is not None]
    if len(values) < len(runs):
        return None
    return {"mean": statistics.fmean(values), "standard_deviation": statistics.stdev(values)}


def _means_over_seeds(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Return a table of the mean and standard deviation of each metric over each group of `_groups`, if any."""
    groups = _groups(runs)
    if not groups:
        return []
    rows: list[Row] = []
    for metric in COLUMNS:
        found = [_mean_and_deviation([runs[i] for i in group], metric) or {} for group in groups]
        texts = [
            f"{metric.show(values['mean'])} ± {metric.show(values['standard_deviation'])}" if values else numbers.DASH
            for values in found
        ]
        rows.append([metric.title, *map(Cell, texts, best(metric, [values.get("mean") for values in found]))])
    columns = ["Metric", *(", ".join(names[i] for i in group) for group in groups)]
    text = (
        "Mean ± standard deviation of runs with the same settings, apart from the seed. Differences smaller than the "
        "standard deviation may be due to chance; run more seeds to tell."
    )
    return [Text(text), Table(columns, rows, align="l" + "r" * len(groups))]


def _different_settings(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Return a table of the settings that are not the same in all runs, if any."""
    settings = [_flatten(run.part("settings")) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one if key not in _IGNORED_SETTINGS - {"seed"})
    values = {key: [one.get(key) for one in settings] for key in keys}
    rows: list[Row] = [
        [key, *map(numbers.text, of_runs)]
        for key, of_runs in values.items()
        if any(value != of_runs[0] for value in of_runs)
    ]
    return [Table(["Setting", *names], rows, align="l" * (1 + len(runs)))] if rows else []


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
