"""Progress on the terminal: a live bar with loss, accuracy, speed and time left; plain lines when it is no terminal."""

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class ProgressDisplay:
    """Shows how a training goes; used as a context manager."""

    def __init__(self, total_steps: int, start: int = 0):
        self._console = Console()
        self._live = self._console.is_terminal
        self._total = total_steps
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("train", total=total_steps, completed=start, text="compiling")

    def __enter__(self) -> "ProgressDisplay":
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bar.stop()

    def training(self, line: dict[str, Any], seconds_left: float) -> None:
        """Show a line of the log."""
        text = f"loss {line['loss']:.4f}"
        if line["accuracy"] is not None:
            text += f"  accuracy {line['accuracy']:.4f}"
        text += f"  {line['images_per_second']:,.0f} images/s"
        if self._live:
            self._bar.update(self._task, completed=line["step"], text=text)
        else:
            say(f"step {line['step']}/{self._total}  {text}  {_clock(seconds_left)} left")

    def validation(self, line: dict[str, Any]) -> None:
        """Show what the validation images say."""
        loss = f"loss {line['validation_loss']:.4f}  " if "validation_loss" in line else ""
        text = f"validation {loss}accuracy {line['validation_accuracy']:.4f}"
        if self._live:
            self._console.print(f"step {line['step']}  {text}", highlight=False)
        else:
            say(f"step {line['step']}/{self._total}  {text}")


class PreparationDisplay:
    """Shows how downloads and the preparation of a data set go; called with what, how much is done, and of how much."""

    def __init__(self) -> None:
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=Console())
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show progress; one line for each thing when it is no terminal, or when it is done at once."""
        if what not in self._tasks and done >= total:
            self._tasks[what] = TaskID(-1)
            say(what)
        elif what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
            if not self._bar.console.is_terminal:
                say(what)
        if self._bar.console.is_terminal and self._tasks[what] >= 0:
            self._bar.start()
            self._bar.update(self._tasks[what], completed=done, total=total)
            if done >= total:
                self._bar.stop()


def say(text: str) -> None:
    """One line to the user."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
