"""Several runs side by side: which may be compared, and where the comparison goes.

Only what was measured on the same data can be compared, so runs on other data or another split are refused. The
comparison is written into a folder beside `out`, which takes its name when it is whole.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simjax._files import write_file
from simjax.core import InputError
from simjax.report._html import to_html
from simjax.report._markdown import to_markdown
from simjax.report._run import Run, read_run

_OWN = {"compare.json", "compare.md", "compare.html", "figures"}


def compare(runs: Sequence[Path], out: Path) -> None:
    """Write the comparison of several runs: compare.md with figures/*.png, compare.html (one whole file), compare.json.

    Args:
        runs: folders of two or more finished runs on the same data.
        out: the folder to write; it may exist if it is empty or a former comparison, which is replaced.

    Raises:
        InputError: for fewer than two runs, the same run twice, a folder that is not a finished run, a file that cannot
            be read, runs on different data or splits, or a folder `out` that holds something else.
    """
    from simjax.report._comparison import comparison_content, comparison_page  # loads matplotlib

    paths, out = [Path(run) for run in runs], Path(out).resolve()
    _check_paths(paths)
    _check_out(out)
    found = [read_run(path) for path in paths]
    _check_same_data(found)
    page, content = comparison_page(found), comparison_content(found)

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
        where = path.resolve()
        if where in seen:
            raise InputError(f"runs: expected different runs, got {seen[where]} and {path}, which are the same folder")
        seen[where] = path


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out: expected a folder, got {out}, which is a file")
    held = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if held and (held - _OWN or "compare.json" not in held):
        stranger = min(held - _OWN, default=min(held))
        raise InputError(
            f"out: expected a new or empty folder or a former comparison, got {out}, which holds {stranger}"
        )


def _check_same_data(runs: Sequence[Run]) -> None:
    """Every run against the first one, in everything that says which data it saw and how they were split."""
    first, *others = runs
    known = _data(first)
    for other in others:
        for what, value in _data(other).items():
            if value != known[what]:
                raise InputError(
                    f"runs: expected the same data and split in all, got {what} {known[what]!r} in {first.path} "
                    f"and {value!r} in {other.path}"
                )


def _data(run: Run) -> dict[str, Any]:
    data = run.part("data")
    return {
        "dataset": _without_path(run.value("dataset")),
        "test_dataset": _without_path(run.value("test_dataset")),
        "image shape": data.get("image_shape"),
        **{f"number of {kind} images": data.get(f"{kind}_images") for kind in ("train", "validation", "test")},
        "data fingerprint": data.get("fingerprint"),
    }


def _without_path(dataset: Any) -> Any:
    """The kind of a folder of images, which may have moved since: its fingerprint says whether it is the same."""
    return "folder:" if isinstance(dataset, str) and "folder:" in dataset else dataset


def _replace(out: Path, part: Path) -> None:
    """Give `part` the name `out`; what had it before goes only when that has worked."""
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
