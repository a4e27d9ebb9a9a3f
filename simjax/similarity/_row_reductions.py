"""Block functions: what is made of a strip [r, m] of S, in plain jnp.

Each takes the mask and the function of the reduction, then a strip and the numbers of its rows i [r, 1] and columns
j [1, m], and gives arrays of r rows.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial

from simjax.similarity._masks import Mask

Function = Callable[[Array], Array]


def masked(mask: Mask | None, function: Function | None, s: Array, i: Array, j: Array) -> tuple[Array, Array]:
    """A strip after `function`, and which of its entries count: [r, m] both."""
    keep = jnp.ones_like(s, bool) if mask is None else jnp.broadcast_to(mask(i, j), s.shape)
    if function is None:
        return s, keep
    return function(finite_where_masked(s, keep)), keep


def finite_where_masked(s: Array, keep: Array) -> Array:
    """Scores with 0 for each masked NaN: 0 times NaN would be NaN in the gradient of whatever is multiplied by it."""
    return jnp.where(jnp.isnan(s) & ~keep, 0, s)


def softmax_of_tile(s: Array, keep: Array | bool = True) -> tuple[Array, Array]:
    """Of a strip [r, m]: weights [r, m], 0 where not kept, and the logarithm of the sum of the kept exponentials [r].

    An infinite entry counts as the largest number, and a row of which nothing is kept has no weight. A NaN stays one.
    """
    most = jnp.finfo(s.dtype).max
    s = jnp.where(keep, jnp.minimum(s, most), -jnp.inf)
    # Not below the lowest number: then -inf less it is -inf, whose exponential is 0 with gradient 0, and never a NaN.
    top = lax.stop_gradient(jnp.max(s, axis=1, keepdims=True, initial=-most))
    e = jnp.exp(s - top)
    total = jnp.sum(e, axis=1, keepdims=True)
    found = total != 0
    total = jnp.where(found, total, 1.0)
    return e / total, jnp.where(found, top + jnp.log(total), -jnp.inf)[:, 0]


def logsumexp(mask: Any, function: Any, s: Array, i: Array, j: Array) -> Array:
    value = softmax_of_tile(*masked(mask, function, s, i, j))[1]
    return jnp.where(value >= jnp.finfo(s.dtype).max, jnp.inf, value)


def softmax_weighted_sum(mask: Any, function: Any, values: Array, s: Array, i: Array, j: Array) -> Array:
    return softmax_of_tile(*masked(mask, function, s, i, j))[0] @ values


def sum(mask: Any, function: Any, s: Array, i: Array, j: Array) -> Array:
    s, keep = masked(mask, function, s, i, j)
    return jnp.sum(jnp.where(keep, s, 0), axis=1)


def mean(mask: Any, function: Any, s: Array, i: Array, j: Array) -> Array:
    s, keep = masked(mask, function, s, i, j)
    return jnp.sum(jnp.where(keep, s, 0), axis=1) / jnp.maximum(jnp.sum(keep, axis=1), 1)


def count(mask: Any, function: Any, s: Array, i: Array, j: Array) -> Array:
    true, keep = masked(mask, function, s, i, j)
    if true.dtype != bool:
        raise TypeError(f"function: expected a boolean for each pair to count, got {true.dtype}")
    return jnp.sum(true & keep, axis=1, dtype=jnp.int32)


def max(mask: Any, function: Any, s: Array, i: Array, j: Array) -> tuple[Array, Array]:
    s, keep = masked(mask, function, s, i, j)
    column = first_largest(s, keep)
    found = column >= 0
    if s.shape[1] == 0:
        return jnp.full(s.shape[0], -jnp.inf, s.dtype), column
    # Taken, not reduced: the lowest among equals gets the whole gradient.
    value = jnp.take_along_axis(s, jnp.where(found, column, 0)[:, None], axis=1)[:, 0]
    return jnp.where(found, value, -jnp.inf), column


def first_largest(s: Array, keep: Array) -> Array:
    """The column of the largest kept entry of each row, the lowest among equals, -1 where none is kept: int32 [r].

    NaN counts as the largest, as in NumPy. Two reductions: XLA on a CPU takes ten times as long for an argmax.
    """
    s, columns = lax.stop_gradient(s), jnp.arange(s.shape[1], dtype=jnp.int32)[None]
    top = jnp.max(jnp.where(keep, s, -jnp.inf), axis=1, keepdims=True, initial=-jnp.inf)
    column = jnp.min(jnp.where(keep & ((s == top) | jnp.isnan(s)), columns, s.shape[1]), axis=1, initial=s.shape[1])
    return jnp.where(column < s.shape[1], column, -1)


def nan_of_rows(s: Array, keep: Array) -> Array:
    """NaN for each row of a strip [r, m] that has a kept NaN, 0 for the others [r]: for reductions that compare."""
    return jnp.where(jnp.any(keep & jnp.isnan(s), axis=1), jnp.nan, 0.0).astype(s.dtype)


def min(mask: Any, function: Any, s: Array, i: Array, j: Array) -> tuple[Array, Array]:
    value, index = max(mask, Partial(negated, function), s, i, j)
    return -value, index


def negated(function: Function | None, s: Array) -> Array:
    return -(s if function is None else function(s))
