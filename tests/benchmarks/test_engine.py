import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _pairwise
from simjax.similarity import _measure

ROOT = Path(__file__).parents[2]
ENGINE = [sys.executable, "-m", "benchmarks.engine", "--small"]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """What one run writes where FAISS is not installed."""
    out = tmp_path_factory.mktemp("out")
    (out / "faiss.py").write_text("raise ModuleNotFoundError('not here', name='faiss')\n")
    options = ["--measures", "manhattan", "--runs", "3", "--threads", "1", "--no-memory", "--out", str(out)]
    done = subprocess.run(
        [*ENGINE, *options], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(out)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_numbers_fit_together(written):
    contests = json.loads((written / "benchmarks.json").read_text())["contests"]
    assert [f"{c['case']}/{c['name']}" for c in contests] == [
        "pairwise/manhattan",
        "search/squared_euclidean",
        "search/euclidean",
        "attention/long",
        "attention/many",
        "logsumexp/medium",
        "logsumexp/large",
        *(f"retrieval/{name}" for name in ("10 classes", "100 classes", "2,000 classes", "large, 10 classes")),
    ]
    for contest in contests:
        ran = {name: o for name, o in contest["contenders"].items() if o["seconds"]}
        for outcome in ran.values():
            assert len(outcome["seconds"]) == 3
            assert outcome["median"] == sorted(outcome["seconds"])[1]
        if contest["case"] == "retrieval":  # its peer needs FAISS, and nothing is compiled ahead of time
            assert contest["best_peer"] is contest["ratio"] is contest["agreement"] is None
            continue
        best = min((name for name in ran if name != "simjax"), key=lambda name: ran[name]["median"])
        assert contest["best_peer"] == best
        assert contest["ratio"] == ran[best]["median"] / ran["simjax"]["median"]
        assert ran["simjax"]["compile_seconds"] > 0
        value = contest["agreement"]["value"]
        assert value == 1.0 if contest["case"] == "search" else value < 1e-5


@pytest.mark.slow
def test_page_and_plot(written):
    page = (written / "benchmarks.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| manhattan | 1,000 x 1,000 x 16 |")]
    contest = json.loads((written / "benchmarks.json").read_text())["contests"][0]
    assert len(rows) == 1
    assert f"| {contest['best_peer']} | {contest['ratio']:.2f} |" in rows[0]
    assert "euclidean, FAISS: faiss is not installed" in page
    assert (written / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_peak_memory_is_that_of_the_result():
    done = subprocess.run(
        [*ENGINE, "--memory-of", "pairwise/manhattan", "SciPy"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == pytest.approx(1_000 * 1_000 * 8, rel=0.1)


def test_every_measure_of_the_peers_is_there():
    assert set(_pairwise.MEASURES) - set(_measure.MEASURES) == set()
