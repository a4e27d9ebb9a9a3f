"""flax.nnx.MultiHeadAttention with this library's attention equals Flax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax.attention import dot_product_attention
from tests.slow import mostly_slow


def layers(**options):
    """Two layers with the same parameters: Flax's own, and with this library's attention."""
    options = {"num_heads": 4, "in_features": 12, "decode": False, **options}
    own = nnx.MultiHeadAttention(**options, rngs=nnx.Rngs(0))
    return own, nnx.MultiHeadAttention(**options, attention_fn=dot_product_attention, rngs=nnx.Rngs(0))


CASES = {
    "itself": ({}, {}),
    "causal": ({}, {"is_causal": True}),
    "its mask": ({}, {"mask": nnx.make_causal_mask(jnp.ones((3, 5)))}),
    "groups": ({"num_kv_heads": 2}, {}),
    "normalized": ({"normalize_qk": True}, {}),
    "dropout off": ({"dropout_rate": 0.5}, {"deterministic": True}),
    "precision": ({"precision": jax.lax.Precision.HIGHEST}, {}),
    "wide": ({"qkv_features": 16, "out_features": 7}, {}),
}


@pytest.mark.parametrize(("options", "call"), CASES.values(), ids=CASES)
def test_equals_flax(random, options, call):
    x = jnp.float32(random.normal(size=(3, 5, 12)))
    flax, mine = layers(**options)
    found, expected = (jax.jit(lambda x, layer=layer: layer(x, **call))(x) for layer in (mine, flax))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_other_keys_and_any_axes_of_a_batch(random):
    x, y = (jnp.float32(random.normal(size=(2, 3, n, 12))) for n in (5, 7))
    flax, mine = layers()
    np.testing.assert_allclose(jax.jit(mine)(x, y), jax.jit(flax)(x, y), rtol=1e-5, atol=1e-5)


def test_half_precision(random):
    x = jnp.float32(random.normal(size=(3, 5, 12)))
    flax, mine = layers(dtype=jnp.bfloat16)
    assert mine(x).dtype == flax(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(mine(x)), np.float32(flax(x)), atol=0.03)


@pytest.mark.parametrize("broadcast", mostly_slow([True, False], True))
def test_dropout_has_the_mean_and_deviation_of_flax(random, broadcast):
    """The bits differ, so what is equal is their distribution."""
    x = jnp.float32(random.normal(size=(3, 5, 12)))
    flax, mine = layers(dropout_rate=0.3, broadcast_dropout=broadcast)
    still = flax(x, deterministic=True)

    def samples(layer):
        graph, state = nnx.split(layer)

        def one(key):
            return nnx.merge(graph, state)(x, deterministic=False, rngs=nnx.Rngs(dropout=key))

        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 2000))

    theirs, ours = samples(flax), samples(mine)
    error = np.asarray(theirs.std(0)) / np.sqrt(2000)
    assert (np.abs(ours.mean(0) - still) < 5 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.15)
    # the same outputs are correlated
    correlations = [np.corrcoef(a.reshape(2000, -1)[:, ::7], rowvar=False) for a in (ours, theirs)]
    np.testing.assert_allclose(*correlations, atol=0.15)


def test_weights_are_stored_as_in_flax(random):
    x = jnp.float32(random.normal(size=(3, 5, 12)))
    found = []
    for layer in layers():
        _, kept = nnx.capture(layer, nnx.Intermediate)(x, sow_weights=True)
        found.append(kept["attention_weights"][0])
    assert found[0].shape == (3, 4, 5, 5)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_one_token_at_a_time(random):
    x = jnp.float32(random.normal(size=(3, 5, 12)))
    outputs = []
    for layer in layers(decode=True):
        layer.init_cache(x.shape)
        step = nnx.jit(lambda layer, token: layer(token))
        outputs.append(jnp.concatenate([step(layer, x[:, t : t + 1]) for t in range(5)], axis=1))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
