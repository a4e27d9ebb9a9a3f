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
from jaxtyping import Bool, Num


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
    rank = jnp.cumsum(marked, axis=1)  # of each marked entry within its row, from 1
    most = jnp.max(rank, initial=0)

    def step(state: tuple[Array, Any]) -> tuple[Array, Any]:
        turn, carry = state
        here = marked & (rank == turn + 1)
        column = jnp.argmax(here, axis=1).astype(jnp.int32)[:, None]
        value = jnp.take_along_axis(strip, column, axis=1)
        return turn + 1, function(carry, value, column, jnp.any(here, axis=1, keepdims=True))

    _, carry = lax.while_loop(lambda state: state[0] < most, step, (jnp.zeros((), most.dtype), carry))
    return jax.lax.stop_gradient(carry)
