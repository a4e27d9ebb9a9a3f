"""Clustering, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from simjax.evaluate import clustering_metrics

NAMES = ("normalized_mutual_information", "adjusted_mutual_information", "adjusted_rand_index")


def test_equals_scikit_learn(random):
    labels = random.integers(0, 5, 97)
    x = random.normal(size=(5, 3))[labels] * 2 + random.normal(size=(97, 3))
    predicted = KMeans(5, random_state=7).fit_predict(x.astype(np.float32).astype(np.float64))
    scores = (normalized_mutual_info_score, adjusted_mutual_info_score, adjusted_rand_score)
    found = clustering_metrics(x, 40 - labels, seed=7)
    assert [found[name] for name in NAMES] == pytest.approx([score(labels, predicted) for score in scores], rel=1e-12)
    assert 0.2 < found["adjusted_rand_index"] < 0.9
    assert found["clusters"] == 5


def test_separate_classes_are_found_and_collapsed_embeddings_tell_nothing():
    labels = np.arange(4).repeat(5)
    assert [clustering_metrics(np.eye(4)[labels] * 1e30, labels)[name] for name in NAMES] == pytest.approx([1, 1, 1])
    collapsed = clustering_metrics(np.ones((20, 3)), labels)
    assert [collapsed[name] for name in NAMES] == [0, 0, 0]
    assert collapsed["clusters"] == 1


def test_small_inputs():
    assert clustering_metrics(np.zeros((0, 2)), np.zeros(0, int)) == {**dict.fromkeys(NAMES), "clusters": 0}
    assert clustering_metrics([[1.0, 2.0]], [3]) == {**dict.fromkeys(NAMES, 1.0), "clusters": 1}
