"""Triplets are never enumerated: in how many of them each pair takes part is counted, a few positives at a time."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jaxtyping import Bool, Int, Num

from simjax.core._blocks import kept
from simjax.core._tuples import counts_up_to

FEW = 8  # positives in one turn of a loop: a strip is read once for all of them


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
    counts = counts_up_to(positive)
    number_of = counts[:, -1, -1:]  # positives of each row
    rows = jnp.arange(r, dtype=jnp.int32)[:, None]

    def turn(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, as_positive, as_negative = state
        wanted = done + 1 + jnp.arange(FEW, dtype=jnp.int32)[None]
        columns, there = jnp.minimum(_columns(counts, wanted), m - 1), wanted <= number_of
        active = negatives_of(columns) & there[:, :, None]
        each = jnp.sum(active, axis=2, dtype=jnp.float32)  # of which a CPU makes no array of all
        as_positive = as_positive.at[rows, columns].add(each.astype(jnp.int32))
        return done + FEW, as_positive, as_negative + jnp.sum(active, axis=1, dtype=jnp.int32)

    most = jnp.max(number_of)
    state = lax.while_loop(lambda state: state[0] < most, turn, (jnp.zeros((), jnp.int32), *nothing))
    return kept(lax.stop_gradient(state[1:]))


def _columns(counts: Array, wanted: Array) -> Array:
    """Where each row has its k-th marked entry, for several k [1, few]: [r, few]; any column where it has none."""
    r, groups, width = counts.shape
    group = jnp.sum(counts[:, None, :, -1] < wanted[:, :, None], axis=2, dtype=jnp.int32)
    group = jnp.minimum(group, groups - 1)
    inside = jnp.take_along_axis(counts, group[:, :, None], axis=1, mode="promise_in_bounds")  # [r, few, width]
    before = jnp.sum(inside < wanted[:, :, None], axis=2, dtype=jnp.int32)
    return group * width + jnp.minimum(before, width - 1)


def every_one(negative: Bool[Array, "r m"]) -> Partial:
    """Every negative of a row makes a triplet with every positive: for `count_triplets`."""
    return Partial(_every_one, negative)


def _every_one(negative: Array, columns: Array) -> Array:
    return negative[:, None]


def entries(strip: Num[Array, "r m"], columns: Int[Array, "r k"]) -> Num[Array, "r k 1"]:
    """What a strip has at columns of each row, as `count_triplets` hands them over."""
    return jnp.take_along_axis(lax.stop_gradient(strip), columns, axis=1, mode="promise_in_bounds")[:, :, None]
