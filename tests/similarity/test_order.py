import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simjax import core, similarity
from tests.similarity.arrays import float32

top_k_of_rows = jax.jit(core.top_k_of_rows, static_argnums=1)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(1, 1), (17, 12), (64, 1), (397, 5)]), st.integers(0, 10**6), st.booleans())
def test_the_largest_k_are_those_of_a_stable_sort(size, seed, many_equal):
    m, k = size
    s = np.random.default_rng(seed).normal(size=(3, m)).astype(np.float32)
    s = np.round(s) + 0.0 if many_equal else s
    values, columns = top_k_of_rows(s, k)
    order = np.argsort(-s, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(columns, order)
    np.testing.assert_array_equal(values, np.take_along_axis(s, order, axis=1))


def test_k_of_a_thousand(random):
    s = random.normal(size=(2, 70001)).astype(np.float32)
    values, columns = top_k_of_rows(s, 1000)
    order = np.argsort(-s, axis=1, kind="stable")[:, :1000]
    np.testing.assert_array_equal(columns, order)
    np.testing.assert_array_equal(values, np.take_along_axis(s, order, axis=1))


@pytest.mark.parametrize("block_size", [4, pytest.param(None, marks=pytest.mark.slow)])
def test_largest_k_with_fewer_than_k_valid_pairs(random, block_size):
    x, y = random.normal(size=(13, 5)).astype(np.float32), random.normal(size=(17, 5)).astype(np.float32)
    values, columns = similarity.largest_k(x, y, k=4, mask=similarity.causal, block_size=block_size)
    s = np.where(np.tril(np.ones((13, 17), bool)), x @ y.T, -np.inf)
    order = np.argsort(-s, axis=1, kind="stable")[:, :4]
    expected = np.take_along_axis(s, order, axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_array_equal(columns, np.where(np.isinf(expected), -1, order))


def test_order_statistics_are_those_of_a_sorted_row(random):
    x = random.normal(size=(13, 5)).astype(np.float32)
    found = similarity.order_statistics(
        x, ks=(1, 7, 3), measure="euclidean", mask=similarity.exclude_self, block_size=4
    )
    d = np.sort(np.linalg.norm(x[:, None] - x, axis=-1) + np.diag([np.inf] * 13), axis=1)
    np.testing.assert_allclose(found, d[:, [0, 6, 2]], rtol=1e-5)
    missing = np.asarray(similarity.order_statistics(x, ks=(1, 5), mask=lambda i, j: j < 3, block_size=4))
    assert np.isfinite(missing[:, 0]).all()
    assert (missing[:, 1] == np.inf).all()


def test_histogram_equals_numpy(random):
    x, y = (random.integers(-3, 4, (n, 5)).astype(np.float32) for n in (13, 17))  # many values are on an edge
    edges = np.array([-20.0, -5, -4, 0, 0.5, 3, 8], np.float32)
    expected = [np.histogram(row, edges)[0] for row in x @ y.T]
    np.testing.assert_array_equal(similarity.histogram(x, y, edges=edges, block_size=4), expected)


def test_soft_histogram_splits_each_value_between_two_edges():
    x, edges = np.ones((1, 1), np.float32), float32([0, 1, 2])

    @jax.jit
    def shares_and_slope(y):
        pull = jax.vjp(lambda y: similarity.histogram(x, y, edges=edges, soft=True), y)
        return pull[0], pull[1](jnp.array([[0.0, 1, 0]]))[0]

    shares, slope = shares_and_slope(float32([[0.25], [1.0], [3.0], [-0.1], [2.0]]))
    np.testing.assert_allclose(shares, [[0.75, 1.25, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(slope[:, 0], [1, -1, 0, 0, 0], atol=1e-6)  # on an edge, the slope to its right


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: similarity.largest_k(x, k=0), "k: expected 1 to 3, the number of columns, got 0"),
        (lambda x: similarity.largest_k(x, k=4), "k: expected 1 to 3, the number of columns, got 4"),
        (lambda x: similarity.order_statistics(x, ks=(1, 4)), "ks: expected numbers from 1 to 3"),
        (lambda x: similarity.order_statistics(x, ks=()), "ks: expected numbers from 1 to 3"),
        (lambda x: similarity.histogram(x, edges=np.zeros(1)), "edges: expected shape .b. with at least 2 edges"),
        (lambda x: similarity.sum(x[0]), r"x: expected rows \[n, d\], got shape \(2,\)"),
        (lambda x: similarity.sum(x, x[:, :1]), "y: expected rows of 2 features as in x"),
        (lambda x: similarity.sum(x, measure="euclidian"), "unknown measure 'euclidian' .did you mean euclidean"),
        (lambda x: similarity.sum(x, block_size=0), "block_size: expected at least 1, got 0"),
        (lambda x: similarity.sum(x, precision="high est"), "unknown precision 'high est'"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.usefixtures("unchecked")
def test_errors(call, message, wrap):
    with pytest.raises(ValueError, match=message):
        wrap(call)(np.ones((3, 2), np.float32))


@pytest.mark.usefixtures("unchecked")
def test_complex_numbers_and_text_are_type_errors():
    for x in (np.ones((3, 2), complex), np.array([["a", "b"]])):
        with pytest.raises(TypeError, match=r"^x: expected"):
            similarity.sum(x)
    np.testing.assert_array_equal(similarity.sum(np.array([[1, 2]])), [5.0])  # whole numbers become float32
    assert similarity.sum(np.array([[True, True]])).dtype == np.float32
