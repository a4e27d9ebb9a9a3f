import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def measure(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gallery", "--items", "1000000", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "gallery_size.json").read_text())["folder"]


def is_fast(report: dict[str, Any]) -> bool:
    seconds = report["steps"][1]["seconds"]
    return seconds["open"] < 2 and seconds["add 1 item"] + seconds["find it"] < 2 and seconds["remove it"] < 1


@pytest.mark.slow
def test_a_large_gallery_opens_in_less_than_two_seconds(tmp_path):
    """One of three attempts must be fast, because other processes may use the machine."""
    report, attempts = measure(tmp_path), 1
    while not is_fast(report) and attempts < 3:
        report, attempts = measure(tmp_path), attempts + 1
    assert is_fast(report), report["steps"]
    assert report["disk_bytes"] > 1_000_000 * 128 * 4
    seconds = report["steps"][1]["seconds"]
    assert f"| open | {seconds['open']:.3f} s |" in (tmp_path / "gallery_size.md").read_text()
