import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")


@pytest.mark.slow
def test_losses_agree_and_are_written(tmp_path):
    names = ["contrastive", "triplets, all"]
    command = ["-m", "benchmarks.losses", "--small", "--no-memory", "--runs", "1", "--losses", *names]
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, *command, "--out", str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    contests = json.loads((tmp_path / "loss_speed.json").read_text())["contests"]
    assert [(c["case"], c["name"]) for c in contests] == [(case, name) for case in ("batch", "large") for name in names]
    for contest in contests[:2]:
        assert contest["best_peer"] == "pytorch-metric-learning"
        assert contest["agreement"]["value"] < 1e-4
    assert "| contrastive | 32 x 128, 4 classes |" in (tmp_path / "loss_speed.md").read_text()
