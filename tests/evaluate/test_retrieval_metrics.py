"""Retrieval, against loops over the definitions."""

import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.evaluate import retrieval_metrics
from simjax.evaluate._retrieval import _rank, tiles
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def by_loop(distance, labels, query_labels, itself, ks):
    """Compute the definitions one query at a time from the whole matrix of distances [queries, gallery]."""
    rows = []
    for i in range(len(query_labels)):
        order = sorted((j for j in range(len(labels)) if not (itself and i == j)), key=lambda j: (distance[i, j], j))
        rel = [labels[j] == query_labels[i] for j in order]
        total = sum(rel)
        if total:
            precision = [sum(rel[: p + 1]) / (p + 1) for p in range(total)]
            average = sum(p * r for p, r in zip(precision, rel, strict=False)) / total
            rows.append([rel[0], average, precision[-1], *(any(rel[:k]) for k in ks)])
    return np.mean(rows, axis=0), len(rows)


def values(found):
    return [
        found["precision_at_1"],
        found["mean_average_precision_at_r"],
        found["r_precision"],
        *found["recall_at_k"].values(),
    ]


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize("itself", [True, False])
def test_equals_the_definitions(measure, itself):
    rng = np.random.default_rng(0)
    labels, query_labels = rng.zipf(1.7, 97) % 11, rng.integers(0, 13, 31)  # classes of very different size
    gallery, query = rng.normal(size=(97, 5)) + labels[:, None] / 7, rng.normal(size=(31, 5))
    extra = {} if itself else {"query_embeddings": query, "query_labels": query_labels}
    found = retrieval_metrics(gallery, labels, measure=measure, ks=(1, 2, 17), block_size=23, **extra)
    distance = cdist(gallery if itself else query, gallery, measure)
    expected, queries = by_loop(distance, labels, labels if itself else query_labels, itself, (1, 2, 17))
    np.testing.assert_allclose(values(found), expected, rtol=1e-12)
    assert found["queries"] == queries
    assert list(found["recall_at_k"]) == ["1", "2", "17"]


def test_worked_example():
    # points on a line, the query at 0: of R = 3 relevant rows, the first has rank 1, the others 4 and 5
    gallery, labels = [[1.0], [2.0], [3.0], [4.0], [5.0]], [8, 0, 0, 8, 8]
    found = retrieval_metrics(gallery, labels, query_embeddings=[[0.0]], query_labels=[8], measure="euclidean")
    assert values(found) == pytest.approx([1, 1 / 3, 1 / 3, 1, 1, 1])
    found = retrieval_metrics(gallery, [0, 8, 8, 8, 1], query_embeddings=[[0.0]], query_labels=[8], measure="euclidean")
    assert values(found) == pytest.approx([0, (1 / 2 + 2 / 3) / 3, 2 / 3, 0, 1, 1])


integers = hnp.arrays(np.int32, (23, 2), elements=st.integers(-2, 2))


@settings(deadline=None, max_examples=25)
@given(integers, hnp.arrays(np.int32, 23, elements=st.integers(0, 6)))
def test_ties_are_ranked_by_lowest_index_and_one_block_equals_many(x, labels):
    labels = labels // np.arange(1, 24)  # the classes of the last rows are 0, so that all examples have queries
    found = retrieval_metrics(x, labels, measure="dot", block_size=5)
    expected, queries = by_loop(-x @ x.T, labels, labels, True, (1, 5, 10))
    np.testing.assert_allclose(values(found), expected, rtol=1e-12)
    assert found["queries"] == queries
    again = retrieval_metrics(x, labels, query_embeddings=x, query_labels=labels, measure="dot", block_size=5)
    assert again == retrieval_metrics(x, labels, query_embeddings=x, query_labels=labels, measure="dot")


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 61)),
        elements=st.one_of(st.integers(-2, 2).map(float), st.floats(-2, 2, width=16), st.just(np.nan)),
    )
)
def test_ranking_equals_a_stable_sort(distances):
    # Of NaN, the one distance of a row to itself, there is one in a row.
    distances[np.cumsum(np.isnan(distances), axis=1) > 1] = 0
    expected = np.argsort(distances, axis=1, kind="stable")
    for depth in range(1, distances.shape[1] + 1 - np.isnan(distances).any()):
        np.testing.assert_array_equal(_rank(distances, depth), expected[:, :depth])


@pytest.mark.parametrize("levels", [1, 3, 10**6])
def test_ranking_of_wide_rows_equals_a_stable_sort(levels, random):
    distances = random.integers(0, levels, (11, 1499)).astype(np.float32)
    distances[:, 700] = np.nan
    expected = np.argsort(distances, axis=1, kind="stable")
    for depth in (1, 2, 15, 16, 100, 499, 500, 1498):
        np.testing.assert_array_equal(_rank(distances, depth), expected[:, :depth])


def test_ranking_of_infinities_and_both_zeros():
    row = np.array([[0.0, -0.0, np.inf, -1e-45, 1e-45, -np.inf, 0.0, -3e38]], np.float32)
    assert _rank(row, 8).tolist() == [[5, 7, 3, 0, 1, 6, 4, 2]]
    assert _rank(-row, 8).tolist() == [[2, 4, 0, 1, 6, 3, 7, 5]]
    assert _rank(row, 2).tolist() == [[5, 7]]
    row[0, 4] = np.nan  # after infinity
    assert _rank(row, 8).tolist() == [[5, 7, 3, 0, 1, 6, 2, 4]]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 99), st.integers(-60, 60))
def test_invariant_to_scale_and_order(seed, power):
    rng = np.random.default_rng(seed)
    x, labels, order = rng.normal(size=(29, 3)), np.arange(29) // 5, rng.permutation(29)
    found = values(retrieval_metrics(x, labels))
    np.testing.assert_allclose(values(retrieval_metrics(x * 2.0**power, labels)), found, rtol=1e-12)
    np.testing.assert_allclose(values(retrieval_metrics(x[order], labels[order])), found, rtol=1e-12)


def test_relabelling_changes_nothing():
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(29, 3)), rng.permutation(29) // 5
    found, relabelled = retrieval_metrics(x, labels), retrieval_metrics(x, 2**40 - 7 * labels)
    assert relabelled["per_class"].pop("label") == [2**40 - 7 * label for label in (5, 4, 3, 2, 1, 0)]
    assert found["per_class"].pop("label") == [0, 1, 2, 3, 4, 5]
    assert found.pop("per_class") == {name: per[::-1] for name, per in relabelled.pop("per_class").items()}
    assert found == relabelled


def test_perfect_and_constant_embeddings():
    labels = np.arange(5).repeat(3)
    assert values(retrieval_metrics(np.eye(5)[labels], labels)) == [1.0] * 6
    collapsed = retrieval_metrics(np.ones((4, 3)), [0, 0, 1, 1])
    # the nearest row is row 0, and row 1 for row 0
    assert collapsed["precision_at_1"] == 0.5
    assert collapsed["mean_average_precision_at_r"] == 0.5


def test_queries_without_relevant_rows_are_ignored():
    x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert retrieval_metrics(x, [4, 4, 9])["queries"] == 2
    for n in (0, 1, 3):
        found = retrieval_metrics(x[:n], np.arange(n))
        assert values(found) == [None] * 6
        assert found["queries"] == 0
    assert retrieval_metrics(x, [1, 1, 1], query_embeddings=x, query_labels=[2, 2, 2])["precision_at_1"] is None


def test_one_class_gives_perfect_metrics():
    found = retrieval_metrics(np.random.default_rng(0).normal(size=(7, 2)), np.zeros(7, int))
    assert values(found) == [1.0] * 6


def test_a_users_own_measure_and_low_precision():
    labels = np.array([0, 0, 1, 1])
    x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]], ml_dtypes.bfloat16)
    largest = Measure.from_pair(lambda a, b: jnp.max(jnp.abs(a - b), -1), higher_is_closer=False)
    # only (0, 1) fails: (1, 0) and (0, 2) are both 1 away, and the other class has the lower index
    assert retrieval_metrics(x, labels, measure=largest)["precision_at_1"] == 0.75


@pytest.mark.parametrize("block_size", [5, 100])
def test_tiles_cover_every_row_once(block_size):
    x = np.random.default_rng(0).integers(-3, 4, (23, 3)).astype(np.float32)
    rows, found = zip(*tiles(x, x[:7], as_measure("dot"), block_size), strict=True)
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(23))
    np.testing.assert_array_equal(np.concatenate(found), x @ x[:7].T)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"ks": (0, 1)}, "ks: expected at least 1"),
        ({"measure": "cosin"}, "did you mean cosine"),
        ({"query_labels": [1]}, "expected both or neither"),
        ({"query_embeddings": [[1.0]], "query_labels": [0, 0]}, "query_labels: expected 1 labels"),
    ],
)
def test_wrong_arguments_are_errors(extra, message):
    with pytest.raises(InputError, match=message):
        retrieval_metrics([[1.0], [2.0]], [0, 0], **extra)
