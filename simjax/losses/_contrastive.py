"""Contrastive losses, which compare the score of each pair with a margin.

contrastive                    positive pairs within a distance, negative pairs a margin apart
signal to noise                the same, for the variance of the difference divided by the variance of the anchor
threshold-consistent margin    positive and negative pairs on the correct sides of two thresholds
intra-pair variance            positive pairs should have equal scores, and so should negative pairs

A term function (`_..._terms`) takes the scores [r, m] of a tile, r rows of the similarity matrix, the masks of its
positive and negative pairs, and the parameters of the loss. It returns `Terms`, a dict from names to (terms, mask of
the valid ones), both [r, m] with a term for each pair, or to `RowSums`, the sum of the terms of each row.

References:
    Hadsell, Chopra, LeCun (2006), Dimensionality Reduction by Learning an Invariant Mapping (contrastive). Yuan, Deng,
    Tang, Tang, Chen (2019), Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning (signal to noise).
    Zhang, Xu, Tang, Fang, Wu, Tighe, Xing (2024), Threshold-Consistent Margin Loss for Open-World Deep Metric Learning
    (threshold-consistent margin). Yu, Tao (2019), Deep Metric Learning with Tuplet Margin Loss (intra-pair variance).
"""

import dataclasses
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Bool, Num

from simjax.core import (
    InputError,
    as_float_array,
    auto_axes,
    check_at_least,
    check_choice,
    check_number,
    promote_to_float32,
)
from simjax.losses._options import Labels, PairOptions, ReferenceOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, square
from simjax.losses._terms import Embeddings, RowSums, Scalar
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure, reduce_rows, unit_vectors
from simjax.similarity._finite import absolute

VARIANTS = ("linear", "hadsell", "squared")


@auto_axes
def contrastive_terms(
    distance: Num[ArrayLike, "*s"],
    same: Bool[ArrayLike, "*s"],
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
    variant: Literal["linear", "hadsell", "squared"] = "hadsell",
) -> Num[Array, "*s"]:
    """Compute the contrastive loss of each pair, see `contrastive_loss`.

    Args:
        distance: Distances of pairs, any shape, at least 0.
        same: Whether a pair is positive, boolean of the same shape. (Papers disagree whether y = 1 means positive.)
        margin, positive_margin, variant: See `contrastive_loss`. The gradient at a margin is 0.

    Example:
        >>> print(contrastive_terms(jnp.array([0.5, 0.5]), jnp.array([True, False]), margin=2.0))
        [0.25 2.25]
    """
    check_choice("variant", variant, VARIANTS)
    d = as_float_array("distance", distance)
    positive, negative = _contrastive_of_distances(d, jnp.asarray(margin), jnp.asarray(positive_margin), variant)
    return jnp.where(same, positive, negative)


def contrastive_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike | None = None,
    variant: Literal["linear", "hadsell", "squared"] = "linear",
    **options: Unpack[PairOptions],
) -> Scalar:
    """Pull positive pairs together and push negative pairs at least a margin apart.

        linear     d      for positive pairs,    max(0, margin - d)        for negative pairs
        hadsell    d^2                           max(0, margin - d)^2
        squared    d^2                           max(0, margin^2 - d^2)

    Args:
        margin: Negative pairs farther apart than this have zero loss. In units of the measure; for distances 0 or more.
        positive_margin: Positive pairs closer than this have zero loss. Default: 0, for a distance.
        variant: See above.
        **options: See `PairOptions`. Default measure: normalized_euclidean; a similarity needs both margins, which are
            then upper and lower bounds, and the variant linear or hadsell. Default reducer: "mean_active".

    Returns:
        Mean over the positive pairs with a loss above 0 plus mean over the negative pairs with a loss above 0.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> print(contrastive_loss(x, jnp.array([0, 0, 1]), measure="euclidean"))  # the distance of the positive pair
        1.0
    """
    check_choice("variant", variant, VARIANTS)
    resolved = resolve_options(contrastive_loss, options, measure="normalized_euclidean", reducer="mean_active")
    is_similarity = resolved.measure.higher_is_closer
    if is_similarity and (positive_margin is None or variant == "squared"):
        raise InputError(
            f"measure: expected a distance, got {resolved.measure.name}, which is larger when closer and needs a "
            "positive_margin and the variant linear or hadsell"
        )
    positive_margin = 0.0 if positive_margin is None else positive_margin
    for name, value in (("margin", margin), ("positive_margin", positive_margin)):
        check_number(name, value) if is_similarity else check_at_least(name, value, 0)
    # Distances are negated scores, so the margins of a similarity are negated as well.
    margins = {"margin": -resolved.as_score(margin), "positive_margin": -resolved.as_score(positive_margin)}
    return compute_pair_loss(_contrastive_terms, embeddings, labels, resolved, static=(variant,), **margins)


def _contrastive_terms(
    scores: Array, positive: Array, negative: Array, variant: str, *, margin: Array, positive_margin: Array
) -> Terms:
    positive_terms, negative_terms = _contrastive_of_distances(-scores, margin, positive_margin, variant)
    return {"positive": (positive_terms, positive), "negative": (negative_terms, negative)}


def _contrastive_of_distances(d: Array, margin: Array, positive_margin: Array, variant: str) -> tuple[Array, Array]:
    too_far, too_close = jax.nn.relu(d - positive_margin), jax.nn.relu(margin - d)
    if variant == "linear":
        return too_far, too_close
    return too_far**2, too_close**2 if variant == "hadsell" else jax.nn.relu(jnp.square(margin) - d**2)


def signal_to_noise_contrastive_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
    zero_mean: ArrayLike | None = None,
    normalize: bool = True,
    **options: Unpack[ReferenceOptions],
) -> Scalar:
    """Compute the contrastive loss of signal-to-noise distances, where the signal is the anchor.

        d(x, y) = var(x - y) / var(x)    positive pairs: max(0, d - positive_margin)    negative: max(0, margin - d)

    The variance is over the features of one row. Adding a constant to a row does not change it, so the paper adds a
    regularizer that keeps the mean of the features of each row at zero:

        zero_mean * mean over rows of |sum over features of x|

    Args:
        margin: Negative pairs farther apart than this have zero loss.
        positive_margin: Positive pairs closer than this have zero loss.
        zero_mean: Weight of the regularizer of the embeddings as given, at least 0. Default: no regularizer.
        normalize: Scale rows to unit length first.
        **options: See `ReferenceOptions`. Default reducer: "mean_active".

    Differs from pytorch-metric-learning: A row with equal features has no signal, so its distances are infinite. Such
    pairs make the loss infinite or NaN there, and are not valid here.

    Example:
        >>> x, labels = jnp.array([[-1.0, 1.0], [-1.0, 2.0]]), jnp.array([0, 0])
        >>> loss = signal_to_noise_contrastive_loss(x, labels, normalize=False)
        >>> print(round(float(loss), 4))  # mean of the distances 1 / 4 and 1 / 9
        0.1806
    """
    check_at_least("margin", margin, 0)
    check_at_least("positive_margin", positive_margin, 0)
    check_at_least("zero_mean", zero_mean, 0)
    defaults = {"measure": "signal_to_noise", "reducer": "mean_active"}
    resolved = resolve_options(signal_to_noise_contrastive_loss, options, accepted=ReferenceOptions, **defaults)
    x = as_float_array("embeddings", embeddings)
    penalty = {}
    if zero_mean is not None:
        penalty = {"penalty": zero_mean * absolute(jnp.sum(promote_to_float32(x), axis=-1))}
    if normalize:
        x, resolved = unit_vectors(x), resolved.with_unit_vectors()
    margins = {"margin": margin, "positive_margin": positive_margin}
    return compute_pair_loss(_signal_to_noise_terms, x, labels, resolved, row_parameters=penalty, **margins)


def _signal_to_noise_terms(
    scores: Array,
    positive: Array,
    negative: Array,
    *,
    margin: Array,
    positive_margin: Array,
    penalty: Array | None = None,
) -> Terms:
    positive_terms, negative_terms = _contrastive_of_distances(-scores, margin, positive_margin, "linear")
    finite = scores > -jnp.inf
    terms: dict[str, Any] = {
        "positive": (positive_terms, positive & finite),
        "negative": (negative_terms, negative & finite),
    }
    if penalty is not None:
        one = jnp.ones(scores.shape[0], jnp.int32)
        terms["penalty"] = RowSums(penalty[:, 0], one, one)
    return terms


def threshold_consistent_margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    positive_margin: ArrayLike = 0.9,
    negative_margin: ArrayLike = 0.5,
    positive_weight: ArrayLike = 1.0,
    negative_weight: ArrayLike = 1.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Move pairs on the wrong side of a threshold towards it, so that one threshold suits every class.

        positive_weight * mean over positive pairs with s <= positive_margin of (positive_margin - s)
        + negative_weight * mean over negative pairs with s >= negative_margin of (s - negative_margin)

    Added to another loss, it is a regularizer: the other loss ranks pairs, and this loss calibrates the threshold.

    Args:
        positive_margin, negative_margin: Thresholds of the two kinds of pairs, in units of the measure.
        positive_weight, negative_weight: Weights of the two kinds of pairs, at least 0.

    Differs from pytorch-metric-learning, which indexes the embeddings instead of the reference embeddings.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> loss = threshold_consistent_margin_loss(x, jnp.array([0, 0, 1]))
        >>> print(round(float(loss), 4))  # (0.9 - 0.6) of the positive pair + (0.8 - 0.5) of a negative pair
        0.6
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    check_at_least("positive_weight", positive_weight, 0)
    check_at_least("negative_weight", negative_weight, 0)
    resolved = resolve_options(threshold_consistent_margin_loss, options)
    margins = resolved.as_score(positive_margin), resolved.as_score(negative_margin)
    parameters = {"margins": margins, "pair_weights": (positive_weight, negative_weight)}
    return compute_pair_loss(_threshold_terms, embeddings, labels, resolved, **parameters)


def _threshold_terms(
    scores: Array, positive: Array, negative: Array, *, margins: tuple[Array, Array], pair_weights: tuple[Array, Array]
) -> Terms:
    (positive_margin, negative_margin), (positive_weight, negative_weight) = margins, pair_weights
    too_far, too_close = positive_margin - scores, scores - negative_margin
    return {
        "positive": (positive_weight * too_far, positive & (too_far >= 0)),
        "negative": (negative_weight * too_close, negative & (too_close >= 0)),
    }


def intra_pair_variance_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    positive_eps: ArrayLike = 0.01,
    negative_eps: ArrayLike = 0.01,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Move positive pairs towards the mean of positives, and negative pairs towards the mean of negatives.

        positive pair: max(0, (1 - positive_eps) mean+ - s)^2    negative pair: max(0, s - (1 + negative_eps) mean-)^2

    s is a similarity; for a distance the sides are exchanged. mean+ and mean- are the means over all positive and over
    all negative pairs of the batch, and gradients flow through them. They are computed before the loss, so the
    similarity matrix is computed twice. Pairs at an infinite distance are ignored. The result is the mean over the
    positive pairs plus the mean over the negative pairs, to be added to another pair loss as a regularizer.

    Args:
        positive_eps, negative_eps: Tolerances as fractions of mean+ and mean-, at least 0.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = intra_pair_variance_loss(x, jnp.array([0, 0, 0]), positive_eps=0.0)
        >>> print(round(float(loss), 4))  # the cosines are 1, 0 and 0; two thirds of (1 / 3)^2
        0.0741
    """
    check_at_least("positive_eps", positive_eps, 0)
    check_at_least("negative_eps", negative_eps, 0)
    resolved = resolve_options(intra_pair_variance_loss, options)
    x, y, relation = rows_and_relation(embeddings, labels, resolved.ref_embeddings, resolved.ref_labels)
    measure = resolved.measure
    function = Partial(_sums_and_counts, relation, measure)
    sums = reduce_rows(function, x, y, measure=measure, block_size=resolved.block_size)
    positive_mean, negative_mean = (jnp.sum(total) / jnp.maximum(jnp.sum(count), 1) for total, count in sums)
    sign = resolved.as_score(1.0)  # the mean score of a distance is negative
    lowest = (1 - sign * jnp.asarray(positive_eps)) * positive_mean
    highest = (1 + sign * jnp.asarray(negative_eps)) * negative_mean
    resolved = dataclasses.replace(resolved, ref_labels=None)
    return compute_pair_loss(_intra_pair_variance_terms, x, relation, resolved, lowest=lowest, highest=highest)


def _sums_and_counts(
    relation: Relation, measure: Measure, tile: Array, i: Array, j: Array
) -> tuple[tuple[Array, Array], ...]:
    """Return the sum and number of the finite scores of each row, for its positives and for its negatives.

    The tile [r, m] has values of the measure, of the row indices i [r, 1] and the column indices j [1, m].
    """
    scores = promote_to_float32(measure.as_score(tile))
    finite = [mask & ~jnp.isinf(scores) for mask in relation.masks(i, j)]
    return tuple(
        (jnp.sum(jnp.where(mask, scores, 0), axis=1), jnp.sum(mask, axis=1, dtype=scores.dtype)) for mask in finite
    )


def _intra_pair_variance_terms(
    scores: Array, positive: Array, negative: Array, *, lowest: Array, highest: Array
) -> Terms:
    finite = jnp.isfinite(scores)
    return {
        "positive": (square(jax.nn.relu(lowest - scores)), positive & finite),
        "negative": (square(jax.nn.relu(scores - highest)), negative & finite),
    }
