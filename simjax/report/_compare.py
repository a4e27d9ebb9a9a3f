"""Comparisons of runs on the same data: the verdict, what differs, results of recipes and of single runs, curves."""

import itertools
import json
import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simjax._files import replace_folder, write_file
from simjax.core import InputError
from simjax.evaluate import Comparison
from simjax.report import _numbers as numbers
from simjax.report._metrics import BY_NAME, HEADLINE, METRICS, Metric, with_interval
from simjax.report._page import Block, Card, Cell, Code, Page, Row, Section, Table, Text
from simjax.report._recipes import NOT_IN_RECIPE, Recipe, difference, flatten, recipes_of, shown_best
from simjax.report._run import Run, read_run
from simjax.report._write import write_page

COLUMNS = tuple(metric for metric in METRICS if metric.compared)
SHOWN = (*HEADLINE, BY_NAME["train_seconds"])
"""The metrics of the tables with a row for each recipe or run; compare.json has all `COLUMNS`."""
_FILES = {"compare.json", "compare.md", "compare.html", "figures"}


def compare(runs: Sequence[Path], out: Path) -> None:
    """Write a comparison of runs: compare.html (self-contained), compare.md with figures/*.svg, and compare.json.

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
    recipes = recipes_of(loaded)
    page, content = _page(loaded, recipes, out), _content(loaded, recipes)

    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        write_page(temporary, "compare", page)
        write_file(temporary / "compare.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
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


def _page(runs: Sequence[Run], recipes: Sequence[Recipe], out: Path) -> Page:
    from simjax.report._charts import overlaid_curves  # imports Matplotlib

    ordered, names = [run for recipe in recipes for run in recipe.runs], _run_names(recipes)
    meanings: list[Row] = [[metric.title, metric.meaning] for metric in COLUMNS]
    commands = "\n".join(str(command) for run in ordered if (command := run.config.get("command")))
    sections = [
        Section("What differs", _different_settings(recipes)),
        Section("Results", _results(recipes)),
        Section("Differences", _differences(recipes)),
        Section("Single runs", _single_runs(ordered, names, out)),
        Section("Training", [*overlaid_curves(ordered, names)]),
        Section("Metrics", [Table(["Metric", "Meaning"], meanings, align="ll")]),
        Section("How to reproduce", [Code(commands)] if commands else []),
    ]
    title = f"{_joined([recipe.name for recipe in recipes])} on {runs[0].data_name}"
    return Page(
        numbers.capitalize(title),
        numbers.capitalize(_verdict(recipes)),
        sections,
        _cards(recipes),
        _overview(ordered, names),
    )


def _run_names(recipes: Sequence[Recipe]) -> list[str]:
    """Return the recipe and the seed of each run, and the folder where these are those of another run, too."""
    named = [
        (f"{recipe.name}, seed {numbers.text(run.value('seed'))}", run) for recipe in recipes for run in recipe.runs
    ]
    names = [name for name, _ in named]
    return [name if names.count(name) == 1 else f"{name} ({run.path})" for name, run in named]


def _joined(names: Sequence[str]) -> str:
    shown = [*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _verdict(recipes: Sequence[Recipe]) -> str:
    """Return which recipe is better by how much, by the accuracy, or that no difference is shown."""
    metric, runs = BY_NAME["accuracy"], min(len(recipe.runs) for recipe in recipes)
    if len(recipes) == 1:
        values = recipes[0].values(metric)
        if not values:
            return f"{len(recipes[0].runs)} runs of one recipe."
        return (
            f"{len(values)} runs of one recipe: accuracy {metric.show(statistics.fmean(values))} on average, from "
            f"{metric.show(min(values))} to {metric.show(max(values))}."
        )
    if len(recipes) > 2:
        best = [recipe.name for recipe, is_best in zip(recipes, shown_best(metric, recipes), strict=True) if is_best]
        if best:
            return f"{best[0]} is better than every other one, by the accuracy. The differences are below."
        return "No recipe is shown to be better than every other one, by the accuracy. The differences are below."
    first, second = recipes
    found = difference(metric, first, second)
    if found is None or found.difference is None or found.interval is None:
        return "The accuracies of these runs cannot be compared: they are missing, or of different kinds or images."
    margin, ends = found.difference, found.interval
    if margin < 0:
        first, second, margin, ends = second, first, -margin, (-ends[1], -ends[0])
    low, high = (f"{100 * end:.2f}" for end in ends)
    values = [metric.show(statistics.fmean(recipe.values(metric))) for recipe in (first, second)]
    size = f"{100 * margin:.2f} points (95% interval {low} to {high})"
    of = f"{runs} runs of each" if runs > 1 else "one run of each, so that another seed may decide otherwise"
    if found.is_shown:
        return f"{first.name} is better than {second.name}: accuracy {values[0]} against {values[1]}, {size}; {of}."
    return (
        f"No difference between {first.name} and {second.name} is shown: accuracy {values[0]} against {values[1]}, "
        f"{size}, which contains 0; {of}."
    )


def _cards(recipes: Sequence[Recipe]) -> list[Card]:
    """Return the mean accuracy of the first recipes, with its range over the seeds."""
    metric, cards = BY_NAME["accuracy"], []
    for recipe in recipes[:4]:
        if values := recipe.values(metric):
            spread = f"{len(values)} seeds, from {metric.show(min(values))} to {metric.show(max(values))}"
            meaning = f"Mean accuracy, {spread}." if len(values) > 1 else "Accuracy of one run."
            cards.append(Card(recipe.name, metric.show(statistics.fmean(values)), "", meaning))
    return cards


def _overview(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    from simjax.report._charts import values_with_intervals

    metric = BY_NAME["accuracy"]
    rows = [
        (name, value, run.value(metric.interval))
        for run, name in zip(runs, names, strict=True)
        if (value := numbers.number(run.value(metric.name))) is not None
    ]
    caption = "Accuracy of each run. Lines are 95% intervals for other test images."
    return [values_with_intervals("accuracies", "accuracy", rows, caption)] if rows else []


def _content(runs: Sequence[Run], recipes: Sequence[Recipe]) -> dict[str, Any]:
    """Return the content of compare.json."""
    ordered = [run.path for recipe in recipes for run in recipe.runs]
    names = dict(zip(ordered, _run_names(recipes), strict=True))
    return {
        "dataset": runs[0].value("dataset"),
        "test_dataset": runs[0].value("test_dataset"),
        "fingerprint": runs[0].part("data").get("fingerprint"),
        "runs": [
            {
                "name": names[run.path],
                "path": str(run.path),
                **{key: run.value(key) for key in ("model", "objective", "seed", "steps", "accuracy_of")},
                **{metric.name: numbers.number(run.value(metric.name)) for metric in COLUMNS},
                **{metric.interval: run.value(metric.interval) for metric in COLUMNS},
            }
            for run in runs
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


def _single_runs(runs: Sequence[Run], names: Sequence[str], out: Path) -> list[Block]:
    """Return a table of all runs, with links to their reports."""
    methods = [numbers.text(run.value("accuracy_of")) for run in runs]  # "classifier" or "knn"
    rows: list[Row] = []
    for run, name, method in zip(runs, names, methods, strict=True):
        report = run.path.resolve() / "report.html"
        link = os.path.relpath(report, out) if report.is_file() else ""
        accuracy, *others = (with_interval(metric, run) for metric in SHOWN)
        accuracy += f", {method}" if len(set(methods)) > 1 else ""
        rows.append([Cell(name, link=link), accuracy, *others])
    blocks: list[Block] = [Table(["Run", *(metric.title for metric in SHOWN)], rows, align="l" + "r" * len(SHOWN))]
    if any(run.value(metric.interval) for run in runs for metric in SHOWN):
        blocks.append(Text("In brackets: 95% intervals of each encoder for other test images."))
    if len(set(methods)) > 1:
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


def _results(recipes: Sequence[Recipe]) -> list[Block]:
    """Return a table of the mean and standard deviation of each metric over the seeds of each recipe, if any."""
    if all(len(recipe.runs) == 1 for recipe in recipes):
        return []
    best = {metric.name: shown_best(metric, recipes) for metric in SHOWN}
    rows: list[Row] = []
    for i, recipe in enumerate(recipes):
        cells: Row = [recipe.name, numbers.count(len(recipe.runs))]
        for metric in SHOWN:
            found = mean_and_deviation(recipe, metric) or {}
            mean, deviation = metric.show(found.get("mean")), found.get("standard_deviation")
            cells.append(
                Cell(mean if deviation is None else f"{mean} ± {metric.show(deviation)}", best[metric.name][i])
            )
        rows.append(cells)
    text = "Mean ± standard deviation over the seeds of each recipe: runs with the same settings apart from the seed."
    if len(recipes) > 1:
        text += " ★ marks a recipe that is shown to be better than every other one; without it, no best one is shown."
    columns = ["Recipe", "Runs", *(metric.title for metric in SHOWN)]
    return [Text(text), Table(columns, rows, align="lr" + "r" * len(SHOWN))]


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
    columns = ["Metric", *(f"{other.name} minus {first.name}" for other in others)]
    return [Text(text), Table(columns, rows, align="l" + "r" * len(others))]


def _difference_text(metric: Metric, comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None or comparison.interval is None:
        return numbers.DASH
    low, high = map(metric.show, comparison.interval)
    verdict = "" if comparison.is_shown else ", no difference shown"
    return f"{metric.show(comparison.difference)} ({low} to {high}){verdict}"


def _different_settings(recipes: Sequence[Recipe]) -> list[Block]:
    """Return a table of the settings and sizes that are not the same in all recipes, if any."""
    settings = [flatten(recipe.runs[0].part("settings")) for recipe in recipes]
    keys = dict.fromkeys(key for one in settings for key in one if key not in NOT_IN_RECIPE)
    values = {key: [one.get(key) for one in settings] for key in keys}
    rows: list[Row] = [
        [key, *(f"{value:.4g}" if isinstance(value, float) else numbers.text(value) for value in of_recipes)]
        for key, of_recipes in values.items()
        if any(value != of_recipes[0] for value in of_recipes)
    ]
    parameters = [recipe.runs[0].value("parameters") for recipe in recipes]
    if len(set(parameters)) > 1:
        rows.append(["number of parameters", *map(numbers.count, parameters)])
    columns = ["Setting", *(recipe.name for recipe in recipes)]
    return [Table(columns, rows, align="l" * (1 + len(recipes)))] if rows else []
