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

MIN_BAR, MAX_BAR = 4, 40  # smallest and largest width of a progress bar in columns
# If the output is not a terminal:
PLAIN_LINES = 20  # maximum number of lines printed in one training, not counting validation
PLAIN_SECONDS = 5.0  # minimum time between two lines of a phase


def progress_line(title: str, share: float | None, details: Sequence[str], width: int, *, ascii_only: bool) -> str:
    """Return a line with a title, a progress bar, and as many of the first details as fit into `width` columns.

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
    """A progress line that is formatted at each refresh for the current width of the terminal.

    `get_details` is called at each refresh, so that a line can show the time.
    """

    def __init__(self, title: str, share: float | None = None, *, stderr: bool = False):
        self.console = Console(highlight=False, stderr=stderr)
        self.title, self.share = title, share
        self.get_details: Callable[[], Sequence[str]] = lambda: []
        self.live = Live(self, console=self.console, refresh_per_second=4)

    @property
    def on_terminal(self) -> bool:
        return self.console.is_terminal

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        details, width = self.get_details(), options.max_width
        line = progress_line(self.title, self.share, details, width, ascii_only=options.ascii_only)
        yield Text(line, no_wrap=True, overflow="crop")


class ProgressDisplay:
    """Context manager that displays the progress of training from step `start` to step `total_steps`."""

    def __init__(self, total_steps: int, start: int = 0):
        self._total = total_steps
        self._last_printed_step = start
        self._line = _Line(f"step {start:,}/{total_steps:,}", start / max(total_steps, 1))
        self._line.get_details = lambda: ["compiling"]

    def __enter__(self) -> "ProgressDisplay":
        if self._line.on_terminal:
            self._line.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.live.stop()

    def show_training(self, entry: dict[str, Any], seconds_left: float) -> None:
        """Display an entry of the training log. Without a terminal, print at most PLAIN_LINES entries of a training.

        The entry contains step, loss, accuracy (None without a classifier) and images_per_second.
        """
        step, accuracy = entry["step"], entry["accuracy"]
        details = [f"loss {entry['loss']:.4f}", f"{_minutes_and_seconds(seconds_left)} left"]
        details += [] if accuracy is None else [f"accuracy {accuracy:.4f}"]
        details += [f"{entry['images_per_second']:,.0f} images/s"]
        if self._line.on_terminal:
            self._line.title, self._line.share = f"step {step:,}/{self._total:,}", step / self._total
            self._line.get_details = lambda: details
        elif step == self._total or step - self._last_printed_step >= self._total / PLAIN_LINES:
            self._last_printed_step = step
            print_line("  ".join([f"step {step:,}/{self._total:,}", *details]))

    def show_validation(self, entry: dict[str, Any]) -> None:
        """Display an entry of the log with step, validation_accuracy and, if there is one, validation_loss."""
        loss = f"loss {entry['validation_loss']:.4f}  " if "validation_loss" in entry else ""
        text = f"step {entry['step']:,}/{self._total:,}  validation {loss}accuracy {entry['validation_accuracy']:.4f}"
        if self._line.on_terminal:
            self._line.console.print(text, soft_wrap=True)
        else:
            print_line(text)


@contextmanager
def phase(title: str, parts: int = 0) -> Iterator[Callable[[str], None]]:
    """Display a phase of a run other than training, and yield a function that displays the name of the next part.

    If `parts`, the expected number of parts, is given, there is a progress bar.
    """
    line = _Line(title, 0.0 if parts else None)
    start = last_printed = time.perf_counter()
    part_number, name = 0, ""

    def begin(part: str) -> None:
        nonlocal part_number, name, last_printed
        part_number, name = part_number + 1, part
        line.share = (part_number - 1) / parts if parts else None
        if not line.on_terminal and time.perf_counter() - last_printed >= PLAIN_SECONDS:
            last_printed = time.perf_counter()
            print_line(f"{title}: {part} ({part_number} of {parts})")

    line.get_details = lambda: [_minutes_and_seconds(time.perf_counter() - start), *([name] if name else [])]
    if not line.on_terminal:
        print_line(title)
        yield begin
        return
    with line.live:
        yield begin
        line.share, name = 1.0 if parts else None, ""


class PreparationDisplay:
    """Display downloads and other preparations, one progress line for each description of the work.

    With `stderr`, a bar is shown on a terminal, and nothing otherwise, because stdout is for the result of a command.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._lines: dict[str, _Line] = {}
        self._stderr = stderr

    def __call__(self, description: str, done: int, total: int) -> None:
        """Display the amount of work done, of `total`: with a bar on a terminal, otherwise by the description only."""
        is_new = description not in self._lines
        line = self._lines.setdefault(description, _Line(description, 0.0, stderr=self._stderr))
        if not line.on_terminal or (is_new and done >= total):
            if is_new and not self._stderr:
                print_line(description)
            return
        if is_new:
            start = time.perf_counter()
            line.get_details = lambda: [_minutes_and_seconds(time.perf_counter() - start)]
        line.share = done / max(total, 1)
        if done >= total:
            line.live.stop()
        elif not line.live.is_started:
            line.live.start()
            atexit.register(line.live.stop)  # an error or Ctrl-C must not leave the cursor hidden


def print_line(text: object, *, stderr: bool = False) -> None:
    """Print one line, `escaped`, and flush the output."""
    stream = sys.stderr if stderr else sys.stdout
    stream.write(f"{escaped(text)}\n")
    stream.flush()


def escaped(text: object) -> str:
    r"""Return text with escapes in place of characters that a terminal would act on, such as the start of a colour.

    Example:
        >>> print(escaped("Ada\x1b[31m"))
        Ada\x1b[31m
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _minutes_and_seconds(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
