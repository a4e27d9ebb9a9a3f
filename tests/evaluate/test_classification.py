"""Accuracy of a classifier, against scikit-learn; mean similarity between classes, against loops over pairs."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn import metrics

from simjax.core import InputError
from simjax.evaluate import _retrieval, class_similarity, classification_metrics


def test_accuracy_and_confusion_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 7, (2, 101))
    found = classification_metrics(labels, predicted, 7)
    assert found["accuracy"] == metrics.accuracy_score(labels, predicted)
    confusion = metrics.confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(found["confusion"], confusion)
    np.testing.assert_allclose(found["per_class_accuracy"], np.diag(confusion) / confusion.sum(axis=1))


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


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_similarity_of_classes_equals_a_loop_over_pairs(measure, monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(43, 3)), rng.integers(0, 5, 43)
    monkeypatch.setattr(_retrieval, "rows_per_block", lambda n, row_bytes: 7)  # seven tiles, the last one padded
    s = cdist(x, x, measure)
    s = 1 - s if measure == "cosine" else s
    expected = [
        [np.mean([s[i, j] for i in range(43) for j in range(43) if i != j and (labels[i], labels[j]) == (a, b)])
         for b in range(5)]
        for a in range(5)
    ]  # fmt: skip
    np.testing.assert_allclose(class_similarity(x, labels, 5, measure), expected, rtol=1e-5, atol=1e-6)


def test_classes_without_pairs_have_similarity_zero():
    np.testing.assert_array_equal(class_similarity(np.zeros((0, 3)), np.zeros(0, int), 2), np.zeros((2, 2)))
    found = class_similarity([[1.0, 0.0], [3.0, 0.0], [3.0, 4.0]], [0, 0, 2], 3)
    np.testing.assert_allclose(found, [[1, 0, 0.6], [0, 0, 0], [0.6, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(class_similarity(np.zeros((3, 2)), np.zeros(3, int), 1), [[0.0]])


def test_a_class_out_of_range_is_an_error():
    with pytest.raises(InputError, match="labels: expected classes 0 to 1, got 2 in row 1"):
        class_similarity(np.ones((2, 2)), [0, 2], 2)
