"""Progress on the terminal: a live bar with loss, accuracy, speed and time left; plain lines when it is no terminal."""

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressDisplay:
    """Shows how a training goes; used as a context manager."""

    def __init__(self, total_steps: int, start: int = 0):
        self._console = Console(stderr=False)
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

    def update(self, line: dict[str, Any], seconds_left: float) -> None:
        """Show one line of the log."""
        if self._live:
            self._bar.update(self._task, completed=line["step"], text=_text(line))
        elif "loss" in line:
            say(f"step {line['step']}/{self._total}  {_text(line)}  {_clock(seconds_left)} left")
        else:
            say(f"step {line['step']}/{self._total}  {_text(line)}")


def say(text: str) -> None:
    """One line to the user."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _text(line: dict[str, Any]) -> str:
    """The numbers of a log line."""
    parts = []
    if "loss" in line:
        parts.append(f"loss {line['loss']:.4f}")
        if line["accuracy"] is not None:
            parts.append(f"accuracy {line['accuracy']:.4f}")
        parts.append(f"{line['images_per_second']:,.0f} images/s")
    else:
        parts += [f"validation loss {line['validation_loss']:.4f}", f"accuracy {line['validation_accuracy']:.4f}"]
    return "  ".join(parts)
