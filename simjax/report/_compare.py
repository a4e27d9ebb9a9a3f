"""Comparisons of runs on the same data: a table with the best values, means over seeds, settings, curves."""

import json
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simjax._files import write_file
from simjax.core import InputError
from simjax.report import _numbers as numbers
from simjax.report._metrics import METRICS, Metric, best
from simjax.report._page import Block, Cell, Page, Table, Text
from simjax.report._render import to_html, to_markdown
from simjax.report._run import Run, read_run

COLUMNS = tuple(metric for metric in METRICS if metric.compared)
_FILES = {"compare.json", "compare.md", "compare.html", "figures"}
# Settings that do not change the experiment.
_INCIDENTAL = {"seed", "out", "resume", "overwrite", "config", "data_dir", "checkpoint_seconds"}


def compare(runs: Sequence[Path], out: Path) -> None:
    """Write a comparison of runs: compare.html (self-contained), compare.md with figures/*.png, and compare.json.

    The files are written into a temporary folder, which is renamed to `out` at the end.

    Args:
        runs: Folders of two or more finished runs on the same data with the same split.
        out: Folder to write. It may be empty or contain a former comparison, which is replaced.

    Raises:
        InputError: For fewer than two runs, the same run twice, a folder that is not a finished run, a file that cannot
            be read, runs on different data or splits, or a folder `out` with other files.
    """
    paths, out = [Path(run) for run in runs], Path(out).resolve()
    _check_paths(paths)
    _check_out(out)
    found = [read_run(path) for path in paths]
    _check_same_data(found)
    page, content = _page(found), _content(found)

    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        (part / "figures").mkdir(parents=True)
        for picture in page.pictures():
            write_file(part / "figures" / f"{picture.name}.png", picture.png)
        write_file(part / "compare.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        write_file(part / "compare.md", to_markdown(page))
        write_file(part / "compare.html", to_html(page))
        _replace(out, part)
    except OSError as error:
        raise InputError(f"out: cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_paths(paths: Sequence[Path]) -> None:
    if len(paths) < 2:
        raise InputError(f"runs: expected two or more runs to compare, got {len(paths)}")
    seen: dict[Path, Path] = {}
    for path in paths:
        folder = path.resolve()
        if folder in seen:
            raise InputError(f"runs: expected different runs, got {seen[folder]} and {path}, which are the same folder")
        seen[folder] = path


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out: expected a folder, got {out}, which is a file")
    entries = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if entries and (entries - _FILES or "compare.json" not in entries):
        other = min(entries - _FILES, default=min(entries))
        raise InputError(f"out: expected a new or empty folder or a former comparison, got {out}, which holds {other}")


def _check_same_data(runs: Sequence[Run]) -> None:
    first, *others = runs
    expected = _data_facts(first)
    for other in others:
        for name, value in _data_facts(other).items():
            if value != expected[name]:
                raise InputError(
                    f"runs: expected the same data and split in all, got {name} {expected[name]!r} in {first.path} "
                    f"and {value!r} in {other.path}"
                )


def _data_facts(run: Run) -> dict[str, Any]:
    data = run.part("data")
    # A folder of images may have moved: only its fingerprint is compared.
    datasets = {name: run.value(name) for name in ("dataset", "test_dataset")}
    datasets = {name: "folder:" if "folder:" in str(value) else value for name, value in datasets.items()}
    return {
        **datasets,
        "image shape": data.get("image_shape"),
        **{f"number of {kind} images": data.get(f"{kind}_images") for kind in ("train", "validation", "test")},
        "data fingerprint": data.get("fingerprint"),
    }


def _replace(out: Path, part: Path) -> None:
    """Rename `part` to `out`; a former comparison is deleted after that, and restored if that fails."""
    if not out.exists():
        os.rename(part, out)
        return
    former = out.with_name(f".{out.name}.{os.getpid()}.former")
    os.rename(out, former)
    try:
        os.rename(part, out)
    except BaseException:
        os.rename(former, out)
        raise
    shutil.rmtree(former)


def _page(runs: Sequence[Run]) -> Page:
    from simjax.report._charts import overlaid_curves  # imports Matplotlib

    names, first = _names(runs), runs[0]
    tested = first.value("test_dataset")
    data = f"{numbers.text(first.value('dataset'))}{f', tested on {tested}' if tested else ''}"
    meanings: list[list[str | Cell]] = [[metric.title, metric.meaning] for metric in COLUMNS]
    sections: list[tuple[str, list[Block]]] = [
        ("Results", _results(runs, names)),
        ("Over seeds", _over_seeds(runs, names)),
        ("Training", [*overlaid_curves(runs, names)]),
        ("What differs", _differences(runs, names)),
        ("What the columns mean", [Table(["Column", "What it says"], meanings, "ll")]),
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
                "runs": [names[i] for i in members],
                "seeds": [runs[i].value("seed") for i in members],
                **{metric.name: _mean_and_deviation([runs[i] for i in members], metric) for metric in COLUMNS},
            }
            for members in _groups(runs)
        ],
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the names of the folders, or the whole paths of those with the same name."""
    names = [run.path.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for run, name in zip(runs, names, strict=True)]


def _values(runs: Sequence[Run], metric: Metric) -> list[Any]:
    return [run.value(metric.name) for run in runs]


def _results(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    judges = [numbers.text(run.value("accuracy_of")) for run in runs]
    same_judge = len(set(judges)) == 1
    titles, columns = ["Run"], []
    for metric in COLUMNS:
        values = _values(runs, metric)
        texts, title = list(map(metric.show, values)), metric.title
        if metric.name == "accuracy" and same_judge:
            title += f" ({judges[0]})"
        elif metric.name == "accuracy":
            texts = [f"{text} ({judge})" for text, judge in zip(texts, judges, strict=True)]
        titles.append(title)
        columns.append(list(map(Cell, texts, best(metric, values))))
    rows: list[list[str | Cell]] = [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
    note = "★ marks the best of a column: the highest or the lowest, as fits; equals are all marked."
    if not same_judge:
        note += (
            " The accuracies were not all judged alike, by the model's own classifier here and by nearest neighbours "
            "there: the k-NN accuracy compares all runs on equal terms."
        )
    return [Table(titles, rows, "l" + "r" * len(COLUMNS)), Text(note)]


def _groups(runs: Sequence[Run]) -> list[list[int]]:
    """Return groups of two or more runs that differ only in their seed, as indices."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        settings = {key: value for key, value in run.part("settings").items() if key not in _INCIDENTAL}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(i)
    return [members for members in groups.values() if len(members) > 1]


def _mean_and_deviation(runs: Sequence[Run], metric: Metric) -> dict[str, float] | None:
    """Return the mean and the sample standard deviation, or None if a run lacks the metric."""
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
        found = [_mean_and_deviation([runs[i] for i in members], metric) or {} for members in groups]
        texts = [
            f"{metric.show(x['mean'])} ± {metric.show(x['standard_deviation'])}" if x else numbers.DASH for x in found
        ]
        rows.append([metric.title, *map(Cell, texts, best(metric, [x.get("mean") for x in found]))])
    columns = ["Number", *(", ".join(names[i] for i in members) for members in groups)]
    text = (
        "Mean ± standard deviation of runs that differ in their seed only. Means that are closer to each other than "
        "that may well be equal: more seeds would tell."
    )
    return [Text(text), Table(columns, rows, "l" + "r" * len(groups))]


def _differences(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Return a table of the settings that are not the same in all runs."""
    settings = [_flat(run.part("settings")) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one if key not in _INCIDENTAL - {"seed"})
    rows: list[list[str | Cell]] = [
        [key, *(numbers.text(one.get(key)) for one in settings)]
        for key in keys
        if any(one.get(key) != settings[0].get(key) for one in settings)
    ]
    return [Table(["Setting", *names], rows, "l" * (1 + len(runs)))] if rows else []


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
