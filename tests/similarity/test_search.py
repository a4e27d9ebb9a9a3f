import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from simjax import similarity
from simjax.core import InputError
from simjax.similarity import Measure
from simjax.similarity._measure import MEASURES
from tests.similarity.arrays import float32, float64, temporary_bytes
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless


@pytest.mark.parametrize("block_size", [4, slow_unless(False, None), slow_unless(False, 1)])
def test_top_k_agrees_with_scikit_learn(random, block_size):
    query, gallery = random.normal(size=(7, 5)), random.normal(size=(31, 5))
    distances, indices = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(gallery).kneighbors(query)
    found = similarity.top_k(float32(query), float32(gallery), 3, "euclidean", block_size=block_size)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], distances, rtol=1e-5)
    assert found[1].dtype == jnp.int32


PARAMETERS = {
    "bilinear": {"matrix": np.arange(25.0).reshape(5, 5) - 12},
    "mahalanobis": {"matrix": np.eye(5) + 0.2},
    "standardized_euclidean": {"variance": np.linspace(0.5, 2, 5)},
}


BY_PRODUCTS = sorted(name for name, measure in MEASURES.items() if measure.search is not None)
AT_ONE_SCALE = ("rbf", "sigmoid")  # at other scales their values are all equal


@pytest.mark.parametrize("name", [slow_unless(False, name) for name in BY_PRODUCTS])
def test_search_by_dot_products_equals_search_by_the_measure(random, name):
    query, gallery = (float32(random.normal(size=(n, 5)) + 1) for n in (7, 61))
    gallery[3] = 0
    measure = similarity.measure(name, **PARAMETERS.get(name, {}))
    score = np.asarray(measure.as_score(similarity.pairwise(query, gallery, measure)))
    for scale in float32([1] if name in AT_ONE_SCALE else [1, 1e-15, 1e15]):
        values, indices = similarity.top_k(query * scale, gallery * scale, 5, measure)
        np.testing.assert_array_equal(indices, np.argsort(-score, axis=1, kind="stable")[:, :5])
        assert np.isfinite(values).all()


def test_ties_go_to_the_lowest_index():
    gallery = float32([[1, 0], [2, 0], [0, 1], [3, 0]])
    _, indices = similarity.top_k(float32([[1, 0]]), gallery, 3, "cosine")
    np.testing.assert_array_equal(indices, [[0, 1, 3]])


@pytest.mark.parametrize("name", ["cosine", slow_unless(False, "euclidean")])
def test_excluded_rows_are_never_found(random, name):
    x = float32(random.normal(size=(9, 4)))
    _, indices = similarity.top_k(x, x, 8, name, exclude=np.arange(9))
    assert not (np.asarray(indices) == np.arange(9)[:, None]).any()


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["euclidean", "squared_euclidean", "cosine_distance"])
def test_identical_rows_are_at_exactly_zero_in_one_block_and_in_many(random, measure):
    for shift in (0, 100):
        x = float32(random.normal(size=(30, 16)) + shift)
        x = np.concatenate([x, x[::-1], -x[:3]])
        same = np.all(x[:, None] == x[None], axis=-1)
        d = np.asarray(similarity.pairwise(x, measure=measure, block_size=7))
        np.testing.assert_allclose(d, similarity.pairwise(x, measure=measure), rtol=1e-5, atol=1e-5)
        assert (d[same] == 0).all()
        assert (d[~same] > 0).all()
        values, indices = similarity.top_k(x[:30], x, 2, measure)
        assert not np.any(values)
        np.testing.assert_array_equal(indices, np.stack([np.arange(30), 59 - np.arange(30)], 1))


@pytest.mark.slow
def test_search_distinguishes_near_rows_far_from_the_origin(random):
    gallery = random.normal(size=(500, 128)).astype(np.float32) + 100
    query = gallery[:20] + 1e-3 * random.normal(size=(20, 128)).astype(np.float32)
    values, indices = map(np.asarray, similarity.top_k(query, gallery, 1, "euclidean"))
    np.testing.assert_array_equal(indices[:, 0], np.arange(20))
    np.testing.assert_allclose(values[:, 0], np.linalg.norm(float64(query) - gallery[:20], axis=1), rtol=1e-5)


def test_rows_of_extreme_length(random):
    x = random.normal(size=(31, 5))
    distances, expected = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(x).kneighbors(x[:7])
    for scale in (1e-30, 1e30):
        found = similarity.top_k(float32(x[:7] * scale), float32(x * scale), 3, "euclidean", block_size=4)
        np.testing.assert_array_equal(found[1], expected)
        np.testing.assert_allclose(np.asarray(found[0]) / scale, distances, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_thousand_neighbours_among_many(random):
    query, gallery = random.normal(size=(3, 8)).astype(np.float32), random.normal(size=(9001, 8)).astype(np.float32)
    values, indices = similarity.top_k(query, gallery, 1000, "euclidean")
    distances, expected = NearestNeighbors(n_neighbors=1000, algorithm="brute").fit(gallery).kneighbors(query)
    np.testing.assert_allclose(values, distances, rtol=1e-5)
    assert np.mean(np.asarray(indices) == expected) > 0.999  # neighbours whose distances agree in float32 may swap


@pytest.mark.slow
def test_gradients_reach_query_gallery_and_parameters(random):
    query, gallery = random.normal(size=(3, 4)), random.normal(size=(11, 4))

    def found(query, gallery, power):
        own = Measure.from_pair(
            lambda x, y, power: jnp.sum(jnp.abs(x - y) ** power, -1), higher_is_closer=False, power=power
        )
        return [similarity.top_k(query, gallery, 3, measure)[0] for measure in ("cosine", "euclidean", own)]

    assert_derivatives(found, query, gallery, 1.5)


@pytest.mark.slow
def test_bfloat16_is_searched_in_float32(random):
    query, gallery = (random.normal(size=(n, 5)).astype(jnp.dtype(jnp.bfloat16)) for n in (7, 31))
    values, indices = similarity.top_k(query, gallery, 3, "euclidean", block_size=4)
    _, expected = similarity.top_k(float32(query), float32(gallery), 3, "euclidean", block_size=4)
    np.testing.assert_array_equal(indices, expected)
    assert values.dtype == jnp.bfloat16


@pytest.mark.slow
def test_memory_of_a_search_is_one_block():
    query, gallery = (jax.ShapeDtypeStruct((n, 128), jnp.float32) for n in (10_000, 60_000))
    assert temporary_bytes(lambda q, g: similarity.top_k(q, g, 10, "squared_euclidean"), query, gallery) < 200e6


def compilations(call):
    """Return how often XLA compiled top_k during a call, from the log of JAX."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            call()
    finally:
        logger.removeHandler(handler)
    return sum(message.startswith("Compiling") and "_top_k" in message for message in messages)


def test_ten_eager_calls_compile_once(random):
    x = float32(random.normal(size=(19, 7)))  # a shape of this test alone, so that no other test has compiled it
    assert compilations(lambda: [similarity.top_k(x + i, x, 2) for i in range(10)]) == 1
    assert compilations(lambda: similarity.top_k(x, x, 2)) == 0


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match="k: expected 1 to 3"):
        similarity.top_k(x, x, 4)
    with pytest.raises(InputError, match="k: expected 1 to 2"):
        similarity.top_k(x, x, 3, exclude=np.arange(3))
    with pytest.raises(InputError, match="gallery: expected rows of 2 features"):
        similarity.top_k(x, x[:, :1], 1)
    with pytest.raises(InputError, match=r"x: expected rows \[n, d\], got shape \(3,\)"):
        similarity.pairwise(x[:, 0])
