import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import softmax

from simjax.attention import attention, dot_product_attention
from simjax.core import InputError
from simjax.similarity import Measure, measure
from tests.slow import mostly_slow

B, T, S, H, G, K, E = 2, 5, 11, 6, 3, 7, 13
MEASURES = {
    "dot": lambda q, k: q @ k.T,
    "cosine": lambda q, k: 1 - cdist(q, k, "cosine"),
    "euclidean": lambda q, k: -cdist(q, k),
    "squared_euclidean": lambda q, k: -cdist(q, k, "sqeuclidean"),
    "manhattan": lambda q, k: -cdist(q, k, "cityblock"),
}


def qkv(random, dtype=jnp.float32):
    return tuple(jnp.asarray(random.normal(size=s), dtype) for s in ((B, T, H, K), (B, S, G, K), (B, S, G, E)))


@pytest.mark.parametrize(
    ("name", "block_size"),
    [("dot", 2), ("cosine", None), ("euclidean", 2), ("squared_euclidean", None), ("manhattan", 2)],
)
def test_any_measure_equals_scipy(random, name, block_size):
    q, k, v = qkv(random)
    found = attention(q, k, v, measure=name, temperature=0.7, is_causal=True, block_size=block_size)
    for b, h in np.ndindex(B, H):
        g = h // (H // G)
        s = MEASURES[name](*(np.asarray(x, np.float64) for x in (q[b, :, h], k[b, :, g]))) / 0.7
        w = softmax(np.where(np.tri(T, S, dtype=bool), s, -np.inf), axis=1)
        np.testing.assert_allclose(found[b, :, h], w @ np.asarray(v[b, :, g]), rtol=1e-5, atol=1e-6)


def test_a_users_own_measure_with_parameters(random):
    q, k, v = qkv(random)
    wide = Measure.from_pair(
        lambda x, y, *, gamma: jnp.sum(gamma * (x - y) ** 2, -1), higher_is_closer=False, gamma=0.3
    )
    expected = attention(q, k, v, measure="squared_euclidean", temperature=1 / 0.3)
    for block_size in (None, 4):
        np.testing.assert_allclose(
            attention(q, k, v, measure=wide, block_size=block_size), expected, rtol=1e-5, atol=1e-6
        )


def test_dot_product_attention_is_the_dot_measure_with_temperature_sqrt_k(random):
    q, k, v = qkv(random)
    expected = dot_product_attention(q, k, v, is_causal=True)
    found = attention(q, k, v, temperature=np.sqrt(K), is_causal=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_temperature_for_each_head(random):
    q, k, v = qkv(random)
    temperature = jnp.array([0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
    found = attention(q, k, v, measure="cosine", temperature=temperature.reshape(H, 1, 1), block_size=4)
    for h in range(H):
        g = slice(h // 2, h // 2 + 1)
        one = attention(q[:, :, h : h + 1], k[:, :, g], v[:, :, g], measure="cosine", temperature=temperature[h])
        np.testing.assert_allclose(found[:, :, h], one[:, :, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", mostly_slow(["cosine", "squared_euclidean", "manhattan"], "manhattan"))
def test_gradients_of_inputs_and_temperature(name):
    with jax.enable_x64(True):
        random = np.random.default_rng(4)
        arrays = tuple(jnp.asarray(random.normal(size=s)) for s in ((3, 2, 2), (5, 1, 2), (5, 1, 3)))

        @jax.jit
        def attend(q, k, v, temperature):
            return attention(q, k, v, measure=name, temperature=temperature, block_size=2)

        jax.test_util.check_grads(attend, (*arrays, jnp.float64(0.7)), order=1)


def test_the_gradient_of_a_parameter_of_the_measure(random):
    q, k, v = qkv(random)

    def total(gamma, block_size):
        own = Measure.from_pair(lambda x, y, *, gamma: gamma * jnp.sum(x * y, -1), higher_is_closer=True, gamma=gamma)
        return jnp.sum(jnp.sin(attention(q, k, v, measure=own, block_size=block_size)))

    def by_temperature(gamma):
        return jnp.sum(jnp.sin(attention(q, k, v, temperature=1 / gamma)))

    expected = jax.grad(by_temperature)(0.7)
    for block_size in (None, 2):
        np.testing.assert_allclose(jax.grad(total)(0.7, block_size), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_cosine_attention_is_independent_of_vector_length(random, size):
    q, k, v = qkv(random)
    expected = attention(q, k, v, measure="cosine", temperature=0.1)
    found = attention(size * q, size * k, v, measure="cosine", temperature=0.1)
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


def test_memory_grows_with_the_length_and_not_with_its_square():
    """8,192 queries and keys in 8 heads of 64, gradient for all three: the weights alone would take 2 GB."""
    x = jax.ShapeDtypeStruct((1, 8192, 8, 64), jnp.float32)
    functions = {
        "plain": dot_product_attention,
        "causal": lambda q, k, v: dot_product_attention(q, k, v, is_causal=True),
        "mask": lambda q, k, v: dot_product_attention(q, k, v, mask=lambda i, j: (i - j) % 3 > 0),
        "dropout": lambda q, k, v: dot_product_attention(q, k, v, dropout_rng=jax.random.key(0), dropout_rate=0.1),
        "cosine": lambda q, k, v: attention(q, k, v, measure="cosine", temperature=0.1),
        "squared_euclidean": lambda q, k, v: attention(q, k, v, measure="squared_euclidean"),
    }
    memory = {}
    for name, function in functions.items():
        gradient = jax.jit(jax.grad(lambda *a, function=function: jnp.sum(function(*a)), argnums=(0, 1, 2)))
        memory[name] = gradient.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes
    assert max(memory.values()) < 206e6, memory


def test_a_learned_gamma():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1, 3)))

        def of_gamma(gamma):
            return jnp.sum(jnp.sin(attention(x, x, x, measure=measure("rbf", gamma=gamma), temperature=0.1)))

        step = 1e-5
        slope = (of_gamma(0.5 + step) - of_gamma(0.5 - step)) / (2 * step)
        np.testing.assert_allclose(jax.grad(of_gamma)(0.5), slope, rtol=1e-7)
