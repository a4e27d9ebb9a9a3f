"""Number of the pairs that a miner selected, and how close they are.

A relation says which pairs of rows and columns are positive and which are negative. Values of a measure are compared as
scores, which are larger for closer pairs: a similarity, or a negated distance. The similarity matrix is computed in
tiles, blocks of r rows with all m columns.
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
        pairs: Number of pairs, float32.
        rows: Number of rows with a pair, int32.
        nearest: Value of the measure for the closest pair; NaN if there is no pair.
        mean: Mean value of the measure over all pairs; NaN if there is no pair.
        farthest: Value of the measure for the farthest pair; NaN if there is no pair.
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
    """Count the pairs of a relation, for example a mined one, and summarize the values of the measure for them.

    Args:
        labels: Class ids [n] or a `Relation`, which may be mined.
        Other arguments: See `simjax.mining`.

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
    """Compute the statistics of the pairs of rows x [n, d] and columns y [m, d]."""
    counts, sums, smallest, largest = reduce_rows(
        Partial(_row_statistics, relation, measure), x, y, measure=measure, block_size=block_size
    )
    pairs = jnp.sum(counts.astype(jnp.float32), axis=0)  # their number may exceed int32

    def value_or_nan(score: Array) -> Array:
        # `as_score` negates a distance and returns a similarity unchanged, so it also gives the value of a score.
        return jnp.where(pairs > 0, measure.as_score(score), jnp.nan)

    return MiningStatistics(
        pairs=pairs,
        rows=jnp.sum(counts > 0, axis=0),
        nearest=value_or_nan(jnp.max(largest, axis=0, initial=-jnp.inf)),
        mean=value_or_nan(jnp.sum(sums, axis=0) / jnp.maximum(pairs, 1)),
        farthest=value_or_nan(jnp.min(smallest, axis=0, initial=jnp.inf)),
    )


def _row_statistics(relation: Relation, measure: Measure, tile: Array, i: Array, j: Array) -> tuple[Array, ...]:
    """Return the number of pairs and their total, smallest and largest score for each row of a tile.

    Args:
        tile: Values of the measure, [r, m].
        i: Indices of the rows, [r, 1].
        j: Indices of the columns, [1, m].

    Returns:
        Four arrays [r, 2], for the positive pairs and for the negative pairs.
    """
    scores, masks = promote_to_float32(measure.as_score(tile)), relation.masks(i, j)
    counts = [jnp.sum(mask, axis=1) for mask in masks]
    sums = [jnp.sum(jnp.where(mask, scores, 0), axis=1) for mask in masks]
    smallest = [row_min(scores, mask)[:, 0] for mask in masks]
    largest = [row_max(scores, mask)[:, 0] for mask in masks]
    return tuple(jnp.stack(both, axis=1) for both in (counts, sums, smallest, largest))
