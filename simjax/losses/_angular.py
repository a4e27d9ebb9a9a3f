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
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_between, dot_products, entries, floats, sum_over_marked, wide
from simjax.losses._pair_loss import log_sum_exp, pair_loss
from simjax.losses._terms import Summed
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

    Memory is a strip, time n m d for each positive of a row.

    Args:
        embeddings: [n, d]; compared at unit length.
        labels: class ids [n] or a `Relation`; any will do.
        alpha: the largest angle at a negative, in degrees, between 0 and 90.
        ref_embeddings: positives and negatives, [m, d], at unit length; None is the embeddings, a row never with
            itself.
        **options: ref_labels, weights, reducer (a name), block: see `pair_loss`.

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
        copies=12,
        columns=floats("embeddings", embeddings if ref_embeddings is None else ref_embeddings),
        alpha=alpha,
        **options,
    )


def _terms(c: Array, positive: Array, negative: Array, *, columns: Array, alpha: Array) -> Any:
    y, tangent = unit_vectors(wide(columns)), jnp.square(jnp.tan(jnp.deg2rad(alpha)))
    used = jnp.any(positive, axis=0)[
        None
    ]  # a column's products with all others serve every row that it is a positive of
    given = used, (positive, negative), c, y, tangent
    total, above_zero = sum_over_marked(_of_columns, _nothing(c), *given, few=min(c.shape))
    return {"positive": Summed(total, above_zero.astype(jnp.int32), jnp.sum(positive, axis=1, dtype=jnp.int32))}


def _nothing(c: Array) -> tuple[Array, Array]:
    return (jnp.zeros(c.shape[0], c.dtype),) * 2


def _of_columns(
    used: Array, there: Array, positive: Array, negative: Array, c: Array, y: Array, tangent: Array
) -> tuple[Array, Array]:
    """The sum of each row's terms with some of the columns [1, k], and how many are above 0: [r] both."""
    to_positive = dot_products(y[used[0]], y)
    bound = 2 * (1 + tangent) * c[:, used[0]]
    given = positive[:, used[0]] & there, (negative,), c, to_positive, bound, tangent
    return sum_over_marked(_of_pairs, _nothing(c), *given)


def _of_pairs(
    pairs: Array, there: Array, negative: Array, c: Array, to_positive: Array, bound: Array, tangent: Array
) -> tuple[Array, Array]:
    """The same of a few of these pairs of each row [r, few]."""
    (rows, few), m = pairs.shape, c.shape[1]
    z = 4 * tangent * (c[:, None] + to_positive[pairs]) - entries(bound, pairs)
    above = log_sum_exp(z.reshape(rows * few, m), jnp.repeat(negative, few, axis=0))
    term = jnp.where(there, jax.nn.softplus(above).reshape(rows, few), 0)
    return jnp.sum(term, axis=1), jnp.sum(term > 0, axis=1, dtype=term.dtype)
