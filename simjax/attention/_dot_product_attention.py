"""Scaled dot-product attention: similarity of queries and keys decides how values are mixed.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V

Q K^T is the matrix of dot products, softmax turns each of its rows into weights.

References:
    Vaswani et al. (2017), Attention Is All You Need.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Num

from simjax.core import InputError, dot_products


def dot_product_attention(
    query: Num[ArrayLike, "b t h d"],
    key: Num[ArrayLike, "b s h d"],
    value: Num[ArrayLike, "b s h e"],
    bias: Num[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    return_weights: bool = False,
) -> Any:
    """softmax(scale * query key^T + bias) value, per head.

    Args:
        query: [b, t, h, d].
        key: [b, s, h, d].
        value: [b, s, h, e].
        bias: added to the scores, broadcastable to [b, h, t, s].
        mask: boolean, True keeps, broadcastable to [b, h, t, s].
        scale: of the scores; None is 1 / sqrt(d).
        is_causal: position i looks at positions 0 to i only.
        return_weights: also return the attention weights.

    Returns:
        [b, t, h, e], or with `return_weights` a pair of it and the weights [b, h, t, s]. A row whose keys are all
        masked gives zeros, with zero gradient.

    Raises:
        InputError: for shapes that do not fit.

    Differs from:
        `jax.nn.dot_product_attention`, which returns the mean of the values for a fully masked row.

    Example:
        Colours that look at each other, unscaled: red and pink see mostly pink, blue sees itself.

        >>> x = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 0, 255]])[None, :, None]
        >>> _, weights = dot_product_attention(x, x, x, scale=1.0, return_weights=True)
        >>> print(weights[0, 0])
        [[0.5 0.5 0. ]
         [0.  1.  0. ]
         [0.  0.  1. ]]
    """
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    for argument, x in (("query", query), ("key", key), ("value", value)):
        if x.ndim != 4:
            raise InputError(f"{argument}: expected [batch, length, heads, size], got shape {x.shape}")
    if query.shape[3] != key.shape[3] or query.shape[2] != key.shape[2] or query.shape[0] != key.shape[0]:
        raise InputError(f"key: expected batch, heads and size of query {query.shape}, got {key.shape}")
    if key.shape[:3] != value.shape[:3]:
        raise InputError(f"value: expected batch, length and heads of key {key.shape}, got {value.shape}")
    weights, out = _attend(query, key, value, bias, mask, scale=scale, is_causal=is_causal)
    return (out, weights) if return_weights else out


@partial(jax.jit, static_argnames=("is_causal",))
def _attend(query: Array, key: Array, value: Array, bias: Any, mask: Any, *, scale: Any, is_causal: bool):
    # Heads beside the batch make plain batched matrix products, which XLA on a CPU runs fastest.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))  # [b, h, t, d], [b, h, s, d], [b, h, s, e]
    scores = dot_products(q * (query.shape[-1] ** -0.5 if scale is None else scale), k)  # [b, h, t, s]
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if bias is not None:
        scores = scores + bias
    if is_causal:
        causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))[None, None]
        mask = causal if mask is None else mask & causal
    weights = jax.nn.softmax(scores, axis=-1, where=mask).astype(value.dtype)
    return weights, jnp.swapaxes(weights @ v, 1, 2)
