import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.losses"]


def test_names_that_do_not_exist_are_refused():
    command = [*COMMAND, "--losses", "circle", "circles"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: --losses: no contest circles; there are contrastive; " in done.stderr


@pytest.mark.slow
def test_losses_agree_and_are_written(tmp_path):
    pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")
    names = ["contrastive", "triplets, all"]
    command = [*COMMAND, "--small", "--no-memory", "--runs", "1", "--out", str(tmp_path), "--losses", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "loss_speed.json").read_text())
    assert report["command"].startswith("python -m benchmarks.losses --small --no-memory --runs 1 --losses contrastive")
    contests = report["contests"]
    assert [(c["case"], c["name"]) for c in contests] == [(case, name) for case in ("batch", "large") for name in names]
    for contest in contests[:2]:
        assert contest["best_peer"] == "pytorch-metric-learning"
        assert contest["agreement"]["value"] < 1e-4
    assert "| contrastive | 32 x 128, 4 classes |" in (tmp_path / "loss_speed.md").read_text()
