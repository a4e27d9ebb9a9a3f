"""Accuracy, per class and confusion, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from simjax.core import InputError
from simjax.evaluate import classification_metrics


def test_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 7, (2, 101))
    found = classification_metrics(labels, predicted, 7)
    assert found["accuracy"] == metrics.accuracy_score(labels, predicted)
    np.testing.assert_array_equal(found["confusion"], metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(found["per_class_accuracy"], metrics.recall_score(labels, predicted, average=None))


def test_a_class_without_examples_has_no_accuracy():
    assert classification_metrics([0, 0], [0, 2], 3)["per_class_accuracy"] == [0.5, None, None]
    empty = classification_metrics([], [], 2)
    assert empty["accuracy"] is None
    assert empty["per_class_accuracy"] == [None, None]
    np.testing.assert_array_equal(empty["confusion"], np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 3], [0, 0], "labels: expected classes 0 to 2, got 3 in row 1"),
        ([0, 1], [0, -1], "predicted: expected classes 0 to 2, got -1 in row 1"),
        ([0, 1], [0], "predicted: expected 2 labels"),
        ([0.5, 1.0], [0, 1], "labels: expected integer class ids, got float64"),
    ],
)
def test_wrong_arguments_are_errors(labels, predicted, message):
    with pytest.raises(InputError, match=message):
        classification_metrics(labels, predicted, 3)
