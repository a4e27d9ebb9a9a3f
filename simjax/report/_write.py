"""The report of one run: files in its folder, and a summary in a few lines."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simjax._files import write_file
from simjax.core import InputError
from simjax.report import _numbers as numbers
from simjax.report._page import Page
from simjax.report._render import to_html, to_markdown
from simjax.report._run import read_run, value_at

SECTIONS = 11  # number of calls of `begin` by `write`, one for each section of the report
_METHODS = {"classifier": " by its own classifier", "knn": " by its nearest neighbours"}


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
        for file in [*(folder / "figures").glob("*.svg"), *(folder / "figures").glob("*.png")]:
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
        >>> lines = summary_lines({"model": "cnn", "dataset": "digits", "accuracy": 0.9861, "steps": 300})
        >>> lines[1]
        'Test accuracy 98.61%, k-NN accuracy –.'
    """
    get = functools.partial(value_at, report)
    tested, method = get("test_dataset"), _METHODS.get(str(get("accuracy_of")), "")
    lines = [
        f"{numbers.text(get('model'))} trained on {numbers.text(get('dataset'))}"
        f"{f', tested on {tested}' if tested else ''}: objective {numbers.text(get('objective'))}, "
        f"{numbers.count(get('steps'))} steps in {numbers.seconds(get('train_seconds'))}, "
        f"{numbers.count(get('parameters'))} parameters, seed {numbers.text(get('seed'))}.",
        f"Test accuracy {numbers.percent(get('accuracy'))}{method}, "
        f"k-NN accuracy {numbers.percent(get('knn_accuracy'))}.",
        f"Retrieval: precision@1 {numbers.percent(get('retrieval.precision_at_1'))}, "
        f"MAP@R {numbers.percent(get('retrieval.mean_average_precision_at_r'))}.",
        f"Verification: ROC AUC {numbers.decimal(get('verification.roc_auc'))}, "
        f"equal error rate {numbers.percent(get('verification.equal_error_rate'))}.",
    ]
    if tasks := get("few_shot"):
        results = (f"{name} {numbers.percent(task.get('accuracy'))}" for name, task in tasks.items())
        lines.append(f"Few-shot: {', '.join(results)}.")
    if missing := get("not_evaluated"):
        lines.append(f"Not evaluated: {'; '.join(f'{name} ({reason})' for name, reason in missing.items())}.")
    return lines
