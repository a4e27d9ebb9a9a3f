"""Scaled dot-product attention: similarity of queries and keys decides how values are mixed.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(k)) V

Q K^T is the matrix of dot products, softmax turns each of its rows into weights.

References:
    Vaswani et al. (2017), Attention Is All You Need. Ainslie et al. (2023), GQA: Training Generalized Multi-Query
    Transformer Models from Multi-Head Checkpoints.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Integer, Num, Shaped

from simjax.attention._attend import attend, check_shapes, dropout
from simjax.core import InputError, as_float_array, check_choice
from simjax.similarity import measure


def dot_product_attention(
    query: Shaped[ArrayLike, "*batch t h k"],
    key: Shaped[ArrayLike, "*batch s g k"],
    value: Shaped[ArrayLike, "*batch s g e"],
    bias: Num[ArrayLike, "..."] | Callable[..., Any] | None = None,
    mask: Shaped[ArrayLike, "..."] | Callable[..., Any] | None = None,
    *,
    scale: Num[ArrayLike, "..."] | None = None,
    is_causal: bool = False,
    query_seq_lengths: Integer[ArrayLike, "..."] | None = None,
    key_value_seq_lengths: Integer[ArrayLike, "..."] | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: str | None = None,
    return_residual: bool = False,
    dropout_rng: Array | None = None,
    dropout_rate: float | Array = 0.0,
    broadcast_dropout: bool = True,
    deterministic: bool = False,
    dtype: DTypeLike | None = None,
    precision: str | lax.Precision | None = None,
    module: Any = None,
    return_weights: bool = False,
    block_size: int | None = None,
) -> Any:
    """softmax(scale * query key^T + bias) value, for each head.

    The arguments of `jax.nn.dot_product_attention`, and those that `flax.nnx.MultiHeadAttention` gives its
    `attention_fn`. Memory grows with t + s, forward and backward, not with t times s.

    Args:
        query: [*batch, t, h, k].
        key: [*batch, s, g, k], where g divides h: each of its heads serves h / g heads of the query in turn.
        value: [*batch, s, g, e].
        bias: added to the scores, an array that broadcasts to [*batch, h, t, s] or a function, as in `attention`.
        mask: True keeps, an array that broadcasts to [*batch, h, t, s] or a function, as in `attention`.
        scale: of the scores; None is 1 / sqrt(k).
        is_causal: query i looks at keys 0 to i only.
        query_seq_lengths: integers [*batch]: queries from there on give zeros.
        key_value_seq_lengths: integers [*batch]: keys from there on are not looked at.
        local_window_size: (left, right) or one number for both: query i looks at keys i - left to i + right only.
        implementation: None or "xla" is the library's own; "cudnn" is NVIDIA's fused kernel, for half precision and
            what it supports.
        return_residual: also return the logarithm of the sum of the exponentials of each query's scores.
        dropout_rng: a key; needed where weights are dropped.
        dropout_rate: the share of weights that is set to 0, in [0, 1).
        broadcast_dropout: drop the same places in all batches and heads.
        deterministic: drop nothing.
        dtype: of the computation and the result; None is that of the inputs. Scores are float32 or wider all the same.
        precision: of matrix products, as in `jax.default_matmul_precision`.
        module: a Flax module that keeps the weights as `attention_weights`.
        return_weights: also return the weights, before any are dropped; they take memory t times s.
        block_size: queries, counted over all heads and batches, that are computed at once; None chooses.

    Returns:
        [*batch, t, h, e] in the type of `value`. A query that may look at nothing gives zeros, with zero gradient.
        With `return_residual` the residual [*batch, t, h] follows, and then with `return_weights` the weights
        [*batch, h, t, s].

    Raises:
        InputError: for shapes that do not fit, a number out of its range, or what "cudnn" does not do.
        TypeError: for values of the wrong kind.

    Differs from:
        `jax.nn.dot_product_attention` and Flax, which return the mean of the values for a fully masked row; their
        residual has no gradient. Flax draws other bits for dropout.

    Example:
        Colours that look at each other, unscaled: red and pink see mostly pink, blue sees itself.

        >>> x = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 0, 255]])[None, :, None]
        >>> _, weights = dot_product_attention(x, x, x, scale=1.0, return_weights=True)
        >>> print(weights[0, 0])
        [[0.5 0.5 0. ]
         [0.  1.  0. ]
         [0.  0.  1. ]]
    """
    query, key, value = as_float_array("query", query), as_float_array("key", key), as_float_array("value", value)
    if dtype is not None:
        query, key, value = query.astype(dtype), key.astype(dtype), value.astype(dtype)
    check_choice("implementation", str(implementation), ("None", "xla", "cudnn"))
    masks = {
        "is_causal": is_causal,
        "query_seq_lengths": query_seq_lengths,
        "key_value_seq_lengths": key_value_seq_lengths,
        "local_window_size": local_window_size,
    }
    if implementation == "cudnn":
        refused = {
            "bias": callable(bias),
            "mask": callable(mask),
            "dropout_rate": dropout(dropout_rng, dropout_rate, deterministic) is not None,
            "module": module is not None,
            "return_weights": return_weights,
            "block_size": block_size is not None,
        }
        return _cudnn(query, key, value, bias, mask, refused, scale=scale, return_residual=return_residual, **masks)
    out = attend(
        query,
        key,
        value,
        bias,
        mask,
        measure=measure("dot"),
        scale={"scale": query.shape[-1] ** -0.5 if scale is None else scale},
        dropout_rng=dropout_rng,
        dropout_rate=dropout_rate,
        deterministic=deterministic,
        broadcast_dropout=broadcast_dropout,
        precision=precision,
        return_residual=return_residual,
        return_weights=return_weights or module is not None,
        block_size=block_size,
        **masks,
    )
    if module is None:
        return out
    from flax import nnx

    module.sow(nnx.Intermediate, "attention_weights", out[-1])
    return out if return_weights else out[:-1] if return_residual else out[0]


def _cudnn(query: Array, key: Array, value: Array, bias: Any, mask: Any, refused: dict[str, bool], **options: Any):
    """What the fused kernel computes, where it is asked for nothing else."""
    for argument, given in refused.items():
        if given:
            raise InputError(f'{argument}: implementation="cudnn" takes none, or no function; None takes it')
    check_shapes(query, key, value)
    for argument, a in (("query", query), ("key", key), ("value", value)):
        if a.dtype not in (jnp.float16, jnp.bfloat16):
            raise TypeError(f'{argument}: expected float16 or bfloat16 for implementation="cudnn", got {a.dtype}')
    return jax.nn.dot_product_attention(query, key, value, bias, mask, implementation="cudnn", **options)
