"""The order of rows within their groups: what a loss needs that takes one or two rows of every class."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from simjax.core import auto_axes, map_rows
from simjax.pairs import Relation


@partial(jax.jit, static_argnames="block_size")
@auto_axes
def earlier_positives(relation: Relation, *, block_size: int | None = None) -> Int[Array, " n"]:
    """How many positives of each row come before it: 0 for the first row of a class, 1 for the second.

    Args:
        relation: of n rows with themselves.
        block_size: rows counted at once; None chooses. Time is n^2, memory a strip.

    Example:
        >>> from simjax.core import by_class
        >>> print(earlier_positives(by_class(jnp.array([7, 4, 7, 4, 7]))))
        [0 0 1 1 2]
    """
    rows = jnp.arange(relation.shape[0], dtype=jnp.int32)

    def count(i: Array) -> Array:
        i, j = i[:, None], rows[None]
        return jnp.sum(relation.masks(i, j)[0] & (j < i), axis=1, dtype=jnp.int32)

    return map_rows(count, rows, block_size=block_size, row_bytes=4 * len(rows))
