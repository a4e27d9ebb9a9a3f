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
    x, y = np.float64(x), np.float64(y)
    if isinstance(module, nn.TunedMeasure):
        return np.exp(-0.3 * cdist(x, y, "sqeuclidean"))
    if isinstance(module, nn.LowRankMahalanobis):
        projection = np.float64(module.projection[...])
        return cdist(x, y, "mahalanobis", VI=projection @ projection.T)

    def network(first, second):
        hidden = np.concatenate([first, second], -1) @ np.float64(module.kernel[...]) + np.float64(module.bias[...])
        return hidden * (1 + erf(hidden / 2**0.5)) / 2 @ np.float64(module.out[...]) + float(module.offset[...])

    x, y = np.broadcast_arrays(x[:, None], y[None])
    return (network(x, y) + network(y, x)) / 2


def moved(module):
    """A module whose every parameter is away from where it starts."""
    state = nnx.state(module)
    keys = iter(jax.random.split(jax.random.key(1), 9))
    return nnx.merge(
        nnx.graphdef(module),
        jax.tree.map(lambda p: p + 0.3 * jax.random.normal(next(keys), p.shape), state),
    )


@pytest.mark.parametrize("name", LEARNED)
def test_equals_scipy(random, name):
    module = {
        "mahalanobis": lambda: moved(LEARNED["mahalanobis"]()),
        "network": lambda: moved(LEARNED["network"](hidden=19)),
        "tuned": LEARNED["tuned"],
    }[name]()
    x, y = np.float32(random.normal(size=(7, 5))), np.float32(random.normal(size=(11, 5)))
    expected = by_scipy(module, x, y)
    np.testing.assert_allclose(module(x[:, None], y[None]), expected, rtol=1e-5, atol=1e-6)
    for block_size in (None, 2):
        found = pairwise(x, y, module.measure(), block_size=block_size)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_symmetry(random, name):
    module = moved(LEARNED[name]())
    x = jnp.float32(random.normal(size=(13, 5)))
    s = pairwise(x, measure=module.measure())
    np.testing.assert_allclose(s, s.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module(x, x[::-1]), module(x[::-1], x), rtol=1e-6)
    if name == "mahalanobis":
        np.testing.assert_array_equal(jnp.diag(s), 0)


def test_a_distance_far_from_the_origin(random):
    """Rows 100 from the origin: rounding 100 costs 8e-6 a feature, what is compared must lose no more."""
    module = LEARNED["mahalanobis"]()
    x, y = np.float32(random.normal(size=(7, 5)) + 100), np.float32(random.normal(size=(11, 5)) + 100)
    np.testing.assert_allclose(pairwise(x, y, module.measure()), by_scipy(module, x, y), atol=1e-4)
    np.testing.assert_allclose(module(x[:, None], y[None]), by_scipy(module, x, y), rtol=1e-5)


@pytest.mark.parametrize("name", mostly_slow(LEARNED, "mahalanobis"))
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


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_reach_a_module_through_jit_and_split(random, name):
    x, labels = jnp.float32(random.normal(size=(13, 5))), jnp.arange(13) % 3
    module = LEARNED[name]()

    def loss(module):
        return triplet_margin_loss(x, labels, measure=module.measure(), margin=2.0)

    graph, state = nnx.split(module)
    whole = nnx.grad(loss)(module)
    split = jax.jit(jax.grad(lambda state: loss(nnx.merge(graph, state))))(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, split)
    learned = nnx.to_pure_dict(whole)
    learned.pop("offset", None)  # it shifts both sides of every comparison
    assert all(np.abs(g).max() > 1e-4 for g in jax.tree.leaves(learned))


def forms(module):
    """The pair form and the matrix form as functions of two rows [1, d], with their gradients."""
    for compare in (module, lambda x, y: pairwise(x, y, module.measure())):
        yield jax.jit(jax.value_and_grad(lambda x, y, f=compare: f(x, y).sum(), argnums=(0, 1)))


def test_a_mapped_distance_at_degenerate_points():
    module = LEARNED["mahalanobis"](2)
    length = 2 * np.linalg.norm(np.float64(module.projection[...][1]))
    for compare in forms(module):
        for value in (0.0, 1e-30, 1.0, 1e30, 3e38):
            x, y = jnp.full((1, 2), value), jnp.array([[value, -value]])
            distance, gradients = compare(x, y)
            np.testing.assert_allclose(distance, value * length if value < 1e38 else np.inf, rtol=1e-5)
            assert np.isfinite(gradients).all()
            distance, gradients = compare(x, x)
            assert distance == 0
            np.testing.assert_array_equal(gradients, 0)


def test_a_network_is_finite():
    module = LEARNED["network"](3)
    for compare in forms(module):
        for value in (0.0, 1e-30, 1e13, 1e30):
            similarity, gradients = compare(jnp.full((1, 3), value), jnp.array([[value, -value, 0.0]]))
            assert np.isfinite(similarity)
            assert np.isfinite(gradients).all()


@pytest.mark.slow
def test_a_network_of_all_pairs_has_no_array_of_hidden_neurons():
    n, hidden = 512, 512
    graph, state = nnx.split(nn.PairNetwork(5, hidden, rngs=nnx.Rngs(0)))

    def total(state, x):
        return pairwise(x, measure=nnx.merge(graph, state).measure(), block_size=n).sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1))).lower(state, jnp.zeros((n, 5))).compile()
    assert gradient.memory_analysis().temp_size_in_bytes < n * n * hidden * 4 / 4


@pytest.mark.parametrize("name", LEARNED)
def test_transformations_and_half_precision(random, name):
    module = LEARNED[name]()
    x, y = jnp.float32(random.normal(size=(7, 5))), jnp.float32(random.normal(size=(7, 5)))
    pairs = module(x, y)
    np.testing.assert_allclose(nnx.jit(lambda module, x: module(x, y))(module, x), pairs, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(module)(x, y), pairs, rtol=1e-5)
    half_x, half_y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    exact = module(jnp.float32(half_x), jnp.float32(half_y)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(module(half_x, half_y), exact)


def trained(module, loss, steps, learning_rate):
    """The module after `steps` of Adam on loss(module, key)."""
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
    x, labels = in_noise(jax.random.key(0), 200)

    def accuracy(measure):
        _, nearest = top_k(x, x, 1, measure, exclude=jnp.arange(200))
        return float(jnp.mean(labels[nearest[:, 0]] == labels))

    assert accuracy("euclidean") < 0.65
    assert accuracy(module.measure()) > 0.95


def opposites(key, n):
    x = jax.random.normal(key, (n, 3))
    return x, -x + 0.05 * jax.random.normal(jax.random.fold_in(key, 1), (n, 3))


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
    x = jnp.float32(random.normal(size=(17, 3)))
    wanted = pairwise(x, measure=nn.TunedMeasure("rbf", gamma=2.0).measure())

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
