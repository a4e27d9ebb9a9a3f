"""Attention: each query averages values with weights that are a softmax of its scores with the keys.

    Attention(Q, K, V) = softmax(score(Q, K) / temperature) V
    scaled dot-product attention: softmax(Q K^T / sqrt(k)) V

The scores are computed and multiplied with the values one block of queries at a time, so memory grows linearly with the
length of the sequences, in the forward and in the backward pass. Shapes that do not match, numbers out of range and
unknown names raise an `InputError`, unsuitable dtypes a `TypeError`.

References:
    Vaswani et al. (2017), Attention Is All You Need. Tsai et al. (2019), Transformer Dissection: An Unified
    Understanding for Transformer's Attention via the Lens of Kernel. Rabe, Staats (2021), Self-attention Does Not
    Need O(n^2) Memory. Ainslie et al. (2023), GQA: Training Generalized Multi-Query Transformer Models from
    Multi-Head Checkpoints.
"""

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Num, Shaped

from simjax.attention._attend import attend, check_dropout, check_shapes
from simjax.core import InputError, as_float_array, check_choice, check_positive
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


class AttentionOptions(TypedDict, total=False):
    """Options of `attention` and `dot_product_attention`.

    is_causal: Query i attends to keys 0 to i only. Default: False.
    query_seq_lengths: Numbers of valid queries, [*batch]; later queries give zeros. Default: all are valid.
    key_value_seq_lengths: Numbers of valid keys, [*batch]; no query attends to later keys. Default: all are valid.
    local_window_size: (left, right), or one number for both: query i attends to keys i - left to i + right only.
    dropout_rng: PRNG key; required if weights are dropped.
    dropout_rate: Fraction of weights that are set to 0, in [0, 1). Default: 0.
    broadcast_dropout: Drop the same positions in all batch elements and heads. Default: True.
    deterministic: Drop no weights. Default: False.
    precision: Precision of matrix products, as in `jax.default_matmul_precision`. Default: `Measure.precision` for the
        scores, JAX's default for the product with the values.
    return_residual: Also return the logsumexp of the final scores (scaled, with bias) of each query over its valid
        keys, [*batch, t, h].
    return_weights: Also return the weights before dropout, [*batch, h, t, s], which need memory t * s.
    block_size: Queries per block; each head of each batch element counts. Default: chosen from a memory budget.
    """

    is_causal: bool
    query_seq_lengths: ArrayLike | None
    key_value_seq_lengths: ArrayLike | None
    local_window_size: int | tuple[int, int] | None
    dropout_rng: Array | None
    dropout_rate: float | Array
    broadcast_dropout: bool
    deterministic: bool
    precision: str | lax.Precision | None
    return_residual: bool
    return_weights: bool
    block_size: int | None


def attention(
    query: Shaped[ArrayLike, "*batch t h k"],
    key: Shaped[ArrayLike, "*batch s g k"],
    value: Shaped[ArrayLike, "*batch s g e"],
    bias: Num[ArrayLike, "..."] | Callable[..., Array] | None = None,
    mask: Shaped[ArrayLike, "..."] | Callable[..., Array] | None = None,
    *,
    measure: str | Measure = "dot",
    temperature: Num[ArrayLike, "..."] = 1.0,
    **options: Unpack[AttentionOptions],
) -> Array | tuple[Array, ...]:
    """Compute softmax(score(query, key) / temperature + bias) value for each head.

    Args:
        query: [*batch, t, h, k].
        key: [*batch, s, g, k], where g divides h: h / g consecutive heads of the query share a head of the key.
        value: [*batch, s, g, e].
        bias: Added to the scores: an array that broadcasts to [*batch, h, t, s], or a function as described for `mask`.
        mask: True (or not 0) for the keys that a query attends to: an array that broadcasts to [*batch, h, t, s], or a
            function. A function takes (i, j), the indices of some queries [r, 1] and of all keys [1, s], and returns
            an array that broadcasts to [r, s]. It may also take (i, j, head) or (i, j, head, batch), where head and
            batch are scalar indices, which start at 0 on each device inside `jax.shard_map`. A function that carries
            arrays should be a `jax.tree_util.Partial`: every new plain function causes a compilation.
        measure: Name of a measure or a `Measure`. The score of a distance is its negative.
        temperature: Positive divisor of the scores: a scalar or an array that broadcasts to [*batch, h, t, s].
            sqrt(k) with the measure "dot" is scaled dot-product attention.
        **options: See `AttentionOptions`.

    Returns:
        [*batch, t, h, e] in the dtype of `value`, computed in float32 or wider. A query without valid keys gives zeros
        with zero gradient. With `return_residual` or `return_weights`, a tuple that also holds these, in this order.

    Example:
        With a Euclidean distance each colour attends to itself:

        >>> x = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 0, 255]])[:, None]
        >>> _, weights = attention(x, x, x, measure="euclidean", return_weights=True)
        >>> print(weights[0])
        [[1. 0. 0.]
         [0. 1. 0.]
         [0. 0. 1.]]

    Differs from PyTorch, where a numeric mask is added to the scores; here that is a bias.
    """
    check_positive("temperature", temperature)
    scaling = {"temperature": temperature}
    return attend(query, key, value, bias, mask, measure=as_measure(measure), scaling=scaling, **options)


def dot_product_attention(
    query: Shaped[ArrayLike, "*batch t h k"],
    key: Shaped[ArrayLike, "*batch s g k"],
    value: Shaped[ArrayLike, "*batch s g e"],
    bias: Num[ArrayLike, "..."] | Callable[..., Array] | None = None,
    mask: Shaped[ArrayLike, "..."] | Callable[..., Array] | None = None,
    *,
    scale: Num[ArrayLike, "..."] | None = None,
    implementation: str | None = None,
    dtype: DTypeLike | None = None,
    module: Any = None,
    **options: Unpack[AttentionOptions],
) -> Array | tuple[Array, ...]:
    """Compute softmax(scale * query key^T + bias) value for each head.

    This function takes the arguments of `jax.nn.dot_product_attention`, and those that `flax.nnx.MultiHeadAttention`
    passes to its `attention_fn`.

    Args:
        query, key, value, bias, mask: As in `attention`.
        scale: Factor of the scores: a scalar or an array that broadcasts to [*batch, h, t, s]. Default: 1 / sqrt(k).
        implementation: "xla" is the implementation of this package. "cudnn" calls NVIDIA's fused kernel for half
            precision through `jax.nn.dot_product_attention`; unsupported options are an InputError. Default: "xla".
        dtype: Dtype to which query, key and value are converted first, and so that of the result; scores are computed
            in float32 or wider. Default: no conversion.
        module: A Flax module that stores the weights as `attention_weights`. Default: none.
        **options: See `AttentionOptions`.

    Returns:
        As `attention`; with "cudnn", as `jax.nn.dot_product_attention`.

    Differs from `jax.nn.dot_product_attention` and Flax, which return the mean of the values for a query without valid
    keys (here 0), and whose residual has no gradient (here it has one). Flax draws other random bits for dropout.

    Example:
        Unscaled, red attends equally to red and pink, pink to itself, and blue to itself:

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
    if implementation is not None:
        check_choice("implementation", implementation, ("xla", "cudnn"))
    if implementation == "cudnn":
        return _cudnn(query, key, value, bias, mask, scale, module, **options)
    return_weights = options.get("return_weights", False)
    options["return_weights"] = return_weights or module is not None
    scaling = {"scale": query.shape[-1] ** -0.5 if scale is None else scale}
    out = attend(query, key, value, bias, mask, measure=as_measure("dot"), scaling=scaling, **options)
    if module is None:
        return out
    from flax import nnx  # imported here, so that Flax is loaded only if a module is given

    module.sow(nnx.Intermediate, "attention_weights", out[-1])
    if return_weights:
        return out
    # The weights, the last element of the tuple, were computed only for the module.
    return out[:-1] if options.get("return_residual") else out[0]


def _cudnn(
    query: Array, key: Array, value: Array, bias: Any, mask: Any, scale: Any, module: Any, **options: Any
) -> Any:
    """Call the fused kernel, if it supports the options."""
    for argument, a in (("bias", bias), ("mask", mask)):
        if callable(a):
            raise InputError(f'{argument}: expected an array for implementation="cudnn", got a function; use "xla"')
    rate, deterministic = options.get("dropout_rate", 0.0), options.get("deterministic", False)
    unsupported = {
        "dropout_rate": check_dropout(options.get("dropout_rng"), rate, deterministic) is not None,
        "module": module is not None,
        "return_weights": options.get("return_weights", False),
        "block_size": options.get("block_size") is not None,
    }
    for argument, is_given in unsupported.items():
        if is_given:
            raise InputError(f'{argument}: implementation="cudnn" does not support this option; use "xla"')
    check_shapes(query, key, value)
    for argument, a in (("query", query), ("key", key), ("value", value)):
        if a.dtype not in (jnp.float16, jnp.bfloat16):
            raise TypeError(f'{argument}: expected float16 or bfloat16 for implementation="cudnn", got {a.dtype}')
    names = ("is_causal", "query_seq_lengths", "key_value_seq_lengths", "local_window_size", "return_residual")
    given = {name: options[name] for name in names if name in options}
    return jax.nn.dot_product_attention(query, key, value, bias, mask, scale=scale, implementation="cudnn", **given)
