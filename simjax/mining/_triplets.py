"""Miners of triplets: by the margin violation, semi-hard, by the angle at the negative, and by random draws.

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet: A Unified Embedding for Face Recognition and Clustering (semi-hard).
    Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss. Wu, Manmatha, Smola, Krähenbühl (2017),
    Sampling Matters in Deep Embedding Learning (distance weighted).
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, check_at_least, check_choice, check_number
from simjax.mining._base import Tiles, check_inputs, row_max, score_tiles, select_triplets
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
        margin: In units of the measure.
        kind: See above.
        Other arguments: See `simjax.mining`.
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
        Arguments: See `simjax.mining`.

    Returns:
        One triplet for each positive pair of a row that has a negative.
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

    With unit vectors a, p and v of anchor, positive and negative, and the midpoint c = (a + p) / 2, the angle is

        atan( |a - p| / (2 |v - c|) )

    Takes O(n m d P) time for n rows, m columns and at most P positives of a row.

    Args:
        angle: In degrees.
        Other arguments: See `simjax.mining`. Rows are normalized.

    Differs from pytorch-metric-learning, which does not normalize embeddings. For unit vectors both select the same
    triplets.
    """
    check_at_least("angle", angle, 0)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    cosine = as_measure("cosine")
    select = Partial(_angular, slope=2 * jnp.tan(jnp.deg2rad(angle)), between_columns=score_tiles(y, y, cosine))
    return select_triplets(select, score_tiles(x, y, cosine), relation)


def distance_weighted(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    key: Array,
    cutoff: float = 0.5,
    nonzero_loss_cutoff: float = 1.4,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
) -> Relation:
    """Draw one negative for each positive pair, with equal probability for all distances.

    The distance D of random unit vectors in d dimensions has a density that is very high near sqrt(2):

        q(D) proportional to D^(d - 2) (1 - D^2 / 4)^((d - 3) / 2)

    A negative at distance D has the weight 1 / q(D), and is drawn with a probability proportional to its weight.

    Args:
        key: PRNG key of the draw.
        cutoff: Smaller distances have the weight of this distance, which bounds the weight of very close negatives.
        nonzero_loss_cutoff: Negatives at this distance or farther are never drawn.
        Other arguments: See `simjax.mining`. Rows are normalized.

    Returns:
        A relation of triplets. A row whose negatives all have weight 0 has no triplets.

    Differs from pytorch-metric-learning: the weights of a row are scaled so that the largest is 1, and the weights of
    far negatives do not underflow. The probabilities are the same.
    """
    if not 0 < cutoff < nonzero_loss_cutoff:
        raise InputError(f"cutoff: expected above 0 and below nonzero_loss_cutoff {nonzero_loss_cutoff}, got {cutoff}")
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    select = Partial(_distance_weighted, key=key, cutoff=cutoff, limit=nonzero_loss_cutoff, n_features=x.shape[1])
    return select_triplets(select, score_tiles(x, y, as_measure("normalized_euclidean")), relation)


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


def _distance_weighted(
    scores: Array, i: Array, negative: Array, *, key: Array, cutoff: Array, limit: Array, n_features: Array
) -> Partial:
    distance = jnp.maximum(-scores, cutoff)
    has_weight = negative & (distance < limit) & (distance < 2)
    d = jnp.where(has_weight, distance, 1.0)
    log_weights = (2.0 - n_features) * jnp.log(d) - (n_features - 3) / 2 * jnp.log(1 - d * d / 4)
    largest = row_max(log_weights, has_weight)
    weights = jnp.where(has_weight, jnp.exp(log_weights - jnp.where(largest > -jnp.inf, largest, 0)), 0)
    return Partial(_draw_negatives, jnp.cumsum(weights, axis=1), i[:, 0], key)


def _draw_negatives(cumulative: Array, rows: Array, key: Array, columns: Array) -> Array:
    """Draw one negative of each row for each positive [r, k, m], by the cumulative weights of the row [r, m]."""

    def uniform(row: Array, column: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), column))

    total = cumulative[:, -1:]
    thresholds = jax.vmap(jax.vmap(uniform, (None, 0)))(rows, columns) * total  # [r, k], below the total
    drawn_column = jnp.sum(cumulative[:, None] <= thresholds[:, :, None], axis=2, keepdims=True)
    j = jnp.arange(cumulative.shape[1], dtype=jnp.int32)[None, None]
    return (j == drawn_column) & (total > 0)[:, None]
