from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import softmax

from simjax import attention as package
from simjax.core import InputError
from simjax.similarity import Measure, measure
from tests.slow import mostly_slow

attention: Any = package.attention  # options decide whether it returns a tuple
dot_product_attention: Any = package.dot_product_attention

B, T, S, H, G, K, E = 2, 5, 11, 6, 3, 7, 13
MEASURES = {
    "dot": lambda q, k: q @ k.T,
    "cosine": lambda q, k: 1 - cdist(q, k, "cosine"),
    "euclidean": lambda q, k: -cdist(q, k),
    "squared_euclidean": lambda q, k: -cdist(q, k, "sqeuclidean"),
    "manhattan": lambda q, k: -cdist(q, k, "cityblock"),
}


def qkv(random):
    return tuple(np.float32(random.normal(size=s)) for s in ((B, T, H, K), (B, S, G, K), (B, S, G, E)))


def by_scipy(name, q, k, v, temperature, valid: Any = True):
    """Return attention by a measure of SciPy; the temperature is that of each head."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros((B, T, H, E))
    for b, h in np.ndindex(B, H):
        scores = MEASURES[name](q[b, :, h], k[b, :, h // (H // G)]) / np.broadcast_to(temperature, H)[h]
        out[b, :, h] = softmax(np.where(valid, scores, -np.inf), axis=1) @ v[b, :, h // (H // G)]
    return out


@pytest.mark.parametrize(
    ("name", "block_size"),
    mostly_slow(
        [("dot", 2), ("cosine", None), ("euclidean", 2), ("squared_euclidean", None), ("manhattan", 2)],
        ("euclidean", 2),
    ),
)
def test_any_measure_equals_scipy(random, name, block_size):
    q, k, v = qkv(random)
    options = {"measure": name, "temperature": 0.7, "is_causal": True, "block_size": block_size}
    found = jax.jit(partial(attention, **options))(q, k, v)
    expected = by_scipy(name, q, k, v, 0.7, np.tri(T, S, dtype=bool))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_users_own_measure_with_parameters(random):
    q, k, v = qkv(random)
    wide = Measure.from_pair(
        lambda x, y, *, gamma: jnp.sum(gamma * (x - y) ** 2, -1), higher_is_closer=False, gamma=0.3
    )
    found = jax.jit(partial(attention, measure=wide, block_size=4))(q, k, v)
    np.testing.assert_allclose(found, by_scipy("squared_euclidean", q, k, v, 1 / 0.3), rtol=1e-5, atol=1e-6)


def test_dot_product_attention_is_the_dot_measure_with_temperature_sqrt_k(random):
    @jax.jit
    def both(*a):
        return attention(*a, temperature=np.sqrt(K), is_causal=True), dot_product_attention(*a, is_causal=True)

    np.testing.assert_allclose(*both(*qkv(random)), rtol=1e-6, atol=1e-6)


def test_a_temperature_for_each_head(random):
    q, k, v = qkv(random)
    temperature = np.array([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], np.float32)
    options = {"measure": "cosine", "temperature": temperature.reshape(H, 1, 1), "block_size": 4}
    found = jax.jit(partial(attention, **options))(q, k, v)
    np.testing.assert_allclose(found, by_scipy("cosine", q, k, v, temperature), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", mostly_slow(["cosine", "squared_euclidean", "manhattan"], "manhattan"))
def test_gradients_of_inputs_and_temperature(name):
    with jax.enable_x64(True):
        random = np.random.default_rng(4)
        arrays = tuple(random.normal(size=s) for s in ((3, 2, 2), (5, 1, 2), (5, 1, 3)))

        @jax.jit
        def attend(q, k, v, temperature):
            return attention(q, k, v, measure=name, temperature=temperature, block_size=2)

        jax.test_util.check_grads(attend, (*arrays, np.float64(0.7)), order=1)


@pytest.mark.slow
def test_the_gradient_of_a_parameter_of_the_measure(random):
    q, k, v = qkv(random)

    def by_parameter(gamma):
        own = Measure.from_pair(lambda x, y, *, gamma: gamma * jnp.sum(x * y, -1), higher_is_closer=True, gamma=gamma)
        return jnp.sum(jnp.sin(attention(q, k, v, measure=own, block_size=2)))

    def by_temperature(gamma):
        return jnp.sum(jnp.sin(attention(q, k, v, temperature=1 / gamma)))

    both = jax.jit(lambda gamma: (jax.grad(by_parameter)(gamma), jax.grad(by_temperature)(gamma)))
    np.testing.assert_allclose(*both(0.7), rtol=1e-5)


def test_cosine_attention_is_independent_of_vector_length(random):
    q, k, v = qkv(random)
    attend = jax.jit(partial(attention, measure="cosine", temperature=0.1))
    expected = attend(q, k, v)
    for size in (1e30, 1e-30):
        found = attend(np.float32(size * q), np.float32(size * k), v)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6)  # scores of 10 round by 1e-6


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected more than 0, got 0.0"),
        ({"temperature": jnp.array([[[1.0]], [[-1.0]]])}, "temperature: expected more than 0"),
        ({"temperature": jnp.ones(7)}, r"temperature: expected a shape that broadcasts to \(2, 6, 5, 11\)"),
        ({"measure": "cosin"}, "unknown measure 'cosin' .did you mean cosine"),
    ],
    ids=str,
)
def test_errors(random, options, message, jitted):
    def call(q, k, v):
        return attention(q, k, v, **options)

    with pytest.raises(InputError, match=message):
        (jax.jit(call) if jitted else call)(*qkv(random))


@pytest.mark.parametrize(
    "name", mostly_slow(["plain", "causal", "mask", "dropout", "cosine", "squared_euclidean"], "causal")
)
def test_memory_grows_with_the_length_and_not_with_its_square(name):
    """8,192 queries and keys in 8 heads of 64, gradient for all three: the weights alone would take 2 GB."""
    x = jax.ShapeDtypeStruct((1, 8192, 8, 64), jnp.float32)
    function = {
        "plain": dot_product_attention,
        "causal": partial(dot_product_attention, is_causal=True),
        "mask": partial(dot_product_attention, mask=lambda i, j: (i - j) % 3 > 0),
        "dropout": partial(dot_product_attention, dropout_rng=jax.random.key(0), dropout_rate=0.1),
        "cosine": partial(attention, measure="cosine", temperature=0.1),
        "squared_euclidean": partial(attention, measure="squared_euclidean"),
    }[name]
    gradient = jax.jit(jax.grad(lambda *a: jnp.sum(function(*a)), argnums=(0, 1, 2)))
    memory = gradient.lower(x, x, x).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 206e6


def test_a_learned_gamma():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(4, 1, 3))

        @jax.jit
        @jax.value_and_grad
        def of_gamma(gamma):
            return jnp.sum(jnp.sin(attention(x, x, x, measure=measure("rbf", gamma=gamma), temperature=0.1)))

        step = 1e-5
        slope = (of_gamma(0.5 + step)[0] - of_gamma(0.5 - step)[0]) / (2 * step)
        np.testing.assert_allclose(of_gamma(0.5)[1], slope, rtol=1e-7)
