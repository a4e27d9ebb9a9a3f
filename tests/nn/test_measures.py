import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.spatial.distance import cdist
from scipy.special import erf

from simjax import nn
from simjax.core import InputError
from simjax.losses import triplet_margin_loss
from simjax.similarity import pairwise, reduce_rows, top_k
from tests.slow import mostly_slow

LEARNED = {
    "mahalanobis": lambda features=5: nn.LowRankMahalanobis(features, 3, rngs=nnx.Rngs(0)),
    "network": lambda features=5, hidden=3: nn.PairNetwork(features, hidden, rngs=nnx.Rngs(0)),
    "tuned": lambda features=5: nn.TunedMeasure("rbf", gamma=0.3),
}


def by_scipy(module, x, y):
    """Compute the measure of all pairs by SciPy in float64."""
    x, y = x.astype(np.float64), np.float64(y)
    if isinstance(module, nn.TunedMeasure):
        return np.exp(-0.3 * cdist(x, y, "sqeuclidean"))
    if isinstance(module, nn.LowRankMahalanobis):
        projection = np.asarray(module.projection[...], np.float64)
        return cdist(x, y, "mahalanobis", VI=projection @ projection.T)

    def network(first, second):
        kernel, bias, out = (np.asarray(a[...], np.float64) for a in (module.kernel, module.bias, module.out))
        hidden = np.concatenate([first, second], -1) @ kernel + bias
        return hidden * (1 + erf(hidden / 2**0.5)) / 2 @ out + float(module.offset[...])

    first, second = np.broadcast_arrays(np.expand_dims(x, 1), np.expand_dims(y, 0))
    return (network(first, second) + network(second, first)) / 2


def moved(module):
    """Return a module whose every parameter differs from its initial value."""
    graph, state = nnx.split(module)
    random = np.random.default_rng(1)
    return nnx.merge(graph, jax.tree.map(lambda p: p + (0.3 * random.normal(size=p.shape)).astype(np.float32), state))


@jax.jit
def both_forms(module, x, y):
    """Return the pair form and the matrix form, in one block and in several, for all pairs of x and y."""
    matrices = [pairwise(x, y, module.measure(), block_size=block_size) for block_size in (None, 2)]
    return module(x[:, None], y[None]), *matrices


@pytest.mark.parametrize("name", mostly_slow(LEARNED, "mahalanobis"))
def test_equals_scipy_and_is_symmetric(random, name):
    module = LEARNED[name]()
    module = module if name == "tuned" else moved(module)
    x = random.normal(size=(11, 5)).astype(np.float32)
    expected = by_scipy(module, x, x)
    pairs, matrix, in_blocks = map(np.asarray, both_forms(module, x, x))
    if name == "mahalanobis":
        np.testing.assert_array_equal(np.diag(matrix), 0)
    np.testing.assert_allclose(pairs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pairs, pairs.T, rtol=1e-6, atol=1e-7)
    for found in (matrix, in_blocks):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, found.T, rtol=1e-5, atol=1e-6)


def test_a_distance_far_from_the_origin(random):
    """Rows 100 from the origin: rounding 100 costs 8e-6 a feature, and a comparison must lose no more."""
    module = LEARNED["mahalanobis"]()
    x, y = (random.normal(size=(2, 11, 5)) + 100).astype(np.float32)
    pairs, matrix, _ = both_forms(module, x, y)
    np.testing.assert_allclose(matrix, by_scipy(module, x, y), atol=1e-4)
    np.testing.assert_allclose(pairs, by_scipy(module, x, y), rtol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.slow
def test_gradients_of_vectors_and_parameters_in_float64(random, name):
    with jax.enable_x64(True):
        x, y = random.normal(size=(3, 5)), random.normal(size=(4, 5))
        graph, state = nnx.split(moved(LEARNED[name]()))
        state = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), nnx.to_pure_dict(state))

        def merged(parameters):
            return nnx.merge(graph, jax.tree.map(jnp.asarray, parameters)).measure()

        def pairs(x, y, parameters):
            return merged(parameters)(x[:, None], y[None])

        def blocks(x, y, parameters):
            return reduce_rows(
                lambda s, i, j: jax.nn.logsumexp(s, axis=1), x, y, measure=merged(parameters), block_size=2
            )

        for compare in (pairs, blocks):
            jax.test_util.check_grads(jax.jit(compare), (x, y, state), order=1, modes=["rev"])


@pytest.mark.parametrize("name", mostly_slow(LEARNED))
def test_gradients_reach_a_module_through_jit_and_split(random, name):
    x, labels = random.normal(size=(13, 5)).astype(np.float32), np.arange(13) % 3
    module = LEARNED[name]()

    def loss(module):
        return triplet_margin_loss(x, labels, measure=module.measure(), margin=2.0)

    graph, state = nnx.split(module)
    whole, split = jax.jit(
        lambda state: (nnx.grad(loss)(nnx.merge(graph, state)), jax.grad(lambda s: loss(nnx.merge(graph, s)))(state))
    )(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, split)
    learned = nnx.to_pure_dict(whole)
    learned.pop("offset", None)  # it shifts both sides of every comparison
    assert all(np.abs(g).max() > 1e-4 for g in jax.tree.leaves(learned))


@jax.jit
def forms(module, x, y):
    """Return values and gradients of the pair form and the matrix form for two rows [1, d]."""
    return [
        jax.value_and_grad(lambda x, y, f=compare: f(x, y).sum(), argnums=(0, 1))(x, y)
        for compare in (module, lambda x, y: pairwise(x, y, module.measure()))
    ]


@pytest.mark.slow
def test_a_mapped_distance_at_degenerate_points():
    module = LEARNED["mahalanobis"](2)
    length = 2 * np.linalg.norm(np.asarray(module.projection[...], np.float64)[1])
    for value in (0.0, 1e-30, 1.0, 1e30, 3e38):
        x, y = np.full((1, 2), value, np.float32), np.array([[value, -value]], np.float32)
        for distance, gradients in forms(module, x, y):
            np.testing.assert_allclose(distance, value * length if value < 1e38 else np.inf, rtol=1e-5)
            assert np.isfinite(gradients).all()
        for distance, gradients in forms(module, x, x):
            assert distance == 0
            np.testing.assert_array_equal(gradients, 0)


@pytest.mark.slow
def test_a_network_is_finite():
    module = LEARNED["network"](3)
    for value in (0.0, 1e-30, 1e13, 1e30):
        x, y = np.full((1, 3), value, np.float32), np.array([[value, -value, 0.0]], np.float32)
        for similarity, gradients in forms(module, x, y):
            assert np.isfinite(similarity)
            assert np.isfinite(gradients).all()


@pytest.mark.slow
def test_a_network_of_all_pairs_has_no_array_of_hidden_neurons():
    n, hidden = 512, 512
    graph, state = nnx.split(nn.PairNetwork(5, hidden, rngs=nnx.Rngs(0)))

    def total(state, x):
        return pairwise(x, measure=nnx.merge(graph, state).measure(), block_size=n).sum()

    memory = jax.jit(jax.grad(total, argnums=(0, 1))).lower(state, jnp.zeros((n, 5))).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < n * n * hidden * 4 / 4


@pytest.mark.parametrize("name", mostly_slow(LEARNED, "mahalanobis"))
def test_transformations_and_half_precision(random, name):
    module = LEARNED[name]()
    x, y = random.normal(size=(2, 7, 5)).astype(np.float32)
    half_x, half_y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)

    @nnx.jit
    def every(module, x, y, half_x, half_y):
        exact = module(half_x.astype(jnp.float32), half_y.astype(jnp.float32)).astype(jnp.bfloat16)
        return jax.vmap(module)(x, y), module(x, y), module(half_x, half_y), exact

    mapped, pairs, half, exact = every(module, x, y, half_x, half_y)
    np.testing.assert_allclose(mapped, pairs, rtol=1e-5)
    np.testing.assert_allclose(module(x, y), pairs, rtol=1e-5)
    np.testing.assert_array_equal(half, exact)


def trained(module, loss, steps, learning_rate):
    """Return the module after `steps` of Adam on loss(module, key)."""
    graph, state = nnx.split(module)
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def run(state):
        def step(carry, key):
            state, memory = carry
            gradients = jax.grad(lambda state: loss(nnx.merge(graph, state), key))(state)
            updates, memory = optimizer.update(gradients, memory, state)
            return (optax.apply_updates(state, updates), memory), None

        keys = jax.random.split(jax.random.key(2), steps)
        return jax.lax.scan(step, (state, optimizer.init(state)), keys)[0][0]

    return nnx.merge(graph, run(state))


def in_noise(key, n):
    """Two classes that differ by 2 in one of eight features; the others are noise of standard deviation 5."""
    labels = jax.random.bernoulli(key, shape=(n,)).astype(jnp.int32)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (n, 8)) * jnp.array([[0.3] + 7 * [5.0]])
    return noise.at[:, 0].add(2.0 * labels), labels


@pytest.mark.slow
def test_a_linear_map_learns_which_feature_matters():
    def loss(module, key):
        x, labels = in_noise(key, 32)
        return triplet_margin_loss(x, labels, measure=module.measure(), margin=1.0)

    module = trained(nn.LowRankMahalanobis(8, 2, rngs=nnx.Rngs(0)), loss, steps=150, learning_rate=0.03)
    x, labels = map(np.asarray, in_noise(jax.random.key(0), 200))

    def accuracy(measure):
        _, nearest = top_k(x, x, 1, measure, exclude=np.arange(200))
        return np.mean(labels[np.asarray(nearest)[:, 0]] == labels)

    assert accuracy("euclidean") < 0.65
    assert accuracy(module.measure()) > 0.95


def opposites(key, n):
    x = jax.random.normal(key, (n, 3))
    return x, -x + 0.05 * jax.random.normal(jax.random.fold_in(key, 1), (n, 3))


@pytest.mark.slow
def test_a_network_learns_that_opposites_are_similar():
    """No distance of embeddings x -> f(x) can: -x should be close to x, and x not close to itself."""

    def loss(module, key):
        x, y = opposites(key, 32)
        s = pairwise(x, y, module.measure())
        return optax.softmax_cross_entropy_with_integer_labels(s, jnp.arange(32)).mean()

    module = trained(nn.PairNetwork(3, 8, rngs=nnx.Rngs(0)), loss, steps=400, learning_rate=0.02)
    x, y = opposites(jax.random.key(0), 40)

    def found(measure):
        return float(jnp.mean(top_k(x, y, 1, measure)[1][:, 0] == jnp.arange(40)))

    assert found("euclidean") < 0.1
    assert found(module.measure()) > 0.8


def test_a_tuned_measure_finds_its_parameter(random):
    x = random.normal(size=(17, 3)).astype(np.float32)
    wanted = np.exp(-2.0 * cdist(x, x, "sqeuclidean"))

    def loss(module, key):
        return jnp.mean((pairwise(x, measure=module.measure()) - wanted) ** 2)

    module = trained(nn.TunedMeasure("rbf", gamma=0.1), loss, steps=300, learning_rate=0.1)
    np.testing.assert_allclose(module.measure().parameters["gamma"], 2.0, rtol=1e-2)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(InputError, match="gamma: expected above 0, got 0"):
        nn.TunedMeasure("rbf", gamma=0.0)
    with pytest.raises(TypeError, match="unknown parameter 'gama'.*did you mean gamma"):
        nn.TunedMeasure("rbf", gama=1.0)
    with pytest.raises(InputError, match="unknown measure 'rbff'.*did you mean rbf"):
        nn.TunedMeasure("rbff", gamma=1.0)
