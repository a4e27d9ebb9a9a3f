"""flax.nnx.MultiHeadAttention with this library's attention equals Flax's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import attention
from tests.slow import mostly_slow

dot_product_attention: Any = attention.dot_product_attention  # options decide whether it returns a tuple


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


@pytest.mark.parametrize("name", mostly_slow(CASES, "groups", "its mask"))
def test_equals_flax(random, name):
    options, call = CASES[name]
    x = jnp.asarray(random.normal(size=(3, 5, 12)), jnp.float32)
    both = [jax.tree_util.Partial(layer, **call) for layer in layers(**options)]
    np.testing.assert_allclose(*jax.jit(lambda x: [layer(x) for layer in both])(x), rtol=1e-5, atol=1e-5)


def test_other_keys_and_any_axes_of_a_batch(random):
    x, y = (jnp.asarray(random.normal(size=(2, 3, n, 12)), jnp.float32) for n in (5, 7))
    both = layers()
    np.testing.assert_allclose(*jax.jit(lambda x, y: [layer(x, y) for layer in both])(x, y), rtol=1e-5, atol=1e-5)


def test_half_precision(random):
    x = jnp.asarray(random.normal(size=(3, 5, 12)), jnp.float32)
    both = layers(dtype=jnp.bfloat16)
    theirs, found = jax.jit(lambda x: [layer(x) for layer in both])(x)
    assert found.dtype == theirs.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), np.float32(theirs), atol=0.03)


@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.slow
def test_dropout_has_the_mean_and_deviation_of_flax(random, broadcast):
    """The random bits differ, their distribution is equal."""
    x = jnp.asarray(random.normal(size=(3, 5, 12)), jnp.float32)
    both = [nnx.split(layer) for layer in layers(dropout_rate=0.3, broadcast_dropout=broadcast)]

    @jax.jit
    def samples(keys):
        def one(key):
            return [nnx.merge(*layer)(x, deterministic=False, rngs=nnx.Rngs(dropout=key)) for layer in both]

        return nnx.merge(*both[0])(x, deterministic=True), jax.vmap(one)(keys)

    still, (theirs, ours) = jax.tree.map(np.asarray, samples(jax.random.split(jax.random.key(1), 2000)))
    error = theirs.std(0) / np.sqrt(2000)
    assert (np.abs(ours.mean(0) - still) < 5 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.15)
    # the same outputs are correlated
    correlations = [np.corrcoef(a.reshape(2000, -1)[:, ::7], rowvar=False) for a in (ours, theirs)]
    np.testing.assert_allclose(*correlations, atol=0.15)


def test_weights_are_stored_as_in_flax(random):
    x = jnp.asarray(random.normal(size=(3, 5, 12)), jnp.float32)
    both = [nnx.split(layer) for layer in layers()]

    @jax.jit
    def weights(x):
        stored = [nnx.capture(nnx.merge(*layer), nnx.Intermediate)(x, sow_weights=True)[1] for layer in both]
        return [s["attention_weights"][0] for s in stored]

    theirs, found = weights(x)
    assert found.shape == (3, 4, 5, 5)
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-6)


def test_one_token_at_a_time(random):
    x = jnp.asarray(random.normal(size=(3, 5, 12)), jnp.float32)
    outputs = []
    for layer in layers(decode=True):
        layer.init_cache(x.shape)
        step = nnx.jit(lambda layer, token: layer(token))
        outputs.append(np.concatenate([step(layer, x[:, t : t + 1]) for t in range(5)], axis=1))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
