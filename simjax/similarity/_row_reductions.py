"""Functions of a tile: reductions of its rows in plain `jnp` code.

A tile s [r, m] is a block of rows of the similarity matrix, with all columns. Each function also takes the boolean
array `valid` [r, m], True for pairs that are included, and returns arrays [r, ...].
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from simjax.core import InputError, rank_keys, top_k_of_rows
from simjax.similarity._masks import Mask


def reduce_tile(
    reduction: Callable[[Array, Array], Array | tuple[Array, ...]],
    mask: Mask | None,
    function: Callable[[Array], Array] | None,
    s: Array,
    i: Array,
    j: Array,
) -> Array | tuple[Array, ...]:
    """Apply `function` to a tile of rows i [r, 1] and columns j [1, m], and reduce the pairs of the mask."""
    valid = jnp.ones_like(s, bool) if mask is None else jnp.broadcast_to(mask(i, j), s.shape)
    if function is not None:
        # 0 instead of a masked NaN: 0 * NaN would be NaN in the gradient of a parameter of the function.
        s = function(jnp.where(jnp.isnan(s) & ~valid, 0, s))
    return reduction(s, valid)


def softmax_of_tile(s: Array, valid: Array | bool = True) -> tuple[Array, Array]:
    """Compute the softmax over the last axis of s [..., m], and the log of its normalizer, [...].

    Invalid entries have weight 0; without valid entries the log is -inf. An infinite entry is replaced by the largest
    finite number. NaN stays NaN.
    """
    largest = jnp.finfo(s.dtype).max
    s = jnp.where(valid, jnp.minimum(s, largest), -jnp.inf)
    # At least the smallest number, so that -inf - top is -inf, whose exponential is 0 with gradient 0.
    top = lax.stop_gradient(jnp.max(s, axis=-1, keepdims=True, initial=-largest))
    e = jnp.exp(s - top)
    total = jnp.sum(e, axis=-1, keepdims=True)
    is_valid = total != 0
    total = jnp.where(is_valid, total, 1.0)
    return e / total, jnp.where(is_valid, top + jnp.log(total), -jnp.inf)[..., 0]


def first_largest(s: Array, valid: Array) -> Array:
    """Return the first column of the largest valid entry of each row, int32 [r]; -1 without valid entries.

    NaN is the largest, as in NumPy. This takes two reductions, a tenth of the time of an argmax by XLA on a CPU.
    """
    s, columns = lax.stop_gradient(s), jnp.arange(s.shape[1], dtype=jnp.int32)[None]
    top = jnp.max(jnp.where(valid, s, -jnp.inf), axis=1, keepdims=True, initial=-jnp.inf)
    column = jnp.min(jnp.where(valid & ((s == top) | jnp.isnan(s)), columns, s.shape[1]), axis=1, initial=s.shape[1])
    return jnp.where(column < s.shape[1], column, -1)


def logsumexp(s: Array, valid: Array) -> Array:
    value = softmax_of_tile(s, valid)[1]
    return jnp.where(value >= jnp.finfo(s.dtype).max, jnp.inf, value)


def softmax_weighted_sum(values: Array, s: Array, valid: Array) -> Array:
    return softmax_of_tile(s, valid)[0] @ values


def sum(s: Array, valid: Array) -> Array:
    return jnp.sum(jnp.where(valid, s, 0), axis=1)


def mean(s: Array, valid: Array) -> Array:
    return sum(s, valid) / jnp.maximum(jnp.sum(valid, axis=1), 1)


def count(is_true: Array, valid: Array) -> Array:
    if is_true.dtype != bool:
        raise TypeError(f"function: expected a boolean for each pair to count, got {is_true.dtype}")
    return jnp.sum(is_true & valid, axis=1, dtype=jnp.int32)


def max(s: Array, valid: Array) -> tuple[Array, Array]:
    column = first_largest(s, valid)
    if s.shape[1] == 0:
        return jnp.full(s.shape[0], -jnp.inf, s.dtype), column
    # Gathered, not reduced, so that the first of equal entries has the whole gradient.
    value = jnp.take_along_axis(s, jnp.maximum(column, 0)[:, None], axis=1)[:, 0]
    return jnp.where(column >= 0, value, -jnp.inf), column


def min(s: Array, valid: Array) -> tuple[Array, Array]:
    value, column = max(-s, valid)
    return -value, column


def largest_k(s: Array, valid: Array, *, k: int) -> tuple[Array, Array]:
    columns = top_k_of_rows(rank_keys(lax.stop_gradient(s), valid), k)[1]
    exists = jnp.arange(k)[None] < jnp.sum(valid, axis=1, keepdims=True)
    return jnp.where(exists, jnp.take_along_axis(s, columns, axis=1), -jnp.inf), jnp.where(exists, columns, -1)


def order_statistics(s: Array, valid: Array, *, ks: tuple[int, ...]) -> Array:
    order = np.array(ks, int)
    if not ks or order.min() < 1 or order.max() > s.shape[1]:
        raise InputError(f"ks: expected numbers from 1 to {s.shape[1]}, the number of columns, got {ks}")
    columns = top_k_of_rows(rank_keys(lax.stop_gradient(-s), valid), int(order.max()))[1][:, order - 1]
    exists = order[None] <= jnp.sum(valid, axis=1, keepdims=True)
    return jnp.where(exists, jnp.take_along_axis(s, columns, axis=1), jnp.inf)


def histogram(edges: Array, s: Array, valid: Array) -> Array:
    in_range = valid & (s <= edges[-1])
    counts = lax.map(lambda edge: jnp.sum(in_range & (s >= edge), axis=1), edges).T  # from each edge on, [r, b]
    counts = counts.at[:, -1].set(0)  # the last bin includes the last edge
    return (counts[:, :-1] - counts[:, 1:]).astype(s.dtype) + _nan_of_rows(s, valid)


def soft_histogram(edges: Array, s: Array, valid: Array) -> Array:
    """Compute a histogram in which each valid entry is shared linearly by the two nearest edges [b], [r, b]."""
    in_range = valid & (s >= edges[0]) & (s <= edges[-1])
    below = jnp.concatenate([edges[:1] - 1, edges[:-1]])
    above = jnp.concatenate([edges[1:], edges[-1:] + 1])

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def share(edge: tuple[Array, Array, Array]) -> Array:
        low, center, high = edge
        weight = jnp.where(s < center, (s - low) / (center - low), (high - s) / (high - center))
        return jnp.sum(jnp.where(in_range, jax.nn.relu(weight), 0), axis=1)

    return lax.map(share, (below, edges, above)).T + _nan_of_rows(s, valid)


def _nan_of_rows(s: Array, valid: Array) -> Array:
    """Return NaN for each row that has a valid NaN and 0 for the others, [r, 1]."""
    return jnp.where(jnp.any(valid & jnp.isnan(s), axis=1, keepdims=True), jnp.nan, 0.0).astype(s.dtype)
