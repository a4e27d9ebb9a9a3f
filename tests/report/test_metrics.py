import pytest

from simjax.report._metrics import METRICS, with_interval
from simjax.report._run import Run

BY_TITLE = {metric.title: metric for metric in METRICS}


@pytest.mark.parametrize("title", ["Accuracy", "k-NN accuracy", "Precision@1", "MAP@R", "ROC AUC"])
def test_quality_is_better_when_higher(title):
    assert BY_TITLE[title].better == "highest"


@pytest.mark.parametrize("title", ["Equal error rate", "Parameters", "Step time", "Training time"])
def test_errors_and_costs_are_better_when_lower(title):
    assert BY_TITLE[title].better == "lowest"


def test_a_value_is_shown_with_its_interval_if_there_is_one(tmp_path):
    recall = {"5": 0.9861, "5_interval": [0.97421, 0.99261], "10": 1.0, "10_interval": None}
    run = Run(tmp_path, {}, {"retrieval": {"recall_at_k": recall}, "parameters": 1200}, [])
    assert with_interval(BY_TITLE["Recall@5"], run) == "98.61% (97.42–99.26%)"
    assert with_interval(BY_TITLE["Recall@10"], run) == "100.00%"
    assert with_interval(BY_TITLE["Parameters"], run) == "1,200"
    assert with_interval(BY_TITLE["Accuracy"], run) == "–"
