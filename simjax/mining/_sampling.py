"""Miners that draw pairs and triplets at random, with probabilities that depend on their distance.

Scores are larger for closer pairs: a distance is negated.

References:
    Wu, Manmatha, Smola, Krähenbühl (2017), Sampling Matters in Deep Embedding Learning (distance weighted).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, check_at_least
from simjax.mining._base import check_inputs, row_max, score_tiles, select_pairs, select_triplets
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, Masks, RefLabels
from simjax.similarity import Measure, histogram
from simjax.similarity import max as max_of_rows
from simjax.similarity import measure as as_measure
from simjax.similarity import min as min_of_rows


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

    A negative at distance D is drawn with a probability proportional to 1 / q(D).

    Args:
        key: PRNG key of the draw.
        cutoff: Smaller distances have the weight of this distance, which bounds the weight of very close negatives.
        nonzero_loss_cutoff: Negatives at this distance or farther are never drawn.
        embeddings, labels, ref_embeddings, ref_labels: See `simjax.mining`, also for errors. Rows are normalized.

    Returns:
        A relation of triplets. A row whose negatives all have weight 0 has no triplets.

    Differs from pytorch-metric-learning: the weights of a row are scaled so that the largest is 1, and the weights of
    far negatives do not underflow. The probabilities are the same.
    """
    if not 0 < cutoff < nonzero_loss_cutoff:
        raise InputError(f"cutoff: expected above 0 and below nonzero_loss_cutoff {nonzero_loss_cutoff}, got {cutoff}")
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    select = Partial(_distance_weighted, key=key, cutoff=cutoff, limit=nonzero_loss_cutoff, features=x.shape[1])
    return select_triplets(select, score_tiles(x, y, as_measure("normalized_euclidean")), relation)


def uniform_histogram(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    key: Array,
    bins: int = 100,
    positives_per_bin: int = 10,
    negatives_per_bin: int = 10,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Draw about the same number of pairs from every bin of a histogram of their distances (values of the measure).

    Positive pairs and negative pairs have a histogram each, with bins of equal width between the smallest and the
    largest value.

    Args:
        key: PRNG key of the draw.
        bins: Number of bins of each histogram.
        positives_per_bin: Expected number of positive pairs drawn from each bin; all, if there are fewer.
        negatives_per_bin: Expected number of negative pairs drawn from each bin; all, if there are fewer.
        embeddings, labels, ref_embeddings, ref_labels, measure, block_size: See `simjax.mining`, also for errors.

    Returns:
        A relation of the drawn pairs.

    Differs from pytorch-metric-learning, which draws a fixed number from each bin with replacement. Here each pair is
    drawn independently, with the probability that gives the expected number.
    """
    counts = {"bins": bins, "positives_per_bin": positives_per_bin, "negatives_per_bin": negatives_per_bin}
    for name, value in counts.items():
        check_at_least(name, value, 1)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    bins_of_positives = _bins_of_pairs(
        x, y, relation, m, jnp.float32(positives_per_bin), negative=False, bins=bins, block_size=block_size
    )
    bins_of_negatives = _bins_of_pairs(
        x, y, relation, m, jnp.float32(negatives_per_bin), negative=True, bins=bins, block_size=block_size
    )
    # `as_score` negates distances, so sign * score is the value of the measure, which the bins refer to.
    select = Partial(
        _draw_pairs,
        key=key,
        sign=m.as_score(jnp.ones(())),
        bins_of_positives=bins_of_positives,
        bins_of_negatives=bins_of_negatives,
    )
    return select_pairs(select, score_tiles(x, y, m), relation)


def _distance_weighted(
    scores: Array, i: Array, negative: Array, *, key: Array, cutoff: Array, limit: Array, features: Array
) -> Partial:
    distance = jnp.maximum(-scores, cutoff)
    has_weight = negative & (distance < limit) & (distance < 2)
    d = jnp.where(has_weight, distance, 1.0)
    log_weights = (2.0 - features) * jnp.log(d) - (features - 3) / 2 * jnp.log(1 - d * d / 4)
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


@partial(jax.jit, static_argnames=("negative", "bins", "block_size"))
def _bins_of_pairs(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    pairs_per_bin: Array,
    *,
    negative: bool,
    bins: int,
    block_size: int | None,
) -> tuple[Array, Array]:
    """Return the edges of the bins [bins + 1] and the probability of drawing a pair of each bin [bins]."""
    options = {"measure": measure, "mask": Partial(partial(_mask, negative), relation), "block_size": block_size}
    low = jnp.min(min_of_rows(x, y, **options)[0], initial=jnp.inf)
    high = jnp.max(max_of_rows(x, y, **options)[0], initial=-jnp.inf)
    has_pairs = low <= high
    edges = jnp.linspace(jnp.where(has_pairs, low, 0), jnp.where(has_pairs, high, 1), bins + 1)
    counts = jnp.sum(histogram(x, y, edges=edges, **options), axis=0)
    return edges, pairs_per_bin / jnp.maximum(counts, 1)


def _mask(negative: bool, relation: Relation, i: Array, j: Array) -> Array:
    positive_mask, negative_mask = relation.masks(i, j)
    return negative_mask if negative else positive_mask


def _draw_pairs(
    scores: Array,
    i: Array,
    positive: Array,
    negative: Array,
    *,
    key: Array,
    sign: Array,
    bins_of_positives: tuple[Array, Array],
    bins_of_negatives: tuple[Array, Array],
) -> Masks:
    def uniform(row: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, row), scores.shape[1:])

    def is_drawn(mask: Array, edges: Array, probabilities: Array) -> Array:
        range_of_values = jnp.where(edges[-1] > edges[0], edges[-1] - edges[0], 1)
        positions = (sign * scores - edges[0]) / range_of_values * len(probabilities)
        bin_indices = jnp.clip(positions, 0, len(probabilities) - 1).astype(jnp.int32)
        return mask & (random_numbers < probabilities[bin_indices])

    random_numbers = jax.vmap(uniform)(i[:, 0])
    return is_drawn(positive, *bins_of_positives), is_drawn(negative, *bins_of_negatives)
