"""The score of a pair depends on its own two rows, whatever one of the other rows holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simjax import attention, similarity
from tests.similarity.test_every_measure import DOMAIN, NAMES, PARAMETERS, binary, draw, real, whole_tile
from tests.slow import mostly_slow

N, M = 7, 11
FAR = 3  # the row that is replaced
OTHERS = np.delete(np.arange(N), FAR)
OWN_MEANING = {"nan_euclidean"}  # where NaN is a missing feature
WITH_FAR_ROWS = [name for name in NAMES if name not in OWN_MEANING | {"haversine"}]  # of angles
WITH_RANGE = [name for name in NAMES if np.isfinite(similarity.measure(name).range).any() and name != "haversine"]
each = pytest.mark.parametrize(
    "name", mostly_slow(NAMES, "euclidean", "dot", "cosine_distance", "rbf", "signal_to_noise", "chebyshev")
)
values = st.one_of(
    st.floats(-float(np.float32(1e30)), float(np.float32(1e30)), width=32),
    st.sampled_from([1e5, -1e7, 1e20, 1e30, np.nan, np.inf, -np.inf]),
)


def rows(name, n, seed, spread):
    """Rows on which the measure is defined, of magnitudes from 1 / spread to spread."""
    x = draw(name, n, 3, seed=seed)
    if DOMAIN.get(name, real) is real:
        x = x * spread ** np.random.default_rng(seed).uniform(-1, 1, size=(n, 1))
    return np.float32(x)


@functools.cache
def compiled(name):
    m = similarity.measure(name, **PARAMETERS.get(name, {}))
    return jax.jit(lambda x, y: (similarity.reduce_rows(whole_tile, x, y, measure=m), m(x[:, None], y[None])))


def exact(name, x, y):
    """The measure in float64, and the largest score that vectors of the same lengths have: what rounding is part of."""
    with jax.enable_x64(True):
        m = similarity.measure(name, **PARAMETERS.get(name, {}))
        x, y = (jnp.asarray(a, jnp.float64) for a in (x, y))
        pairs = [m(a[:, None], b[None]) for a, b in ((x, y), (x, -y), (x, 0 * y), (0 * x, y))]
        lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
        sizes = {"dot": lengths, "bilinear": 2 * lengths, "polynomial": (0.3 * lengths + 0.5) ** 3}
        return np.asarray(pairs[0]), sizes.get(name, np.max(np.abs(pairs), axis=0))


def assert_close(name, found, x, y):
    expected, size = exact(name, x, y)
    too_large = np.isinf(found)
    assert (np.abs(expected[too_large]) > 8e37).all()  # a quarter of the largest number
    assert (np.abs(expected[~too_large]) < 3.41e38).all()
    bound = 2e-5 * np.minimum(np.where(too_large, 0, size), 1e37) + 2e-6 * (name not in {"dot", "bilinear"})
    error = np.abs(np.where(too_large, 0, found.astype(np.float64) - np.where(too_large, 0, expected)))
    if name in {"euclidean", "standardized_euclidean", "mahalanobis"}:  # the bound is one of squares
        error, bound = (np.abs(np.float64(found) ** 2 - expected**2), 2e-5 * size**2)
    assert (error <= bound).all(), (error - bound).max()


@each
@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), far=values, spread=st.sampled_from([1.0, 1e3, 1e12]))
def test_one_row_of_any_numbers_leaves_all_other_pairs_as_they_are(name, seed, far, spread):
    x, y = rows(name, N, seed, spread), rows(name, M, seed + 1, spread)
    x[FAR], y[FAR] = far, -far
    if name == "haversine" and np.isfinite(far):
        return  # angles in radians
    columns = np.delete(np.arange(M), FAR)
    for found in map(np.asarray, compiled(name)(x, y)):
        assert_close(name, found[np.ix_(OTHERS, columns)], x[OTHERS], y[columns])
        if not np.isfinite(far) and name not in OWN_MEANING:
            assert np.isnan(found[FAR]).all()
            assert np.isnan(found[:, FAR]).all()
        elif name not in OWN_MEANING:
            assert not np.isnan(found).any()


@pytest.mark.parametrize("name", mostly_slow(WITH_FAR_ROWS, "euclidean", "cosine", "dot", "manhattan"))
@pytest.mark.parametrize("far", [1e7, 1e30, np.nan, np.inf])
def test_search_finds_the_same_neighbours_beside_a_far_row(name, far):
    m = similarity.measure(name)
    x = np.float32(draw(name, 101, 3, seed=5))
    with_far = np.insert(x, 50, far, axis=0)
    found, columns = (np.asarray(a) for a in similarity.top_k(with_far, with_far, 102, m))
    queries = np.delete(np.arange(102), 50)
    expected, without = (np.asarray(a) for a in similarity.top_k(x, x, 101, m))
    without = without + (without >= 50)
    kept = columns[queries] != 50
    np.testing.assert_array_equal(kept.sum(axis=1), 101)
    np.testing.assert_allclose(found[queries][kept], expected.reshape(-1), rtol=1e-6)
    if DOMAIN.get(name, real) is not binary:
        np.testing.assert_array_equal(columns[queries][kept], without.reshape(-1))
    if not np.isfinite(far):
        np.testing.assert_array_equal(columns[queries, -1], 50)
        assert np.isnan(found[:, -1]).all()
        assert np.isnan(found[50]).all()


def test_search_ranks_nan_after_all_numbers_and_an_excluded_row_last():
    gallery = jnp.array([[0.0], [jnp.nan], [3e38], [1.0], [jnp.inf]])
    values, columns = similarity.top_k(jnp.array([[-3e38]]), gallery, 4, "euclidean", exclude=jnp.array([0]))
    np.testing.assert_array_equal(columns, [[3, 2, 1, 4]])
    np.testing.assert_array_equal(values, [[jnp.float32(3e38), jnp.inf, jnp.nan, jnp.nan]])


def test_neighbours_of_close_rows_far_from_the_origin():
    """What all rows have in common takes no digits, even where one row is far away in the same direction."""
    random = np.random.default_rng(0)
    x = np.float32(1e4 + random.normal(size=(200, 16)))
    x[7] = 1e12
    others = np.delete(np.arange(200), 7)
    exact = np.linalg.norm(np.float64(x[others])[:, None] - np.float64(x[others])[None], axis=2)
    np.testing.assert_allclose(similarity.pairwise(x, measure="euclidean")[np.ix_(others, others)], exact, atol=1e-4)


@pytest.mark.parametrize("name", WITH_RANGE)
@pytest.mark.parametrize("kind", ["float32", pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def test_no_form_leaves_the_documented_range(name, kind):
    """Parallel and opposite rows of many features, where rounding goes beyond the largest and the smallest value."""
    m = similarity.measure(name)
    low, high = m.range
    x = np.abs(draw(name, 40, 61, seed=2)) * np.random.default_rng(0).uniform(0.1, 3, (40, 1))
    if DOMAIN.get(name, real) is real:
        x = np.concatenate([x, -x, 1.7 * x])
    x = jnp.asarray(x, kind)
    for found in (similarity.pairwise(x, measure=m), m(x[:, None], x[None]), similarity.top_k(x, x, 9, m)[0]):
        assert low <= found.min()
        assert found.max() <= high


REDUCTIONS = {
    "logsumexp": similarity.logsumexp,
    "sum": similarity.sum,
    "mean": similarity.mean,
    "max": similarity.max,
    "min": similarity.min,
    "top_k": functools.partial(similarity.largest_k, k=3),
    "order_statistics": functools.partial(similarity.order_statistics, ks=(1, 3)),
    "histogram": functools.partial(similarity.histogram, edges=jnp.linspace(-3, 3, 5)),
    "soft histogram": functools.partial(similarity.histogram, edges=jnp.linspace(-3, 3, 5), soft=True),
    "softmax_weighted_sum": lambda x, **o: similarity.softmax_weighted_sum(x, x, jnp.ones((len(x), 2)), **o),
}


@pytest.mark.parametrize("far", [np.nan, np.inf])
@pytest.mark.parametrize("measure", mostly_slow(["euclidean", "cosine", "dot", "manhattan"], "euclidean"))
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_give_nan_where_they_use_it_and_nothing_where_it_is_masked(name, measure, far):
    x = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)

    @jax.jit
    def of(x, labels, t):
        def total(x, t):
            same = similarity.all_of(similarity.same_label(labels), similarity.exclude_self)
            found = REDUCTIONS[name](x, mask=same, function=lambda s: s / t, measure=measure, block_size=3)
            found = [jnp.asarray(a, jnp.float32) for a in jax.tree.leaves(found)]
            return sum(jnp.sum(jnp.where(jnp.isfinite(a), a, 0)) for a in found), found

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(x, t)

    labels = np.array([0, 1, 0, 2, 1, 0, 1])  # the far row has a class of its own
    (_, found), gradients = of(np.where(np.arange(N)[:, None] == FAR, far, x), labels, 1.5)
    (_, expected), expected_gradients = of(x, labels, 1.5)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    labels = np.array([0, 1, 0, 0, 1, 0, 1])
    values = of(np.where(np.arange(N)[:, None] == FAR, far, x), labels, 1.5)[0][1][0]
    values = np.asarray(values).reshape(N, -1)
    if name in {"top_k", "order_statistics"}:  # of two numbers and a NaN
        last = np.arange(values.shape[1]) == values.shape[1] - 1
        np.testing.assert_array_equal(np.isnan(values[[0, 2, 5]]), np.tile(last, (3, 1)))
        np.testing.assert_array_equal(np.isnan(values[[1, 4, 6]]), np.zeros((3, values.shape[1]), bool))
    else:
        np.testing.assert_array_equal(np.isnan(values).all(axis=1), labels == 0)
        np.testing.assert_array_equal(np.isnan(values).any(axis=1), labels == 0)


def test_extremes_name_the_column_of_the_nan():
    x = jnp.array([[1.0], [jnp.nan], [2.0]])
    for reduce in (similarity.max, similarity.min):
        value, column = reduce(x[:1], x)
        assert jnp.isnan(value[0])
        assert column[0] == 1


MASKS = {
    "lengths": {"key_value_seq_lengths": jnp.array([3, 3])},
    "column": {"mask": jnp.arange(5)[None] < jnp.full((4, 1), 3)},
    "function": {"mask": lambda i, j: j < 3},
    "causal": {"is_causal": True},
    "window": {"local_window_size": (4, 0)},
}


@pytest.mark.parametrize("measure", mostly_slow(["dot", "euclidean", "cosine"], "dot"))
@pytest.mark.parametrize("far", [np.nan, np.inf])
@pytest.mark.parametrize("name", MASKS)
def test_attention_to_a_masked_key_or_value_does_not_matter(name, far, measure):
    """Values and gradients of all arguments are those of finite padding; a query that attends to it gives NaN."""
    random = np.random.default_rng(2)
    q, k, v = (np.float32(random.normal(size=(2, n, 2, 3))) for n in (4, 5, 5))
    reaches = np.arange(4) >= (3 if name in {"causal", "window"} else 4)  # queries that attend to key 3

    @jax.jit
    def of(q, k, v, t):
        def total(*arguments):
            q, k, v, t = arguments
            out = attention.attention(q, k, v, measure=measure, temperature=t, **MASKS[name])
            return jnp.sum(jnp.where(jnp.isnan(out), 0, jnp.sin(out))), out

        return jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True)(q, k, v, t)

    (_, expected), gradients = of(q, k, v, 1.5)
    for place in (k, v):
        bad = place.copy()
        bad[:, 3:] = far
        arguments = (q, bad, v, 1.5) if place is k else (q, k, bad, 1.5)
        (_, found), found_gradients = of(*arguments)
        np.testing.assert_array_equal(np.isnan(found).all(axis=(0, 2, 3)), reaches)
        np.testing.assert_allclose(np.asarray(found)[:, ~reaches], expected[:, ~reaches], rtol=1e-5, atol=1e-6)
        if not reaches.any():
            for a, b in zip(found_gradients, gradients, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_attention_of_a_padded_query_does_not_matter():
    random = np.random.default_rng(2)
    q, k, v = (np.float32(random.normal(size=(1, n, 1, 3))) for n in (4, 5, 5))
    q[:, 3] = np.nan

    def total(q, k, v):
        out = attention.dot_product_attention(q, k, v, query_seq_lengths=jnp.array([3]))
        return jnp.sum(jnp.sin(out)), out

    (_, out), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_array_equal(out[:, 3], 0)
    assert all(np.isfinite(g).all() for g in gradients)
