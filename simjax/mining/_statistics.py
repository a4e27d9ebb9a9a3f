"""Number and hardness of the pairs that a miner selected.

A score is larger for closer pairs: a similarity, or a negated distance.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import promote_to_float32
from simjax.mining._base import row_max, row_min
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, RefLabels, rows_and_relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MiningStatistics:
    """Statistics of a relation; each is an array [2], for the positive pairs and for the negative pairs.

    Attributes:
        pairs: Number of pairs.
        rows: Number of rows with a pair.
        nearest: Value of the closest pair by the measure; NaN if there is no pair.
        mean: Mean value; NaN if there is no pair.
        farthest: Value of the farthest pair; NaN if there is no pair.
    """

    pairs: Array
    rows: Array
    nearest: Array
    mean: Array
    farthest: Array


def statistics(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> MiningStatistics:
    """Count the pairs of a relation, for example a mined one, and summarize their values.

    Args:
        labels: Class ids [n] or a `Relation`, which may be mined.
        Others: See `simjax.mining`.

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
    counts, sums, smallest, largest = reduce_rows(
        Partial(_of_rows, relation, measure), x, y, measure=measure, block_size=block_size
    )
    pairs = jnp.sum(counts.astype(jnp.float32), axis=0)

    def value(score: Array) -> Array:
        return jnp.where(pairs > 0, measure.as_score(score), jnp.nan)

    return MiningStatistics(
        pairs,
        jnp.sum(counts > 0, axis=0),
        value(jnp.max(largest, axis=0, initial=-jnp.inf)),
        value(jnp.sum(sums, axis=0) / jnp.maximum(pairs, 1)),
        value(jnp.min(smallest, axis=0, initial=jnp.inf)),
    )


def _of_rows(relation: Relation, measure: Measure, s: Array, i: Array, j: Array) -> tuple[Array, ...]:
    """Return the count, sum, smallest and largest score of each row, for positives and negatives, [r, 2] each."""
    scores, masks = promote_to_float32(measure.as_score(s)), relation.masks(i, j)
    counts = [jnp.sum(mask, axis=1) for mask in masks]
    sums = [jnp.sum(jnp.where(mask, scores, 0), axis=1) for mask in masks]
    smallest = [row_min(scores, mask)[:, 0] for mask in masks]
    largest = [row_max(scores, mask)[:, 0] for mask in masks]
    return tuple(jnp.stack(columns, axis=1) for columns in (counts, sums, smallest, largest))
