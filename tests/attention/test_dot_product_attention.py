import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax.attention import dot_product_attention
from simjax.core import InputError


def qkv(random):
    return tuple(jnp.float32(random.normal(size=s)) for s in ((2, 5, 3, 7), (2, 11, 3, 7), (2, 11, 3, 13)))


def test_by_loops(random):
    q, k, v = (np.asarray(x, np.float64) for x in qkv(random))
    out, weights = dot_product_attention(*qkv(np.random.default_rng(0)), return_weights=True)
    for b, h, t in np.ndindex(2, 3, 5):
        scores = k[b, :, h] @ q[b, t, h] / np.sqrt(7)
        w = np.exp(scores - scores.max())
        w /= w.sum()
        np.testing.assert_allclose(weights[b, h, t], w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out[b, t, h], w @ v[b, :, h], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"bias": True}, {"mask": True}, {"is_causal": True}])
def test_agrees_with_jax(random, options):
    q, k, _ = qkv(random)
    v = jnp.float32(random.normal(size=(2, 11, 3, 7)))
    options = dict(options)
    if "bias" in options:
        options["bias"] = jnp.float32(random.normal(size=(2, 3, 5, 11)))
    if "mask" in options:
        options["mask"] = jnp.asarray(random.random((2, 3, 5, 11)) < 0.7).at[..., 0].set(True)
    expected = jax.nn.dot_product_attention(q, k, v, **options)
    np.testing.assert_allclose(dot_product_attention(q, k, v, **options), expected, rtol=1e-5, atol=1e-5)


def test_a_fully_masked_row_gives_zeros_and_zero_gradient(random):
    q, k, v = qkv(random)
    mask = jnp.ones((2, 1, 5, 11), bool).at[:, :, 2].set(False)
    out, gradient = jax.value_and_grad(lambda q: dot_product_attention(q, k, v, mask=mask)[:, 2].sum())(q)
    assert float(out) == 0
    np.testing.assert_array_equal(gradient, 0)
    assert np.isfinite(jax.grad(lambda q: dot_product_attention(q, k, v, mask=mask).sum())(q)).all()


def test_half_precision_weights_are_summed_in_float32(random):
    q, k, v = (x.astype(jnp.bfloat16) for x in qkv(random))
    out = dot_product_attention(q, k, v)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(out), dot_product_attention(*qkv(np.random.default_rng(0))), atol=0.02)


def test_gradients():
    with jax.enable_x64(True):
        random = np.random.default_rng(4)
        arrays = tuple(jnp.asarray(random.normal(size=s)) for s in ((1, 3, 2, 2), (1, 5, 2, 2), (1, 5, 2, 3)))
        jax.test_util.check_grads(lambda *a: dot_product_attention(*map(jnp.asarray, a)), arrays, order=2)


@pytest.mark.usefixtures("unchecked")
def test_errors(random):
    q, k, v = qkv(random)
    with pytest.raises(InputError, match=r"query: expected \[batch, length, heads, size\], got shape \(5, 3, 7\)"):
        dot_product_attention(q[0], k, v)
    with pytest.raises(InputError, match=r"key: .* got \(2, 11, 2, 7\)"):
        dot_product_attention(q, k[:, :, :2], v)
    with pytest.raises(InputError, match="value"):
        dot_product_attention(q, k, v[:, :4])
