"""Running the cells of a study, one after the other, in a folder from which it can be resumed at any time."""

import contextlib
import dataclasses
import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from simjax._files import absolute_path, write_file
from simjax.core import InputError
from simjax.study._budget import Match, match
from simjax.study._plan import Cell, Plan, plan_from_dict
from simjax.train import train
from simjax.train._data import DataSplits, load_splits
from simjax.train._loop import Interrupted
from simjax.train._settings import from_dict

PLAN_FILE, LOG_FILE = "plan.json", "log.txt"


@dataclasses.dataclass
class CellState:
    """A cell of a running study.

    Attributes:
        cell: The cell.
        planned: Its settings and budget, see `simjax.study._budget.Match`, as plain values.
        folder: Folder of its run.
        status: "waiting", "running", "finished" or "failed".
        seconds: Time of the whole cell, with evaluation, if it was run by this call.
        error: What went wrong.
    """

    cell: Cell
    planned: dict[str, Any]
    folder: Path
    status: str = "waiting"
    seconds: float | None = None
    error: str = ""

    @property
    def progress(self) -> float | None:
        """Share of the training steps in the log of a running cell, or None before the first line."""
        steps = self.planned["steps"]
        try:
            last = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").rstrip("\n").rpartition("\n")[2]
            return min(1.0, json.loads(last)["step"] / steps)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def begin_study(plan: Plan, out: str | Path) -> list[CellState]:
    """Plan all cells and save the plan, or read the plan of a study that has begun; return the cells.

    Raises:
        InputError: If the folder has other files, or a study with another plan.
    """
    out = Path(out)
    if (path := absolute_path(out)).exists() and not path.is_dir():
        raise InputError(f"out: expected a folder, got {out}, which is a file")
    file = out / PLAN_FILE
    if file.exists():
        planned = _saved_plan(file, plan)
        _save_plan(file, plan, planned)  # the title and the number of analysed images may have changed
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"out: expected a new or empty folder or that of this study, got {out}, which has other files")
    else:
        planned = _plan_cells(plan)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out: cannot write {out}: {error.strerror}") from error
        _save_plan(file, plan, planned)
    states = [CellState(cell, planned[cell.name], out / "runs" / cell.name) for cell in plan.cells()]
    for state in states:
        state.status = "finished" if (state.folder / "report.json").is_file() else "waiting"
    return states


def run_cells(states: list[CellState], on_change: Callable[[], None] = lambda: None) -> None:
    """Run all cells that are not finished; a cell that fails has its error in its state, and the others go on.

    Args:
        states: From `begin_study`; changed in place.
        on_change: Called when a cell begins and when it ends.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, after the running cell has saved a checkpoint.
    """
    for state in states:
        if state.status != "waiting":
            continue
        state.status = "running"
        on_change()
        begin = time.perf_counter()
        try:
            with _output_to(state.folder.parent.parent / LOG_FILE):
                has_begun = (state.folder / "config.json").is_file()
                settings = from_dict(state.planned["settings"])
                train(settings, state.folder, resume=has_begun, overwrite=not has_begun, command="simjax study")
            state.status = "finished"
        except Interrupted:
            state.status = "waiting"
            raise
        except Exception as error:  # whatever it is, the other cells go on
            state.status, state.error = "failed", " ".join(f"{error or type(error).__name__}".split())
        state.seconds = time.perf_counter() - begin
        on_change()
        jax.clear_caches()  # of functions that only this cell needed
        gc.collect()


def seconds_left(states: list[CellState], running_for: float) -> float | None:
    """Estimate the remaining time from the finished cells of the same model, or else of all; None without any.

    Args:
        states: All cells.
        running_for: Seconds since the running cell began.
    """
    done = [state for state in states if state.seconds is not None and state.status == "finished"]
    if not done:
        return None

    def expected(state: CellState) -> float:
        similar = [other.seconds or 0.0 for other in done if other.cell.model == state.cell.model]
        times = similar or [other.seconds or 0.0 for other in done]
        return sum(times) / len(times)

    running = [max(0.0, expected(state) - running_for) for state in states if state.status == "running"]
    return sum(running) + sum(expected(state) for state in states if state.status == "waiting")


def _plan_cells(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the settings and the budget of every cell by its name."""
    recipe, planned = plan.recipe, {}
    splits: dict[str, DataSplits] = {}
    matches: dict[tuple[str, str], Match] = {}
    for cell in plan.cells():
        settings = cell.settings(recipe)
        key = json.dumps([cell.dataset, cell.varied, cell.objective])
        if key not in splits:
            splits = {key: load_splits(settings)}  # the images of one data set at a time
        # The seeds of a network have the same budget; a measured time would differ.
        network = cell.group, cell.network
        if network not in matches:
            matches[network] = match(settings, plan.budget, splits[key])
        values = dataclasses.asdict(matches[network])
        values["settings"]["seed"] = cell.seed
        planned[cell.name] = {"group": cell.group, "measure": cell.measure} | values
    return planned


def _save_plan(file: Path, plan: Plan, planned: dict[str, dict[str, Any]]) -> None:
    write_file(file, json.dumps({"study": plan.to_dict(), "cells": planned}, indent=2, allow_nan=False) + "\n")


def _saved_plan(file: Path, plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the cells of a saved plan; an InputError if the plan is not the given one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        saved, planned = plan_from_dict(content["study"]), content["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read as the plan of a study ({error})") from error
    for field in dataclasses.fields(Plan):
        old, new = getattr(saved, field.name), getattr(plan, field.name)
        if old != new and field.name not in ("title", "analysis_images"):
            raise InputError(
                f"study: expected the study that began in {file.parent}, got another one: {field.name} was {old} and "
                f"is now {new}; undo the change, or choose another folder with --out"
            )
    return planned


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append what is printed to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield
