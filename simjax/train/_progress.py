"""Progress of training, evaluation and downloads: one updated line on a terminal, otherwise a few plain lines."""

import atexit
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

MIN_BAR, MAX_BAR = 4, 40  # width of a progress bar in columns
PLAIN_LINES = 20
"""Maximum number of log lines of a training if the output is not a terminal, without validation lines."""
PLAIN_SECONDS = 5.0
"""Minimum time between two lines of a phase if the output is not a terminal."""


def progress_line(title: str, share: float | None, details: Sequence[str], width: int, *, ascii_only: bool) -> str:
    """Return a line with a title, a progress bar and the first details, as many as the width in columns allows.

    `share` is the finished share of the work in [0, 1], or None for no bar.
    """
    bar_space = 0 if share is None else MIN_BAR + 2
    shown: list[str] = []
    for detail in details:
        if len("  ".join([title, *shown, detail])) + bar_space > width:
            break
        shown.append(detail)
    if share is None:
        return "  ".join([title, *shown])[:width]
    free = width - len("  ".join([title, *shown])) - 2
    bar = max(0, min(MAX_BAR, free))
    full, empty = ("#", "-") if ascii_only else ("━", "┄")
    filled = round(bar * min(max(share, 0.0), 1.0))
    return "  ".join([title, full * filled + empty * (bar - filled), *shown])[:width]


class _Line:
    """A progress line that is formatted at each refresh for the current width of the terminal."""

    def __init__(self, title: str, share: float | None = None):
        self.console = Console(highlight=False)
        self.title, self.share = title, share
        self.details: Callable[[], Sequence[str]] = list
        self.live = Live(self, console=self.console, refresh_per_second=4)

    @property
    def on_terminal(self) -> bool:
        return self.console.is_terminal

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = progress_line(self.title, self.share, self.details(), options.max_width, ascii_only=options.ascii_only)
        yield Text(line, no_wrap=True, overflow="crop")


class ProgressDisplay:
    """Display the progress of a training; a context manager."""

    def __init__(self, total_steps: int, start: int = 0):
        self._total = total_steps
        self._printed = start
        self._line = _Line(f"step {start:,}/{total_steps:,}", start / max(total_steps, 1))
        self._line.details = lambda: ["compiling"]

    def __enter__(self) -> "ProgressDisplay":
        if self._line.on_terminal:
            self._line.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.live.stop()

    def training(self, line: dict[str, Any], seconds_left: float) -> None:
        """Display a line of the training log."""
        step, accuracy = line["step"], line["accuracy"]
        details = [f"loss {line['loss']:.4f}", f"{_clock(seconds_left)} left"]
        details += [] if accuracy is None else [f"accuracy {accuracy:.4f}"]
        details += [f"{line['images_per_second']:,.0f} images/s"]
        if self._line.on_terminal:
            self._line.title, self._line.share = f"step {step:,}/{self._total:,}", step / self._total
            self._line.details = lambda: details
        elif step == self._total or step - self._printed >= self._total / PLAIN_LINES:
            self._printed = step
            say("  ".join([f"step {step:,}/{self._total:,}", *details]))

    def validation(self, line: dict[str, Any]) -> None:
        """Display the loss and the accuracy of the validation images."""
        loss = f"loss {line['validation_loss']:.4f}  " if "validation_loss" in line else ""
        text = f"step {line['step']:,}/{self._total:,}  validation {loss}accuracy {line['validation_accuracy']:.4f}"
        if self._line.on_terminal:
            self._line.console.print(text, soft_wrap=True)
        else:
            say(text)


@contextmanager
def phase(title: str, parts: int = 0) -> Iterator[Callable[[str], None]]:
    """Display a phase of the work other than training; yield a function that displays the name of each part of it.

    With `parts`, the expected number of parts, there is a progress bar.
    """
    line = _Line(title, 0.0 if parts else None)
    start = printed = time.perf_counter()
    part_number, name = 0, ""

    def begin(part: str) -> None:
        nonlocal part_number, name, printed
        part_number, name = part_number + 1, part
        line.share = (part_number - 1) / parts if parts else None
        if not line.on_terminal and time.perf_counter() - printed >= PLAIN_SECONDS:
            printed = time.perf_counter()
            say(f"{title}: {part} ({part_number} of {parts})")

    line.details = lambda: [_clock(time.perf_counter() - start), *([name] if name else [])]
    if not line.on_terminal:
        say(title)
        yield begin
        return
    with line.live:
        yield begin
        line.share, name = 1.0 if parts else None, ""


class PreparationDisplay:
    """Display downloads and the preparation of a data set; called with a description, the work done and the total."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Display progress: a bar on a terminal, otherwise one line per description."""
        new = what not in self._lines
        line = self._lines.setdefault(what, _Line(what, 0.0))
        if not line.on_terminal or (new and done >= total):
            if new:
                say(what)
            return
        if new:
            start = time.perf_counter()
            line.details = lambda: [_clock(time.perf_counter() - start)]
        line.share = done / max(total, 1)
        if done >= total:
            line.live.stop()
        elif not line.live.is_started:
            line.live.start()
            atexit.register(line.live.stop)  # an error or Ctrl-C must not leave the cursor hidden


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
