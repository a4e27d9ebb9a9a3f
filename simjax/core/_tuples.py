"""Tuples (anchor, positive, negative, ...) are never enumerated: loop over the r-th positive of every row at once.

The number of turns is the largest number of positives of a row in the strip, known only at run time, so no shape
depends on it. There are two ways to a gradient, since a loop of unknown length has none by itself:

- `for_each_marked` finds numbers: how often a pair is active, and with which sign. They are constants for the gradient;
  the loss is then a sum of similarities weighted by them, and differentiates as any sum. For what is linear in pieces.
- `sum_over_marked` adds up any smooth function of the turn. The derivative of a sum is the sum of the derivatives, so
  going backward is the same loop again, over derivatives: nothing is kept for each turn.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Int, Num

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

    def step(carry: Any, here: Array) -> Any:
        column = jnp.argmax(here, axis=1).astype(jnp.int32)[:, None]
        value = jnp.take_along_axis(strip, column, axis=1)
        return function(carry, value, column, jnp.any(here, axis=1, keepdims=True))

    return lax.stop_gradient(_loop(step, carry, marked))


def sum_over_marked(
    function: Callable[..., Any], start: Any, marked: Bool[Array, "r m"], constants: tuple[Any, ...], *arguments: Any
) -> Any:
    """Add `function(here, *constants, *arguments)` for the first, second, ... marked entry of every row.

    Memory is that of one turn, forward and backward. Differentiable in reverse mode, to any order; forward mode raises
    a TypeError.

    Args:
        function: takes which entry of each row it is, boolean [r, m] with at most one True in a row, the constants and
            the arguments, and returns a pytree like `start`. It must not close over traced arrays, and be finite where
            a row has no such entry any more; what it returns there does not count.
        start: what is added to: a pytree of floating-point arrays [r].
        marked: which entries, for instance the positives [r, m].
        constants: arrays without a gradient, for instance masks.
        *arguments: pytrees of floating-point arrays, for instance the strip, that have a gradient.

    Returns:
        A pytree like `start`.

    Example:
        The sum over positives of the softplus of how much closer each negative is, and its derivatives by closeness:

        >>> c, positive = jnp.array([[2.0, 2.0, 2.0]]), jnp.array([[True, True, False]])
        >>> def closer(here, negative, c):
        ...     own = jnp.sum(jnp.where(here, c, 0), axis=1, keepdims=True)
        ...     return jnp.sum(jnp.where(negative, jax.nn.softplus(c - own), 0), axis=1)
        >>> loss = lambda c: sum_over_marked(closer, jnp.zeros(1), positive, (~positive,), c)[0]
        >>> print(loss(c).round(4), jax.grad(loss)(c))  # 2 log 2
        1.3863 [[-0.5 -0.5  1. ]]
    """
    if not marked.shape[1]:
        return start
    found = _sum_of_turns(
        partial(_where_there, function), jax.tree.map(jnp.zeros_like, start), marked, constants, arguments
    )
    return jax.tree.map(jnp.add, start, found)


def _where_there(function: Callable[..., Any], here: Array, constants: Any, arguments: Any) -> Any:
    there = jnp.any(here, axis=1)
    return jax.tree.map(lambda a: jnp.where(there, a, 0), function(here, *constants, *arguments))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_turns(turn: Callable[..., Any], zeros: Any, marked: Array, constants: Any, arguments: Any) -> Any:
    def step(total: Any, here: Array) -> Any:
        return jax.tree.map(jnp.add, total, turn(here, constants, arguments))

    return _loop(step, zeros, marked)


def _forward(turn: Callable[..., Any], zeros: Any, marked: Array, constants: Any, arguments: Any) -> tuple[Any, Any]:
    return _sum_of_turns(turn, zeros, marked, constants, arguments), (marked, constants, arguments)


def _backward(turn: Callable[..., Any], saved: Any, cotangent: Any) -> tuple[Any, ...]:
    marked, constants, arguments = saved
    zeros = jax.tree.map(jnp.zeros_like, arguments)
    # A sum of turns, too: that is why derivatives of any order follow.
    found = _sum_of_turns(partial(_pulled_back, turn), zeros, marked, constants, (arguments, cotangent))
    return None, None, None, found


_sum_of_turns.defvjp(_forward, _backward)


def _pulled_back(turn: Callable[..., Any], here: Array, constants: Any, given: tuple[Any, Any]) -> Any:
    arguments, cotangent = given
    return jax.vjp(partial(turn, here, constants), arguments)[1](cotangent)[0]


def _loop(step: Callable[[Any, Array], Any], carry: Any, marked: Array) -> Any:
    """`step(carry, here)` for the first, second, ... marked entry of every row."""
    counts = counts_up_to(marked)
    rank = counts.reshape(counts.shape[0], math.prod(counts.shape[1:]))[:, : marked.shape[1]]
    most = jnp.max(rank, initial=0)

    def turn(state: tuple[Array, Any]) -> tuple[Array, Any]:
        number, carry = state
        return number + 1, step(carry, marked & (rank == number + 1))

    return lax.while_loop(lambda state: state[0] < most, turn, (jnp.zeros((), most.dtype), carry))[1]


def counts_up_to(marked: Bool[Array, "r m"]) -> Int[Array, "r g w"]:
    """How many entries of a row are marked up to each column; columns stand in groups, the last of them filled up.

    Sums along a group are a product with a triangular matrix, for which a CPU is much faster than for a cumulative sum.
    """
    r, m = marked.shape
    groups = -(-m // GROUP)
    in_group = jnp.pad(marked, ((0, 0), (0, groups * GROUP - m))).reshape(-1, GROUP).astype(jnp.float32)
    in_group = jnp.matmul(in_group, jnp.triu(jnp.ones((GROUP, GROUP), jnp.float32))).astype(jnp.int32)
    in_group = in_group.reshape(r, groups, GROUP)
    before = jnp.cumsum(in_group[:, :, -1], axis=1) - in_group[:, :, -1]
    return in_group + before[:, :, None]
