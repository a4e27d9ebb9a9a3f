"""What a miner has found: how many pairs, of how many, and how hard they are."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import promote_to_float32
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MiningStatistics:
    """Of the positive and of the negative pairs of a relation, in this order; arrays of 2.

    Attributes:
        pairs: how many there are.
        rows: how many rows have one.
        nearest: the closest pair's value by the measure; NaN where there is none, as for the next two.
        mean: of the values.
        farthest: the least close pair's value.
    """

    pairs: Array
    rows: Array
    nearest: Array
    mean: Array
    farthest: Array


def statistics(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> MiningStatistics:
    """How many pairs there are and how near: of a mined relation, beside the same of the labels.

    Args:
        embeddings: [n, d].
        labels: a mined `Relation`, or any other, or class ids [n].
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`.
        block_size: rows computed at once; None chooses.

    Returns:
        `MiningStatistics`, which stay on the device until they are read.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [4.0]])
        >>> found = statistics(x, jnp.array([0, 0, 1]), measure="euclidean")
        >>> print(found.pairs, found.rows)
        [2. 4.] [2 3]
        >>> print(found.nearest.astype(jnp.float16), found.farthest.astype(jnp.float16))
        [1. 3.] [1. 4.]
    """
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    return _statistics(x, y, relation, as_measure(measure), block_size)


@partial(jax.jit, static_argnames="block_size")
def _statistics(x: Array, y: Array, relation: Relation, measure: Measure, block_size: int | None) -> MiningStatistics:
    counts, sums, low, high = reduce_rows(
        Partial(_of_strip, relation, measure), x, y, measure=measure, block_size=block_size
    )
    pairs = jnp.sum(counts.astype(jnp.float32), axis=0)
    found = pairs > 0

    def value(closest_first: Array) -> Array:
        return jnp.where(found, measure.as_score(closest_first), jnp.nan)

    return MiningStatistics(
        pairs,
        jnp.sum(counts > 0, axis=0),
        value(jnp.max(high, axis=0, initial=-jnp.inf)),
        value(jnp.sum(sums, axis=0) / jnp.maximum(pairs, 1)),
        value(jnp.min(low, axis=0, initial=jnp.inf)),
    )


def _of_strip(relation: Relation, measure: Measure, s: Array, i: Array, j: Array) -> tuple[Array, ...]:
    c, masks = promote_to_float32(measure.as_score(s)), relation.masks(i, j)
    counts = [jnp.sum(mask, axis=1) for mask in masks]
    sums = [jnp.sum(jnp.where(mask, c, 0), axis=1) for mask in masks]
    low = [jnp.min(jnp.where(mask, c, jnp.inf), axis=1, initial=jnp.inf) for mask in masks]
    high = [jnp.max(jnp.where(mask, c, -jnp.inf), axis=1, initial=-jnp.inf) for mask in masks]
    return tuple(jnp.stack(of_kinds, axis=1) for of_kinds in (counts, sums, low, high))
