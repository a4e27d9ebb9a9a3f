"""Accuracies under corruption and calibration errors are means over seeds, with intervals over images."""

import numpy as np
import pytest

from simjax.evaluate import mean_estimate
from simjax.study._classifiers import Classifications, calibration, robustness


@pytest.fixture
def runs(random) -> list[Classifications]:
    return [
        Classifications(random.uniform(0.1, 1.0, 101), {"noise": random.uniform(size=(6, 101)) < 0.8}) for _ in range(2)
    ]


def test_robustness_is_the_mean_over_seeds(runs):
    found = robustness(runs)["noise"]
    for strength in range(6):
        first, second = (run.correct["noise"][strength] for run in runs)
        assert found["accuracy"][strength] == pytest.approx((first.mean() + second.mean()) / 2)
        expected = mean_estimate((first.astype(float) + second) / 2, np.arange(101)).interval()
        assert found["accuracy_interval"][strength] == expected


def test_the_calibration_error_is_the_mean_difference_of_confidence_and_accuracy_in_bins(runs):
    errors = []
    for run in runs:
        correct, bins = run.correct["noise"][0], np.ceil(10 * run.confidence).astype(int)
        errors.append(sum(abs((run.confidence - correct)[bins == b].sum()) for b in range(1, 11)) / 101)
    found = calibration(runs)
    assert found["expected_calibration_error"] == pytest.approx(np.mean(errors))
    low, high = found["expected_calibration_error_interval"]
    assert low < found["expected_calibration_error"] < high
    assert found["accuracy"] == pytest.approx(np.mean([run.correct["noise"][0] for run in runs]))
    assert found["confidence"] == pytest.approx(np.mean([run.confidence for run in runs]))


def test_a_network_that_knows_how_often_it_is_right_has_no_calibration_error():
    correct = np.arange(100) < 75
    run = Classifications(np.full(100, 0.75), {"noise": np.tile(correct, (6, 1))})
    assert calibration([run])["expected_calibration_error"] == pytest.approx(0)
