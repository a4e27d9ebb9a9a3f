"""Tuples (anchor, positive, negative, ...) are never enumerated: a loop takes a few positives of every row in a turn.

The number of turns comes from the largest number of positives of a row in the strip, known only at run time, so no
shape depends on it. There are two ways to a gradient, since a loop of unknown length has none by itself:

- `for_each_marked` finds numbers: how often a pair is active, and with which sign. They are constants for the gradient;
  the loss is then a sum of similarities weighted by them, and differentiates as any sum. For what is linear in pieces.
- `sum_over_marked` adds up any smooth function of the turn. The derivative of a sum is the sum of the derivatives, so
  going backward is the same loop again, over derivatives: nothing is kept for each turn.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Int, Shaped

from simjax.core import as_carry, vary_over_same_axes

GROUP = 32  # columns that are numbered by one small matrix product

AT_ONCE = 2  # marked entries in a turn of `sum_over_marked`: with more, what a turn computes leaves a CPU's cache


def fold_positives(
    function: Callable[[Any, Array, Array], Any], carry: Any, marked: Bool[Array, "r m"], *, few: int = 1
) -> Any:
    """Call `function(carry, columns, there)` for the first few, the next few, ... marked entries of every row.

    Args:
        function: takes the carry, the columns of the entries [r, few] and whether the row has as many [r, few], and
            returns the carry. What a strip has at these columns is `entries(strip, columns)`.
        carry: a pytree of arrays.
        marked: which entries, for instance the positives [r, m].
        few: how many of each row are visited at once.

    Returns:
        The last carry, a constant for the gradient.

    Example:
        In how many triplets is each pair too close, as a negative, or too far, as a positive? Distances from one
        anchor, two of its own class and two others:

        >>> d, same = jnp.array([[1.0, 4.0, 2.0, 5.0]]), jnp.array([[True, True, False, False]])
        >>> def step(coefficient, column, there):
        ...     active = ~same & there & (entries(d, column)[:, 0] > d)
        ...     positive = jnp.arange(4)[None] == column
        ...     return coefficient - active + positive * jnp.sum(active, axis=1, keepdims=True)
        >>> coefficient = for_each_marked(step, jnp.zeros((1, 4)), same)
        >>> print(coefficient, jnp.sum(coefficient * d))  # 4 - 2: the one violated triplet
        [[ 0.  1. -1.  0.]] 2.0
    """
    return lax.stop_gradient(_loop(function, lax.stop_gradient(carry), marked, few))


def sum_over_positives(
    function: Callable[..., Any],
    start: Any,
    marked: Bool[Array, "r m"],
    constants: tuple[Any, ...],
    *arguments: Any,
    few: int = AT_ONCE,
) -> Any:
    """Add `function(columns, there, *constants, *arguments)` up over the first few, the next few, ... marked entries.

    Memory is that of one turn, forward and backward. Differentiable in reverse mode, to any order; forward mode raises
    a TypeError.

    Args:
        function: takes the columns of a few marked entries of every row [r, few], whether the row has as many [r, few],
            the constants and the arguments, and returns what the turn adds: a floating-point array or a pytree of such.
            It must not close over traced arrays, and be finite for any columns.
        start: what is added to, an array or a pytree of such.
        marked: which entries, for instance the positives [r, m].
        constants: arrays without a gradient, for instance masks.
        *arguments: pytrees of floating-point arrays, for instance the strip, that have a gradient.
        few: how many of each row are visited at once.

    Returns:
        What `start` is.

    Example:
        The sum over positives of the softplus of how much closer each negative is, and its derivatives by closeness:

        >>> c, positive = jnp.array([[2.0, 2.0, 2.0]]), jnp.array([[True, True, False]])
        >>> def closer(columns, there, negative, c):
        ...     gap = c[:, None] - entries(c, columns)  # [r, few, m]
        ...     counts = there[:, :, None] & negative[:, None]
        ...     return jnp.sum(jnp.where(counts, jax.nn.softplus(gap), 0), axis=(1, 2))
        >>> loss = lambda c: sum_over_marked(closer, jnp.zeros(1), positive, (~positive,), c)[0]
        >>> print(loss(c).round(4), jax.grad(loss)(c))  # 2 log 2
        1.3863 [[-0.5 -0.5  1. ]]
    """
    if not marked.size:
        return start
    # A device may take more turns than another, so that no turn may add up a derivative over devices.
    start, marked, constants, arguments = vary_over_same_axes((start, marked, constants, arguments))
    zeros = jax.tree.map(jnp.zeros_like, start)
    return jax.tree.map(jnp.add, start, _sum_of_turns(function, few, zeros, marked, constants, arguments))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_of_turns(
    function: Callable[..., Any], few: int, zeros: Any, marked: Array, constants: Any, arguments: Any
) -> Any:
    def step(total: Any, columns: Array, there: Array) -> Any:
        return jax.tree.map(jnp.add, total, function(columns, there, *constants, *arguments))

    return _loop(step, zeros, marked, few)


def _forward(function: Callable[..., Any], few: int, zeros: Any, *given: Any) -> tuple[Any, Any]:
    return _sum_of_turns(function, few, zeros, *given), given


def _backward(function: Callable[..., Any], few: int, given: Any, cotangent: Any) -> tuple[Any, ...]:
    marked, constants, arguments = given
    zeros = jax.tree.map(jnp.zeros_like, arguments)
    # A sum of turns, too: that is why derivatives of any order follow.
    pulled_back = partial(_pulled_back, function, len(constants))
    found = _sum_of_turns(pulled_back, few, zeros, marked, constants, (*arguments, cotangent))
    return None, None, None, found


_sum_of_turns.defvjp(_forward, _backward)


def _pulled_back(function: Callable[..., Any], n: int, columns: Array, there: Array, *given: Any) -> Any:
    constants, arguments, cotangent = given[:n], given[n:-1], given[-1]
    return jax.vjp(lambda *arguments: function(columns, there, *constants, *arguments), *arguments)[1](cotangent)


def _loop(step: Callable[[Any, Array, Array], Any], carry: Any, marked: Array, few: int) -> Any:
    """`step(carry, columns, there)` for the first few, the next few, ... marked entries of every row."""
    if not marked.size:
        return carry
    counts = _counts_up_to(marked)
    number_of = counts[:, -1, -1:]  # marked entries of each row
    most = jnp.max(number_of)

    def turn(state: tuple[Array, Any]) -> tuple[Array, Any]:
        done, carry = state
        wanted = done + 1 + jnp.arange(few, dtype=jnp.int32)[None]
        columns = jnp.minimum(_columns(counts, wanted), marked.shape[1] - 1)
        return done + few, step(carry, columns, wanted <= number_of)

    start = as_carry(turn, (jnp.zeros((), jnp.int32), carry))
    return lax.while_loop(lambda state: state[0] < most, turn, start)[1]


def take_columns(strip: Shaped[Array, "r m"], columns: Int[Array, "r k"]) -> Shaped[Array, "r k 1"]:
    """What a strip has at columns of each row."""
    return jnp.take_along_axis(strip, columns, axis=1, mode="promise_in_bounds")[:, :, None]


def _counts_up_to(marked: Bool[Array, "r m"]) -> Int[Array, "r g w"]:
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


def _columns(counts: Int[Array, "r g w"], wanted: Int[Array, "1 few"]) -> Int[Array, "r few"]:
    """Where each row has its k-th marked entry, for several k; any column where it has none."""
    r, groups, width = counts.shape
    group = jnp.sum(counts[:, None, :, -1] < wanted[:, :, None], axis=2, dtype=jnp.int32)
    group = jnp.minimum(group, groups - 1)
    inside = jnp.take_along_axis(counts, group[:, :, None], axis=1, mode="promise_in_bounds")  # [r, few, width]
    before = jnp.sum(inside < wanted[:, :, None], axis=2, dtype=jnp.int32)
    return group * width + jnp.minimum(before, width - 1)
