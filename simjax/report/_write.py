"""The report of one run: files in its folder, and a summary in a few lines."""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simjax._files import write_file
from simjax.core import InputError
from simjax.report import _numbers as numbers
from simjax.report._page import Page
from simjax.report._render import to_html, to_markdown
from simjax.report._run import data_name, model_name, read_run, value_at

SECTIONS = 10  # number of calls of `begin` by `write`, one for each section of the report


def write(run: Path, begin: Callable[[str], None] = lambda section: None, *, projection: str = "pca") -> None:
    """Write report.html (self-contained), report.md and figures/*.svg into the folder of a finished run.

    Args:
        run: Folder of the run with config.json and report.json. Sections whose files are missing are omitted: the
            curves need metrics.jsonl, the figures predictions.npz and samples.npz.
        begin: Called with the title of each section before its figures are drawn.
        projection: How embeddings of more than two features are drawn, "pca" or "tsne".

    Raises:
        InputError: If the folder is not a finished run, or one of its files cannot be read or written.
    """
    from simjax.report._sections import run_page  # imports Matplotlib

    run = Path(run)
    write_page(run, "report", run_page(read_run(run), begin, projection))


def write_page(folder: Path, name: str, page: Page) -> None:
    """Write NAME.html, NAME.md and figures/*.svg into a folder, and delete the figures of an earlier page."""
    as_markdown, as_html = to_markdown(page), to_html(page)  # an error here leaves all files unchanged
    figures = {f"{chart.name}.svg": chart.svg for chart in page.charts()}
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for file in (folder / "figures").glob("*.svg"):
            if file.name not in figures:
                file.unlink()
    except OSError as error:
        raise InputError(f"cannot write {folder / 'figures'}: {error.strerror}") from error
    for file_name, svg in figures.items():
        write_file(folder / "figures" / file_name, svg)
    write_file(folder / f"{name}.md", as_markdown)
    write_file(folder / f"{name}.html", as_html)


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the main results in a few lines of plain text.

    Args:
        report: Content of report.json; a missing value becomes a dash.

    Example:
        >>> report = {"accuracy": 0.9861, "accuracy_interval": [0.9688, 0.9943], "confusion": [[180, 5], [0, 175]]}
        >>> summary_lines(report)[1]
        '355 of 360 test images are classified correctly: 98.6% (95% interval for other test images: 96.9 to 99.4%).'
    """
    get = functools.partial(value_at, report)
    tested, confusion = get("test_dataset"), get("confusion") or []
    images, right = sum(map(sum, confusion)), sum(row[i] for i, row in enumerate(confusion))
    kind = "classes" if get("intervals_over") == "classes" else "test images"
    accuracy, accuracy_range = _percentages(report, "accuracy")
    nearest, nearest_range = _percentages(report, "retrieval.precision_at_1")
    errors, errors_range = _percentages(report, "verification.equal_error_rate")
    lines = [
        f"{numbers.capitalize(model_name(get('model')))} on {data_name(get('dataset'), tested)}"
        f", {numbers.text(get('objective'))} objective, "
        f"seed {numbers.text(get('seed'))}: {numbers.quantity(get('steps'), 'step')} in "
        f"{numbers.seconds(get('train_seconds'))}, {numbers.count(get('parameters'))} parameters.",
        f"{numbers.count(right if images else None)} of {numbers.count(images or None)} test images are classified "
        f"correctly{' by their nearest neighbours' if get('accuracy_of') == 'knn' else ''}: {accuracy}"
        f"{accuracy_range and f' (95% interval for other {kind}: {accuracy_range})'}.",
        f"The nearest other test image is of the same class for {nearest}{nearest_range and f' ({nearest_range})'}.",
        f"Same class or not: {errors} wrong decisions about pairs at the threshold where both kinds of error are "
        f"equally frequent (equal error rate{errors_range and f', {errors_range}'}).",
    ]
    if tasks := get("few_shot"):
        results = [(name, *_percentages(task, "accuracy")) for name, task in tasks.items()]
        shown = (f"{name} {accuracy}{interval and f' ({interval})'}" for name, accuracy, interval in results)
        lines.append(f"Few-shot: {', '.join(shown)}.")
    if missing := get("not_evaluated"):
        lines.append(f"Not evaluated: {'; '.join(f'{name} ({reason})' for name, reason in missing.items())}.")
    return lines


def _percentages(report: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return a share and its interval, such as ("98.6%", "96.9 to 99.4%"); the text of a missing interval is empty.

    The decimals, at most two, are those that the width of the interval needs for two significant digits.
    """
    value, interval = numbers.number(value_at(report, name)), value_at(report, f"{name}_interval")
    if value is None:
        return numbers.DASH, ""
    if not isinstance(interval, list | tuple):
        return f"{100 * value:.1f}%", ""
    low, high = interval
    width = 100 * (high - low)
    decimals = 1 if width <= 0 else min(2, max(0, 1 - math.floor(math.log10(width))))
    return f"{100 * value:.{decimals}f}%", f"{100 * low:.{decimals}f} to {100 * high:.{decimals}f}%"
