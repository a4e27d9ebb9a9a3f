from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

from simjax import nn

B, T, S, WIDTH, HEADS = 2, 5, 7, 12, 3


@pytest.fixture
def tokens(random):
    return jnp.asarray(random.normal(size=(B, T, WIDTH)), jnp.float32)


@pytest.fixture
def context(random):
    return jnp.asarray(random.normal(size=(B, S, WIDTH)) + 1, jnp.float32)


def as_flax(layer):
    """Return Flax's own module with the same parameters."""
    size = WIDTH // HEADS
    own: Any = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=nnx.Rngs(1))
    kernels = np.split(np.asarray(layer.query_key_value.kernel[...]), 3, axis=1)
    biases = np.split(np.asarray(layer.query_key_value.bias[...]), 3)
    for part, kernel, bias in zip((own.query, own.key, own.value), kernels, biases, strict=True):
        part.kernel[...], part.bias[...] = kernel.reshape(WIDTH, HEADS, size), bias.reshape(HEADS, size)
    own.out.kernel[...] = np.asarray(layer.out.kernel[...]).reshape(HEADS, size, WIDTH)
    own.out.bias[...] = layer.out.bias[...]
    return own


def test_equals_flax_with_the_same_parameters(random, tokens, context):
    layer: Any = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    layer.query_key_value.bias[...] = random.normal(size=3 * WIDTH).astype(np.float32)
    own = as_flax(layer)
    every = jax.jit(lambda x, y: (layer(x), own(x, x), layer(x, y), own(x, y), layer(x, x)))
    found, expected, across, across_expected, explicit = every(tokens, context)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(across, across_expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explicit, found, rtol=1e-5, atol=1e-5)


def test_returned_weights_average_the_values(tokens, context):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    out, weights = jax.jit(lambda x, y: layer(x, y, return_weights=True))(tokens, context)
    values = context @ np.asarray(layer.query_key_value.kernel[...])[:, 2 * WIDTH :]
    mixed = np.einsum("bhts,bshk->bthk", weights, values.reshape(B, S, HEADS, WIDTH // HEADS)).reshape(B, T, WIDTH)
    np.testing.assert_allclose(out, mixed @ np.asarray(layer.out.kernel[...]), rtol=1e-4, atol=1e-5)


def test_masked_tokens_have_no_influence(tokens, context):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))
    later = np.array(tokens)
    later[:, 3:] = 9.0

    @jax.jit
    def every(tokens, later, context):
        masks = (lambda i, j: j < 4), jnp.arange(S) < 4
        masked = [layer(tokens, context, mask=mask) for mask in masks]
        causal = [layer(x, is_causal=True)[:, :3] for x in (tokens, later)]
        return masked, layer(tokens, context[:, :4]), causal

    masked, expected, causal = every(tokens, later, context)
    for found in masked:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*causal, rtol=1e-6)


def test_weights_are_dropped_only_with_a_key(tokens):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, dropout_rate=0.5, rngs=nnx.Rngs(0))
    plain = nn.MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0))

    @jax.jit
    def every(keys):
        return layer(tokens), plain(tokens), jax.vmap(lambda key: layer(tokens, dropout_key=key))(keys)

    without, expected, samples = map(np.asarray, every(jax.random.split(jax.random.key(0), 1000)))
    np.testing.assert_array_equal(without, expected)
    assert np.abs(samples[0] - samples[1]).max() > 0.01
    np.testing.assert_array_less(np.abs(samples.mean(0) - expected), 5 * samples.std(0) / np.sqrt(1000) + 1e-6)


@pytest.mark.parametrize("measure", ["cosine", nn.TunedMeasure("rbf", gamma=0.3)], ids=["name", "module"])
def test_other_measures(tokens, measure):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, measure=measure, temperature=0.2, rngs=nnx.Rngs(0))
    _, weights = jax.jit(lambda x: layer(x, return_weights=True))(tokens)
    weights = np.asarray(weights)
    size = WIDTH // HEADS
    q, k, _ = np.split(tokens @ np.asarray(layer.query_key_value.kernel[...]), 3, axis=-1)
    for b, h in np.ndindex(B, HEADS):
        x, y = (a[b, :, h * size : (h + 1) * size] for a in (q, k))
        if measure == "cosine":
            s = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
        else:
            s = np.exp(-0.3 * ((x[:, None] - y[None]) ** 2).sum(-1))
        np.testing.assert_allclose(weights[b, h], softmax(s / 0.2, axis=1), rtol=1e-4, atol=1e-5)


def test_a_learned_measure_is_learned(tokens):
    layer = nn.MultiHeadAttention(WIDTH, HEADS, measure=nn.TunedMeasure("rbf", gamma=0.3), rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(nnx.merge(graph, params)(tokens)))))(params)
    assert abs(float(gradient["measure"]["logarithms"]["gamma"][...])) > 1e-4


def test_the_block_equals_its_formula(tokens):
    """x + attention(norm(x)), then x + dense layers(norm(x)), with attention written out in full."""
    block = nn.TransformerBlock(WIDTH, HEADS, mlp_ratio=2, rngs=nnx.Rngs(0))

    def written_out(tokens):
        qkv = block.attention.query_key_value(block.attention_norm(tokens)).reshape(B, T, 3, HEADS, WIDTH // HEADS)
        mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = tokens + block.attention.out(mixed.reshape(B, T, WIDTH))
        return x + block.out(jax.nn.gelu(block.hidden(block.mlp_norm(x))))

    every = jax.jit(lambda x: (written_out(x), block(x), *block(x, return_weights=True)))
    expected, found, beside_weights, weights = every(tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(beside_weights, found, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.sum(weights, axis=-1), np.ones((B, HEADS, T)), rtol=1e-5)
