"""Scalars for TensorBoard: the numbers of metrics.jsonl in an event file.

`tensorboard --logdir runs` reads the file. The package tensorboardX writes it, without TensorFlow.
"""

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simjax.core import InputError


def require_tensorboard() -> None:
    """Raise an InputError if the package that writes event files is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "setting 'tensorboard': the package tensorboardX is not installed; run `pip install 'simjax[tensorboard]'`"
        )


@contextmanager
def event_file(folder: Path, lines: Iterable[Mapping[str, Any]]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Replace a folder by one with a new event file, and yield a function that adds a line of metrics.jsonl to it.

    A tag is "train" or "validation", a slash, and the name of the number, such as `validation/accuracy`.

    Args:
        folder: Folder of the file.
        lines: The lines of metrics.jsonl before, so that both files of a resumed run have the same numbers.

    Raises:
        InputError: If the file cannot be written, also by the function.
    """
    # A `SummaryWriter` would write in a thread: after an error there, such as a full disk, the training would hang.
    from tensorboardX import RecordWriter

    with _readable_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.simjax"))

    def write(events: Iterable[bytes]) -> None:
        with _readable_errors(folder):
            for event in events:
                writer.write(event)
            writer.flush()

    try:
        write([_event(file_version="brain.Event:2"), *map(_scalars, lines)])
        yield lambda line: write([_scalars(line)])
    finally:
        with suppress(OSError):  # of the line that could not be written; all others are on the disk
            writer.close()


def _scalars(line: Mapping[str, Any]) -> bytes:
    """Return the event with the numbers of a line of metrics.jsonl."""
    part = "train" if "loss" in line else "validation"
    scalars = [
        {"tag": f"{part}/{name.removeprefix('validation_')}", "simple_value": value}
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float)
    ]
    return _event(step=line["step"], summary={"value": scalars})


def _event(**fields: Any) -> bytes:
    """Return an event with the given fields of the protocol buffer `Event` and the time."""
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2  # its classes are made at run time
    return messages.Event(wall_time=time.time(), **fields).SerializeToString()


@contextmanager
def _readable_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}") from error
