import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import nn

B, T, S, WIDTH, HEADS = 2, 5, 7, 12, 3


@pytest.fixture
def tokens(random):
    return jnp.float32(random.normal(size=(B, T, WIDTH)))


@pytest.fixture
def context(random):
    return jnp.float32(random.normal(size=(B, S, WIDTH)) + 1)


def by_flax(layer, tokens, context):
    """Compute Flax's own module with the same parameters."""
    size = WIDTH // HEADS
    own = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=nnx.Rngs(1))
    kernels = np.split(layer.query_key_value.kernel[...], 3, axis=1)
    biases = np.split(layer.query_key_value.bias[...], 3)
    for part, kernel, bias in zip((own.query, own.key, own.value), kernels, biases, strict=True):
        part.kernel[...], part.bias[...] = kernel.reshape(WIDTH, HEADS, size), bias.reshape(HEADS, size)
    own.out.kernel[...] = layer.out.kernel[...].reshape(HEADS, size, WIDTH)
    own.out.bias[...] = layer.out.bias[...]
    return jax.jit(own)(tokens, context)


def test_equals_flax_with_the_same_parameters(random, tokens, context):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    layer.query_key_value.bias[...] = jnp.float32(random.normal(size=3 * WIDTH))
    np.testing.assert_allclose(layer(tokens), by_flax(layer, tokens, tokens), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(tokens, context), by_flax(layer, tokens, context), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(tokens, tokens), layer(tokens), rtol=1e-5, atol=1e-5)


def test_returned_weights_average_the_values(tokens, context):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    out, weights = layer(tokens, context, return_weights=True)
    values = (context @ layer.query_key_value.kernel[...][:, 2 * WIDTH :]).reshape(B, S, HEADS, WIDTH // HEADS)
    mixed = jnp.einsum("bhts,bshk->bthk", weights, values).reshape(B, T, WIDTH)
    np.testing.assert_allclose(out, layer.out(mixed), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(tokens, context), out, rtol=1e-6, atol=1e-6)


def test_masked_tokens_have_no_influence(tokens, context):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    expected = layer(tokens, context[:, :4])
    np.testing.assert_allclose(layer(tokens, context, mask=lambda i, j: j < 4), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(tokens, context, mask=jnp.arange(S) < 4), expected, rtol=1e-5, atol=1e-6)
    later = tokens.at[:, 3:].set(9.0)
    np.testing.assert_allclose(layer(tokens, is_causal=True)[:, :3], layer(later, is_causal=True)[:, :3], rtol=1e-6)


def test_weights_are_dropped_only_with_a_key(tokens):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, dropout_rate=0.5, rngs=nnx.Rngs(0))
    plain = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(tokens), plain(tokens))
    one, other = (layer(tokens, dropout_key=jax.random.key(n)) for n in range(2))
    assert float(jnp.abs(one - other).max()) > 0.01
    np.testing.assert_array_equal(layer(tokens, dropout_key=jax.random.key(0)), one)
    keys = jax.random.split(jax.random.key(0), 1000)
    samples = jax.jit(jax.vmap(lambda key: layer(tokens, dropout_key=key)))(keys)
    np.testing.assert_array_less(jnp.abs(samples.mean(0) - plain(tokens)), 5 * samples.std(0) / np.sqrt(1000) + 1e-6)


@pytest.mark.parametrize("measure", ["cosine", nn.TunedMeasure("rbf", gamma=0.3)], ids=["name", "module"])
def test_other_measures(tokens, measure):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, measure=measure, temperature=0.2, rngs=nnx.Rngs(0))
    _, weights = layer(tokens, return_weights=True)
    size = WIDTH // HEADS
    q, k, _ = np.split(np.asarray(tokens @ layer.query_key_value.kernel[...]), 3, axis=-1)
    for b, h in np.ndindex(B, HEADS):
        x, y = (a[b, :, h * size : (h + 1) * size] for a in (q, k))
        if measure == "cosine":
            s = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
        else:
            s = np.exp(-0.3 * ((x[:, None] - y[None]) ** 2).sum(-1))
        np.testing.assert_allclose(weights[b, h], jax.nn.softmax(s / 0.2, axis=1), rtol=1e-4, atol=1e-5)


def test_a_learned_measure_is_learned(tokens):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, measure=nn.TunedMeasure("rbf", gamma=0.3), rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(nnx.merge(graph, params)(tokens)))))(params)
    assert abs(float(gradient["measure"]["logarithms"]["gamma"][...])) > 1e-4


def test_the_block_returns_weights_on_request(tokens):
    block = nn.TransformerBlock(WIDTH, HEADS, rngs=nnx.Rngs(0))
    out, weights = jax.jit(lambda x: block(x, return_weights=True))(tokens)
    np.testing.assert_allclose(weights.sum(-1), np.ones((B, HEADS, T)), rtol=1e-5)
    alone = jax.jit(block)(tokens)
    np.testing.assert_allclose(alone, out, rtol=1e-6, atol=1e-6)


def test_the_block_equals_its_formula(tokens):
    """x + attention(norm(x)), then x + dense layers(norm(x)), with attention written out in full."""
    block = nn.TransformerBlock(WIDTH, HEADS, mlp_ratio=2, rngs=nnx.Rngs(0))

    @jax.jit
    def written_out(tokens):
        qkv = block.attention.query_key_value(block.attention_norm(tokens)).reshape(B, T, 3, HEADS, WIDTH // HEADS)
        mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = tokens + block.attention.out(mixed.reshape(B, T, WIDTH))
        return x + block.out(jax.nn.gelu(block.hidden(block.mlp_norm(x))))

    np.testing.assert_allclose(jax.jit(block)(tokens), written_out(tokens), rtol=1e-4, atol=1e-5)
