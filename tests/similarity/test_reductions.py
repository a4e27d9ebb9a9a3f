"""Row reductions against plain NumPy on the whole matrix, in one block and in many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from simjax import similarity
from tests.slow import mostly_slow

N, M, D = 13, 17, 5
INF = float("inf")


@pytest.fixture
def rows(random):
    x, y = random.normal(size=(N, D)), random.normal(size=(M, D))
    keep = random.random((N, M)) < 0.4
    keep[3] = False  # no valid pair
    keep[4] = np.arange(M) == 6  # one valid pair
    return x.astype(np.float32), y.astype(np.float32), keep


def table(keep):
    return jax.tree_util.Partial(lambda keep, i, j: keep[i, j], jnp.asarray(keep))


def tenth(s):
    return s / 10


def some(s, keep):
    """Return the valid entries of each row, after the function."""
    return [row[k] for row, k in zip(s / 10, keep, strict=True)]


def first(entries, keep, pick):
    return [np.flatnonzero(k)[pick(e)] if len(e) else -1 for e, k in zip(entries, keep, strict=True)]


ORACLES = {
    "logsumexp": lambda s, k: [np.log(np.sum(np.exp(e))) if len(e) else -INF for e in some(s, k)],
    "sum": lambda s, k: [e.sum() for e in some(s, k)],
    "mean": lambda s, k: [e.mean() if len(e) else 0 for e in some(s, k)],
    "max": lambda s, k: (
        [e.max(initial=-INF) for e in some(s, k)],
        first(some(s, k), k, np.argmax),
    ),
    "min": lambda s, k: (
        [e.min(initial=INF) for e in some(s, k)],
        first(some(s, k), k, np.argmin),
    ),
}


@pytest.mark.parametrize("block_size", mostly_slow([None, 1, 4, N], 4))
@pytest.mark.parametrize("measure", mostly_slow(["dot", "euclidean", "manhattan"], "euclidean"))
@pytest.mark.parametrize("name", ORACLES)
def test_reduction_equals_numpy_on_the_whole_matrix(rows, name, measure, block_size):
    x, y, keep = rows
    s = np.asarray(similarity.measure(measure).all_pairs(*map(jnp.asarray, (x, y))), np.float64)
    found = getattr(similarity, name)(x, y, measure=measure, mask=table(keep), function=tenth, block_size=block_size)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-6), found, ORACLES[name](s, keep))


@pytest.mark.parametrize("block_size", [None, 4])
def test_count_and_softmax_weighted_sum(rows, random, block_size):
    x, y, keep = rows
    s, values = x @ y.T, random.normal(size=(M, 3)).astype(np.float32)
    counted = similarity.count(x, y, mask=table(keep), function=lambda s: s > 0.5, block_size=block_size)
    np.testing.assert_array_equal(counted, np.sum(keep & (s > 0.5), axis=1))
    e = np.where(keep, np.exp(s), 0)
    weights = e / np.maximum(e.sum(1, keepdims=True), 1e-30)
    found = similarity.softmax_weighted_sum(x, y, values, mask=table(keep), block_size=block_size)
    np.testing.assert_allclose(found, weights @ values, rtol=1e-4, atol=1e-5)
    assert not found[3].any()


def test_a_count_needs_a_boolean():
    with pytest.raises(TypeError, match="function: expected a boolean for each pair to count, got float32"):
        similarity.count(jnp.ones((2, 2)), function=lambda s: s)


def test_masks_of_labels_and_of_the_diagonal(random):
    x, labels = random.normal(size=(N, D)).astype(np.float32), random.integers(0, 3, N)
    keep = (labels[:, None] == labels) & ~np.eye(N, dtype=bool)
    mask = similarity.all_of(similarity.same_label(labels), similarity.exclude_self)
    np.testing.assert_allclose(
        similarity.sum(x, mask=mask, block_size=5), np.sum((x @ x.T) * keep, 1), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        similarity.sum(x, mask=similarity.all_of(similarity.different_label(labels), similarity.causal)),
        np.sum((x @ x.T) * np.tril(labels[:, None] != labels), 1),
        rtol=1e-5,
        atol=1e-5,
    )


LOSSES = {
    "logsumexp": lambda x, y, b: similarity.logsumexp(x, y, mask=similarity.causal, block_size=b),
    "softmax_weighted_sum": lambda x, y, b: similarity.softmax_weighted_sum(
        x, y, y[:, :2], mask=similarity.causal, block_size=b
    ),
    "sum": lambda x, y, b: similarity.sum(x, y, function=jnp.sin, measure="euclidean", block_size=b),
    "mean": lambda x, y, b: similarity.mean(x, y, mask=similarity.exclude_self, block_size=b),
    "max": lambda x, y, b: similarity.max(x, y, block_size=b)[0],
    "min": lambda x, y, b: similarity.min(x, y, mask=similarity.exclude_self, block_size=b)[0],
    "top_k": lambda x, y, b: similarity.largest_k(x, y, k=3, block_size=b)[0],
    "order_statistics": lambda x, y, b: similarity.order_statistics(x, y, ks=(2, 5), measure="euclidean", block_size=b),
    "soft_histogram": lambda x, y, b: (
        similarity.histogram(x, y, edges=jnp.linspace(-9.0, 9, 7), soft=True, block_size=b) ** 2
    ),
}


@pytest.mark.parametrize(("block_size", "order"), [(4, 2), (N, 1)])  # one block is plain JAX code
@pytest.mark.parametrize("name", mostly_slow(LOSSES, "logsumexp"))
def test_gradients_of_first_and_second_order_in_both_modes(random, name, block_size, order):
    with jax.enable_x64(True):
        x, y = random.normal(size=(N, D)), random.normal(size=(M, D))
        # Small steps, so that the order of entries does not change.
        check_grads(
            lambda x, y: LOSSES[name](x, y, block_size),
            (x, y),
            order=order,
            modes=["fwd", "rev"],
            rtol=1e-5,
            atol=1e-5,
            eps=1e-5,
        )


@pytest.mark.parametrize("name", mostly_slow(LOSSES, "logsumexp"))
def test_vmap_is_a_loop(random, name):
    x, y = (random.normal(size=(3, n, D)).astype(np.float32) for n in (N, M))
    together = jax.vmap(lambda x, y: LOSSES[name](x, y, 4))(x, y)
    np.testing.assert_allclose(
        together, jnp.stack([LOSSES[name](a, b, 4) for a, b in zip(x, y, strict=True)]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "tolerance"), [(jnp.float16, 1e-2), (jnp.bfloat16, 8e-2)])
@pytest.mark.parametrize("name", mostly_slow(LOSSES, "logsumexp", "top_k"))
def test_float16_accumulates_in_float32_and_returns_float16(random, name, kind, tolerance):
    x, y = (jnp.asarray(random.normal(size=(n, D)), kind) for n in (N, M))
    found = LOSSES[name](x, y, 4)
    assert found.dtype == kind
    expected = LOSSES[name](x.astype(jnp.float32), y.astype(jnp.float32), 4)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance)


EMPTY = {"logsumexp": -INF, "sum": 0, "mean": 0, "max": -INF, "min": INF}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_sets_have_a_value_and_zero_gradient(random, name):
    x = random.normal(size=(3, D)).astype(np.float32)

    def none_valid(i, j):
        return (i < 0) & (j < 0)

    def value(x, y, mask):
        out = getattr(similarity, name)(x, y, mask=mask)
        return out[0] if isinstance(out, tuple) else out

    for y, mask in ((x, none_valid), (np.zeros((0, D), np.float32), None)):
        np.testing.assert_array_equal(value(x, y, mask), [EMPTY[name]] * 3)
        _, pull = jax.vjp(lambda x, y, mask=mask: value(x, y, mask), x, y)
        for gradient in pull(jnp.ones(3)):
            assert not gradient.any()
    if name in ("max", "min"):
        assert getattr(similarity, name)(x, mask=none_valid)[1].tolist() == [-1] * 3
    assert value(np.zeros((0, D), np.float32), x, None).shape == (0,)


def test_infinite_similarity_gives_infinity_and_no_nan():
    x = jnp.array([[1e30, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(similarity.logsumexp(x), jnp.float32(jnp.array([INF, 1e30])))
    for loss in (similarity.logsumexp, lambda x: similarity.softmax_weighted_sum(x, x, x)):
        assert not jnp.isnan(loss(x)).any()
        assert not jnp.isnan(jax.grad(lambda x, loss=loss: jnp.sum(loss(x)))(x)).any()


def test_large_scores_do_not_overflow():
    x = jnp.array([[200.0], [-200.0]])
    np.testing.assert_allclose(similarity.logsumexp(x), [40000.0, 40000.0])


def test_the_whole_gradient_of_an_extreme_goes_to_the_first_among_equals():
    x, y = jnp.array([[1.0]]), jnp.array([[2.0], [5.0], [5.0]])
    np.testing.assert_array_equal(jax.grad(lambda y: similarity.max(x, y)[0][0])(y), [[0], [1], [0]])
    np.testing.assert_array_equal(jax.grad(lambda y: similarity.min(x, -y)[0][0])(y), [[0], [-1], [0]])


def test_reductions_of_rows_and_columns_give_the_clip_loss(random):
    x, y = (random.normal(size=(N, D)).astype(np.float32) for _ in range(2))
    s = x @ y.T
    paired = np.diag(s)
    rows = similarity.logsumexp(x, y, block_size=4) - similarity.sum(x, y, mask=lambda i, j: i == j, block_size=4)
    columns = similarity.logsumexp(y, x, block_size=4) - similarity.sum(y, x, mask=lambda i, j: i == j, block_size=4)
    expected = (np.log(np.exp(s).sum(1)) + np.log(np.exp(s).sum(0)) - 2 * paired).mean() / 2
    np.testing.assert_allclose((rows + columns).mean() / 2, expected, rtol=1e-5)


def test_a_reduction_reads_the_result_of_another(random):
    """Mutual nearest neighbours: a statistic of every row, then a reduction that reads it at i and at j."""
    x = random.normal(size=(N, D)).astype(np.float32)
    _, nearest = similarity.min(x, mask=similarity.exclude_self, measure="euclidean", block_size=4)
    mutual = similarity.count(
        x, mask=lambda i, j: (nearest[i] == j) & (nearest[j] == i), function=lambda s: s >= 0, measure="euclidean"
    )
    d = np.linalg.norm(x[:, None] - x, axis=-1) + np.diag([INF] * N)
    closest = d.argmin(1)
    np.testing.assert_array_equal(mutual, closest[closest] == np.arange(N))


@pytest.mark.slow
def test_a_learned_temperature_and_parameters_of_a_measure_get_their_gradient(random):
    with jax.enable_x64(True):
        x = random.normal(size=(N, D))

        def loss(temperature, gamma):
            near = similarity.Measure.from_pair(
                lambda x, y, gamma: jnp.exp(-gamma * jnp.sum((x - y) ** 2, -1)), higher_is_closer=True, gamma=gamma
            )
            return similarity.logsumexp(x, measure=near, function=lambda s: s / temperature, block_size=4)

        check_grads(loss, (0.5, 0.7), order=2, modes=["fwd", "rev"], rtol=1e-5)


def test_masks_that_carry_arrays_compile_once(random, caplog):
    x, labels = random.normal(size=(N, D)).astype(np.float32), random.integers(0, 3, (10, N))
    similarity.sum(x, mask=similarity.same_label(labels[0]))
    with jax.log_compiles():
        found = [similarity.sum(x, mask=similarity.same_label(some)) for some in labels]
    assert not [r for r in caplog.records if "Finished XLA compilation of jit(reduce_rows_of_arrays)" in r.getMessage()]
    for some, sums in zip(labels, found, strict=True):
        np.testing.assert_allclose(sums, np.sum((x @ x.T) * (some[:, None] == some), 1), rtol=1e-4, atol=1e-5)
    with jax.log_compiles():  # control: a new shape does compile
        similarity.sum(x[1:], mask=similarity.same_label(labels[0, 1:]))
    assert [r for r in caplog.records if "Finished XLA compilation of jit(reduce_rows_of_arrays)" in r.getMessage()]
