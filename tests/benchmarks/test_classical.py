import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_and_the_figure_are_written(tmp_path):
    command = [sys.executable, "-m", "benchmarks.classical", "--points", "30", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text, written = ((folder / "classical.md").read_text().splitlines() for folder in (ROOT / "docs", tmp_path))
    assert text[:-1] == written[:-1]  # but for the date: fits are deterministic
    assert (tmp_path / "classical.png").stat().st_size > 10_000
