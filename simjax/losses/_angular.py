"""Angular loss: at a negative, the angle under which it sees an anchor and its positive should be small.

The negative n, and a and p, make a triangle; its angle at n stays below alpha where n is far enough from the middle of
a and p. For unit vectors that is 4 tan^2(alpha) (a + p) . n < 2 (1 + tan^2(alpha)) a . p, softly:

    loss = log(1 + sum over negatives n of exp(4 tan^2(alpha) (a + p) . n - 2 (1 + tan^2(alpha)) a . p))

References:
    Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_float_array, check_between, dot_products, promote_to_float32, replace_non_finite_rows
from simjax.losses._pair_loss import log_sum_exp, pair_loss
from simjax.losses._terms import Summed
from simjax.pairs._triplets import sum_over_positives, take_columns
from simjax.similarity import unit_vectors


def angular_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    alpha: ArrayLike = 40.0,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    **options: Any,
) -> Any:
    """Angular loss: one term for each positive pair, against all negatives of its anchor.

    Memory is a strip. Time is that of a few matrix products, n m d, where the relation has classes: rows are then taken
    class by class, as what a positive has in common with all columns serves every row of its class. Where it has none,
    rows may have as many other positives each; and from an angle of 63 degrees on (80 in float64), at which
    exponentials do not fit the type, time is n m d for each positive.

    Args:
        embeddings: [n, d]; compared at unit length.
        labels: class ids [n] or a `Relation`; any will do.
        alpha: the largest angle at a negative, in degrees, between 0 and 90.
        ref_embeddings: positives and negatives, [m, d], at unit length; None is the embeddings, a row never with
            itself.
        **options: ref_labels, weights, reducer (a name), block_size: see `pair_loss`.

    Returns:
        The mean over the positive pairs, each taken once from each side; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, or an alpha that is not between 0 and 90.

    Differs from pytorch-metric-learning, which leaves negatives at the length they have; the bound above is one of the
    angle for unit vectors only. For those both are the same.

    Example:
        A negative at a right angle to an anchor and its positive, which are equal; 45 degrees make tan^2 1:

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(angular_loss(x, jnp.array([0, 0, 1]), alpha=45.0)), 4))  # log(1 + exp(-4))
        0.0181
    """
    check_between("alpha", alpha, 0.0, 90.0)
    return pair_loss(
        _terms,
        embeddings,
        labels,
        ref_embeddings=ref_embeddings,
        measure="cosine",
        by_column=True,
        by_class=True,
        columns=as_float_array("embeddings", embeddings if ref_embeddings is None else ref_embeddings),
        alpha=alpha,
        **options,
    )


def _terms(c: Array, positive: Array, negative: Array, *, columns: Array, alpha: Array) -> Any:
    y, tangent = (
        unit_vectors(replace_non_finite_rows(promote_to_float32(columns))[0]),
        jnp.square(jnp.tan(jnp.deg2rad(alpha))),
    )
    # Cosines are at least -1, so that no product of exponentials below is smaller than exp(-16 tangent); derivatives
    # divide by their sum, which leaves them a quarter of the exponents of the type.
    fits = 16 * tangent < -0.75 * jnp.log(jnp.finfo(c.dtype).tiny)
    total, above_zero = lax.cond(fits, _of_products, _of_sums, c, positive, negative, y, tangent)
    return {"positive": Summed(total, above_zero.astype(jnp.int32), jnp.sum(positive, axis=1, dtype=jnp.int32))}


def _of_products(c: Array, positive: Array, negative: Array, y: Array, tangent: Array) -> tuple[Array, ...]:
    """Of each row the sum of its terms, and how many are above 0: [r] both.

    exp(a . n + p . n) is exp(a . n) exp(p . n), and the sum over n of such products is a product of matrices.
    """
    used = jnp.any(positive, axis=0)[None]  # what these columns have in common with all serves every row of the strip
    near = jnp.where(negative, _exponential(c, tangent), 0)
    return sum_over_positives(_of_columns, _nothing(c), used, (positive,), c, near, y, tangent, chunk_size=min(c.shape))


def _of_columns(
    used: Array, there: Array, positive: Array, c: Array, near: Array, y: Array, tangent: Array
) -> tuple[Array, ...]:
    """The same of the positive pairs with some columns [1, k]."""
    to_positive = _exponential(dot_products(y[used[0]], y), tangent)
    total = dot_products(near, to_positive)  # over negatives, [r, k]
    any_negative = total > 0
    z = jnp.log(jnp.where(any_negative, total, 1)) + 8 * tangent - 2 * (1 + tangent) * c[:, used[0]]
    return _added(z, positive[:, used[0]] & there & any_negative)


def _exponential(c: Array, tangent: Array) -> Array:
    """exp(4 tangent c), divided by the most that can be."""
    return jnp.exp(4 * tangent * (c - 1))


def _of_sums(c: Array, positive: Array, negative: Array, y: Array, tangent: Array) -> tuple[Array, ...]:
    """The same where exponentials do not fit the type: positives one by one, exponents added up first."""
    return sum_over_positives(_of_positives, _nothing(c), positive, (negative,), c, y, tangent)


def _of_positives(
    columns: Array, there: Array, negative: Array, c: Array, y: Array, tangent: Array
) -> tuple[Array, ...]:
    """The same of a few positives of each row [r, few]."""
    (rows, few), m = columns.shape, len(y)
    to_anchor_and_positive = c[:, None] + dot_products(y[columns.reshape(-1)], y).reshape(rows, few, m)
    z = log_sum_exp(4 * tangent * to_anchor_and_positive.reshape(-1, m), jnp.repeat(negative, few, axis=0))
    return _added(z.reshape(rows, few) - 2 * (1 + tangent) * take_columns(c, columns)[:, :, 0], there)


def _added(z: Array, counts: Array) -> tuple[Array, ...]:
    terms = jnp.where(counts, jax.nn.softplus(z), 0)
    return jnp.sum(terms, axis=1), jnp.sum(terms > 0, axis=1, dtype=terms.dtype)


def _nothing(c: Array) -> tuple[Array, ...]:
    return (jnp.zeros(c.shape[0], c.dtype),) * 2
