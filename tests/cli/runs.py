"""Start commands in this process and in others, and read the runs that they leave."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simjax.cli import main

ROOT = Path(__file__).parents[2]


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that has to fail; return its error of one line."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    return printed


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run a command with --json; return its JSON document."""
    capsys.readouterr()
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def image_folder(path: Path, classes: Sequence[str] = ("a", "b"), each: int = 12, size: int = 12) -> Path:
    random, step = np.random.default_rng(0), min(100, 160 // max(len(classes) - 1, 1))
    for i, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for j in range(each):
            pixels = random.integers(step * i, step * i + 90, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{j}.png")
    return path


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start `python train.py` in a process."""
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    """Wait until the process prints a line that begins with a pattern."""
    assert process.stdout is not None
    assert process.stderr is not None
    if not any(re.match(pattern, line) for line in process.stdout):
        raise AssertionError(process.stderr.read())


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def final_parameters(run: Path) -> tuple[int, list[np.ndarray]]:
    """Return the step and the arrays of the newest checkpoint."""
    import orbax.checkpoint as ocp

    newest = max((run / "checkpoints").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    state = ocp.StandardCheckpointer().restore(newest / "state")
    return int(newest.name), [np.asarray(value) for value in state.values()]


def assert_same_parameters(a: Path, b: Path, step: int) -> None:
    """Both runs end at the step with the same bits."""
    (step_a, arrays_a), (step_b, arrays_b) = final_parameters(a), final_parameters(b)
    assert step_a == step_b == step
    for x, y in zip(arrays_a, arrays_b, strict=True):
        np.testing.assert_array_equal(x, y)
