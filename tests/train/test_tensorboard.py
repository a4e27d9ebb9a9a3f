"""The event file of a run for TensorBoard."""

import errno
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.report._recipes import NOT_IN_RECIPE
from simjax.train import train
from simjax.train._run_folder import RunFolder
from simjax.train._settings import STORAGE_SETTINGS, from_dict
from simjax.train._tensorboard import event_file
from tests.train.test_run import log_lines, train_until_stopped

QUICK: dict[str, Any] = {
    "model": "dnn",
    "dnn": {"widths": [8]},
    "steps": 20,
    "checkpoint_seconds": 0.0,
    "tensorboard": True,
}

Scalars = list[tuple[int, dict[str, float]]]


def read_scalars(folder: Path) -> Scalars:
    """Return the step and the scalars by tag of each event in the only file of a folder, after the version."""
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2
    (file,) = folder.iterdir()
    assert "tfevents" in file.name  # by which TensorBoard finds it
    content, events = file.read_bytes(), []
    while content:  # length, its CRC, event, its CRC
        (size,) = struct.unpack("<Q", content[:8])
        assert len(content) >= size + 16
        events.append(messages.Event.FromString(content[12 : 12 + size]))
        content = content[size + 16 :]
    assert events[0].file_version == "brain.Event:2"
    return [(event.step, {value.tag: value.simple_value for value in event.summary.value}) for event in events[1:]]


def logged_scalars(run: Path) -> Scalars:
    """Return the numbers of metrics.jsonl, rounded to float32, in the form of `read_scalars`."""
    scalars = []
    for line in log_lines(run):
        part = "validation" if "validation_accuracy" in line else "train"
        numbers = {name.removeprefix("validation_"): value for name, value in line.items() if name != "step"}
        scalars.append((line["step"], {f"{part}/{name}": float(np.float32(x)) for name, x in numbers.items()}))
    return scalars


@pytest.mark.slow
def test_the_scalars_are_the_numbers_of_the_log_also_after_a_resumption(tmp_path, monkeypatch):
    out = tmp_path / "run"
    train_until_stopped(QUICK, out, 9, monkeypatch)
    before = read_scalars(out / "tensorboard")
    assert before == logged_scalars(out)
    (out / "tensorboard" / "events.out.tfevents.0.stale").write_bytes(b"")
    with (out / "metrics.jsonl").open("a") as log:
        log.write('{"step": 19, "loss": 1.0}\n{"step')  # a step after the checkpoint, a line of a killed process
    train(from_dict(QUICK), out, resume=True)
    scalars = read_scalars(out / "tensorboard")
    assert scalars == logged_scalars(out)
    assert scalars[: len(before)] == before
    of_training = [(step, values) for step, values in scalars if "train/loss" in values]
    assert [step for step, _ in of_training] == list(range(1, 21))
    assert of_training[0][1].keys() == {
        *("train/epoch", "train/loss", "train/accuracy", "train/learning_rate"),
        *("train/images_per_second", "train/seconds"),
    }
    assert scalars[-1][1].keys() == {
        *("validation/loss", "validation/accuracy"),
        *("validation/spread", "validation/effective_rank_centered", "validation/largest_variance_share"),
    }
    folder = RunFolder(out)
    folder.begin(from_dict(QUICK), resume=False, overwrite=True)  # the file does not prevent that a run is replaced
    folder.clear()
    assert not folder.tensorboard.exists()


def test_a_missing_value_has_no_scalar(tmp_path):
    with event_file(tmp_path / "events", [{"step": 3, "loss": 0.5, "accuracy": None}]) as write:
        write({"step": 6, "validation_accuracy": 0.25})
        assert read_scalars(tmp_path / "events") == [(3, {"train/loss": 0.5}), (6, {"validation/accuracy": 0.25})]


def test_without_the_package_one_line_names_the_extra_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"'tensorboard'.*run `pip install 'simjax\[tensorboard\]'`"):
        train(from_dict(QUICK), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with event_file(tmp_path / "events", []) as write:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot write .*events: No space left on device"):
            write({"step": 1, "loss": 0.5})


def test_runs_that_differ_in_storage_are_of_one_recipe():
    assert set(STORAGE_SETTINGS) <= NOT_IN_RECIPE
