"""Mean similarity between classes, against a loop over all pairs."""

import numpy as np
import pytest

from simjax.core import InputError
from simjax.evaluate import _retrieval, class_similarity
from simjax.similarity import pairwise


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_equals_a_loop_over_pairs(measure, monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(43, 3)), rng.integers(0, 5, 43)
    monkeypatch.setattr(_retrieval, "TILE_ENTRIES", 43 * 7)  # seven tiles, the last one padded
    s = np.asarray(pairwise(x, measure=measure))
    expected = [
        [np.mean([s[i, j] for i in range(43) for j in range(43) if i != j and (labels[i], labels[j]) == (a, b)])
         for b in range(5)]
        for a in range(5)
    ]  # fmt: skip
    np.testing.assert_allclose(class_similarity(x, labels, 5, measure), expected, rtol=1e-5, atol=1e-6)


def test_cosine_is_the_dot_product_of_class_means_of_unit_vectors():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(61, 3)), np.arange(61) % 3
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    mean = np.stack([unit[labels == c].mean(0) for c in range(3)])
    count = np.bincount(labels)
    expected = mean @ mean.T
    diagonal = (np.diag(expected) * count**2 - count) / (count * (count - 1))  # without each row's 1 with itself
    np.fill_diagonal(expected, diagonal)
    np.testing.assert_allclose(class_similarity(x, labels, 3), expected, rtol=1e-4, atol=1e-6)


def test_no_pairs_give_zero():
    np.testing.assert_array_equal(class_similarity(np.zeros((0, 3)), np.zeros(0, int), 2), np.zeros((2, 2)))
    found = class_similarity([[1.0, 0.0], [3.0, 0.0], [3.0, 4.0]], [0, 0, 2], 3)
    np.testing.assert_allclose(found, [[1, 0, 0.6], [0, 0, 0], [0.6, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(class_similarity(np.zeros((5, 2)), np.zeros(5, int), 1), [[0.0]])


def test_a_class_out_of_range_is_an_error():
    with pytest.raises(InputError, match="labels: expected classes 0 to 1, got 2 in row 1"):
        class_similarity(np.ones((2, 2)), [0, 2], 2)
