"""Published examples, and examples worked out by hand."""

import numpy as np
import pytest

from simjax import similarity
from simjax.similarity import _measure
from tests.similarity.arrays import float32
from tests.slow import mostly_slow

A, B = float32([0.2, 0.99]), float32([0.9, 0.99])
PEOPLE = float32([[179, 70, 25, 1, 1, 1, 1], [180, 70, 26, 1, 1, 1, 1], [185, 80, 54, 2, 2, 2, 2]])
OF_SETS = {"jaccard_distance", "dice_distance", "rogers_tanimoto", "russell_rao", "sokal_sneath", "yule"}
OF_VECTORS = sorted(
    name for name, m in _measure.MEASURES.items() if not m.higher_is_closer and name not in {*OF_SETS, "haversine"}
)


def test_by_dot_product_b_is_closer_to_a_than_a_is():
    np.testing.assert_allclose(similarity.dot_product(A, A), 1.0201, rtol=1e-6)
    np.testing.assert_allclose(similarity.dot_product(A, B), 1.1601, rtol=1e-6)


def test_by_cosine_a_is_closest_to_itself():
    np.testing.assert_allclose(similarity.cosine_similarity(A, A), 1, rtol=1e-6)
    np.testing.assert_allclose(similarity.cosine_similarity(A, B), 1.1601 / np.sqrt(1.0201 * 1.7901), rtol=1e-6)
    assert round(float(similarity.cosine_similarity(A, B)), 2) == 0.86
    np.testing.assert_allclose(similarity.unit_vectors(np.stack([A, B])), [[0.198, 0.98], [0.67, 0.74]], atol=0.005)


@pytest.mark.parametrize("name", mostly_slow(OF_VECTORS, "euclidean"))
def test_the_nearest_neighbour_of_the_first_person_is_the_second(name):
    values, nearest = similarity.top_k(PEOPLE[:1], PEOPLE, 2, name, exclude=np.array([0]))
    np.testing.assert_array_equal(nearest, [[1, 2]])
    assert values[0, 0] < values[0, 1]
