"""Miners of pairs: by margins, by the hardest pairs of the row or of the batch, by a schedule, by a guide, at random.

A score is larger for closer pairs: a similarity, or a negated distance. A tile is a block of rows of the similarity
matrix, with all columns; functions of a tile take its row indices i [r, 1] and its column indices j [1, m]. The
hardness of a negative pair is its score, and that of a positive pair its negated score.

References:
    Wang et al. (2019), Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
    Yuan, Yang, Zhang (2017), Hard-Aware Deeply Cascaded Embedding.
    Bengio, Louradour, Collobert, Weston (2009), Curriculum Learning.
    Solatorio (2024), GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_carry, check_at_least, check_fraction, check_number, promote_to_float32
from simjax.mining._base import check_inputs, row_max, row_min, score_tiles, select_pairs
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, Masks, RefLabels
from simjax.similarity import Measure, histogram, reduce_rows
from simjax.similarity import max as max_of_rows
from simjax.similarity import measure as as_measure
from simjax.similarity import min as min_of_rows

TOLERANCE = 64  # rounding errors by which scores may differ between block sizes
FIRST_FLOAT, LAST_FLOAT = 0x007FFFFF, 0xFF800000  # positions of -inf and inf in the order of float32 numbers


def pair_margin(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    positive_margin: ArrayLike = 0.2,
    negative_margin: ArrayLike = 0.8,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Select positive pairs farther apart than a margin, and negative pairs closer than another margin.

    Args:
        positive_margin, negative_margin: In units of the measure.
        Other arguments: See `simjax.mining`.
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    bounds = (m.as_score(jnp.asarray(margin)) for margin in (positive_margin, negative_margin))
    return select_pairs(Partial(_between, *bounds), score_tiles(x, y, m), relation)


def multi_similarity(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    epsilon: ArrayLike = 0.1,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "cosine",
) -> Relation:
    """Select positives and negatives of each row that are closer to the other kind than a margin epsilon.

    A positive is selected if it is at most epsilon closer than the nearest negative of the row, and a negative if it is
    at most epsilon farther than the farthest positive of the row.

    Args:
        epsilon: In units of the measure.
        Other arguments: See `simjax.mining`.

    Returns:
        A relation of pairs. A row without a positive or without a negative has no pairs.

    Example:
        Row 0 has positives at 1 and 3 and negatives at 2 and 9; the positive at 3 and the negative at 2 are selected:

        >>> x = jnp.array([[0.0], [1.0], [3.0], [2.0], [9.0]])
        >>> mined = multi_similarity(x, jnp.array([0, 0, 0, 1, 2]), measure="euclidean")
        >>> positive, negative = mined.masks(jnp.arange(5)[:, None], jnp.arange(5)[None])
        >>> print(positive[0].astype(int) - negative[0].astype(int))
        [ 0  0  1 -1  0]
    """
    check_at_least("epsilon", epsilon, 0)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    return select_pairs(Partial(_multi_similarity, epsilon), score_tiles(x, y, as_measure(measure)), relation)


def hard_aware(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    share: float = 0.5,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Select the hardest share of all positive pairs of the batch, and of all negative pairs.

    The share ends at the k-th hardest of n m pairs. The pairs are not stored: a binary search over hardness counts, in
    each of 32 steps, the pairs that are at least as hard. Each step computes all tiles.

    Args:
        share: Fraction of the pairs, above 0, at most 1. Rounded up to an integer number of pairs.
        Other arguments: See `simjax.mining`.

    Returns:
        A relation of pairs. All pairs that are, up to rounding, as hard as the k-th are selected.

    Example:
        Positive pairs at distances 1, 2 and 3, each in two rows. The hardest third is the pair at distance 3:

        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> mined = hard_aware(x, jnp.array([0, 0, 0]), share=1 / 3, measure="euclidean")
        >>> print(mined.masks(jnp.arange(3)[:, None], jnp.arange(3)[None])[0].astype(int))
        [[0 0 1]
         [0 0 0]
         [1 0 0]]
    """
    if not 0 < share <= 1:
        raise InputError(f"share: expected above 0 and at most 1, got {share}")
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    hardness = _kth_hardest(x, y, relation, m, jnp.float32(share), block_size)
    slack = jnp.where(jnp.isfinite(hardness), TOLERANCE * jnp.finfo(jnp.float32).eps * jnp.abs(hardness), 0)
    return select_pairs(Partial(_at_least_as_hard, hardness - slack), score_tiles(x, y, m), relation)


def curriculum(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    hardness: ArrayLike,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Select pairs up to a hardness, relative to the easiest and the hardest pair of each row.

    Args:
        hardness: 0 selects the nearest positive and the farthest negative of each row, 1 selects all pairs. For
            example `optax.linear_schedule(0.2, 1.0, steps)(step)`.
        Other arguments: See `simjax.mining`.

    Example:
        Row 0 has negatives at 2, 3 and 6; a hardness of 0.5 is a distance of 4, which excludes 2 and 3:

        >>> x = jnp.array([[0.0], [2.0], [3.0], [6.0]])
        >>> for hardness in (0.5, 0.75, 1.0):
        ...     mined = curriculum(x, jnp.array([0, 1, 1, 1]), hardness=hardness, measure="euclidean")
        ...     print(mined.masks(jnp.arange(4)[:, None], jnp.arange(4)[None])[1][0].astype(int))
        [0 0 0 1]
        [0 0 1 1]
        [0 1 1 1]
    """
    check_fraction("hardness", hardness)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    return select_pairs(Partial(_curriculum, hardness), score_tiles(x, y, as_measure(measure)), relation)


def guided(
    guide: Num[ArrayLike, "n e"],
    labels: Labels,
    *,
    margin: ArrayLike = 0.0,
    ref_guide: Num[ArrayLike, "m e"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "cosine",
) -> Relation:
    """Select all pairs except likely false negatives, which a guide model scores above the positive of the row.

    In a large batch some negatives are actually similar: other pictures of the same object, other answers to the same
    question. If a row has several positives, its negatives are compared with the positive that the guide scores
    highest; if a row has no positive, all its negatives are selected.

    Args:
        guide: Embeddings of the rows by the guide model, [n, e].
        labels: Class ids [n] or a `Relation`. All positives are selected.
        margin: Negatives that score less than the margin below the positive are excluded too. In units of the measure.
        ref_guide: Embeddings of the columns by the guide model, [m, e]. Default: the embeddings of the rows.
        ref_labels: Class ids [m], if `labels` are class ids and there is a `ref_guide`.
        measure: Measure of the guide's embeddings.

    Example:
        Two questions and their answers. The guide scores the second answer as closer to the first question than the
        first answer:

        >>> from simjax.pairs import by_position
        >>> questions, answers = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 2.0], [1.0, 1.0]])
        >>> relation = guided(questions, by_position(2), ref_guide=answers)
        >>> positive, negative = relation.masks(jnp.arange(2)[:, None], jnp.arange(2)[None])
        >>> print(positive.astype(int) - negative.astype(int))
        [[1 0]
         [0 1]]
    """
    x, y, relation = check_inputs(guide, labels, ref_guide, ref_labels, ("guide", "ref_guide"))
    return select_pairs(Partial(_guided, margin), score_tiles(x, y, as_measure(measure)), relation)


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
        positives_per_bin, negatives_per_bin: Expected numbers of pairs drawn from each bin; all, if there are fewer.
        Other arguments: See `simjax.mining`.

    Differs from pytorch-metric-learning, which draws a fixed number from each bin with replacement. Here each pair is
    drawn independently, with the probability that gives the expected number.
    """
    check_at_least("bins", bins, 1)
    check_at_least("positives_per_bin", positives_per_bin, 1)
    check_at_least("negatives_per_bin", negatives_per_bin, 1)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    per_bin = jnp.float32(positives_per_bin), jnp.float32(negatives_per_bin)
    histograms = _bins_of_pairs(x, y, relation, m, per_bin, bins, block_size)
    # `as_score` negates distances, so sign * score is the value of the measure, which the bins refer to.
    select = Partial(_draw_pairs, key, m.as_score(jnp.ones(())), histograms)
    return select_pairs(select, score_tiles(x, y, m), relation)


def _between(near: Array, far: Array, scores: Array, i: Array, positive: Array, negative: Array) -> Masks:
    return positive & (scores < near), negative & (scores > far)


def _multi_similarity(epsilon: Array, scores: Array, i: Array, positive: Array, negative: Array) -> Masks:
    nearest_negative, farthest_positive = row_max(scores, negative), row_min(scores, positive)
    return positive & (scores - epsilon < nearest_negative), negative & (scores + epsilon > farthest_positive)


def _curriculum(hardness: Array, scores: Array, i: Array, positive: Array, negative: Array) -> Masks:
    def not_harder(values: Array, mask: Array) -> Array:
        easiest, hardest = row_min(values, mask), row_max(values, mask)
        bound = jnp.where(hardness >= 1, hardest, easiest + hardness * (hardest - easiest))
        return mask & (values <= bound)

    return not_harder(-scores, positive), not_harder(scores, negative)


def _guided(margin: Array, scores: Array, i: Array, positive: Array, negative: Array) -> Masks:
    nearest = row_max(scores, positive)
    return positive, negative & ((scores <= nearest - margin) | (nearest == -jnp.inf))


def _at_least_as_hard(hardness: Array, scores: Array, i: Array, positive: Array, negative: Array) -> Masks:
    of_positives, of_negatives = hardness
    return positive & (-scores >= of_positives), negative & (scores >= of_negatives)


@partial(jax.jit, static_argnames="block_size")
def _kth_hardest(
    x: Array, y: Array, relation: Relation, measure: Measure, share: Array, block_size: int | None
) -> Array:
    """Return the hardness of the last selected positive and of the last selected negative pair, float32 [2].

    The binary search is over all float32 numbers in increasing order, so it is exact for scores of any size.
    """

    def count(hardness: Array) -> Array:
        selected = Partial(_count_selected, relation, measure, hardness)
        return jnp.sum(reduce_rows(selected, x, y, measure=measure, block_size=block_size), axis=0, dtype=jnp.uint32)

    pairs = count(jnp.full(2, -jnp.inf, jnp.float32))
    k = jnp.maximum(jnp.ceil(pairs.astype(jnp.float32) * share).astype(jnp.uint32), 1)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        has_k_pairs = count(_float_at(middle)) >= k
        return jnp.where(has_k_pairs, middle, low), jnp.where(has_k_pairs, high, middle)

    bounds = jnp.full(2, FIRST_FLOAT, jnp.uint32), jnp.full(2, LAST_FLOAT + 1, jnp.uint32)
    bounds = as_carry(partial(halve, jnp.int32(0)), bounds)
    return _float_at(lax.fori_loop(0, 32, halve, bounds)[0])


def _float_at(position: Array) -> Array:
    """Return the float32 at a position, uint32, in the increasing order of all float32 numbers."""
    position_of_zero = jnp.uint32(1 << 31)  # the bits of 0.0 are 0
    bits = jnp.where(position < position_of_zero, ~position, position - position_of_zero)
    return lax.bitcast_convert_type(bits, jnp.float32)


def _count_selected(relation: Relation, measure: Measure, hardness: Array, s: Array, i: Array, j: Array) -> Array:
    scores = promote_to_float32(measure.as_score(s))
    selected = _at_least_as_hard(hardness, scores, i, *relation.masks(i, j))
    return jnp.stack([jnp.sum(mask, axis=1, dtype=jnp.uint32) for mask in selected], axis=1)


@partial(jax.jit, static_argnames=("bins", "block_size"))
def _bins_of_pairs(
    x: Array, y: Array, relation: Relation, measure: Measure, per_bin: tuple, bins: int, block_size: int | None
) -> list[tuple[Array, Array]]:
    """Return the edges of the bins [bins + 1] and the probability of a draw from each bin [bins], for both kinds.

    Kind 0 are the positive pairs, kind 1 the negative pairs; `per_bin` are the expected numbers of drawn pairs.
    """
    histograms = []
    for kind, expected in enumerate(per_bin):
        mask = Partial(partial(_mask, kind), relation)
        options = {"measure": measure, "mask": mask, "block_size": block_size}
        low = jnp.min(min_of_rows(x, y, **options)[0], initial=jnp.inf)
        high = jnp.max(max_of_rows(x, y, **options)[0], initial=-jnp.inf)
        has_pairs = low <= high
        edges = jnp.linspace(jnp.where(has_pairs, low, 0), jnp.where(has_pairs, high, 1), bins + 1)
        counts = jnp.sum(histogram(x, y, edges=edges, **options), axis=0)
        histograms.append((edges, expected / jnp.maximum(counts, 1)))
    return histograms


def _mask(kind: int, relation: Relation, i: Array, j: Array) -> Array:
    return relation.masks(i, j)[kind]


def _draw_pairs(
    key: Array, sign: Array, histograms: list, scores: Array, i: Array, positive: Array, negative: Array
) -> Masks:
    def uniform(row: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, row), scores.shape[1:])

    def is_drawn(mask: Array, edges: Array, probabilities: Array) -> Array:
        range_of_values = jnp.where(edges[-1] > edges[0], edges[-1] - edges[0], 1)
        positions = (sign * scores - edges[0]) / range_of_values * len(probabilities)
        bin_indices = jnp.clip(positions, 0, len(probabilities) - 1).astype(jnp.int32)
        return mask & (random_numbers < probabilities[bin_indices])

    random_numbers = jax.vmap(uniform)(i[:, 0])
    of_positives, of_negatives = histograms
    return is_drawn(positive, *of_positives), is_drawn(negative, *of_negatives)
