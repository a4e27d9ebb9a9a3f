"""`simjax study`: run all cells of a study with a live table, then write its results and its page."""

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.table import Table
from tyro.conf import Positional

from simjax._compilation_cache import enable_compilation_cache
from simjax.cli._arguments import parse
from simjax.cli._results import open_page
from simjax.core import InputError
from simjax.report._numbers import quantity
from simjax.report._numbers import seconds as duration
from simjax.train._progress import escaped, print_line

if TYPE_CHECKING:
    from simjax.study import CellState

MAX_ROWS = 30  # of the live table


@dataclasses.dataclass(frozen=True)
class StudyArguments:
    """Train and compare a grid of networks, with matched budgets, and write a page."""

    file: Positional[str]
    """TOML file of the study, such as those in configs/studies."""
    out: str | None = None
    """Folder of the study. Default: runs/NAME_OF_THE_FILE. If the study has begun there, it is continued."""
    open: bool = False
    """Open the page in the web browser when done."""


def study(arguments: Sequence[str]) -> None:
    """Run the cells that are not finished, write study.json, study.md and study.html, and print the path."""
    parsed = parse(StudyArguments, arguments)
    out = Path(os.path.expanduser(parsed.out or f"runs/{Path(parsed.file).stem}"))
    enable_compilation_cache()
    from simjax import report
    from simjax.study import analysis_parts, analyze, begin_study, load_plan, run_cells
    from simjax.train import Interrupted
    from simjax.train._progress import phase

    plan = load_plan(parsed.file)
    states = begin_study(plan, out)
    display = StudyDisplay(states)
    try:
        with display:
            run_cells(states, display.update)
    except Interrupted:
        command = shlex.join(["simjax", "study", parsed.file, "--out", str(out)])
        print_line(f"stopped after a checkpoint; go on with: {command}", stderr=True)
        sys.exit(130)
    failed = [state for state in states if state.status == "failed"]
    if len(failed) == len(states):
        raise InputError(f"study: every cell failed; {failed[0].cell.name}: {failed[0].error}")
    with phase("comparing the networks", analysis_parts(states)) as begin:
        analyze(plan, states, out, begin)
    report.write_study(out)
    print_line(f"study: {out / 'study.html'}")
    if parsed.open:
        open_page(out / "study.html")
    if failed:
        names = "; ".join(f"{state.cell.name}: {state.error}" for state in failed)
        raise InputError(f"study: {len(failed)} of {len(states)} cells failed and are missing in the results: {names}")


class StudyDisplay:
    """Context manager that shows the cells of a study: a live table on a terminal, otherwise a line for each cell."""

    def __init__(self, states: "list[CellState]"):
        self._states = states
        # sys.stdout is redirected while a cell runs. An error may have brackets, which are no markup.
        self._console = Console(highlight=False, markup=False, emoji=False, file=sys.stdout)
        self._live = Live(self, console=self._console, refresh_per_second=2, redirect_stdout=False)
        self._begin = time.perf_counter()

    def __enter__(self) -> "StudyDisplay":
        if self._console.is_terminal:
            self._live.start()
        else:
            done = sum(state.status == "finished" for state in self._states)
            self._console.print(
                f"{quantity(len(self._states), 'cell')}, {done} of them finished before", soft_wrap=True
            )
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def update(self) -> None:
        """Show that a cell began or ended."""
        if any(state.status == "running" for state in self._states):
            self._begin = time.perf_counter()
        elif not self._console.is_terminal:
            self._console.print(escaped(self._line_of_last()), soft_wrap=True)

    def _line_of_last(self) -> str:
        from simjax.study import seconds_left

        index, last = max((i, s) for i, s in enumerate(self._states) if s.seconds is not None)
        left = seconds_left(self._states, 0.0)
        parts = [f"{index + 1}/{len(self._states)} {last.cell.name}: {_result(last)}", duration(last.seconds)]
        return ", ".join(parts if left is None else [*parts, f"{duration(left)} left"])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from simjax.study import seconds_left

        table = Table(box=None, pad_edge=False)
        for title in ("cell", "steps", "status", "time"):
            table.add_column(title, no_wrap=True, overflow="ellipsis")
        running = next((i for i, state in enumerate(self._states) if state.status == "running"), len(self._states))
        first = max(0, min(running - MAX_ROWS // 2, len(self._states) - MAX_ROWS))
        for state in self._states[first : first + MAX_ROWS]:
            is_running = state.status == "running"
            time_text = duration(time.perf_counter() - self._begin if is_running else state.seconds)
            table.add_row(state.cell.name, f"{state.planned['steps']:,}", _result(state), time_text)
        yield table
        finished = sum(state.status == "finished" for state in self._states)
        left = seconds_left(self._states, time.perf_counter() - self._begin)
        yield f"{finished} of {len(self._states)} finished" + ("" if left is None else f", {duration(left)} left")


def _result(state: "CellState") -> str:
    """Return the state of a cell in a few words: its progress, its accuracy or its error."""
    from simjax.report._run import read_run

    if state.status == "finished":
        accuracy = read_run(state.folder).value("accuracy")
        return "finished" if accuracy is None else f"accuracy {accuracy:.4f}"
    if state.status == "running":
        progress = state.progress
        return "compiling" if progress is None else f"{progress:.0%} of the steps" if progress < 1 else "evaluating"
    return escaped(f"failed: {state.error}") if state.status == "failed" else state.status
