import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from simjax import similarity
from simjax.core import InputError


@pytest.mark.parametrize("block", [None, 1, 4])
def test_top_k_agrees_with_scikit_learn(random, block):
    query, gallery = random.normal(size=(7, 5)), random.normal(size=(31, 5))
    distances, indices = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(gallery).kneighbors(query)
    found = similarity.top_k(jnp.float32(query), jnp.float32(gallery), 3, "euclidean", block=block)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], distances, rtol=1e-4)
    assert found[1].dtype == jnp.int32


def test_ties_go_to_the_lowest_index():
    gallery = jnp.array([[1.0, 0], [2.0, 0], [0, 1.0], [3.0, 0]])
    _, indices = similarity.top_k(jnp.array([[1.0, 0]]), gallery, 3, "cosine")
    np.testing.assert_array_equal(indices, [[0, 1, 3]])


def test_excluded_rows_are_never_found(random):
    x = jnp.float32(random.normal(size=(9, 4)))
    for name in ("cosine", "euclidean"):
        _, indices = similarity.top_k(x, x, 8, name, exclude=jnp.arange(9))
        assert not (np.asarray(indices) == np.arange(9)[:, None]).any()


def test_pairwise_in_blocks_and_exact_zeros_on_the_diagonal(random):
    x = jnp.float32(random.normal(size=(13, 6)) + 100)
    d = similarity.pairwise(x, measure="euclidean", block=5)
    np.testing.assert_array_equal(np.diag(d), 0)
    np.testing.assert_allclose(d, similarity.pairwise(x, measure="euclidean"), rtol=1e-5, atol=1e-5)


def compilations(call):
    """How often XLA compiled top_k during a call, from JAX's own log."""
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
    x = jnp.float32(random.normal(size=(6, 3)))
    assert compilations(lambda: [similarity.top_k(x + i, x, 2) for i in range(10)]) == 1
    assert compilations(lambda: similarity.top_k(x, x, 2)) == 0
    assert compilations(lambda: similarity.top_k(x[:5], x, 2)) == 1


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = jnp.zeros((3, 2))
    with pytest.raises(InputError, match="k: expected 1 to 3"):
        similarity.top_k(x, x, 4)
    with pytest.raises(InputError, match="k: expected 1 to 2"):
        similarity.top_k(x, x, 3, exclude=jnp.arange(3))
    with pytest.raises(InputError, match="gallery: expected rows of 2 features"):
        similarity.top_k(x, jnp.zeros((3, 5)), 1)
    with pytest.raises(InputError, match=r"x: expected rows \[n, d\], got shape \(3,\)"):
        similarity.pairwise(jnp.zeros(3))
