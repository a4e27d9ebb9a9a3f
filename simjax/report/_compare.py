"""Comparisons of runs on the same data: results with intervals, differences between recipes, curves, settings."""

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
from simjax.evaluate import Comparison
from simjax.report import _numbers as numbers
from simjax.report._metrics import METRICS, Metric, with_interval
from simjax.report._page import Block, Cell, Page, Row, Table, Text
from simjax.report._recipes import NOT_IN_RECIPE, Recipe, difference, recipes_of, shown_best
from simjax.report._render import to_html, to_markdown
from simjax.report._run import Run, read_run

COLUMNS = tuple(metric for metric in METRICS if metric.compared)
_FILES = {"compare.json", "compare.md", "compare.html", "figures"}


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
    recipes = recipes_of(runs, names)
    tested = first.value("test_dataset")
    data = f"{numbers.text(first.value('dataset'))}{f', tested on {tested}' if tested else ''}"
    meanings: list[Row] = [[metric.title, metric.meaning] for metric in COLUMNS]
    sections: list[tuple[str, list[Block]]] = [
        ("Results", _results(runs, names)),
        ("Recipes", _recipes(recipes)),
        ("Differences", _differences(recipes)),
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
    recipes = recipes_of(runs, names)
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
                **{metric.interval: run.value(metric.interval) for metric in COLUMNS},
            }
            for run, name in zip(runs, names, strict=True)
        ],
        "recipes": [
            {
                "name": recipe.name,
                "runs": [str(run.path) for run in recipe.runs],
                "seeds": recipe.seeds,
                **{metric.name: mean_and_deviation(recipe, metric) for metric in COLUMNS},
            }
            for recipe in recipes
        ],
        "differences": [
            {
                "metric": metric.name,
                "a": a.name,
                "b": b.name,
                "runs": found.runs,
                "difference": found.difference,
                "difference_interval": found.interval,
                "shown": found.is_shown and found.runs > 1,
            }
            for metric in COLUMNS
            for b, a in itertools.combinations(recipes, 2)
            if (found := difference(metric, a, b)) is not None
        ],
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the name of each folder, or its whole path if several folders have the same name."""
    names = [run.path.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for run, name in zip(runs, names, strict=True)]


def _results(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    methods = [numbers.text(run.value("accuracy_of")) for run in runs]  # "classifier" or "knn"
    same_method = len(set(methods)) == 1
    rows: list[Row] = []
    for metric in COLUMNS:
        texts, title = [with_interval(metric, run) for run in runs], metric.title
        if metric.name == "accuracy" and same_method:
            title += f" ({methods[0]})"
        elif metric.name == "accuracy":
            texts = [f"{text} ({method})" for text, method in zip(texts, methods, strict=True)]
        rows.append([title, *texts])
    blocks: list[Block] = [Table(["Metric", *names], rows, align="l" + "r" * len(runs))]
    if any(run.value(metric.interval) for run in runs for metric in COLUMNS):
        blocks.append(Text("In brackets: 95% intervals of each encoder for other test images."))
    if not same_method:
        blocks.append(
            Text(
                "The accuracies are not comparable: some runs use their own classifier, others the nearest neighbours. "
                "Compare the k-NN accuracy, which all runs measure in the same way."
            )
        )
    return blocks


def mean_and_deviation(recipe: Recipe, metric: Metric) -> dict[str, float | None] | None:
    """Return the mean and the sample standard deviation over the seeds, or None if a run lacks the metric."""
    values = recipe.values(metric)
    if len(values) < len(recipe.runs):
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "standard_deviation": deviation}


def _recipes(recipes: Sequence[Recipe]) -> list[Block]:
    """Return a table of the mean and standard deviation of each metric over the seeds of each recipe, if any."""
    if all(len(recipe.runs) == 1 for recipe in recipes):
        return []
    rows: list[Row] = []
    for metric in COLUMNS:
        texts = []
        for recipe in recipes:
            found = mean_and_deviation(recipe, metric) or {}
            mean, deviation = metric.show(found.get("mean")), found.get("standard_deviation")
            texts.append(mean if deviation is None else f"{mean} ± {metric.show(deviation)}")
        rows.append([metric.title, *map(Cell, texts, shown_best(metric, recipes))])
    text = "A recipe is a group of runs with the same settings apart from the seed: mean ± standard deviation."
    if len(recipes) > 1:
        text += " ★ marks a recipe that is shown to be better than every other one; without it, no best one is shown."
    columns = ["Metric", *(f"{recipe.name} ({len(recipe.runs)} seeds)" for recipe in recipes)]
    return [Text(text), Table(columns, rows, align="l" + "r" * len(recipes))]


def _differences(recipes: Sequence[Recipe]) -> list[Block]:
    """Return a table of the difference of each recipe and the first one, for metrics with estimates, if any."""
    first, others = recipes[0], recipes[1:]
    rows: list[Row] = []
    for metric in COLUMNS:
        found = [difference(metric, other, first) for other in others]
        if any(comparison is not None for comparison in found):
            rows.append([metric.title, *(_difference_text(metric, comparison) for comparison in found)])
    if not rows:
        return []
    runs = min(len(recipe.runs) for recipe in recipes)
    about = (
        "The intervals of a single run of each are about these encoders only: with another seed, either may win. Train "
        "each recipe with three or more seeds (`--seed`) and compare all runs to learn about the recipes."
        if runs == 1
        else "The intervals contain the chance of the seeds and that of the test images."
    )
    text = (
        f"Difference to {first.name} with its 95% interval. An interval that contains 0 shows no difference. {about} "
        "Of 20 comparisons of equal recipes, one is expected to exclude 0 by chance."
    )
    columns = ["Metric", *(f"{other.name} - {first.name}" for other in others)]
    return [Text(text), Table(columns, rows, align="l" + "r" * len(others))]


def _difference_text(metric: Metric, comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None or comparison.interval is None:
        return numbers.DASH
    low, high = map(metric.show, comparison.interval)
    verdict = "" if comparison.is_shown else ", no difference shown"
    return f"{metric.show(comparison.difference)} ({low} to {high}){verdict}"


def _different_settings(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Return a table of the settings that are not the same in all runs, if any."""
    settings = [_flatten(run.part("settings")) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one if key not in NOT_IN_RECIPE - {"seed"})
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
