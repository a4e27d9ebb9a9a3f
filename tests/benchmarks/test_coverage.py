"""The simulation of coverage: counts of intervals against known ones, true rates against a formula, and the page."""

import json
import subprocess
import sys
from itertools import count

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks._simulation import MODELS, Result, draw, population


def test_coverage_counts_the_intervals_that_contain_the_true_value():
    number = count()

    def evaluate(random):
        k = next(number)  # estimates 0 to 9
        none = None if k == 9 else (k - 1.0, k + 1.0)
        return {
            "rate": Result(float(k), (k - 2.0, k + 2.0), {"naive": none}),
            "own": Result(k, (k, k + 3.0), {}, k + 2.0),
        }

    found = coverage.coverage(evaluate, 10, {"rate": 8.5})
    assert found["rate"]["coverage"] == 0.3  # those of 7, 8 and 9
    assert found["rate"]["others"]["naive"] == {"coverage": 0.1, "width": 2.0}
    assert found["rate"]["width"] == 4
    assert found["rate"]["range"] == pytest.approx(9 * 0.95)
    assert found["own"]["coverage"] == 1
    assert found["own"]["range"] == 0


def test_images_of_an_identity_are_more_alike_and_encoders_agree_in_part():
    x = draw(np.random.default_rng(0), MODELS["usual"], 300, MODELS["usual"].noise)
    np.testing.assert_allclose(np.linalg.norm(x, axis=2), 1, rtol=1e-5)
    a, b = x.reshape(2, 300, 5, -1)
    same, different, across = (a[:, 0] * a[:, 1]).sum(1), (a[:-1, 0] * a[1:, 0]).sum(1), (a[:, 0] * b[:, 0]).sum(1)
    assert abs(different.mean()) < 0.05 < 0.6 < same.mean()
    assert 0.6 < across.mean() < 0.8  # 1 - own = 0.7


def test_true_rates_are_those_of_the_thresholds():
    first, second = population(MODELS["usual"], blocks=1, identities=400)
    assert first["FMR at 0.01"] == pytest.approx(0.01, rel=0.02)
    assert first["threshold at 0.01"] < first["threshold at 0.001"]
    assert first["FNMR at 0.001"] > first["FNMR at 0.01"] > first["EER"] > 0.01
    assert second["EER"] > first["EER"]
    assert 1 > first["ROC AUC"] > second["ROC AUC"] > 0.9


@pytest.mark.slow
def test_the_command_writes_the_page_and_continues(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.coverage",
        "--repetitions",
        "3",
        "--claims",
        "2",
        "--out",
        str(tmp_path),
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usual: 200 identities" in first.stdout
    page = (tmp_path / "coverage.md").read_text()
    assert "| difference of MAP@R | 200 |" in page
    assert "| fixed classes | MAP@R |  | queries only |" in page
    report = json.loads((tmp_path / "coverage.json").read_text())
    del report["parts"]["fixed classes"]
    (tmp_path / "coverage.json").write_text(json.dumps(report))
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stdout.startswith("fixed classes: ")
    assert len(second.stdout.splitlines()) == 1
    assert (tmp_path / "coverage.md").read_text() == page
