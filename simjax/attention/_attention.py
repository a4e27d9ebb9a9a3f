"""Attention by any measure: how close queries and keys are decides how values are mixed.

    Attention(Q, K, V) = softmax(closeness(Q, K) / temperature) V

Each row of the matrix of similarities becomes weights by a softmax, and weights average values. The matrix is reduced
in blocks of rows like any other, so that memory grows with the length and not with its square, forward and backward.

References:
    Vaswani et al. (2017), Attention Is All You Need. Tsai et al. (2019), Transformer Dissection: An Unified
    Understanding for Transformer's Attention via the Lens of Kernel. Rabe, Staats (2021), Self-attention Does Not
    Need O(n^2) Memory.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Integer, Num, Shaped

from simjax.attention._attend import attend
from simjax.core import InputError
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def attention(
    query: Shaped[ArrayLike, "*batch t h k"],
    key: Shaped[ArrayLike, "*batch s g k"],
    value: Shaped[ArrayLike, "*batch s g e"],
    bias: Num[ArrayLike, "..."] | Callable[..., Any] | None = None,
    mask: Shaped[ArrayLike, "..."] | Callable[..., Any] | None = None,
    *,
    measure: str | Measure = "dot",
    temperature: Num[ArrayLike, "..."] = 1.0,
    is_causal: bool = False,
    query_seq_lengths: Integer[ArrayLike, "..."] | None = None,
    key_value_seq_lengths: Integer[ArrayLike, "..."] | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    dropout_rng: Array | None = None,
    dropout_rate: float | Array = 0.0,
    broadcast_dropout: bool = True,
    deterministic: bool = False,
    precision: str | lax.Precision | None = None,
    return_residual: bool = False,
    return_weights: bool = False,
    block_size: int | None = None,
) -> Any:
    """softmax(closeness(query, key) / temperature + bias) value, for each head.

    Args:
        query: [*batch, t, h, k].
        key: [*batch, s, g, k], where g divides h: each of its heads serves h / g heads of the query in turn.
        value: [*batch, s, g, e].
        bias: added to the scores: an array that broadcasts to [*batch, h, t, s], or a function.
        mask: what may be looked at: booleans (or numbers, 0 is False) that broadcast to [*batch, h, t, s], or a
            function. A function of (i, j), the numbers of some queries [r, 1] and of all keys [1, s], gives what
            broadcasts to [r, s]; it may ask for (i, j, head) or (i, j, head, batch), scalars (inside a `jax.shard_map`
            of one's own all count on the device). Where it carries arrays, it is best a `jax.tree_util.Partial`, as a
            new plain function is compiled anew.
        measure: a name or a `Measure`; of a distance, the smaller counts as the closer.
        temperature: closeness is divided by it, positive: a scalar or what broadcasts to [*batch, h, t, s]. With
            "dot", sqrt(k) makes scaled dot-product attention.
        is_causal: query i looks at keys 0 to i only.
        query_seq_lengths: integers [*batch]: queries from there on give zeros.
        key_value_seq_lengths: integers [*batch]: keys from there on are not looked at.
        local_window_size: (left, right) or one number for both: query i looks at keys i - left to i + right only.
        dropout_rng: a key; needed where weights are dropped.
        dropout_rate: the share of weights that is set to 0, in [0, 1).
        broadcast_dropout: drop the same places in all batches and heads.
        deterministic: drop nothing.
        precision: of matrix products, as in `jax.default_matmul_precision`; None is the measure's own.
        return_residual: also return the logarithm of the sum of the exponentials of each query's scores.
        return_weights: also return the weights, before any are dropped; they take memory t times s.
        block_size: queries, counted over all heads and batches, that are computed at once; None chooses.

    Returns:
        [*batch, t, h, e] in the type of `value`; computed in float32 or wider. A query that may look at nothing gives
        zeros, with zero gradient. With `return_residual` the residual [*batch, t, h] follows, and then with
        `return_weights` the weights [*batch, h, t, s].

    Raises:
        InputError: for shapes that do not fit, an unknown measure or a number out of its range.
        TypeError: for values of the wrong kind.

    Example:
        The closest colour is what is seen; by distance red sees itself.

        >>> x = np.array([[255.0, 0, 0], [255, 105, 180], [0, 0, 255]])[:, None]
        >>> _, weights = attention(x, x, x, measure="euclidean", return_weights=True)
        >>> print(weights[0])
        [[1. 0. 0.]
         [0. 1. 0.]
         [0. 0. 1.]]

    Differs from:
        PyTorch, where a mask of numbers is added to the scores; here that is a bias.
    """
    if not isinstance(temperature, Tracer) and not np.all(np.asarray(temperature) > 0):
        raise InputError(f"temperature: expected more than 0, got {temperature}")
    return attend(
        query,
        key,
        value,
        bias,
        mask,
        measure=as_measure(measure),
        scale={"temperature": temperature},
        is_causal=is_causal,
        query_seq_lengths=query_seq_lengths,
        key_value_seq_lengths=key_value_seq_lengths,
        local_window_size=local_window_size,
        dropout_rng=dropout_rng,
        dropout_rate=dropout_rate,
        deterministic=deterministic,
        broadcast_dropout=broadcast_dropout,
        precision=precision,
        return_residual=return_residual,
        return_weights=return_weights,
        block_size=block_size,
    )
