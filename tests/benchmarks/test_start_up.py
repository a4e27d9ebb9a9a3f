import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "start_up.py"


@pytest.mark.slow
def test_seconds_are_written(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--small", "--runs", "1", "--out", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds = json.loads((tmp_path / "start_up.json").read_text())["seconds"]
    assert all(len(taken) == 1 and 0 < taken[0] < 120 for taken in seconds.values())
    (before,) = seconds["compiling the steps of dnn"]
    (after,) = seconds["compiling the steps of dnn, compiled before"]
    assert after < before
    assert f"| `import simjax` | {seconds['`import simjax`'][0]:.2f} (" in (tmp_path / "start_up.md").read_text()
