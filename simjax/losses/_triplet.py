"""Losses over triplets of an anchor, a positive and a negative.

    triplet margin         the positive should be closer than the negative, by a margin
    dynamic soft margin    the same, with weights that grow with the rank of a triplet among recent ones
    angular                the angle at the negative should be small

A row of the similarity matrix is an anchor. A batch of n holds up to n^3 triplets, which are never stored: a loop takes
a few positives of each row at a time, and adds their terms with all negatives.
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
    check_between,
    check_fraction,
    check_positive,
    dot_products,
    promote_to_float32,
    replace_non_finite_rows,
)
from simjax.losses._options import Labels, PairOptions, ReferenceOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, log_sum_exp, softplus
from simjax.losses._terms import RowSums
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import fold_positives, sum_over_positives, take_columns
from simjax.similarity import Measure, reduce_rows, unit_vectors


class HistogramOptions(TypedDict, total=False):
    """Options of `dynamic_soft_margin_histogram`: those of `PairOptions` without `weights` and `reducer`."""

    ref_embeddings: Num[ArrayLike, "m d"] | None
    ref_labels: Integer[ArrayLike, " m"] | None
    measure: str | Measure | None
    block_size: int | None


def triplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    margin: ArrayLike = 0.05,
    swap: bool = False,
    smooth: bool = False,
    **options: Unpack[PairOptions],
) -> Float[Array, ""]:
    """Compute the triplet loss over all triplets (a, p, n) of a batch, in time n m for each positive of a row.

        max(0, d(a, p) - d(a, n) + margin)

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`; a mined one selects the triplets, for instance
            `mining.semi_hard(embeddings, labels)`.
        margin: In units of the measure.
        swap: Replace d(a, n) by min(d(a, n), d(p, n)), in time n m d for each positive of a row.
        smooth: Replace max(0, x) by log(1 + exp(x)).
        **options: See `PairOptions`; the reducer must be a name. Default measure: normalized_euclidean. Default
            reducer: "mean_active".

    Returns:
        Mean over the triplets with a loss above 0; 0 with zero gradient if there are none.

    Raises:
        InputError: For shapes that do not match, an unknown measure or reducer.

    Example:
        A positive pair at distance 1, with negatives at distances 3 and 2: only margins above 1 are violated.

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> for margin in (1.0, 2.0):
        ...     print(triplet_margin_loss(x, labels, margin=margin, measure="euclidean"))
        0.0
        1.0

    References:
        Schroff, Kalenichenko, Philbin (2015), FaceNet. Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss.
        Balntas, Riba, Ponsa, Mikolajczyk (2016), Learning Local Feature Descriptors with Triplets (swap).
    """
    check_at_least("margin", margin, 0)
    resolved = resolve_options(triplet_margin_loss, options, measure="normalized_euclidean", reducer="mean_active")
    return compute_pair_loss(
        _triplet_margin_terms,
        embeddings,
        labels,
        resolved,
        static=(smooth,),
        column_parameters={"columns": _columns(embeddings, resolved)} if swap else None,
        triplets=True,
        chunk_size=2,
        margin=margin,
        measure=resolved.measure,
    )


def _columns(embeddings: ArrayLike, options: ResolvedOptions) -> Array:
    return as_float_array("embeddings", embeddings) if options.ref_embeddings is None else options.ref_embeddings


def _triplet_margin_terms(
    scores: Array,
    positive: Array,
    negatives_of: Partial,
    smooth: bool,
    *,
    margin: Array,
    measure: Measure,
    columns: Array | None = None,
) -> Terms:
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    total, above_zero, count = sum_over_positives(
        partial(_triplet_margin_of_positives, smooth),
        (zeros, zeros, zeros),
        positive,
        (negatives_of,),
        scores,
        jnp.asarray(margin),
        columns,
        measure,
    )
    return {"triplet": RowSums(total, above_zero.astype(jnp.int32), count.astype(jnp.int32))}


def _triplet_margin_of_positives(
    smooth: bool,
    indices: Array,
    is_valid: Array,
    negatives_of: Partial,
    scores: Array,
    margin: Array,
    columns: Array | None,
    measure: Measure,
) -> tuple[Array, ...]:
    """Return the sum of the terms of some positives of each row [r, k], and the numbers of those above 0 and of all."""
    closest = scores[:, None]
    if columns is not None:  # swap
        of_positives = measure.as_score(measure.all_pairs(columns[indices.reshape(-1)], columns))
        of_positives = promote_to_float32(of_positives).reshape(*indices.shape, -1)
        closest = jnp.where(closest >= of_positives, closest, of_positives)
    hinge = softplus if smooth else jax.nn.relu
    negative = negatives_of(indices)
    terms = jnp.where(negative, hinge(closest - take_columns(scores, indices) + margin), 0)
    sums = [jnp.sum(values, axis=2, dtype=scores.dtype) for values in (terms, terms > 0, negative)]
    return tuple(jnp.sum(jnp.where(is_valid, value, 0), axis=1) for value in sums)


def dynamic_soft_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    histogram: Num[ArrayLike, " bins"] | None = None,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    **options: Unpack[PairOptions],
) -> Float[Array, ""]:
    """Compute a triplet loss whose weights grow from 0 for the easiest recent triplets to 1 for the hardest.

        loss = mean over all triplets of F(x) x,    x = d(a, p) - d(a, n)

    F is the cumulative share of a histogram of x, a constant for the gradient, so there is no margin to choose. The
    caller stores the histogram, like the state of an optimizer:

        histogram = dynamic_soft_margin_histogram(embeddings, labels, previous=histogram)
        loss = dynamic_soft_margin_loss(embeddings, labels, histogram=histogram)

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`.
        histogram: From `dynamic_soft_margin_histogram`, [bins]. Default: that of this batch.
        bins: Number of bins of the histogram of this batch; ignored if a histogram is given.
        spread: x is between -spread and spread.
        **options: See `PairOptions`; the reducer must be a name other than "mean_active". Default measure:
            normalized_euclidean.

    Returns:
        Mean over all triplets, below 0 if most positives are closer than the negatives; 0 if there are none.

    Raises:
        InputError: For shapes that do not match, less than one bin, or a spread that is not positive.

    Differs from pytorch-metric-learning, whose first value equals this one with `histogram=None`. There the gradient
    includes that of the histogram, which is a constant in the paper, so the backward pass of a second step fails. Its
    variant without labels, where each pair has its nearest negative, is missing here.

    Example:
        Two triplets, x = -2 and -1. Of bins at -5, -2.5, 0 and 2.5 the second gets a share of 0.6, the third 0.4:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> loss = dynamic_soft_margin_loss(x, labels, measure="euclidean", spread=5.0, bins=4)
        >>> print(round(float(loss), 4))  # 0.6 (-2 - 1) / 2
        -0.9

    References:
        Zhang, Rusinkiewicz (2019), Learning Local Descriptors with a CDF-Based Dynamic Soft Margin.
    """
    resolved = resolve_options(dynamic_soft_margin_loss, options, measure="normalized_euclidean")
    if histogram is None:
        histogram = _update_histogram(embeddings, labels, resolved, None, 1.0, bins, spread)
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
    """Compute the histogram of x = d(a, p) - d(a, n) of the triplets of a batch, averaged with earlier batches.

    Bin k is at -spread + 2 k spread / bins. An x between two bins is shared between them linearly, and one beyond the
    last bin is counted there.

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`.
        previous: Histogram of earlier batches, [bins]. Default: zeros, for none.
        momentum: Weight of this batch if there were others, from 0 to 1.
        bins: Number of bins if `previous` is not given.
        spread: x is between -spread and spread.
        **options: See `HistogramOptions`. Default measure: normalized_euclidean.

    Returns:
        [bins] with the sum 1, a constant for the gradient; `previous` if the batch has no triplet.

    Raises:
        InputError: For shapes that do not match, less than one bin, a spread that is not positive, or a momentum
            outside of [0, 1].

    Differs from pytorch-metric-learning, where the momentum weights the numbers of triplets, so that after a batch of
    10,000 the earlier batches have 1% and not 99%.

    Example:
        Two triplets, x = -1 and x = -2, and bins at -4, -2, 0 and 2:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(dynamic_soft_margin_histogram(x, labels, measure="euclidean", spread=4.0, bins=4))
        [0.   0.75 0.25 0.  ]
    """
    resolved = resolve_options(
        dynamic_soft_margin_histogram, options, accepted=HistogramOptions, measure="normalized_euclidean"
    )
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
    before = jnp.zeros(bins) if previous is None else promote_to_float32(as_float_array("previous", previous))
    return _average_histograms(x, y, relation, options.measure, before, momentum, spread, block_size=options.block_size)


@partial(jax.jit, static_argnames="block_size")
def _average_histograms(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    before: Array,
    momentum: Array,
    spread: Array,
    *,
    block_size: int | None,
) -> Array:
    x, y, measure, spread = lax.stop_gradient((x, y, measure, spread))
    function = Partial(partial(_histogram_of_rows, len(before)), relation, measure, spread)
    counts = jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0)
    total = jnp.sum(counts)
    share = jnp.where(jnp.sum(before) > 0, momentum, 1.0)
    averaged = (1 - share) * before + share * counts / jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, before, averaged)


def _histogram_of_rows(
    bins: int, relation: Relation, measure: Measure, spread: Array, tile: Array, i: Array, j: Array
) -> Array:
    scores = promote_to_float32(measure.as_score(tile))
    positive, negative = relation.masks(i, j)
    numbers = jnp.arange(bins, dtype=scores.dtype)

    def add(histogram: Array, index: Array, is_valid: Array) -> Array:
        position = _position(scores - take_columns(scores, index)[:, 0], spread, bins)
        shares = lax.map(
            lambda k: jnp.sum(jnp.where(negative, jax.nn.relu(1 - jnp.abs(position - k)), 0), axis=1), numbers
        )
        return histogram + jnp.where(is_valid, shares.T, 0)

    return fold_positives(add, jnp.zeros((scores.shape[0], bins), scores.dtype), positive)


def _dynamic_soft_margin_terms(
    scores: Array, positive: Array, negative: Array, *, histogram: Array, spread: Array
) -> Terms:
    constant, spread, cumulative = lax.stop_gradient((scores, spread, jnp.cumsum(histogram)))
    columns = jnp.arange(scores.shape[1], dtype=jnp.int32)[None]

    def add(coefficient: Array, index: Array, is_valid: Array) -> Array:
        position = _position(constant - take_columns(constant, index)[:, 0], spread, len(cumulative))
        weight = jnp.where(negative & is_valid, cumulative[jnp.floor(position).astype(jnp.int32)], 0)
        return coefficient + weight - jnp.where(columns == index, jnp.sum(weight, axis=1, keepdims=True), 0)

    coefficient = fold_positives(add, jnp.zeros_like(constant), positive)
    count = jnp.sum(positive, axis=1, dtype=jnp.int32) * jnp.sum(negative, axis=1, dtype=jnp.int32)
    return {"triplet": RowSums(jnp.sum(coefficient * scores, axis=1), None, count)}


def _position(x: Array, spread: Array, bins: int) -> Array:
    """Return the position of x among the bins, from 0 to bins - 1."""
    return jnp.clip((x + spread) / (2 * spread / bins), 0, bins - 1)


def angular_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    alpha: ArrayLike = 40.0,
    **options: Unpack[ReferenceOptions],
) -> Float[Array, ""]:
    """Bound the angle at a negative n of the triangle with an anchor a and a positive p, one term for each pair (a, p).

        loss_ap = log(1 + sum over negatives n of exp(4 tan^2(alpha) (a + p) . n - 2 (1 + tan^2(alpha)) a . p))

    For unit vectors, the exponent is negative if the angle is below alpha. Time is that of a few matrix products. From
    an angle of 63 degrees on (80 in float64), where the exponentials do not fit the dtype, time is n m d for each
    positive of a row.

    Args:
        embeddings: [n, d]; scaled to unit length.
        labels: Class ids [n] or a `Relation`.
        alpha: Largest angle at a negative, in degrees, between 0 and 90.
        **options: See `ReferenceOptions`; the reducer must be a name. Reference rows are scaled to unit length.

    Returns:
        Mean over the positive pairs, in both directions; 0 if there are none.

    Raises:
        InputError: For shapes that do not match, or an alpha that is not between 0 and 90.

    Differs from pytorch-metric-learning, which does not scale negatives; the bound is one of the angle only for unit
    vectors. For those both are equal.

    Example:
        A negative at a right angle to an anchor and its positive, which are equal; tan^2 of 45 degrees is 1:

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(angular_loss(x, jnp.array([0, 0, 1]), alpha=45.0)), 4))  # log(1 + exp(-4))
        0.0181

    References:
        Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss.
    """
    check_between("alpha", alpha, 0.0, 90.0)
    resolved = resolve_options(angular_loss, options, accepted=ReferenceOptions)
    columns = {"columns": _columns(embeddings, resolved)}
    return compute_pair_loss(_angular_terms, embeddings, labels, resolved, column_parameters=columns, alpha=alpha)


def _angular_terms(scores: Array, positive: Array, negative: Array, *, columns: Array, alpha: Array) -> Terms:
    y = unit_vectors(replace_non_finite_rows(promote_to_float32(columns))[0])
    tangent = jnp.square(jnp.tan(jnp.deg2rad(alpha)))
    # Cosines are at least -1, so no product of exponentials is smaller than exp(-16 tangent); derivatives divide by
    # their sum, so a quarter of the exponents of the dtype stays free. Products of matrices take a third of the time of
    # sums for 32 classes of 32 rows (measured at 1,024 x 128).
    fits = 16 * tangent < -0.75 * jnp.log(jnp.finfo(scores.dtype).tiny)
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    arguments = ((zeros, zeros), scores, positive, negative, y, tangent)
    total, above_zero = lax.cond(fits, _angular_by_products, _angular_by_sums, *arguments)
    count = jnp.sum(positive, axis=1, dtype=jnp.int32)
    return {"positive": RowSums(total, above_zero.astype(jnp.int32), count)}


def _angular_by_products(
    zeros: tuple[Array, Array], scores: Array, positive: Array, negative: Array, y: Array, tangent: Array
) -> tuple[Array, Array]:
    """Return the sum of the terms of each row and the number of those above 0, [r] each.

    exp(a . n + p . n) is exp(a . n) exp(p . n), and the sum of these over n is a product of matrices. The columns with
    a positive in any row of the tile are taken as positives of all rows.
    """
    is_used = jnp.any(positive, axis=0)[None]
    of_anchors = jnp.where(negative, _exponential(scores, tangent), 0)
    constants, arguments = (positive,), (scores, of_anchors, y, tangent)
    return sum_over_positives(_angular_of_columns, zeros, is_used, constants, *arguments, chunk_size=min(scores.shape))


def _angular_of_columns(
    indices: Array, is_valid: Array, positive: Array, scores: Array, of_anchors: Array, y: Array, tangent: Array
) -> tuple[Array, Array]:
    columns = indices[0]
    total = dot_products(of_anchors, _exponential(dot_products(y[columns], y), tangent))  # over negatives, [r, k]
    has_negative = total > 0
    z = jnp.log(jnp.where(has_negative, total, 1)) + 8 * tangent - 2 * (1 + tangent) * scores[:, columns]
    return _sum_softplus(z, positive[:, columns] & is_valid & has_negative)


def _exponential(cosines: Array, tangent: Array) -> Array:
    """Return exp(4 tangent cosines), divided by its largest possible value."""
    return jnp.exp(4 * tangent * (cosines - 1))


def _angular_by_sums(
    zeros: tuple[Array, Array], scores: Array, positive: Array, negative: Array, y: Array, tangent: Array
) -> tuple[Array, Array]:
    """Return the same if the exponentials do not fit the dtype: add exponents first, one positive after another."""
    return sum_over_positives(_angular_of_positives, zeros, positive, (negative,), scores, y, tangent)


def _angular_of_positives(
    indices: Array, is_valid: Array, negative: Array, scores: Array, y: Array, tangent: Array
) -> tuple[Array, Array]:
    (rows, k), m = indices.shape, len(y)
    both = scores[:, None] + dot_products(y[indices.reshape(-1)], y).reshape(rows, k, m)  # (a + p) . n
    z = log_sum_exp(4 * tangent * both.reshape(-1, m), jnp.repeat(negative, k, axis=0)).reshape(rows, k)
    return _sum_softplus(z - 2 * (1 + tangent) * take_columns(scores, indices)[:, :, 0], is_valid)


def _sum_softplus(z: Array, mask: Array) -> tuple[Array, Array]:
    terms = jnp.where(mask, jax.nn.softplus(z), 0)
    return jnp.sum(terms, axis=1), jnp.sum(terms > 0, axis=1, dtype=terms.dtype)
