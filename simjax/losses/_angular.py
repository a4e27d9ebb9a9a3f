"""The angular loss of triplets: the angle at the negative should be small.

A tile is a block of r rows of the similarity matrix with all m columns. Its `Terms` are the sum and the number of the
terms of each row (`RowSums`), in a dict with one name. Triplets are never stored: each iteration of a loop adds the
terms of some positives with all negatives.

References:
    Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss.
"""

import dataclasses
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from simjax.core import auto_axes, check_between, dot_products, promote_to_float32, replace_non_finite_rows, take_rows
from simjax.losses._options import Labels, ReferenceOptions, resolve_options
from simjax.losses._pair_loss import Terms, check_weights, compute_pair_loss, compute_terms, log_sum_exp
from simjax.losses._terms import Embeddings, RowSums, Scalar
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import sum_over_positives, take_columns
from simjax.similarity import unit_vectors


def angular_loss(
    embeddings: Embeddings, labels: Labels, *, alpha: ArrayLike = 40.0, **options: Unpack[ReferenceOptions]
) -> Scalar:
    """Bound the angle at a negative n of the triangle with an anchor a and a positive p, one term for each pair (a, p).

        loss_ap = log(1 + sum over negatives n of exp(4 tan^2(alpha) (a + p) . n - 2 (1 + tan^2(alpha)) a . p))

    For unit vectors, the exponent is negative if the angle is below alpha. Time is that of a few matrix products. If
    alpha is at least 63 degrees (80 in float64), the exponentials would underflow, and time is n m d for each positive
    of a row.

    Args:
        embeddings: [n, d]; scaled to unit length.
        alpha: Largest angle at a negative, in degrees, between 0 and 90.
        **options: See `ReferenceOptions`; the reducer must be a name. Reference rows are scaled to unit length.

    Differs from pytorch-metric-learning, which does not scale negatives. For unit vectors both are equal; for other
    vectors the exponent does not bound the angle.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(angular_loss(x, jnp.array([0, 0, 1]), alpha=45.0)), 4))  # log(1 + exp(-4))
        0.0181
    """
    check_between("alpha", alpha, 0.0, 90.0)
    resolved = resolve_options(angular_loss, options, accepted=ReferenceOptions)
    x, y, relation = rows_and_relation(embeddings, labels, resolved.ref_embeddings, resolved.ref_labels)
    if relation.classes is None:
        columns = {"columns": y}
        return compute_pair_loss(_angular_terms, embeddings, labels, resolved, column_parameters=columns, alpha=alpha)
    # Rows of one class share their positives. If they are sorted by class, the rows of a tile have positives in few
    # columns: a third of the time or less with many classes (large/angular of `python -m benchmarks.losses`).
    order, inverse = _order_by_class(relation.classes[0])
    weights = resolved.weights
    if weights is not None:
        check_weights(weights, len(x))
        weights = take_rows(weights, order)
    x, relation = take_rows(x, order), relation.take_rows(order)
    by_class = dataclasses.replace(resolved, ref_embeddings=y, ref_labels=None, weights=weights)
    terms = compute_terms(_angular_terms, x, relation, by_class, column_parameters={"columns": y}, alpha=alpha)
    return resolved.reduce(*jax.tree.map(lambda a: take_rows(a, inverse), terms).values())


@jax.jit
@auto_axes
def _order_by_class(ids: Array) -> tuple[Array, Array]:
    """Return the permutation [n] that sorts class ids, and the inverse permutation."""
    order = jnp.argsort(ids)
    return order, jnp.argsort(order)


def _angular_terms(scores: Array, positive: Array, negative: Array, *, columns: Array, alpha: Array) -> Terms:
    y = unit_vectors(replace_non_finite_rows(promote_to_float32(columns))[0])
    tangent = jnp.square(jnp.tan(jnp.deg2rad(alpha)))
    # Cosines are at least -1, so no product of exponentials is smaller than exp(-16 tangent). Derivatives divide by the
    # sum of the products, so a quarter of the exponents of the dtype is left as a reserve. Products of matrices take a
    # third of the time of sums for 32 classes of 32 rows (`python -m benchmarks.choices`).
    no_underflow = 16 * tangent < -0.75 * jnp.log(jnp.finfo(scores.dtype).tiny)
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    arguments = ((zeros, zeros), scores, positive, negative, y, tangent)
    total, above_zero = lax.cond(no_underflow, _angular_by_products, _angular_by_sums, *arguments)
    count = jnp.sum(positive, axis=1, dtype=jnp.int32)
    return {"positive": RowSums(total, above_zero.astype(jnp.int32), count)}


def _angular_by_products(
    zeros: tuple[Array, Array], scores: Array, positive: Array, negative: Array, y: Array, tangent: Array
) -> tuple[Array, Array]:
    """Return the sum of the terms of each row and the number of terms above 0, [r] each.

    exp(a . n + p . n) is exp(a . n) exp(p . n), and the sum of these over n is a product of matrices. Columns that are
    a positive of any row of the tile are computed for all rows, and then masked.
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
    """Return the same as `_angular_by_products` without underflow: exponents are added before the exponential."""
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
