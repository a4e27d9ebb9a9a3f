import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_large_gallery_opens_in_less_than_two_seconds(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gallery", "--items", "1000000", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gallery_size.json").read_text())
    seconds = report["steps"][1]["seconds"]
    assert seconds["open"] < 2
    assert seconds["add 1 item"] + seconds["find it"] < 2
    assert seconds["remove it"] < 1
    assert report["disk_bytes"] > 1_000_000 * 128 * 4
    assert f"| open | {seconds['open']:.3f} s |" in (tmp_path / "gallery_size.md").read_text()
