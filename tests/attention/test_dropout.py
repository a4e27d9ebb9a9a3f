from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import attention
from tests.slow import mostly_slow

dot_product_attention: Any = attention.dot_product_attention  # options decide whether it returns a tuple

B, T, S, H, K = 2, 5, 11, 4, 7


def dropped(**options):
    """Return the factors of weights: the output of equal scores with an identity matrix of values."""
    q, k = np.zeros((B, T, H, K), np.float32), np.zeros((B, S, 2, K), np.float32)
    v = np.broadcast_to(np.eye(S, dtype=np.float32)[None, :, None], (B, S, 2, S))
    return dot_product_attention(q, k, v, **options) * S  # [b, t, h, s], 1 where nothing is dropped


@partial(jax.jit, static_argnames=("broadcast", "block_size"))
def drop(key, broadcast=True, block_size=None):
    return dropped(dropout_rng=key, dropout_rate=0.25, broadcast_dropout=broadcast, block_size=block_size)


@pytest.mark.parametrize(
    ("broadcast", "block_size"),
    mostly_slow([(True, 2), (True, 10), (False, 2), (False, 10)], (True, 2)),  # some rows of a head, two heads
)
def test_block_size_does_not_change_random_bits(broadcast, block_size):
    key = jax.random.key(0)
    np.testing.assert_array_equal(drop(key, broadcast, block_size), drop(key, broadcast))


@pytest.mark.parametrize("broadcast", mostly_slow([True, False], True))
def test_a_fraction_is_dropped_and_the_rest_is_scaled(broadcast):
    masks = np.stack([drop(jax.random.key(n), broadcast) for n in range(60)])
    np.testing.assert_allclose(np.unique(masks.round(4)), [0, 1.3333])
    share = (masks == 0).mean(axis=0)  # of each place
    np.testing.assert_allclose(share.mean(), 0.25, atol=0.03)
    assert share.min() > 0.02
    assert share.max() < 0.6
    same_in_all_heads = (masks == masks[:, :1, :, :1]).all()
    assert same_in_all_heads == broadcast
    assert not (masks == masks[:, :, :1]).all()  # queries are dropped apart


@pytest.mark.slow
def test_legacy_keys_are_accepted():
    np.testing.assert_array_equal(drop(jax.random.PRNGKey(0)), drop(jax.random.key(0)))


def test_no_dropout_by_default():
    key = jax.random.key(0)
    cases: list[dict[str, Any]] = [
        {"dropout_rng": key, "dropout_rate": 0.4, "deterministic": True},
        {"dropout_rng": key, "dropout_rate": 0.0},
        {"dropout_rate": 0.0},
    ]
    for found in jax.jit(lambda: [dropped(**options) for options in cases])():
        np.testing.assert_allclose(found, 1, rtol=1e-6)


@pytest.mark.slow
def test_the_gradient_uses_the_same_random_bits(random):
    """The gradient equals that of a dense softmax times the factors of dropout."""
    q, k, v = (np.float32(random.normal(size=(B, n, H, K))) for n in (T, S, S))
    key = jax.random.key(3)

    def attend(q, k, v):
        return dot_product_attention(q, k, v, dropout_rng=key, dropout_rate=0.4, block_size=2)

    def dense(q, k, v):
        eye = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, H, S))
        factor = attend(jnp.zeros_like(q), jnp.zeros_like(k), eye).transpose(0, 2, 1, 3) * S
        weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(K)) * jax.lax.stop_gradient(factor)
        return jnp.einsum("bhts,bshk->bthk", weights, v)

    @jax.jit
    def both(*arrays):
        return [
            jax.value_and_grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2))(*arrays)
            for f in (attend, dense)
        ]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both(q, k, v))
