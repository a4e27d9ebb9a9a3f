"""Miners that draw pairs and triplets at random by their distance.

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
from simjax.similarity import Measure, histogram, max, min
from simjax.similarity import measure as as_measure


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

    Random unit vectors in d dimensions have distance D with a density that is very high near sqrt(2):

        q(D) proportional to D^(d - 2) (1 - D^2 / 4)^((d - 3) / 2)

    A negative is drawn with a probability proportional to 1 / q of its distance.

    Args:
        key: PRNG key of the draw.
        cutoff: Smaller distances have the weight of this distance, which bounds the weight of very near negatives.
        nonzero_loss_cutoff: Negatives from this distance on are never drawn.
        embeddings, labels, ref_embeddings, ref_labels: See `simjax.mining`, also for errors. Rows are normalized.

    Returns:
        A relation of triplets, none for the positives of a row whose negatives all have weight 0.

    Differs from pytorch-metric-learning: the largest weight of a row is 1, so that weights of far negatives do not
    underflow. The probabilities are the same.
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
    """Draw about the same number of positive pairs, and of negative pairs, from every bin of their values.

    Args:
        key: PRNG key of the draw.
        bins: Number of equal bins between the smallest and the largest value of the pairs of a kind.
        positives_per_bin: Average number of positive pairs drawn from each bin; all, if there are fewer.
        negatives_per_bin: The same for negative pairs.
        embeddings, labels, ref_embeddings, ref_labels, measure, block_size: See `simjax.mining`, also for errors.

    Differs from pytorch-metric-learning, which draws a fixed number from each bin with replacement. Here each pair is
    drawn independently, with the probability that gives this number on average.
    """
    numbers = {"bins": bins, "positives_per_bin": positives_per_bin, "negatives_per_bin": negatives_per_bin}
    for name, value in numbers.items():
        check_at_least(name, value, 1)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    wanted = (jnp.float32(positives_per_bin), jnp.float32(negatives_per_bin))
    kinds = tuple(_probabilities(x, y, relation, m, kind, wanted[kind], bins, block_size) for kind in (0, 1))
    select = Partial(_draw_pairs, key=key, sign=m.as_score(jnp.ones(())), kinds=kinds)
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
    drawn = jax.vmap(jax.vmap(uniform, (None, 0)))(rows, columns) * total  # [r, k], below the total
    place = jnp.sum(cumulative[:, None] <= drawn[:, :, None], axis=2, keepdims=True)
    j = jnp.arange(cumulative.shape[1], dtype=jnp.int32)[None, None]
    return (j == place) & (total > 0)[:, None]


@partial(jax.jit, static_argnames=("kind", "bins", "block_size"))
def _probabilities(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    kind: int,
    wanted: Array,
    bins: int,
    block_size: int | None,
) -> tuple[Array, Array]:
    """Return the edges of the bins [bins + 1] and the probability of drawing a pair of each bin [bins]."""
    options = {"measure": measure, "mask": Partial(partial(_mask_of_kind, kind), relation), "block_size": block_size}
    low = jnp.min(min(x, y, **options)[0], initial=jnp.inf)
    high = jnp.max(max(x, y, **options)[0], initial=-jnp.inf)
    has_pairs = low <= high
    edges = jnp.linspace(jnp.where(has_pairs, low, 0), jnp.where(has_pairs, high, 1), bins + 1)
    counts = jnp.sum(histogram(x, y, edges=edges, **options), axis=0)
    return edges, wanted / jnp.maximum(counts, 1)


def _mask_of_kind(kind: int, relation: Relation, i: Array, j: Array) -> Array:
    return relation.masks(i, j)[kind]


def _draw_pairs(
    scores: Array,
    i: Array,
    positive: Array,
    negative: Array,
    *,
    key: Array,
    sign: Array,
    kinds: tuple[tuple[Array, Array], tuple[Array, Array]],
) -> Masks:
    def uniform(row: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, row), scores.shape[1:])

    def is_drawn(mask: Array, edges: Array, probabilities: Array) -> Array:
        width = jnp.where(edges[-1] > edges[0], edges[-1] - edges[0], 1)
        bins = (sign * scores - edges[0]) / width * len(probabilities)
        return mask & (drawn < probabilities[jnp.clip(bins, 0, len(probabilities) - 1).astype(jnp.int32)])

    drawn = jax.vmap(uniform)(i[:, 0])
    return is_drawn(positive, *kinds[0]), is_drawn(negative, *kinds[1])
