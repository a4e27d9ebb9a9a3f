"""Losses over triplets of an anchor, a positive and a negative.

    triplet margin    the positive should be closer than the negative, by a margin
    angular           the angle at the negative should be small

A row of the similarity matrix is an anchor. A tile is a block of its rows, with all columns. Scores are larger for
closer pairs: a distance is negated. A batch of n has up to n^3 triplets, which are never stored: each iteration of a
loop adds the terms of a few positives of each row with all negatives.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import (
    as_float_array,
    check_at_least,
    check_between,
    dot_products,
    promote_to_float32,
    replace_non_finite_rows,
)
from simjax.losses._options import Labels, PairOptions, ReferenceOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, log_sum_exp, softplus
from simjax.losses._terms import RowSums
from simjax.pairs._triplets import sum_over_positives, take_columns
from simjax.similarity import Measure, unit_vectors


def triplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    margin: ArrayLike = 0.05,
    swap: bool = False,
    smooth: bool = False,
    **options: Unpack[PairOptions],
) -> Float[Array, ""]:
    """Compute the triplet loss over all triplets (a, p, n) of a batch.

        max(0, d(a, p) - d(a, n) + margin)

    Time is n m for each positive of a row.

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`; a mined relation selects the triplets, for instance
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
    """Return the sum of the terms of positives [r, k], the number of terms above 0, and the number of terms, [r]."""
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


def angular_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    alpha: ArrayLike = 40.0,
    **options: Unpack[ReferenceOptions],
) -> Float[Array, ""]:
    """Bound the angle at a negative n of the triangle with an anchor a and a positive p, one term for each pair (a, p).

        loss_ap = log(1 + sum over negatives n of exp(4 tan^2(alpha) (a + p) . n - 2 (1 + tan^2(alpha)) a . p))

    For unit vectors, the exponent is negative if the angle is below alpha. Time is that of a few matrix products. If
    alpha is at least 63 degrees (80 in float64), the exponentials would underflow, and time is n m d for each positive
    of a row.

    Args:
        embeddings: [n, d]; scaled to unit length.
        labels: Class ids [n] or a `Relation`.
        alpha: Largest angle at a negative, in degrees, between 0 and 90.
        **options: See `ReferenceOptions`; the reducer must be a name. Reference rows are scaled to unit length.

    Returns:
        Mean over the positive pairs, in both directions; 0 if there are none.

    Raises:
        InputError: For shapes that do not match, or an alpha that is not between 0 and 90.

    Differs from pytorch-metric-learning, which does not scale negatives. For unit vectors both are equal; for other
    vectors the exponent does not bound the angle.

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
    # Cosines are at least -1, so no product of exponentials is smaller than exp(-16 tangent). Derivatives divide by the
    # sum of the products, so a quarter of the exponents of the dtype is left as a reserve. Products of matrices take a
    # third of the time of sums for 32 classes of 32 rows (measured at 1,024 x 128).
    no_underflow = 16 * tangent < -0.75 * jnp.log(jnp.finfo(scores.dtype).tiny)
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    arguments = ((zeros, zeros), scores, positive, negative, y, tangent)
    total, above_zero = lax.cond(no_underflow, _angular_by_products, _angular_by_sums, *arguments)
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
    """Return the same as `_angular_by_products` without underflow: add exponents first, one positive at a time."""
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
