"""The score of a pair depends on its own two rows, whatever one of the other rows holds."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simjax import attention, similarity
from tests.similarity.arrays import float32, float64
from tests.similarity.test_every_measure import DOMAIN, NAMES, PARAMETERS, draw, real, whole_tile
from tests.slow import mostly_slow, slow_unless

N, M = 7, 11
FAR = 3  # the row that is replaced
OTHERS = np.delete(np.arange(N), FAR)
OWN_MEANING = {"nan_euclidean"}  # where NaN is a missing feature
WITH_FAR_ROWS = [name for name in NAMES if name not in OWN_MEANING | {"haversine"}]  # of angles
WITH_RANGE = [name for name in NAMES if np.isfinite(similarity.measure(name).range).any() and name != "haversine"]
each = pytest.mark.parametrize("name", mostly_slow(NAMES, "euclidean", "dot"))
values = st.one_of(
    st.floats(-float(float32(1e30)), float(float32(1e30)), width=32),
    st.sampled_from([1e5, -1e7, 1e20, 1e30, np.nan, np.inf, -np.inf]),
)


def rows(name, n, seed, spread):
    """Rows on which the measure is defined, of magnitudes from 1 / spread to spread."""
    x = draw(name, n, 3, seed=seed)
    if DOMAIN.get(name, real) is real:
        x = x * spread ** np.random.default_rng(seed).uniform(-1, 1, size=(n, 1))
    return float32(x)


@functools.cache
def compiled(name):
    m = similarity.measure(name, **PARAMETERS.get(name, {}))
    return jax.jit(lambda x, y: (similarity.reduce_rows(whole_tile, x, y, measure=m), m(x[:, None], y[None])))


def exact(name, x, y):
    """Return the measure in float64, and the largest score of vectors of these lengths, of which rounding is a part."""
    with jax.enable_x64(True):
        m = similarity.measure(name, **PARAMETERS.get(name, {}))
        x, y = float64(x), float64(y)
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
        error, bound = (np.abs(float64(found) ** 2 - expected**2), 2e-5 * size**2)
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


# Search by dot products, and by tiles of the measure, which is the same code for all other measures.
SEARCHED = [name for name in WITH_FAR_ROWS if similarity.measure(name).search is not None] + ["manhattan", "jaccard"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHED)
def test_search_finds_the_same_neighbours_beside_a_far_row(name):
    m = similarity.measure(name)
    x = float32(draw(name, 101, 3, seed=5))
    queries = np.delete(np.arange(102), 50)
    expected, without = (np.asarray(a) for a in similarity.top_k(x, x, 101, m))
    without = without + (without >= 50)
    for far in (1e7, 1e30, np.nan, np.inf):
        with_far = np.insert(x, 50, far, axis=0)
        found, columns = (np.asarray(a) for a in similarity.top_k(with_far, with_far, 102, m))
        kept = columns[queries] != 50
        np.testing.assert_array_equal(kept.sum(axis=1), 101)
        np.testing.assert_allclose(found[queries][kept], expected.reshape(-1), rtol=1e-6)
        np.testing.assert_array_equal(columns[queries][kept], without.reshape(-1))
        if not np.isfinite(far):
            np.testing.assert_array_equal(columns[queries, -1], 50)
            assert np.isnan(found[:, -1]).all()
            assert np.isnan(found[50]).all()


def test_search_ranks_nan_after_all_numbers_and_an_excluded_row_last():
    gallery = float32([[0], [np.nan], [3e38], [1], [np.inf]])
    values, columns = similarity.top_k(float32([[-3e38]]), gallery, 4, "euclidean", exclude=np.array([0]))
    np.testing.assert_array_equal(columns, [[3, 2, 1, 4]])
    np.testing.assert_array_equal(values, [[float32(3e38), np.inf, np.nan, np.nan]])


def test_neighbours_of_close_rows_far_from_the_origin():
    """An offset that all rows share costs no digits, even where one row is far away in the same direction."""
    random = np.random.default_rng(0)
    x = float32(1e4 + random.normal(size=(200, 16)))
    x[7] = 1e12
    others = np.delete(np.arange(200), 7)
    exact = np.linalg.norm(float64(x[others])[:, None] - float64(x[others])[None], axis=2)
    found = np.asarray(similarity.pairwise(x, measure="euclidean"))
    np.testing.assert_allclose(found[np.ix_(others, others)], exact, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_RANGE)
def test_no_form_leaves_the_documented_range(name):
    """Parallel and opposite rows of many features, where rounding goes beyond the largest and the smallest value."""
    m = similarity.measure(name)
    low, high = m.range
    x = np.abs(draw(name, 40, 61, seed=2)) * np.random.default_rng(0).uniform(0.1, 3, (40, 1))
    if DOMAIN.get(name, real) is real:
        x = np.concatenate([x, -x, 1.7 * x])

    @jax.jit
    def forms(x):
        return similarity.pairwise(x, measure=m), m(x[:, None], x[None]), similarity.top_k(x, x, 9, m)[0]

    for kind in ("float32", "bfloat16", "float16"):
        for found in map(np.asarray, forms(x.astype(jnp.dtype(kind)))):
            assert low <= found.min()
            assert found.max() <= high


EDGES = np.linspace(-3, 3, 5, dtype=np.float32)
REDUCTIONS = {
    "logsumexp": similarity.logsumexp,
    "sum": similarity.sum,
    "mean": similarity.mean,
    "max": similarity.max,
    "min": similarity.min,
    "top_k": functools.partial(similarity.largest_k, k=3),
    "order_statistics": functools.partial(similarity.order_statistics, ks=(1, 3)),
    "histogram": functools.partial(similarity.histogram, edges=EDGES),
    "soft histogram": functools.partial(similarity.histogram, edges=EDGES, soft=True),
    "softmax_weighted_sum": lambda x, **o: similarity.softmax_weighted_sum(x, x, jnp.ones((len(x), 2)), **o),
}


@pytest.mark.parametrize(
    ("measure", "names"),
    [
        ("euclidean", ("logsumexp",)),
        *(slow_unless(False, measure, tuple(REDUCTIONS)) for measure in ("euclidean", "cosine", "dot", "manhattan")),
    ],
)
def test_reductions_give_nan_where_they_use_it_and_nothing_where_it_is_masked(measure, names):
    x = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)

    @jax.jit
    def of(x, labels, t):
        def total(x, t, name):
            same = similarity.all_of(similarity.same_label(labels), similarity.exclude_self)
            found = REDUCTIONS[name](x, mask=same, function=lambda s: s / t, measure=measure, block_size=3)
            found = [jnp.asarray(a, jnp.float32) for a in jax.tree.leaves(found)]
            return sum(jnp.sum(jnp.where(jnp.isfinite(a), a, 0)) for a in found), found

        return {n: jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(x, t, n) for n in names}

    own_class, shared_class = np.array([0, 1, 0, 2, 1, 0, 1]), np.array([0, 1, 0, 0, 1, 0, 1])  # of the far row
    expected = of(x, own_class, 1.5)
    for far in (np.nan, np.inf):
        with_far = np.where(np.arange(N)[:, None] == FAR, float32(far), x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), of(with_far, own_class, 1.5), expected
        )
        for name, ((_, values), _) in of(with_far, shared_class, 1.5).items():
            is_nan = np.isnan(np.asarray(values[0])).reshape(N, -1)
            if name in {"top_k", "order_statistics"}:  # of two numbers and a NaN
                is_last = np.arange(is_nan.shape[1]) == is_nan.shape[1] - 1
                np.testing.assert_array_equal(is_nan[[0, 2, 5]], np.tile(is_last, (3, 1)))
                assert not is_nan[[1, 4, 6]].any()
            else:
                np.testing.assert_array_equal(is_nan.all(axis=1), shared_class == 0, err_msg=name)
                np.testing.assert_array_equal(is_nan.any(axis=1), shared_class == 0, err_msg=name)


def test_extremes_name_the_column_of_the_nan():
    x = float32([[1], [np.nan], [2]])
    for reduce in (similarity.max, similarity.min):
        value, column = reduce(x[:1], x)
        assert np.isnan(value[0])
        assert column[0] == 1


MASKS: dict[str, dict[str, Any]] = {
    "lengths": {"key_value_seq_lengths": np.array([3, 3])},
    "column": {"mask": np.tile(np.arange(5) < 3, (4, 1))},
    "function": {"mask": lambda i, j: j < 3},
    "causal": {"is_causal": True},
    "window": {"local_window_size": (4, 0)},
}


@pytest.mark.parametrize(
    ("measure", "masks"),
    [("dot", ("column",)), *(slow_unless(False, measure, tuple(MASKS)) for measure in ("dot", "euclidean", "cosine"))],
)
def test_attention_to_a_masked_key_or_value_does_not_matter(measure, masks):
    """Values and gradients of all arguments are those of finite padding; a query that attends to it gives NaN."""
    random = np.random.default_rng(2)
    q, k, v = (float32(random.normal(size=(2, n, 2, 3))) for n in (4, 5, 5))

    @jax.jit
    def of(q, k, v, t):
        def total(arguments, name):
            q, k, v, t = arguments
            out: Any = attention.attention(q, k, v, measure=measure, temperature=t, **MASKS[name])
            return jnp.sum(jnp.where(jnp.isnan(out), 0, jnp.sin(out))), out

        return {name: jax.value_and_grad(total, has_aux=True)((q, k, v, t), name) for name in masks}

    expected = of(q, k, v, 1.5)
    for far in (np.nan, np.inf):
        bad_key, bad_value = k.copy(), v.copy()
        bad_key[:, 3:] = bad_value[:, 3:] = far
        for arguments in ((q, bad_key, v, 1.5), (q, k, bad_value, 1.5)):
            for name, ((_, out), gradients) in of(*arguments).items():
                reaches = np.arange(4) >= (3 if name in {"causal", "window"} else 4)  # queries that attend to key 3
                (_, expected_out), expected_gradients = expected[name]
                np.testing.assert_array_equal(np.isnan(out).all(axis=(0, 2, 3)), reaches)
                np.testing.assert_allclose(
                    np.asarray(out)[:, ~reaches], np.asarray(expected_out)[:, ~reaches], rtol=1e-5, atol=1e-6
                )
                if not reaches.any():
                    for a, b in zip(gradients, expected_gradients, strict=True):
                        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_attention_of_a_padded_query_does_not_matter():
    random = np.random.default_rng(2)
    q, k, v = (float32(random.normal(size=(1, n, 1, 3))) for n in (4, 5, 5))
    q[:, 3] = np.nan

    @jax.jit
    def of(q, k, v):
        def total(q, k, v):
            out: Any = attention.dot_product_attention(q, k, v, query_seq_lengths=np.array([3]))
            return jnp.sum(jnp.sin(out)), out

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    (_, out), gradients = of(q, k, v)
    np.testing.assert_array_equal(np.asarray(out)[:, 3], 0)
    assert all(np.isfinite(g).all() for g in gradients)
