import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.attention import dot_product_attention
from tests.slow import mostly_slow

B, T, S, H, K = 2, 5, 11, 4, 7


def dropped(block_size=None, rate=0.4, seed=0, **options):
    """Return the factors of weights: the output of equal scores with an identity matrix of values."""
    q, k = jnp.zeros((B, T, H, K)), jnp.zeros((B, S, 2, K))
    v = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, 2, S))
    options = {"dropout_rng": jax.random.key(seed), "dropout_rate": rate, "block_size": block_size, **options}
    return np.asarray(dot_product_attention(q, k, v, **options)) * S  # [b, t, h, s], 1 where nothing is dropped


@pytest.mark.parametrize("broadcast", mostly_slow([True, False], True))
def test_block_size_does_not_change_random_bits(broadcast):
    whole = dropped(broadcast_dropout=broadcast)
    for block_size in (2, 10):  # some rows of a head, two heads
        np.testing.assert_array_equal(dropped(block_size, broadcast_dropout=broadcast), whole)


@pytest.mark.parametrize("broadcast", [True, False])
def test_a_fraction_is_dropped_and_the_rest_is_scaled(broadcast):
    masks = np.stack([dropped(rate=0.25, seed=n, broadcast_dropout=broadcast) for n in range(60)])
    np.testing.assert_allclose(np.unique(masks.round(4)), [0, 1.3333])
    share = (masks == 0).mean(axis=0)  # of each place
    np.testing.assert_allclose(share.mean(), 0.25, atol=0.03)
    assert share.min() > 0.02
    assert share.max() < 0.6
    same_in_all_heads = (masks == masks[:, :1, :, :1]).all()
    assert same_in_all_heads == broadcast
    assert not (masks == masks[:, :, :1]).all()  # queries are dropped apart


def test_other_keys_drop_other_weights():
    assert (dropped(seed=0) != dropped(seed=1)).any()


def test_legacy_keys_are_accepted():
    np.testing.assert_array_equal(dropped(dropout_rng=jax.random.PRNGKey(0)), dropped())


@pytest.mark.parametrize(
    "options", [{"deterministic": True}, {"rate": 0.0}, {"rate": 0.0, "dropout_rng": None}], ids=str
)
def test_no_dropout_by_default(options):
    np.testing.assert_allclose(dropped(**options), 1, rtol=1e-6)


def test_the_gradient_uses_the_same_random_bits(random):
    """The gradient equals that of a dense softmax times the factors of dropout."""
    q, k, v = (jnp.float32(random.normal(size=(B, n, H, K))) for n in (T, S, S))
    key = jax.random.key(3)

    def attend(q, k, v):
        return dot_product_attention(q, k, v, dropout_rng=key, dropout_rate=0.4, broadcast_dropout=False, block_size=2)

    eye = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, H, S))
    factor = jax.jit(attend)(jnp.zeros_like(q), jnp.zeros_like(k), eye).transpose(0, 2, 1, 3) * S

    def dense(q, k, v):
        weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(K)) * factor
        return jnp.einsum("bhts,bshk->bthk", weights, v)

    for form in (lambda f: f, lambda f: jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2))):
        found, expected = jax.jit(form(attend))(q, k, v), jax.jit(form(dense))(q, k, v)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
