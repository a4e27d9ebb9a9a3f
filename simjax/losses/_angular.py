"""The angular loss of triplets: the angle at the negative should be small.

A tile is a block of r rows of the similarity matrix with all m columns; here its entries are cosines. `_angular_terms`
takes a tile and returns, for each row, the sum of its loss terms, the number of terms above 0 and the number of all
terms (`RowSums`). Triplets are never stored: each iteration of a loop adds the terms of some positives, each of which
has a sum over all negatives.

References:
    Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss.
"""

import dataclasses
from typing import Any, Unpack

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
    """Penalize triplets whose angle at the negative exceeds alpha, with one term for each pair (anchor, positive).

    The angle at the negative v of an anchor a and a positive p has the tangent |a - p| / (2 |v - (a + p) / 2|).

        term(a, p) = log(1 + sum over negatives v of exp(4 tan^2(alpha) (a + p) . v - 2 (1 + tan^2(alpha)) a . p))

    For unit vectors, the exponent is |a - p|^2 - 4 tan^2(alpha) |v - (a + p) / 2|^2, which is negative if the angle is
    below alpha, plus the constant 6 tan^2(alpha) - 2.

    The sums over v are matrix products. From 63 degrees on (80 in float64), the exponentials in these products could
    underflow. Each pair (a, p) then has a sum of its own, which takes O(n m d P) time for n rows, m columns and at most
    P positives of a row.

    Args:
        embeddings: [n, d]; scaled to unit length.
        alpha: Largest angle at a negative, in degrees, between 0 and 90.
        **options: See `ReferenceOptions`. A `Reducer` may have no bound but `above=0`. Reference rows are scaled to
            unit length.

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
    # Every tile gets all reference rows, because its terms also compare columns with columns.
    parameters: dict[str, Any] = {"column_parameters": {"reference_rows": y}, "alpha": alpha}
    if relation.classes is None:  # pairs that are not given by class ids
        return compute_pair_loss(_angular_terms, embeddings, labels, resolved, **parameters)
    # Rows of one class share their positives. After sorting by class, the rows of a tile have positives in few columns,
    # which reduces the time to a third or less with many classes (`python -m benchmarks.losses`, case large/angular).
    order, inverse = _order_by_class(relation.classes[0])  # class ids of the rows
    weights = resolved.weights
    if weights is not None:
        check_weights(weights, len(x))
        weights = take_rows(weights, order)
    x, relation = take_rows(x, order), relation.take_rows(order)
    # The relation includes the classes of the columns, so ref_labels must be None.
    sorted_options = dataclasses.replace(resolved, ref_embeddings=y, ref_labels=None, weights=weights)
    terms = compute_terms(_angular_terms, x, relation, sorted_options, **parameters)
    return resolved.reduce(*jax.tree.map(lambda a: take_rows(a, inverse), terms).values())


@jax.jit
@auto_axes
def _order_by_class(ids: Array) -> tuple[Array, Array]:
    """Return the permutation [n] that sorts class ids, and the inverse permutation."""
    order = jnp.argsort(ids)
    return order, jnp.argsort(order)


def _angular_terms(cosines: Array, positive: Array, negative: Array, *, reference_rows: Array, alpha: Array) -> Terms:
    """Sum the terms of each row of a tile [r, m]; `reference_rows` [m, d] are not yet scaled to unit length."""
    y = unit_vectors(replace_non_finite_rows(promote_to_float32(reference_rows))[0])
    tan_squared = jnp.square(jnp.tan(jnp.deg2rad(alpha)))
    # Cosines are at least -1, so a product of two results of `_exponential` is at least exp(-16 tan_squared). A quarter
    # of the exponent range of the dtype is left as a reserve, because derivatives divide by sums of these products.
    # `_angular_by_products` takes a third of the time for 32 classes of 32 rows (`python -m benchmarks.choices`).
    no_underflow = 16 * tan_squared < -0.75 * jnp.log(jnp.finfo(cosines.dtype).tiny)
    zeros = jnp.zeros(cosines.shape[0], cosines.dtype)
    arguments = ((zeros, zeros), cosines, positive, negative, y, tan_squared)
    total, above_zero = lax.cond(no_underflow, _angular_by_products, _angular_by_sums, *arguments)
    count = jnp.sum(positive, axis=1, dtype=jnp.int32)
    return {"positive": RowSums(total, above_zero.astype(jnp.int32), count)}


def _angular_by_products(
    zeros: tuple[Array, Array], cosines: Array, positive: Array, negative: Array, y: Array, tan_squared: Array
) -> tuple[Array, Array]:
    """Return the sum of the terms of each row and the number of terms above 0, [r] each.

    exp(a . v + p . v) is exp(a . v) exp(p . v), and the sum of these over v is a product of matrices. Columns that are
    a positive of any row of the tile are computed for all rows, and then masked.
    """
    is_used = jnp.any(positive, axis=0)[None]  # [1, m]: the loop treats the used columns as positives of a single row
    exp_anchors = jnp.where(negative, _exponential(cosines, tan_squared), 0)
    constants, arguments = (positive,), (cosines, exp_anchors, y, tan_squared)
    chunk_size = min(cosines.shape)  # at most r columns per iteration, so that its arrays are no larger than the tile
    return sum_over_positives(_angular_of_columns, zeros, is_used, constants, *arguments, chunk_size=chunk_size)


def _angular_of_columns(
    indices: Array, is_valid: Array, positive: Array, cosines: Array, exp_anchors: Array, y: Array, tan_squared: Array
) -> tuple[Array, Array]:
    """Return the sums of `_angular_by_products` over k columns: their indices and whether they exist, [1, k] each."""
    columns = indices[0]
    exp_positives = _exponential(dot_products(y[columns], y), tan_squared)  # [k, m]
    total = dot_products(exp_anchors, exp_positives)  # over negatives, [r, k]
    has_negative = total > 0
    # 8 tan_squared restores the logarithm of the divisors of both exponentials.
    log_sum = jnp.log(jnp.where(has_negative, total, 1)) + 8 * tan_squared
    z = log_sum - 2 * (1 + tan_squared) * cosines[:, columns]
    return _sum_softplus(z, positive[:, columns] & is_valid & has_negative)


def _exponential(cosines: Array, tan_squared: Array) -> Array:
    """Return exp(4 tan_squared cosines), divided by its largest possible value exp(4 tan_squared)."""
    return jnp.exp(4 * tan_squared * (cosines - 1))


def _angular_by_sums(
    zeros: tuple[Array, Array], cosines: Array, positive: Array, negative: Array, y: Array, tan_squared: Array
) -> tuple[Array, Array]:
    """Return the same as `_angular_by_products` without underflow: exponents are added before the exponential."""
    return sum_over_positives(_angular_of_positives, zeros, positive, (negative,), cosines, y, tan_squared)


def _angular_of_positives(
    indices: Array, is_valid: Array, negative: Array, cosines: Array, y: Array, tan_squared: Array
) -> tuple[Array, Array]:
    """Return the sums of `_angular_by_sums` over k positives of each row: their columns and whether they exist."""
    (r, k), m = indices.shape, len(y)
    sums = cosines[:, None] + dot_products(y[indices.reshape(-1)], y).reshape(r, k, m)  # (a + p) . v
    log_sum = log_sum_exp(4 * tan_squared * sums.reshape(-1, m), jnp.repeat(negative, k, axis=0)).reshape(r, k)
    return _sum_softplus(log_sum - 2 * (1 + tan_squared) * take_columns(cosines, indices)[:, :, 0], is_valid)


def _sum_softplus(z: Array, mask: Array) -> tuple[Array, Array]:
    """Return the sum of log(1 + exp(z)) over the masked entries of each row, and the number of these above 0."""
    terms = jnp.where(mask, jax.nn.softplus(z), 0)
    # The number is a float, because `sum_over_positives` sums only floats.
    return jnp.sum(terms, axis=1), jnp.sum(terms > 0, axis=1, dtype=terms.dtype)
