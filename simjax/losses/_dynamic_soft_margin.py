"""The dynamic soft margin loss: a triplet loss that weights each triplet by its rank among recent triplets.

A tile is a block of rows of the similarity matrix, with all columns. Scores are larger for closer pairs: a
distance is negated.
"""

from functools import partial
from typing import TypedDict, Unpack

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
)
from simjax.losses._options import Labels, PairOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss
from simjax.losses._terms import RowSums
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import fold_positives, take_columns
from simjax.similarity import Measure, reduce_rows


class HistogramOptions(TypedDict, total=False):
    """Options of `dynamic_soft_margin_histogram`: those of `PairOptions` without `weights` and `reducer`."""

    ref_embeddings: Num[ArrayLike, "m d"] | None
    ref_labels: Integer[ArrayLike, " m"] | None
    measure: str | Measure | None
    block_size: int | None


def dynamic_soft_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    histogram: Num[ArrayLike, " bins"] | None = None,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    **options: Unpack[PairOptions],
) -> Float[Array, ""]:
    """Compute a triplet loss that weights each triplet by the share of recent triplets that are not harder.

        loss = mean over all triplets of F(delta) delta,    delta = d(a, p) - d(a, n)

    F is the empirical CDF of the differences, from a histogram; no gradient flows through it. F takes the place of a
    margin. The caller stores the histogram, like the state of an optimizer:

        histogram = dynamic_soft_margin_histogram(embeddings, labels, previous=histogram)
        loss = dynamic_soft_margin_loss(embeddings, labels, histogram=histogram)

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`.
        histogram: From `dynamic_soft_margin_histogram`, [bins]. Default: the histogram of this batch.
        bins: Number of bins of the histogram of this batch; ignored if a histogram is given.
        spread: Half-width of the histogram; a delta outside of [-spread, spread] is clipped.
        **options: See `PairOptions`; the reducer must be a name other than "mean_active". Default measure:
            normalized_euclidean.

    Returns:
        Mean over all triplets, below 0 if most positives are closer than the negatives; 0 if there are none.

    Raises:
        InputError: For shapes that do not match, fewer than one bin, or a spread that is not positive.

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

    References:
        Zhang, Rusinkiewicz (2019), Learning Local Descriptors with a CDF-Based Dynamic Soft Margin.
    """
    resolved = resolve_options(dynamic_soft_margin_loss, options, measure="normalized_euclidean")
    if histogram is None:
        histogram = _update_histogram(
            embeddings, labels, resolved, previous=None, momentum=1.0, bins=bins, spread=spread
        )
    check_positive("spread", spread)
    return compute_pair_loss(
        _dynamic_soft_margin_terms,
        embeddings,
        labels,
        resolved,
        histogram=promote_to_float32(as_float_array("histogram", histogram)),
        spread=spread,
    )


def dynamic_soft_margin_histogram(
    embeddings: Num[ArrayLike, "n d"],
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
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`.
        previous: Histogram of earlier batches, [bins]. Default: zeros, which stand for no earlier batch.
        momentum: Weight of this batch, from 0 to 1; the first batch has the weight 1.
        bins: Number of bins if `previous` is not given.
        spread: Half-width of the histogram; a delta outside of [-spread, spread] is clipped.
        **options: See `HistogramOptions`. Default measure: normalized_euclidean.

    Returns:
        [bins] with the sum 1, without gradient; `previous` if the batch has no triplet.

    Raises:
        InputError: For shapes that do not match, fewer than one bin, a spread that is not positive, or a momentum
            outside of [0, 1].

    Differs from pytorch-metric-learning, which averages the counts of the batch, not their shares: after a batch of
    10,000 triplets the earlier batches have a weight of 1% instead of 99%.

    Example:
        Two triplets with delta = -1 and -2, and bins at -4, -2, 0 and 2:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(dynamic_soft_margin_histogram(x, labels, measure="euclidean", spread=4.0, bins=4))
        [0.   0.75 0.25 0.  ]
    """
    resolved = resolve_options(
        dynamic_soft_margin_histogram, options, accepted=HistogramOptions, measure="normalized_euclidean"
    )
    return _update_histogram(
        embeddings, labels, resolved, previous=previous, momentum=momentum, bins=bins, spread=spread
    )


def _update_histogram(
    embeddings: ArrayLike,
    labels: Labels,
    options: ResolvedOptions,
    *,
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
    return _average_histograms(
        x, y, relation, options.measure, earlier, momentum, spread, block_size=options.block_size
    )


@partial(jax.jit, static_argnames="block_size")
def _average_histograms(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    earlier: Array,
    momentum: Array,
    spread: Array,
    *,
    block_size: int | None,
) -> Array:
    x, y, measure, spread = lax.stop_gradient((x, y, measure, spread))
    function = Partial(partial(_histogram_of_rows, len(earlier)), relation, measure, spread)
    counts = jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0)
    total = jnp.sum(counts)
    weight = jnp.where(jnp.sum(earlier) > 0, momentum, 1.0)
    averaged = (1 - weight) * earlier + weight * counts / jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, earlier, averaged)


def _histogram_of_rows(
    bins: int, relation: Relation, measure: Measure, spread: Array, tile: Array, i: Array, j: Array
) -> Array:
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
