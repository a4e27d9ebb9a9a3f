import pytest

from simjax.report._metrics import METRICS, best

BY_TITLE = {metric.title: metric for metric in METRICS}


@pytest.mark.parametrize("title", ["Accuracy", "k-NN accuracy", "Precision@1", "MAP@R", "ROC AUC"])
def test_quality_is_better_when_higher(title):
    assert best(BY_TITLE[title], [0.5, 0.75, 0.25]) == [False, True, False]


@pytest.mark.parametrize("title", ["Equal error rate", "Parameters", "Step time", "Training time"])
def test_errors_and_costs_are_better_when_lower(title):
    assert best(BY_TITLE[title], [50, 75, 25]) == [False, False, True]


def test_values_with_the_same_text_are_all_best():
    assert best(BY_TITLE["Accuracy"], [0.98611, 0.98614, 0.9860]) == [True, True, False]


def test_neither_a_missing_value_nor_a_single_value_is_the_best():
    assert best(BY_TITLE["Equal error rate"], [None, 0.2, float("nan"), 0.3]) == [False, True, False, False]
    assert best(BY_TITLE["Accuracy"], [None, 0.9]) == [False, False]
