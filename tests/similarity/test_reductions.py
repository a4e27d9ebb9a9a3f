"""Row reductions against plain NumPy on the whole matrix, in one block and in many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import similarity
from tests.similarity.arrays import float32
from tests.similarity.derivatives import assert_derivatives
from tests.slow import mostly_slow, slow_unless

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


@pytest.mark.parametrize(
    ("measure", "block_size"),
    mostly_slow(
        [("dot", 1), *((m, b) for m in ("dot", "euclidean", "manhattan") for b in (None, 4))], ("euclidean", 4)
    ),
)
def test_reductions_equal_numpy_on_the_whole_matrix(rows, measure, block_size):
    x, y, keep = rows
    values = np.random.default_rng(1).normal(size=(M, 3)).astype(np.float32)

    @jax.jit
    def reduce(x, y, keep):
        options = {"measure": measure, "mask": table(keep), "block_size": block_size}
        found = {n: getattr(similarity, n)(x, y, function=lambda s: s / 10, **options) for n in ORACLES}
        counts = similarity.count(x, y, function=lambda s: s > 0.5, **options)
        weighted = similarity.softmax_weighted_sum(x, y, values, **options)
        return similarity.measure(measure).all_pairs(x, y), found, counts, weighted

    s, found, counts, weighted = reduce(x, y, keep)
    s = np.asarray(s, np.float64)
    for name, oracle in ORACLES.items():
        for f, e in zip(jax.tree.leaves(found[name]), jax.tree.leaves(oracle(s, keep), is_leaf=_is_list), strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(counts, np.sum(keep & (s > 0.5), axis=1))
    e = np.where(keep, np.exp(s), 0)
    weights = e / np.maximum(e.sum(1, keepdims=True), 1e-30)
    np.testing.assert_allclose(weighted, weights @ values, rtol=1e-4, atol=1e-5)
    assert not np.asarray(weighted)[3].any()


def _is_list(value):
    return isinstance(value, list)


def test_a_count_needs_a_boolean():
    with pytest.raises(TypeError, match="function: expected a boolean for each pair to count, got float32"):
        similarity.count(np.ones((2, 2), np.float32), function=lambda s: s)


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
        similarity.histogram(x, y, edges=np.linspace(-9, 9, 7), soft=True, block_size=b) ** 2
    ),
}


@pytest.mark.parametrize("name", mostly_slow(LOSSES, "logsumexp"))
def test_derivatives_of_first_and_second_order_in_both_modes(random, name):
    x, y = random.normal(size=(N, D)), random.normal(size=(M, D))
    assert_derivatives(lambda x, y: LOSSES[name](x, y, 4), x, y, rtol=1e-5, atol=1e-5)


OTHERS = tuple(name for name in LOSSES if name not in ("logsumexp", "top_k"))
some_and_others = pytest.mark.parametrize(
    "names", [("logsumexp", "top_k"), slow_unless(False, OTHERS)], ids=["some", "others"]
)


@pytest.mark.slow
@some_and_others
def test_vmap_is_a_loop(random, names):
    x, y = (random.normal(size=(3, n, D)).astype(np.float32) for n in (N, M))

    @jax.jit
    def both(x, y):
        functions = {name: lambda x, y, name=name: LOSSES[name](x, y, 4) for name in names}
        return {n: (jax.vmap(f)(x, y), jax.lax.map(lambda rows, f=f: f(*rows), (x, y))) for n, f in functions.items()}

    for name, (together, loop) in both(x, y).items():
        np.testing.assert_allclose(together, loop, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@some_and_others
def test_half_precision_accumulates_in_float32_and_returns_half(random, names):
    @jax.jit
    def both(x, y):
        return {name: (LOSSES[name](x, y, 4), LOSSES[name](jnp.float32(x), jnp.float32(y), 4)) for name in names}

    for kind, tolerance in ((jnp.float16, 1e-2), (jnp.bfloat16, 8e-2)):
        x, y = (random.normal(size=(n, D)).astype(jnp.dtype(kind)) for n in (N, M))
        for name, (found, expected) in both(x, y).items():
            assert found.dtype == kind
            np.testing.assert_allclose(float32(found), expected, rtol=tolerance, atol=tolerance, err_msg=name)


EMPTY = {"logsumexp": -INF, "sum": 0, "mean": 0, "max": -INF, "min": INF}


def test_empty_sets_have_a_value_and_zero_gradient(random):
    x = random.normal(size=(3, D)).astype(np.float32)

    def none_valid(i, j):
        return (i < 0) & (j < 0)

    @jax.jit
    def reduce(x, y):
        found = {}
        for name in EMPTY:

            def total(x, y, mask, name=name):
                out = getattr(similarity, name)(x, y, mask=mask)
                return jnp.sum(jax.tree.leaves(out)[0]), out

            gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
            found[name] = gradient(x, x, none_valid), gradient(x, y, None)
        return found, [getattr(similarity, name)(y, x) for name in EMPTY]

    found, of_no_rows = reduce(x, np.zeros((0, D), np.float32))
    for name, cases in found.items():
        for gradients, out in cases:
            values, *columns = jax.tree.leaves(out)
            np.testing.assert_array_equal(values, [EMPTY[name]] * 3)
            assert [list(column) for column in columns] == [[-1] * 3] * (name in ("max", "min"))
            assert not any(np.any(gradient) for gradient in gradients)
    assert {a.shape for a in jax.tree.leaves(of_no_rows)} == {(0,)}


def test_infinite_similarity_gives_infinity_and_no_nan():
    @jax.jit
    def values_and_gradients(x):
        losses = (similarity.logsumexp, lambda x: similarity.softmax_weighted_sum(x, x, x))
        return [(loss(x), jax.grad(lambda x, loss=loss: jnp.sum(loss(x)))(x)) for loss in losses]

    found = values_and_gradients(float32([[1e30, 0], [1, 0]]))
    np.testing.assert_array_equal(found[0][0], float32([INF, 1e30]))
    assert not any(np.isnan(a).any() for a in jax.tree.leaves(found))


def test_large_scores_do_not_overflow():
    x = float32([[200], [-200]])
    np.testing.assert_allclose(similarity.logsumexp(x), [40000.0, 40000.0])


def test_the_whole_gradient_of_an_extreme_goes_to_the_first_among_equals():
    x = float32([[1]])

    @jax.jit
    def gradients(y):
        return jax.grad(lambda y: similarity.max(x, y)[0][0])(y), jax.grad(lambda y: similarity.min(x, -y)[0][0])(y)

    np.testing.assert_array_equal(gradients(float32([[2], [5], [5]])), [[[0], [1], [0]], [[0], [-1], [0]]])


def test_reductions_of_rows_and_columns_give_the_clip_loss(random):
    x, y = (random.normal(size=(N, D)).astype(np.float32) for _ in range(2))
    s = x @ y.T
    paired = np.diag(s)

    @jax.jit
    def loss(x, y):
        return similarity.logsumexp(x, y, block_size=4) - similarity.sum(x, y, mask=lambda i, j: i == j, block_size=4)

    rows, columns = np.asarray(loss(x, y)), np.asarray(loss(y, x))
    expected = (np.log(np.exp(s).sum(1)) + np.log(np.exp(s).sum(0)) - 2 * paired).mean() / 2
    np.testing.assert_allclose((rows + columns).mean() / 2, expected, rtol=1e-5)


def test_a_reduction_reads_the_result_of_another(random):
    """Mutual nearest neighbours: a statistic of every row, then a reduction that reads it at i and at j."""
    x = random.normal(size=(N, D)).astype(np.float32)

    @jax.jit
    def are_mutual(x):
        _, nearest = similarity.min(x, mask=similarity.exclude_self, measure="euclidean", block_size=4)
        return similarity.count(
            x, mask=lambda i, j: (nearest[i] == j) & (nearest[j] == i), function=lambda s: s >= 0, measure="euclidean"
        )

    d = np.linalg.norm(x[:, None] - x, axis=-1) + np.diag([INF] * N)
    closest = d.argmin(1)
    np.testing.assert_array_equal(are_mutual(x), closest[closest] == np.arange(N))


@pytest.mark.slow
def test_a_learned_temperature_and_parameters_of_a_measure_get_their_gradient(random):
    x = random.normal(size=(N, D))

    def loss(temperature, gamma):
        near = similarity.Measure.from_pair(
            lambda x, y, gamma: jnp.exp(-gamma * jnp.sum((x - y) ** 2, -1)), higher_is_closer=True, gamma=gamma
        )
        return similarity.logsumexp(x, measure=near, function=lambda s: s / temperature, block_size=4)

    assert_derivatives(loss, 0.5, 0.7, rtol=1e-5)


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
