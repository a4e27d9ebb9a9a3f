"""k nearest neighbours, against scikit-learn and by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from simjax.core import InputError
from simjax.evaluate import knn_accuracy, knn_predict


def data(n, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return (rng.normal(size=(classes, 5))[labels] + rng.normal(size=(n, 5))).astype(np.float32), labels


@pytest.mark.parametrize(("measure", "k"), [("cosine", 1), ("euclidean", 11)])
def test_equals_scikit_learn(measure, k):
    (gallery, labels), (query, truth) = data(103), data(37, seed=1)
    peer = KNeighborsClassifier(k, metric=measure, algorithm="brute").fit(gallery, labels)
    predicted = knn_predict(query, gallery, labels, k=k, measure=measure)
    np.testing.assert_array_equal(predicted, peer.predict(query))
    assert predicted.dtype == np.int32
    accuracy = knn_accuracy(gallery, labels, query_embeddings=query, query_labels=truth, k=k, measure=measure)
    assert accuracy == pytest.approx(peer.score(query, truth))


def test_a_tied_vote_goes_to_the_nearest_of_the_tied_classes():
    gallery = [[1.0], [2.0], [3.0], [4.0], [5.0]]
    # the neighbours of 0 are 9, 4, 7, 4, 7: classes 4 and 7 have two votes each, and 4 is nearer
    labels = [9, 4, 7, 4, 7]
    assert knn_predict([[0.0], [6.0]], gallery, labels, k=5, measure="euclidean").tolist() == [4, 7]
    assert knn_predict([[0.0], [6.0]], gallery, labels, k=2, measure="euclidean").tolist() == [9, 7]


def test_leave_one_out_equals_a_loop():
    x, labels = data(31, classes=3)
    correct = []
    for i, nearest in enumerate(np.argsort(cdist(x, x, "cosine"), axis=1)):
        classes = labels[nearest[nearest != i][:4]].tolist()
        correct.append(max(classes, key=classes.count) == labels[i])  # the first of equal counts
    assert knn_accuracy(x, labels, k=4) == pytest.approx(np.mean(correct))


def test_small_galleries():
    assert knn_accuracy(np.zeros((0, 3)), np.zeros(0, int)) is None
    assert knn_accuracy([[1.0, 2.0]], [0]) is None
    two = [[1.0, 2.0], [1.0, 2.0]]
    assert knn_accuracy(two, [0, 0]) == 1.0
    assert knn_accuracy(two, [0, 1]) == 0.0  # a row is not its own neighbour
    assert knn_accuracy([[1.0]], [0], query_embeddings=np.zeros((0, 1)), query_labels=np.zeros(0, int)) is None
    assert knn_predict(np.zeros((0, 1)), [[1.0]], [3]).shape == (0,)


def test_the_neighbours_of_constant_embeddings_have_the_lowest_indices():
    found = knn_predict(np.ones((2, 1)), np.ones((5, 1)), [2, 2, 0, 0, 0], k=2, measure="euclidean")
    assert found.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn_predict([[1.0]], np.zeros((0, 1)), np.zeros(0, int)), "gallery: expected at least one row"),
        (lambda: knn_predict([[1.0]], [[1.0]], [0], exclude=[0]), "gallery: expected at least one row"),
        (lambda: knn_predict([[1.0]], [[1.0]], [0], k=0), "k: expected 1 to 1"),
        (lambda: knn_predict([1.0], [[1.0]], [0]), "query: expected rows"),
        (lambda: knn_predict([[np.nan]], [[1.0]], [0]), "query: expected finite numbers in float32, got nan in row 0"),
        (lambda: knn_accuracy([[1.0]], [0], query_embeddings=[[1.0]]), "expected both or neither"),
        (lambda: knn_predict([[1.0]], [[1.0]], [0], measure="cosin"), "did you mean cosine"),
    ],
)
def test_wrong_arguments_are_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
