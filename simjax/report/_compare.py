"""Comparisons of runs on the same data: the verdict, what differs, results of recipes and of single runs, curves."""

import itertools
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from simjax._files import absolute_path, replace_folder, temporary_folder, write_file
from simjax.core import InputError
from simjax.report import _numbers as numbers
from simjax.report._metrics import BY_NAME, COLUMNS, COMPARED, HEADLINE, Metric, with_interval
from simjax.report._page import Block, Cell, Code, Page, Row, Section, Table, Text
from simjax.report._recipes import NOT_IN_RECIPE, Recipe, compared_runs, difference, flatten, recipes_of, shown_best
from simjax.report._run import Run, read_run
from simjax.report._verdict import cards, verdict_of
from simjax.report._write import write_page

SHOWN = (*HEADLINE, BY_NAME["train_seconds"])
"""The metrics of the tables with a row for each recipe or run; compare.json has all `COLUMNS`."""
PARAMETERS = "number of parameters"
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
    paths, out = [Path(run) for run in runs], absolute_path(out)
    if len(paths) < 2:
        raise InputError(f"runs: expected two or more runs to compare, got {len(paths)}")
    for first, second in itertools.combinations(paths, 2):
        if absolute_path(first) == absolute_path(second):
            raise InputError(f"runs: expected different runs, got {first} and {second}, which are the same folder")
    _check_out(out)
    loaded = [read_run(path) for path in paths]
    _check_same_data(loaded)
    recipes = recipes_of(loaded)
    page, content = _page(loaded, recipes, out), _content(loaded, recipes)

    try:
        with temporary_folder(out) as temporary:
            write_page(temporary, "compare", page)
            write_file(temporary / "compare.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
            _check_out(out)  # another process may have written it meanwhile
            replace_folder(temporary, out)
    except OSError as error:
        raise InputError(f"out: cannot write {out}: {error.strerror}") from error


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

    accuracy = BY_NAME["accuracy"]
    recipes = sorted(recipes, key=lambda recipe: -statistics.fmean(recipe.values(accuracy) or [0.0]))  # best first
    ordered, names = [run for recipe in recipes for run in recipe.runs], _run_names(recipes)
    groups = [number for number, recipe in enumerate(recipes) for _ in recipe.runs]
    meanings: list[Row] = [[metric.title, metric.meaning] for metric in dict.fromkeys((*SHOWN, *COMPARED))]
    commands = "\n".join(command for run in ordered if (command := run.command))
    sections = [
        Section("What differs", _different_settings(recipes)),
        Section("Results", _results(recipes)),
        Section("Differences", _differences(recipes)),
        Section("Single runs", _single_runs(ordered, names, out)),
        Section("Who is right", _who_is_right(recipes)),
        Section("Training", [*overlaid_curves(ordered, names, groups)]),
        Section("Metrics", [Table(["Metric", "Meaning"], meanings, align="ll")]),
        Section("How to reproduce", [Code(commands)] if commands else []),
    ]
    title = f"{_joined([recipe.name for recipe in recipes])} on {runs[0].data_name}"
    lead, overview = numbers.capitalize(verdict_of(recipes)), _overview(recipes, ordered, names, groups)
    return Page(numbers.capitalize(title), lead, sections, cards(recipes), overview)


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


def _overview(
    recipes: Sequence[Recipe], runs: Sequence[Run], names: Sequence[str], groups: Sequence[int]
) -> list[Block]:
    """Return what differs in a sentence, the accuracies, and the differences to the best recipe."""
    from simjax.report._charts import differences_with_intervals, values_with_intervals

    metric, first = BY_NAME["accuracy"], recipes[0]
    different = [str(row[0]) for block in _different_settings(recipes) for row in block.rows]
    settings = [name for name in different if name != PARAMETERS]
    blocks: list[Block] = []
    if different:
        text = f"The recipes differ in {_joined(different)}; all other settings and the images are the same."
        if len(settings) > 1:
            text += " A difference cannot be put down to one of these alone."
        blocks.append(Text(text))
    rows = [
        (name, value, run.value(metric.interval))
        for run, name in zip(runs, names, strict=True)
        if (value := numbers.number(run.value(metric.name))) is not None
    ]
    caption = (
        f"Accuracy of each run; lines are 95% intervals for other {runs[0].unit}. All runs are tested on the same "
        "images, so that lines may overlap although a difference is shown."
    )
    if rows:
        blocks.append(values_with_intervals("accuracies", "accuracy", rows, caption, groups))
    found = [(recipe, difference(metric, first, recipe)) for recipe in recipes[1:]]
    shown = [
        (f"{first.name} minus {recipe.name}", comparison.difference, comparison.interval)
        for recipe, comparison in found
        if comparison is not None and comparison.difference is not None and comparison.interval is not None
    ]
    if shown:
        is_single = any(comparison is not None and comparison.runs == 1 for _, comparison in found)
        blocks.append(differences_with_intervals(shown, is_single=is_single))
    return blocks


def _who_is_right(recipes: Sequence[Recipe]) -> list[Block]:
    """Count the test images that the first runs of two recipes classify correctly, and show their mistakes."""
    from simjax.report._run_images import mistakes_of_both

    if len(recipes) < 2:
        return []
    pair = [recipe.runs[0] for recipe in recipes[:2]]
    names = [
        f"{recipe.name}, seed {numbers.text(run.value('seed'))}" for recipe, run in zip(recipes, pair, strict=False)
    ]
    predictions = [run.arrays("predictions.npz") for run in pair]
    if not all("predicted" in arrays for arrays in predictions):
        return []
    right = [arrays["predicted"] == arrays["label"] for arrays in predictions]
    counts = {
        "both right": right[0] & right[1],
        f"only {names[0]} right": right[0] & ~right[1],
        f"only {names[1]} right": ~right[0] & right[1],
        "both wrong": ~right[0] & ~right[1],
    }
    rows: list[Row] = [[name, numbers.count(int(mask.sum()))] for name, mask in counts.items()]
    text = "The first run of each recipe as an example; the other runs make mistakes of their own."
    is_alone = all(len(recipe.runs) == 1 for recipe in recipes[:2])
    table = Table(["Test images", "Number"], rows, "lr")
    return [*([] if is_alone else [Text(text)]), table, *mistakes_of_both(pair, names)]


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
        link = quote(os.path.relpath(report, out)) if report.is_file() else ""
        accuracy, *others = (with_interval(metric, run) for metric in SHOWN)
        accuracy += f", {method}" if len(set(methods)) > 1 else ""
        rows.append([Cell(name, link=link), accuracy, *others])
    blocks: list[Block] = [Table(["Run", *(metric.title for metric in SHOWN)], rows, align="l" + "r" * len(SHOWN))]
    if any(run.value(metric.interval) for run in runs for metric in SHOWN):
        blocks.append(Text(f"In parentheses: 95% intervals of each trained model for other {runs[0].unit}."))
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
        text += " ★ marks the best recipe of a metric if its differences to all others have intervals without 0."
    columns = ["Recipe", "Runs", *(metric.title for metric in SHOWN)]
    return [Text(text), Table(columns, rows, align="lr" + "r" * len(SHOWN))]


def _differences(recipes: Sequence[Recipe]) -> list[Block]:
    """Return a table of the difference of the first recipe and each other one, for metrics with estimates, if any."""
    first, rows, is_single = recipes[0], list[Row](), set[bool]()
    for other, metric in itertools.product(recipes[1:], COMPARED):
        found = difference(metric, first, other)
        if found is None or found.difference is None or found.interval is None:
            continue
        value, low, high = (metric.show_difference(one) for one in (found.difference, *found.interval))
        verdict = "no difference shown"
        if found.is_shown:
            is_first = (found.difference > 0) == (metric.better == "highest")
            name = first.name if is_first else other.name
            verdict = f"{name} is better" if found.runs > 1 else f"this run of {name} is better"
        means = [metric.show(statistics.fmean(recipe.values(metric))) for recipe in compared_runs(first, other)]
        is_single.add(found.runs == 1)
        rows.append([metric.title, f"{first.name} minus {other.name}", *means, value, f"{low} to {high}", verdict])
    if not rows:
        return []
    about = f"They allow for other seeds and other {first.runs[0].unit}."
    if True in is_single:
        about = (
            f"{'They' if len(is_single) == 1 else 'Verdicts about a run'} are about these trained models only: with "
            "another seed, either may win. Train each recipe with three or more seeds (`--seed`) and compare all runs "
            "to learn about the recipes."
        )
    equal = "models" if True in is_single else "recipes"
    text = (
        f"Differences with 95% intervals, for shares in percentage points. {about} If an interval contains 0, these "
        "runs cannot tell which recipe is better; its ends say how large the difference may be. The intervals are not "
        f"corrected for their number: if the {equal} were equal, one or more of {len(rows)} would exclude 0 by chance "
        f"with a probability of up to {min(1, 0.05 * len(rows)):.0%}."
    )
    columns = ["Metric", "Compared", "First", "Second", "Difference", "95% interval", "Verdict"]
    return [Text(text), Table(columns, rows, "llrrrrl")]


def _different_settings(recipes: Sequence[Recipe]) -> list[Table]:
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
        rows.append([PARAMETERS, *map(numbers.count, parameters)])
    columns = ["Setting", *(recipe.name for recipe in recipes)]
    return [Table(columns, rows, align="l" * (1 + len(recipes)))] if rows else []
