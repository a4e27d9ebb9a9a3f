"""Metrics of the whole ranking and of single queries and classes, against scikit-learn and loops over definitions."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from simjax.core import InputError
from simjax.evaluate import graded_ndcg, retrieval_metrics, retrieval_values

EUCLIDEAN = {"measure": "euclidean", "block_size": 5}
"""Most tests compare 29 or 13 rows of 3 features with 29, so that few programs are compiled."""

PER_QUERY = ("mean_average_precision", "mean_reciprocal_rank", "ndcg", "triplet_accuracy")


def by_loop(distance, labels, label, own):
    """Compute the definitions for one query from its distances to the gallery; None without a relevant row."""
    columns = [j for j in range(len(labels)) if j != own]
    order = sorted(columns, key=lambda j: (distance[j], j))
    ranks = [rank for rank, j in enumerate(order, start=1) if labels[j] == label]
    if not ranks:
        return None
    ordered = [
        1.0 if distance[i] < distance[j] else 0.5 if distance[i] == distance[j] else 0.0
        for i in columns
        for j in columns
        if labels[i] == label != labels[j]
    ]
    return [
        sum(number / rank for number, rank in enumerate(ranks, start=1)) / len(ranks),
        1 / ranks[0],
        sum(1 / np.log2(1 + rank) for rank in ranks) / sum(1 / np.log2(2 + i) for i in range(len(ranks))),
        sum(ordered) / len(ordered),
    ]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("levels", [2, 1000])
def test_whole_ranking_equals_the_definitions_also_with_ties(own, levels, random):
    gallery, labels = random.integers(0, levels, (29, 3)), random.zipf(1.7, 29) % 7  # classes of very different size
    query, query_labels = random.integers(0, levels, (13, 3)), random.integers(0, 9, 13)
    extra = {} if own else {"query_embeddings": query, "query_labels": query_labels}
    found = retrieval_values(gallery, labels, whole_ranking=True, **EUCLIDEAN, **extra)
    distance = cdist(gallery if own else query, gallery)
    asked = labels if own else query_labels
    expected = [by_loop(row, labels, asked[i], i if own else None) for i, row in enumerate(distance)]
    np.testing.assert_array_equal(found["query"], [i for i, values in enumerate(expected) if values])
    for name, values in zip(PER_QUERY, zip(*filter(None, expected), strict=True), strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_whole_ranking_equals_scikit_learn(random):
    x, labels = random.normal(size=(29, 3)), random.integers(0, 4, 29)
    extra = {"query_embeddings": random.normal(size=(13, 3)), "query_labels": random.integers(0, 4, 13)}
    found = retrieval_values(x, labels, whole_ranking=True, **extra, **EUCLIDEAN)
    scores = -cdist(extra["query_embeddings"], x)
    for i in found["query"]:
        truth = labels == extra["query_labels"][i]
        assert found["mean_average_precision"][i] == pytest.approx(average_precision_score(truth, scores[i]))
        assert found["ndcg"][i] == pytest.approx(ndcg_score([truth], scores[i : i + 1]))
        assert found["triplet_accuracy"][i] == pytest.approx(roc_auc_score(truth, scores[i]))
    assert len(found["query"]) == 13


@pytest.mark.parametrize("whole_ranking", [False, True])
def test_metrics_are_means_of_the_values_of_queries(whole_ranking, random):
    x, labels = random.normal(size=(29, 3)), random.integers(0, 7, 29) * (random.random(29) < 0.8) * 10
    values = retrieval_values(x, labels, whole_ranking=whole_ranking, **EUCLIDEAN)
    metrics = retrieval_metrics(x, labels, whole_ranking=whole_ranking, **EUCLIDEAN)
    assert metrics.pop("queries") == len(values["query"])
    per_class = metrics.pop("per_class")
    recall = metrics.pop("recall_at_k")
    assert recall == {k: value.mean() for k, value in values["recall_at_k"].items()}
    assert metrics == {name: values[name].mean() for name in metrics}
    assert set(metrics) == set(values) - {"query", "recall_at_k"}
    classes = labels[values["query"]]
    assert per_class["label"] == sorted(set(classes.tolist()))
    for i, label in enumerate(per_class["label"]):
        assert per_class["queries"][i] == np.sum(classes == label)
        for name in ("precision_at_1", "mean_average_precision_at_r"):
            assert per_class[name][i] == pytest.approx(values[name][classes == label].mean(), rel=1e-12)


def test_classes_keep_their_labels_where_gallery_and_queries_have_other_dtypes():
    x, large = np.ones((29, 3)), np.array([2**64 - 1, 2**63, 7] * 9 + [8, 9], np.uint64)
    found = retrieval_metrics(x, large, query_embeddings=x[:13], query_labels=np.full(13, 7), **EUCLIDEAN)
    assert found["per_class"]["label"] == [7]
    assert retrieval_metrics(x, large, **EUCLIDEAN)["per_class"]["label"] == [7, 2**63, 2**64 - 1]


def test_a_worked_ranking():
    # the ranks of the relevant rows are 1, 4 and 5, and rows 4 and 5 are as far as the irrelevant row 3
    gallery, labels = [[1.0], [2.0], [4.0], [4.0], [-4.0]], [8, 0, 0, 8, 8]
    given = {"query_embeddings": [[0.0]], "query_labels": [8], "measure": "euclidean"}
    found = retrieval_metrics(gallery, labels, whole_ranking=True, **given)
    assert found["mean_average_precision"] == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert found["mean_reciprocal_rank"] == 1
    best = 1 + 1 / np.log2(3) + 1 / 2
    assert found["ndcg"] == pytest.approx((1 + 1 / np.log2(5) + 1 / np.log2(6)) / best)
    assert found["triplet_accuracy"] == pytest.approx((2 + 0.5 + 0.5) / 6)
    assert "ndcg" not in retrieval_metrics(gallery, labels, **given)


def test_values_that_do_not_exist_are_none():
    x = np.random.default_rng(0).normal(size=(29, 3))
    one_class = retrieval_metrics(x, np.zeros(29, int), whole_ranking=True, **EUCLIDEAN)
    assert [one_class[name] for name in PER_QUERY] == [1.0, 1.0, 1.0, None]  # there is no irrelevant row
    for n in (0, 1, 29):
        found = retrieval_metrics(x[:n], np.arange(n), whole_ranking=True)
        assert [found[name] for name in PER_QUERY] == [None] * 4
        assert found["per_class"] == {
            "label": [],
            "queries": [],
            "precision_at_1": [],
            "mean_average_precision_at_r": [],
        }
        assert retrieval_values(x[:n], np.arange(n))["precision_at_1"].shape == (0,)


@pytest.mark.parametrize("k", [None, 1, 5, 100])
def test_graded_ndcg_equals_scikit_learn(k, random):
    gallery, query, gains = random.normal(size=(29, 3)), random.normal(size=(13, 3)), random.integers(0, 4, (13, 29))
    scores = -cdist(query, gallery)
    found = graded_ndcg(gallery, gains, query_embeddings=query, k=k, **EUCLIDEAN)
    assert found == pytest.approx(ndcg_score(gains, scores, k=k))
    gains = random.random((29, 29))
    scores, others = -cdist(gallery, gallery), ~np.eye(29, dtype=bool)
    expected = ndcg_score(gains[others].reshape(29, 28), scores[others].reshape(29, 28), k=k)
    assert graded_ndcg(gallery, gains, k=k, **EUCLIDEAN) == pytest.approx(expected)


def test_graded_ndcg_of_classes_is_ndcg_and_a_function_gives_the_same_as_an_array(random):
    x, labels = random.integers(0, 3, (29, 3)), random.integers(0, 6, 29)
    same = labels[:, None] == labels
    expected = retrieval_metrics(x, labels, whole_ranking=True, **EUCLIDEAN)["ndcg"]
    assert graded_ndcg(x, same, **EUCLIDEAN) == pytest.approx(expected, rel=1e-12)
    assert graded_ndcg(x, lambda rows: same[rows], **EUCLIDEAN) == graded_ndcg(x, same, **EUCLIDEAN)


def test_graded_ndcg_ignores_queries_without_a_gain():
    x = np.array([[0.0], [1.0], [3.0]])
    gains = np.array([[9, 0, 0], [1, 9, 2], [0, 0, 9]])  # the gain of a row for itself does not count
    expected = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
    assert graded_ndcg(x, gains, measure="euclidean") == pytest.approx(expected)
    assert graded_ndcg(x, np.eye(3), measure="euclidean") is None
    for n in (0, 1):
        assert graded_ndcg(x[:n], np.ones((n, n))) is None
    assert graded_ndcg(x, np.ones((0, 3)), query_embeddings=np.ones((0, 1))) is None


@pytest.mark.parametrize(
    ("relevance", "extra", "message"),
    [
        (np.ones((2, 3)), {}, r"relevance: expected a gain for each of 2 queries and 2 rows, got shape \(2, 3\)"),
        (lambda rows: np.ones(2), {}, r"relevance: expected a gain for each of 2 queries and 2 rows, got shape \(2,\)"),
        ([[0, 1], [-1, 0]], {}, "relevance: expected at least 0, got -1"),
        (np.ones((2, 2)), {"k": 0}, "k: expected at least 1, got 0"),
        (lambda rows: np.full((2, 2), np.nan), {}, "relevance: expected finite numbers in float32, got nan in row 0"),
    ],
)
def test_wrong_gains_are_errors(relevance, extra, message):
    with pytest.raises(InputError, match=message):
        graded_ndcg([[1.0], [2.0]], relevance, **extra)
