"""Miners of triplets: by the margin violation, semi-hard, and by the angle at the negative.

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet: A Unified Embedding for Face Recognition and Clustering (semi-hard).
    Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least, check_choice, check_number
from simjax.mining._base import Tiles, check_inputs, score_tiles, select_triplets
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, RefLabels
from simjax.pairs._triplets import take_columns
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import first_largest

Kind = Literal["all", "hard", "semi_hard", "easy"]


def triplet_margin(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    margin: ArrayLike = 0.2,
    kind: Kind = "all",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Select triplets by the difference d(anchor, negative) - d(anchor, positive).

        all          difference <= margin
        hard         difference <= margin and difference <= 0
        semi_hard    0 < difference <= margin
        easy         difference > margin

    For a similarity s the difference is s(anchor, positive) - s(anchor, negative).

    Args:
        margin: In units of the measure. May be traced.
        kind: See above.
        embeddings, labels, ref_embeddings, ref_labels, measure: See `simjax.mining`, also for errors.

    Returns:
        A relation of triplets.
    """
    check_number("margin", margin)
    check_choice("kind", kind, get_args(Kind))
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    select = Partial(_by_difference, Partial(_CONDITIONS[kind]), margin=margin)
    return select_triplets(select, score_tiles(x, y, as_measure(measure)), relation)


def semi_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Select the nearest negative that is farther than the positive, or else the farthest negative.

    Args:
        embeddings, labels, ref_embeddings, ref_labels, measure: See `simjax.mining`, also for errors.

    Returns:
        A relation of triplets: one for each positive pair of a row that has a negative.
    """
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    return select_triplets(Partial(_semi_hard), score_tiles(x, y, as_measure(measure)), relation)


def angular(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    angle: ArrayLike = 20.0,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
) -> Relation:
    """Select triplets whose angle at the negative is larger than a given angle.

    With unit vectors a, p and n, and the midpoint c = (a + p) / 2 of anchor and positive, the angle is

        atan( |a - p| / (2 |n - c|) )

    Time is n m d for each positive of a row.

    Args:
        angle: In degrees. May be traced.
        embeddings, labels, ref_embeddings, ref_labels: See `simjax.mining`, also for errors. Rows are normalized.

    Returns:
        A relation of triplets.

    Differs from pytorch-metric-learning, which does not normalize embeddings. For unit vectors both select the same
    triplets.
    """
    check_at_least("angle", angle, 0)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    cosine = as_measure("cosine")
    select = Partial(_angular, slope=2 * jnp.tan(jnp.deg2rad(angle)), between_columns=score_tiles(y, y, cosine))
    return select_triplets(select, score_tiles(x, y, cosine), relation)


_CONDITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "all": lambda difference, margin: difference <= margin,
    "hard": lambda difference, margin: (difference <= margin) & (difference <= 0),
    "semi_hard": lambda difference, margin: (difference <= margin) & (difference > 0),
    "easy": lambda difference, margin: difference > margin,
}


def _by_difference(condition: Partial, scores: Array, i: Array, negative: Array, *, margin: Array) -> Partial:
    # A comparison with NaN is False. With NaN in place of other pairs, each iteration reads one array instead of two.
    return Partial(_has_difference, condition, scores, jnp.where(negative, scores, jnp.nan), margin)


def _has_difference(condition: Partial, scores: Array, of_negatives: Array, margin: Array, columns: Array) -> Array:
    return condition(take_columns(scores, columns) - of_negatives[:, None], margin)


def _semi_hard(scores: Array, i: Array, negative: Array) -> Partial:
    return Partial(_nearest_farther, scores, negative, first_largest(-scores, negative))


def _nearest_farther(scores: Array, negative: Array, farthest: Array, columns: Array) -> Array:
    j = jnp.arange(scores.shape[1], dtype=jnp.int32)[None, None]
    is_farther = negative[:, None] & (scores[:, None] < take_columns(scores, columns))
    farther = jnp.where(is_farther, scores[:, None], -jnp.inf)
    nearest = jnp.max(farther, axis=2, keepdims=True)
    first = jnp.min(jnp.where(farther == nearest, j, scores.shape[1]), axis=2, keepdims=True)
    return j == jnp.where(nearest > -jnp.inf, first, farthest[:, None, None])


def _angular(scores: Array, i: Array, negative: Array, *, slope: Array, between_columns: Tiles) -> Partial:
    return Partial(_has_angle, scores, negative, slope, between_columns)


def _has_angle(scores: Array, negative: Array, slope: Array, between_columns: Tiles, columns: Array) -> Array:
    j = jnp.arange(scores.shape[1], dtype=jnp.int32)[None]
    to_positive = take_columns(scores, columns)
    positive_to_negative = between_columns(columns.reshape(-1, 1), j).reshape(*columns.shape, -1)
    # |n - c|^2 and |a - p|^2 of unit vectors, computed from their dot products
    to_midpoint = jnp.maximum(1 + (1 + to_positive) / 2 - (scores[:, None] + positive_to_negative), 0)
    side = jnp.maximum(2 - 2 * to_positive, 0)
    return negative[:, None] & (jnp.sqrt(side) > slope * jnp.sqrt(to_midpoint))
