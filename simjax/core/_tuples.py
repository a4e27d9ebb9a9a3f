"""Tuples (anchor, positive, negative, ...) are never enumerated: loop over the r-th positive of every row at once.

What such a loop finds are numbers: how often a pair is active, and with which sign. They are constants for the
gradient; the loss is then a sum of similarities weighted by them, and differentiates as any sum. The number of turns
is the largest number of positives of a row in the strip, known only at run time, so no shape depends on it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Int, Num

FEW = 8  # positives in one turn of a loop: a strip is read once for all of them
GROUP = 16  # columns that are numbered by one small matrix product


def for_each_marked(
    function: Callable[[Any, Array, Array, Array], Any],
    carry: Any,
    strip: Num[Array, "r m"],
    marked: Bool[Array, "r m"],
) -> Any:
    """Call `function(carry, value, column, there)` for the first, second, ... marked entry of every row.

    Args:
        function: takes the carry, the entry's value [r, 1], its column [r, 1] and whether the row has as many marked
            entries [r, 1], and returns the carry.
        carry: a pytree of arrays.
        strip: of a similarity matrix [r, m].
        marked: which entries, for instance the positives [r, m].

    Returns:
        The last carry, a constant for the gradient.

    Example:
        In how many triplets is each pair too close, as a negative, or too far, as a positive? Distances from one
        anchor, two of its own class and two others:

        >>> d, same = jnp.array([[1.0, 4.0, 2.0, 5.0]]), jnp.array([[True, True, False, False]])
        >>> def step(coefficient, value, column, there):
        ...     active = ~same & there & (value > strip)
        ...     positive = jnp.arange(4)[None] == column
        ...     return coefficient - active + positive * jnp.sum(active, axis=1, keepdims=True)
        >>> strip = d
        >>> coefficient = for_each_marked(step, jnp.zeros((1, 4)), d, same)
        >>> print(coefficient, jnp.sum(coefficient * d))  # 4 - 2: the one violated triplet
        [[ 0.  1. -1.  0.]] 2.0
    """
    strip, carry = lax.stop_gradient((strip, carry))
    if not strip.shape[1]:
        return carry
    rank = ranks(marked)
    most = jnp.max(rank, initial=0)

    def step(state: tuple[Array, Any]) -> tuple[Array, Any]:
        turn, carry = state
        here = marked & (rank == turn + 1)
        column = jnp.argmax(here, axis=1).astype(jnp.int32)[:, None]
        value = jnp.take_along_axis(strip, column, axis=1)
        return turn + 1, function(carry, value, column, jnp.any(here, axis=1, keepdims=True))

    _, carry = lax.while_loop(lambda state: state[0] < most, step, (jnp.zeros((), most.dtype), carry))
    return jax.lax.stop_gradient(carry)


def count_triplets(
    positive: Bool[Array, "r m"], negatives_of: Callable[[Array], Array]
) -> tuple[Int[Array, "r m"], Int[Array, "r m"]]:
    """In how many triplets each pair of a strip takes part.

    Args:
        positive: which pairs are positive [r, m].
        negatives_of: takes the columns of a few positives of each row [r, few] and says which columns make triplets
            with them [r, few, m]; what a strip has at those columns is `entries(strip, columns)`, [r, few, 1].

    Returns:
        How often each pair is the positive one, and how often the negative one; int32 [r, m] both, constants for the
        gradient. Time r m for each positive.

    Example:
        Distances from one anchor to two of its own class and two others; triplets whose negative is the closer one:

        >>> d, same = jnp.array([[1.0, 4.0, 2.0, 5.0]]), jnp.array([[True, True, False, False]])
        >>> def closer(columns):
        ...     return ~same[:, None] & (d[:, None] < entries(d, columns))
        >>> as_positive, as_negative = count_triplets(same, closer)
        >>> print(as_positive, as_negative)
        [[0 1 0 0]] [[0 0 1 0]]
        >>> print(jnp.sum((as_positive - as_negative) * d))  # 4 - 2
        2.0
    """
    r, m = positive.shape
    nothing = jnp.zeros((r, m), jnp.int32), jnp.zeros((r, m), jnp.int32)
    if not r * m:
        return nothing
    rank = ranks(positive)
    most = jnp.max(rank)
    columns = jnp.arange(m, dtype=jnp.int32)

    def turn(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, as_positive, as_negative = state
        wanted = done + 1 + jnp.arange(FEW, dtype=jnp.int32)
        here = rank[:, None] == wanted[None, :, None]  # [r, few, m]
        column = jnp.sum(jnp.where(here, columns[None, None], 0), axis=2)
        there = wanted[None] <= jnp.max(rank, axis=1, keepdims=True)
        active = negatives_of(column) & there[:, :, None]
        number = jnp.sum(active, axis=2, dtype=jnp.int32)
        as_positive += sum(jnp.where(rank == wanted[k], number[:, k, None], 0) for k in range(FEW))
        as_negative += jnp.sum(active, axis=1, dtype=jnp.int32)
        return done + FEW, as_positive, as_negative

    state = lax.while_loop(lambda state: state[0] < most, turn, (jnp.zeros((), jnp.int32), *nothing))
    return lax.stop_gradient(state[1:])


def entries(strip: Num[Array, "r m"], columns: Int[Array, "r k"]) -> Num[Array, "r k 1"]:
    """What a strip has at columns of each row, as `count_triplets` hands them over."""
    return jnp.take_along_axis(lax.stop_gradient(strip), columns, axis=1, mode="promise_in_bounds")[:, :, None]


def ranks(marked: Bool[Array, "r m"]) -> Int[Array, "r m"]:
    """1 for the first marked entry of each row, 2 for the second, ...; 0 where nothing is marked.

    Sums along groups of columns are a product with a triangular matrix, for which a CPU is much faster than for a
    cumulative sum.
    """
    r, m = marked.shape
    groups = -(-m // GROUP)
    in_group = jnp.pad(marked, ((0, 0), (0, groups * GROUP - m))).reshape(-1, GROUP).astype(jnp.float32)
    in_group = jnp.matmul(in_group, jnp.triu(jnp.ones((GROUP, GROUP), jnp.float32))).astype(jnp.int32)
    in_group = in_group.reshape(r, groups, GROUP)
    before = jnp.cumsum(in_group[:, :, -1], axis=1) - in_group[:, :, -1]
    return jnp.where(marked, (in_group + before[:, :, None]).reshape(r, -1)[:, :m], 0)
