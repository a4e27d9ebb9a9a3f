"""Sums over triplets, without enumerating the triplets.

A relation says which pairs of rows and columns are positive and which are negative. A triplet is an anchor (a row), one
of its positives and one of its negatives (columns). The functions of this module work on a tile: r rows of the
similarity matrix with all m columns. They loop over the positives: an iteration compares the next `chunk_size`
positives of every row with all columns, so memory is that of one iteration. The number of iterations is the largest
number of positives of a row, divided by `chunk_size` and rounded up. It is computed at run time, so that no shape
depends on the labels.

JAX has no reverse-mode derivative of a loop with such a number of iterations (`lax.while_loop`). There are two ways to
a gradient:

- `count_triplets` counts the triplets that contribute to a loss: in how many of them each pair is the positive, and in
  how many the negative. No gradient flows through the counts. A loss that is piecewise linear in the distances has
  the same gradient as the sum over pairs of distance * (count as positive - count as negative). `count_triplets` uses
  `fold_positives`, a loop that carries any pytree.
- `sum_over_positives` sums a smooth function. The derivative of the sum is the sum of the derivatives, so the backward
  pass is the same loop over derivatives, and stores no intermediate values of the forward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jaxtyping import Bool, Int, Shaped

from simjax.core import as_carry, vary_over_same_axes

Carry = TypeVar("Carry")
Total = TypeVar("Total")
NegativesOf = Callable[[Array], Array]
"""Takes the columns of k positives of each row, [r, k], and returns a mask of their negatives, [r, k or 1, m]."""

CHUNK_SIZE = 2  # positives per iteration; with more, the arrays of an iteration do not fit the cache of a CPU


def count_triplets(
    positive: Bool[Array, "r m"], negatives_of: NegativesOf
) -> tuple[Int[Array, "r m"], Int[Array, "r m"]]:
    """Count in how many triplets each pair of a tile is the positive, and in how many the negative, int32 [r, m] each.

    No gradient flows through the counts.

    Args:
        positive: Mask of the positive pairs, [r, m].
        negatives_of: Function of the columns of k positives of each row, int32 [r, k], that returns a mask
            [r, k or 1, m] of the negatives that form a triplet with each. `take_columns` helps to write it.

    Example:
        Distances from one anchor to two positives and two negatives. The only triplet whose negative is nearer than its
        positive is (4, 2):

        >>> d, positive = jnp.array([[1.0, 4.0, 2.0, 5.0]]), jnp.array([[True, True, False, False]])
        >>> def nearer(columns):
        ...     return ~positive[:, None] & (d[:, None] < take_columns(d, columns))
        >>> as_positive, as_negative = count_triplets(positive, nearer)
        >>> print(as_positive, as_negative)
        [[0 1 0 0]] [[0 0 1 0]]
        >>> print(jnp.sum((as_positive - as_negative) * d))  # 4 - 2
        2.0
    """
    rows = jnp.arange(positive.shape[0], dtype=jnp.int32)[:, None]

    def step(counts: tuple[Array, Array], columns: Array, valid: Array) -> tuple[Array, Array]:
        as_positive, as_negative = counts
        active = negatives_of(columns) & valid[:, :, None]
        # A CPU sums float32 without an array of converted entries: a quarter less time for all triplets of a batch
        # (`python -m benchmarks.choices`). Counts are below 2^24, so they are exact.
        negatives = jnp.sum(active, axis=2, dtype=jnp.float32).astype(jnp.int32)
        return as_positive.at[rows, columns].add(negatives), as_negative + jnp.sum(active, axis=1, dtype=jnp.int32)

    zeros = jnp.zeros(positive.shape, jnp.int32)
    return fold_positives(step, (zeros, zeros), positive, chunk_size=CHUNK_SIZE)


def all_negatives(negative: Bool[Array, "r m"]) -> Partial:
    """Return a `negatives_of` for `count_triplets` by which every positive forms a triplet with every negative."""
    return Partial(_all_negatives, negative)


def _all_negatives(negative: Array, columns: Array) -> Array:
    return negative[:, None]


def take_columns(tile: Shaped[Array, "r m"], columns: Int[Array, "r k"]) -> Shaped[Array, "r k 1"]:
    """Return the entries of a tile at given columns of each row."""
    return jnp.take_along_axis(tile, columns, axis=1, mode="promise_in_bounds")[:, :, None]


def fold_positives(
    function: Callable[[Carry, Array, Array], Carry],
    carry: Carry,
    positive: Bool[Array, "r m"],
    *,
    chunk_size: int = 1,
) -> Carry:
    """Loop over the positives of all rows, `chunk_size` of each row per iteration, with a function of a carry.

    Args:
        function: Takes the carry, the columns of the next positives of each row, int32 [r, chunk_size], and a mask
            [r, chunk_size], False where a row has no more positives and the column is 0. Returns the next carry.
        carry: Initial carry, a pytree of arrays. No gradient flows through it or through the result, the last carry.
        positive: Mask of the positive pairs, [r, m].
        chunk_size: Positives of each row per iteration.

    Example:
        The largest distance of a positive of each row:

        >>> d, positive = jnp.array([[1.0, 4.0, 2.0]]), jnp.array([[True, False, True]])
        >>> def step(largest, columns, valid):
        ...     return jnp.maximum(largest, jnp.where(valid, take_columns(d, columns)[:, :, 0], 0))
        >>> print(fold_positives(step, jnp.zeros((1, 1)), positive))
        [[2.]]
    """
    return lax.stop_gradient(_fold(function, lax.stop_gradient(carry), positive, chunk_size))


def sum_over_positives(
    function: Callable[..., Total],
    start: Total,
    positive: Bool[Array, "r m"],
    constants: tuple[Any, ...],
    *arguments: Any,
    chunk_size: int = CHUNK_SIZE,
) -> Total:
    """Sum `function(columns, valid, *constants, *arguments)` over positives, `chunk_size` of every row per iteration.

    Differentiable in reverse mode, to any order; forward mode raises a TypeError.

    Args:
        function: Takes `columns` and `valid` as in `fold_positives`, the constants and the arguments. Returns
            floating-point arrays, a pytree like `start`. The function must add nothing where `valid` is False, but be
            finite there, in value and derivative. It must not close over traced arrays.
        start: Initial value of the sum, an array or a pytree of arrays.
        positive: Mask of the positive pairs, [r, m].
        constants: Pytrees of arrays without a gradient, for example masks.
        *arguments: Pytrees of floating-point arrays with a gradient, for example the tile.
        chunk_size: Positives of each row per iteration.

    Example:
        The sum of softplus(negative score - positive score) over all triplets, and its derivative:

        >>> scores, positive = jnp.array([[2.0, 2.0, 2.0]]), jnp.array([[True, True, False]])
        >>> def terms(columns, valid, negative, scores):
        ...     violation = scores[:, None] - take_columns(scores, columns)  # [r, chunk_size, m]
        ...     active = valid[:, :, None] & negative[:, None]
        ...     return jnp.sum(jnp.where(active, jax.nn.softplus(violation), 0), axis=(1, 2))
        >>> loss = lambda scores: sum_over_positives(terms, jnp.zeros(1), positive, (~positive,), scores)[0]
        >>> value, gradient = jax.jit(jax.value_and_grad(loss))(scores)
        >>> print(f"{value:.4f}", gradient)  # 2 log 2
        1.3863 [[-0.5 -0.5  1. ]]
    """
    if not positive.size:
        return start
    # In `jax.shard_map`, the derivative of an input that is the same on all devices is summed over the devices. No
    # iteration may compute this sum, because devices may need different numbers of iterations. So all inputs are marked
    # as varying over the same mesh axes, and the sum is computed after the loop.
    start, positive, constants, arguments = vary_over_same_axes((start, positive, constants, arguments))
    zeros = jax.tree.map(jnp.zeros_like, start)
    # `start` is added here, because `_sum` has no gradient of its initial value.
    return jax.tree.map(jnp.add, start, _sum(function, chunk_size, zeros, positive, constants, arguments))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum(
    function: Callable[..., Any], chunk_size: int, zeros: Any, positive: Array, constants: Any, arguments: Any
) -> Any:
    def step(total: Any, columns: Array, valid: Array) -> Any:
        return jax.tree.map(jnp.add, total, function(columns, valid, *constants, *arguments))

    return _fold(step, zeros, positive, chunk_size)


def _sum_forward(function: Callable[..., Any], chunk_size: int, zeros: Any, *inputs: Any) -> tuple[Any, Any]:
    return _sum(function, chunk_size, zeros, *inputs), inputs


def _sum_backward(function: Callable[..., Any], chunk_size: int, inputs: Any, cotangent: Any) -> tuple[Any, ...]:
    positive, constants, arguments = inputs
    zeros = jax.tree.map(jnp.zeros_like, arguments)
    # The derivative is computed by `_sum` as well, so derivatives of any order exist.
    derivative = partial(_derivative, function, len(constants))
    gradient = _sum(derivative, chunk_size, zeros, positive, constants, (*arguments, cotangent))
    return None, None, None, gradient


_sum.defvjp(_sum_forward, _sum_backward)


def _derivative(function: Callable[..., Any], n_constants: int, columns: Array, valid: Array, *inputs: Any) -> Any:
    """Compute the gradient of a function with respect to its arguments, given the cotangent, the last input."""
    constants, arguments, cotangent = inputs[:n_constants], inputs[n_constants:-1], inputs[-1]
    return jax.vjp(lambda *arguments: function(columns, valid, *constants, *arguments), *arguments)[1](cotangent)


def _fold(step: Callable[[Any, Array, Array], Any], carry: Any, positive: Array, chunk_size: int) -> Any:
    if not positive.size:
        return carry
    r, m = positive.shape
    position = jnp.cumsum(positive, axis=1, dtype=jnp.int32)  # 1 at the first positive of a row
    n_positives = position[:, -1:]
    # The columns of the positives of each row, in order: the k-th positive writes its column to index k - 1. The last
    # chunk may read beyond index m - 1. Other columns are written to the index `width`, out of bounds, so not at all.
    rows, j = jnp.arange(r, dtype=jnp.int32)[:, None], jnp.arange(m, dtype=jnp.int32)[None]
    width = m + chunk_size
    columns = jnp.zeros((r, width), jnp.int32).at[rows, jnp.where(positive, position - 1, width)].set(j, mode="drop")

    def iterate(state: tuple[Array, Any]) -> tuple[Array, Any]:
        done, carry = state
        valid = done + jnp.arange(chunk_size, dtype=jnp.int32)[None] < n_positives
        return done + chunk_size, step(carry, lax.dynamic_slice_in_dim(columns, done, chunk_size, axis=1), valid)

    # In `jax.shard_map`, the initial state must vary over the same mesh axes as the state that `iterate` returns.
    start = as_carry(iterate, (jnp.zeros((), jnp.int32), carry))
    return lax.while_loop(lambda state: state[0] < jnp.max(n_positives), iterate, start)[1]
