"""The report of one run: report.md, report.html and the figures, written into the run's folder."""

from pathlib import Path

from simjax._files import write_file
from simjax.core import InputError
from simjax.report._html import to_html
from simjax.report._markdown import to_markdown
from simjax.report._run import read_run


def write(run: Path) -> None:
    """Write the report of a finished run: report.md with figures/*.png, and report.html, which is one whole file.

    Args:
        run: the run's folder, with config.json and report.json; metrics.jsonl, predictions.npz and samples.npz each
            add what they hold.

    Raises:
        InputError: if the folder is not a finished run, or one of its files cannot be read.
    """
    from simjax.report._sections import run_page  # loads matplotlib

    run = Path(run)
    page = run_page(read_run(run))
    as_markdown, as_html = to_markdown(page), to_html(page)  # all is made before anything is written
    try:
        (run / "figures").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {run / 'figures'}: {error.strerror}") from error
    for picture in page.pictures():
        write_file(run / "figures" / f"{picture.name}.png", picture.png)
    write_file(run / "report.md", as_markdown)
    write_file(run / "report.html", as_html)
