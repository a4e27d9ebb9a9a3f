"""Published examples, and examples worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from simjax import similarity
from simjax.similarity import _measure
from tests.slow import mostly_slow

A, B = jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99])
PEOPLE = jnp.array([[179.0, 70, 25, 1, 1, 1, 1], [180, 70, 26, 1, 1, 1, 1], [185, 80, 54, 2, 2, 2, 2]])
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
    np.testing.assert_allclose(similarity.unit_vectors(jnp.stack([A, B])), [[0.198, 0.98], [0.67, 0.74]], atol=0.005)


def test_colours_by_cosine():
    colours = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 255, 0]])
    found = np.asarray(similarity.pairwise(colours)).round(2)
    np.testing.assert_allclose(found, [[1, 0.77, 0], [0.77, 1, 0.32], [0, 0.32, 1]], atol=1e-6)


@pytest.mark.parametrize("name", mostly_slow(OF_VECTORS, "euclidean", "manhattan", "cosine_distance"))
def test_the_nearest_neighbour_of_the_first_person_is_the_second(name):
    d = np.asarray(similarity.pairwise(PEOPLE, measure=name))
    assert d[0, 1] < d[0, 2]
    _, nearest = similarity.top_k(PEOPLE[:1], PEOPLE, 1, name, exclude=jnp.array([0]))
    assert int(nearest[0, 0]) == 1
