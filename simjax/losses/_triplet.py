"""Losses over triplets of an anchor, a positive and a negative.

    triplet margin    the positive should be closer than the negative, by a margin
    dynamic soft      a triplet has a weight instead of a margin: the share of recent triplets that are not harder

A row of the similarity matrix is an anchor. A batch of n has up to n^3 triplets, which are never stored: each iteration
of a loop adds the terms of a few positives of each row with all negatives.

A tile is a block of r rows of the similarity matrix with all m columns. A term function (`_..._terms`) takes a tile and
returns `RowSums`: for each row the sum of its terms, the number of terms above 0 and the number of all terms.

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet. Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss.
    Balntas, Riba, Ponsa, Mikolajczyk (2016), Learning Local Feature Descriptors with Triplets (swap). Zhang,
    Rusinkiewicz (2019), Learning Local Descriptors with a CDF-Based Dynamic Soft Margin (dynamic soft margin).
"""

from functools import partial
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from simjax.core import (
    as_float_array,
    check_at_least,
    check_fraction,
    check_positive,
    promote_to_float32,
    save_for_backward,
)
from simjax.losses._options import Labels, PairOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, softplus
from simjax.losses._terms import Embeddings, RowSums, Scalar
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import count_triplets, fold_positives, sum_over_positives, take_columns
from simjax.similarity import Measure, reduce_rows


def triplet_margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    margin: ArrayLike = 0.05,
    swap: bool = False,
    smooth: bool = False,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute the triplet loss over all triplets (a, p, n) of a batch.

        max(0, d(a, p) - d(a, n) + margin)

    Takes O(n m P) time for n rows, m columns and at most P positives of a row.

    Args:
        labels: Class ids [n] or a `Relation`; a mined relation selects the triplets, for instance
            `mining.semi_hard(embeddings, labels)`.
        margin: In units of the measure, at least 0.
        swap: Replace d(a, n) by min(d(a, n), d(p, n)), in O(n m d P) time.
        smooth: Replace max(0, x) by log(1 + exp(x)).
        **options: See `PairOptions`; a `Reducer` may have no bound but `above=0`. Default measure:
            normalized_euclidean. Default reducer: "mean_active".

    Example:
        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(triplet_margin_loss(x, labels, margin=2.0, measure="euclidean"))  # 1 - 2 + 2; 1 - 3 + 2 is not active
        1.0
    """
    check_at_least("margin", margin, 0)
    resolved = resolve_options(triplet_margin_loss, options, measure="normalized_euclidean", reducer="mean_active")
    if not (swap or smooth):
        return compute_pair_loss(_hinge_terms, embeddings, labels, resolved, triplets=True, chunk_size=2, margin=margin)
    return compute_pair_loss(
        _triplet_margin_terms,
        embeddings,
        labels,
        resolved,
        static=(smooth,),
        column_parameters={"reference_rows": _reference_rows(embeddings, resolved)} if swap else None,
        triplets=True,
        chunk_size=2,
        margin=margin,
        measure=resolved.measure,
    )


def _reference_rows(embeddings: ArrayLike, options: ResolvedOptions) -> Array:
    """Return the reference embeddings [m, d], by default the embeddings."""
    return as_float_array("embeddings", embeddings) if options.ref_embeddings is None else options.ref_embeddings


def _hinge_terms(scores: Array, positive: Array, negatives_of: Partial, *, margin: Array) -> Terms:
    """Sum max(0, score of the negative - score of the positive + margin) over the triplets of each row.

    The sum is linear in the scores: the score of a pair is multiplied by the number of active triplets in which the
    pair is the negative, minus the number in which it is the positive. So the gradient needs no second loop over the
    triplets, which halves the time (`python -m benchmarks.choices`).
    """
    scores_without_gradient = lax.stop_gradient(scores)
    bound = scores_without_gradient + lax.stop_gradient(margin)

    def active(indices: Array) -> Array:
        return negatives_of(indices) & (bound[:, None] > take_columns(scores_without_gradient, indices))

    as_positive, as_negative = count_triplets(positive, active)
    factor = save_for_backward((as_negative - as_positive).astype(scores.dtype))
    above_zero = jnp.sum(as_positive, axis=1)
    total = jnp.sum(jnp.where(factor != 0, factor * scores, 0), axis=1) + margin * above_zero
    count = jnp.sum(count_triplets(positive, negatives_of)[0], axis=1)  # not computed unless the reducer needs it
    return {"triplet": RowSums(total, above_zero, count)}


def _triplet_margin_terms(
    scores: Array, positive: Array, negatives_of: Partial, smooth: bool, **parameters: Any
) -> Terms:
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    function = partial(_triplet_margin_of_positives, smooth)
    sums = sum_over_positives(function, (zeros, zeros, zeros), positive, (negatives_of,), scores, parameters)
    total, above_zero, count = sums
    return {"triplet": RowSums(total, above_zero.astype(jnp.int32), count.astype(jnp.int32))}


def _triplet_margin_of_positives(
    smooth: bool, indices: Array, is_valid: Array, negatives_of: Partial, scores: Array, parameters: dict[str, Any]
) -> tuple[Array, ...]:
    """Return the sum of the terms of positives `indices` [r, k], the number above 0, and the number of terms, [r]."""
    margin, measure, reference_rows = parameters["margin"], parameters["measure"], parameters.get("reference_rows")
    closest = scores[:, None]
    if reference_rows is not None:  # given for `swap`
        positive_rows = reference_rows[indices.reshape(-1)]
        positive_scores = promote_to_float32(measure.as_score(measure.all_pairs(positive_rows, reference_rows)))
        positive_scores = positive_scores.reshape(*indices.shape, -1)
        closest = jnp.where(closest >= positive_scores, closest, positive_scores)
    hinge = softplus if smooth else jax.nn.relu
    negative = negatives_of(indices)
    terms = jnp.where(negative, hinge(closest - take_columns(scores, indices) + margin), 0)
    sums = [jnp.sum(values, axis=2, dtype=scores.dtype) for values in (terms, terms > 0, negative)]
    return tuple(jnp.sum(jnp.where(is_valid, value, 0), axis=1) for value in sums)


class HistogramOptions(TypedDict, total=False):
    """Options of `dynamic_soft_margin_histogram`: those of `PairOptions` without `weights` and `reducer`."""

    ref_embeddings: Num[ArrayLike, "m d"] | None
    ref_labels: Integer[ArrayLike, " m"] | None
    measure: str | Measure | None
    block_size: int | None


def dynamic_soft_margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    histogram: Num[ArrayLike, " bins"] | None = None,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute a triplet loss that weights each triplet by the share of recent triplets that are not harder.

        loss = mean over all triplets of F(delta) delta,    delta = d(a, p) - d(a, n)

    The loss is below 0 if most positives are closer than the negatives. F is the empirical CDF of the differences, from
    a histogram; no gradient flows through F, which takes the place of a margin. The caller stores the histogram, like
    the state of an optimizer:

        histogram = dynamic_soft_margin_histogram(embeddings, labels, previous=histogram)
        loss = dynamic_soft_margin_loss(embeddings, labels, histogram=histogram)

    Args:
        histogram: From `dynamic_soft_margin_histogram`, [bins]. Default: the histogram of this batch.
        bins: Number of bins of the histogram of this batch, at least 1; ignored if a histogram is given.
        spread: Half-width of the histogram, above 0; a delta outside of [-spread, spread] is clipped.
        **options: See `PairOptions`; the reducer must not have bounds, as "mean_active" has. Default measure:
            normalized_euclidean.

    Differs from pytorch-metric-learning, which gives the same value in the first step (`histogram=None`). It also
    backpropagates through the stored histogram, which the paper treats as constant, so a second backward pass raises an
    error. Its variant without labels, which compares each positive pair with its nearest negative, is not implemented
    here.

    Example:
        Two triplets have delta = -2 and -1. The bins are at -5, -2.5, 0 and 2.5; the histogram is [0, 0.6, 0.4, 0], and
        both triplets have the weight F = 0 + 0.6:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> loss = dynamic_soft_margin_loss(x, labels, measure="euclidean", spread=5.0, bins=4)
        >>> print(round(float(loss), 4))  # mean of 0.6 * -2 and 0.6 * -1
        -0.9
    """
    resolved = resolve_options(dynamic_soft_margin_loss, options, measure="normalized_euclidean")
    if histogram is None:
        histogram = _update_histogram(embeddings, labels, resolved, None, 1.0, bins, spread)
    check_positive("spread", spread)
    parameters = {"histogram": promote_to_float32(as_float_array("histogram", histogram)), "spread": spread}
    return compute_pair_loss(_dynamic_soft_margin_terms, embeddings, labels, resolved, **parameters)


def dynamic_soft_margin_histogram(
    embeddings: Embeddings,
    labels: Labels,
    *,
    previous: Num[ArrayLike, " bins"] | None = None,
    momentum: ArrayLike = 0.01,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    **options: Unpack[HistogramOptions],
) -> Float[Array, " bins"]:
    """Compute the histogram of delta = d(a, p) - d(a, n) over the triplets of a batch, averaged with earlier batches.

    Bin k is at -spread + 2 k spread / bins. A delta between two bins is shared between them linearly, and a delta
    beyond the first or the last bin is counted in that bin.

    Args:
        previous: Histogram of earlier batches, [bins]. Default: zeros, which stand for no earlier batch.
        momentum: Weight of this batch, from 0 to 1; the first batch has the weight 1.
        bins: Number of bins if `previous` is not given, at least 1.
        spread: Half-width of the histogram, above 0.
        **options: See `HistogramOptions`. Default measure: normalized_euclidean.

    Returns:
        [bins] with the sum 1, without gradient; `previous` if the batch has no triplet.

    Differs from pytorch-metric-learning, which averages the counts of the batch, not their shares: after a batch of
    10,000 triplets the earlier batches have a weight of 1% there, and of 99% here.

    Example:
        Two triplets with delta = -1 and -2, and bins at -4, -2, 0 and 2:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(dynamic_soft_margin_histogram(x, labels, measure="euclidean", spread=4.0, bins=4))
        [0.   0.75 0.25 0.  ]
    """
    defaults = {"accepted": HistogramOptions, "measure": "normalized_euclidean"}
    resolved = resolve_options(dynamic_soft_margin_histogram, options, **defaults)
    return _update_histogram(embeddings, labels, resolved, previous, momentum, bins, spread)


def _update_histogram(
    embeddings: ArrayLike,
    labels: Labels,
    options: ResolvedOptions,
    previous: ArrayLike | None,
    momentum: ArrayLike,
    bins: int,
    spread: ArrayLike,
) -> Array:
    check_at_least("bins", bins, 1)
    check_positive("spread", spread)
    check_fraction("momentum", momentum)
    x, y, relation = rows_and_relation(embeddings, labels, options.ref_embeddings, options.ref_labels)
    earlier = jnp.zeros(bins) if previous is None else promote_to_float32(as_float_array("previous", previous))
    arguments = x, y, relation, options.measure, spread
    return _average_histograms(arguments, earlier, momentum, block_size=options.block_size)


@partial(jax.jit, static_argnames="block_size")
def _average_histograms(
    arguments: tuple[Any, ...], earlier: Array, momentum: Array, *, block_size: int | None
) -> Array:
    x, y, relation, measure, spread = lax.stop_gradient(arguments)
    function = Partial(partial(_histogram_of_rows, len(earlier)), relation, measure, spread)
    counts = jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0)
    total = jnp.sum(counts)
    weight = jnp.where(jnp.sum(earlier) > 0, momentum, 1.0)
    averaged = (1 - weight) * earlier + weight * counts / jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, earlier, averaged)


def _histogram_of_rows(
    bins: int, relation: Relation, measure: Measure, spread: Array, tile: Array, i: Array, j: Array
) -> Array:
    """Return the histogram of delta over the triplets of rows i [r, 1] with columns j [1, m], [r, bins]."""
    scores = promote_to_float32(measure.as_score(tile))
    positive, negative = relation.masks(i, j)
    bin_indices = jnp.arange(bins, dtype=scores.dtype)

    def add_positive(counts: Array, column: Array, valid: Array) -> Array:
        position = _position(scores - take_columns(scores, column)[:, 0], spread, bins)
        counts_of_bins = lax.map(
            lambda k: jnp.sum(jnp.where(negative, jax.nn.relu(1 - jnp.abs(position - k)), 0), axis=1), bin_indices
        )
        return counts + jnp.where(valid, counts_of_bins.T, 0)

    return fold_positives(add_positive, jnp.zeros((scores.shape[0], bins), scores.dtype), positive)


def _dynamic_soft_margin_terms(
    scores: Array, positive: Array, negative: Array, *, histogram: Array, spread: Array
) -> Terms:
    # Scores are negated distances, so delta = d(a, p) - d(a, n) = s(a, n) - s(a, p). The sum of F(delta) delta is
    # therefore linear in the scores, apart from F: F(delta) is added to the coefficient of the negative, and subtracted
    # from the coefficient of the positive. The coefficients have no gradient.
    scores_without_gradient, spread, cdf = lax.stop_gradient((scores, spread, jnp.cumsum(histogram)))
    columns = jnp.arange(scores.shape[1], dtype=jnp.int32)[None]

    def add_positive(coefficients: Array, column: Array, valid: Array) -> Array:
        delta = scores_without_gradient - take_columns(scores_without_gradient, column)[:, 0]
        bin_index = jnp.floor(_position(delta, spread, len(cdf))).astype(jnp.int32)
        weights = jnp.where(negative & valid, cdf[bin_index], 0)
        return coefficients + weights - jnp.where(columns == column, jnp.sum(weights, axis=1, keepdims=True), 0)

    coefficients = fold_positives(add_positive, jnp.zeros_like(scores_without_gradient), positive)
    count = jnp.sum(positive, axis=1, dtype=jnp.int32) * jnp.sum(negative, axis=1, dtype=jnp.int32)
    return {"triplet": RowSums(jnp.sum(coefficients * scores, axis=1), None, count)}


def _position(delta: Array, spread: Array, bins: int) -> Array:
    """Return the fractional bin index of a difference, from 0 to bins - 1."""
    return jnp.clip((delta + spread) / (2 * spread / bins), 0, bins - 1)
