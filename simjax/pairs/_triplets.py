"""Triplets are never enumerated: in how many of them each pair takes part is counted, a few positives at a time."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jaxtyping import Bool, Int

from simjax.pairs._fold_positives import fold_positives

FEW = 4  # positives in one turn of a loop: a strip is read once for all of them


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

        >>> from simjax.core import entries
        >>> d, same = jnp.array([[1.0, 4.0, 2.0, 5.0]]), jnp.array([[True, True, False, False]])
        >>> def closer(columns):
        ...     return ~same[:, None] & (d[:, None] < entries(d, columns))
        >>> as_positive, as_negative = count_triplets(same, closer)
        >>> print(as_positive, as_negative)
        [[0 1 0 0]] [[0 0 1 0]]
        >>> print(jnp.sum((as_positive - as_negative) * d))  # 4 - 2
        2.0
    """
    rows = jnp.arange(positive.shape[0], dtype=jnp.int32)[:, None]

    def turn(counts: tuple[Array, Array], columns: Array, there: Array) -> tuple[Array, Array]:
        as_positive, as_negative = counts
        active = negatives_of(columns) & there[:, :, None]
        each = jnp.sum(active, axis=2, dtype=jnp.float32)  # of which a CPU makes no array of all
        as_positive = as_positive.at[rows, columns].add(each.astype(jnp.int32))
        return as_positive, as_negative + jnp.sum(active, axis=1, dtype=jnp.int32)

    nothing = jnp.zeros(positive.shape, jnp.int32)
    return fold_positives(turn, (nothing, nothing), positive, few=FEW)


def all_negatives(negative: Bool[Array, "r m"]) -> Partial:
    """Every negative of a row makes a triplet with every positive: for `count_triplets`."""
    return Partial(_every_one, negative)


def _every_one(negative: Array, columns: Array) -> Array:
    return negative[:, None]
