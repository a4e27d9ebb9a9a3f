"""Margin loss: every positive pair nearer than a boundary, every negative pair farther, by a margin on both sides.

With d a distance and beta the boundary, which may be learned, one for all rows or one for each class:

    positive pair: max(0, d - beta + margin)      negative pair: max(0, beta - d + margin)

Pairs are those of all triplets, so that a positive pair counts once for each negative of its row and a negative pair
once for each positive. No triplet is needed for that, only their number.

References:
    Wu, Manmatha, Smola, Krähenbühl (2017), Sampling Matters in Deep Embedding Learning.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array, check_at_least, check_number, save_for_backward
from simjax.losses._checks import values_of_rows
from simjax.losses._legacy import pair_loss
from simjax.losses._terms import RowSums
from simjax.pairs import Relation
from simjax.pairs._triplets import count_triplets
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    beta: Num[ArrayLike, ""] | Num[ArrayLike, " c"] = 1.2,
    margin: ArrayLike = 0.2,
    nu: ArrayLike | None = None,
    measure: str | Measure = "normalized_euclidean",
    **options: Any,
) -> Any:
    """Margin loss over the pairs of all triplets of a batch.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do for a single boundary.
        beta: the boundary in units of the measure, or one for each class [c], chosen by the row's class; NaN for a
            traced id that is not from 0 to c - 1.
        margin: how far from the boundary pairs should be, in units of the measure.
        nu: weight of a regulariser that keeps a learned boundary small: nu times the mean boundary of the rows that
            have a triplet. None is without.
        measure: a name or a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer (a name), block_size: see `pair_loss`.

    Returns:
        The mean over the pairs with a loss above 0, each as often as it is in a triplet; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, boundaries of classes for a relation without class ids, a known id
            that has none, or a negative nu.

    Differs from pytorch-metric-learning, which adds nu times the sum of class boundaries over all triplets, divided by
    the number of pairs with a loss above 0, so that it weighs more and more as fewer are left. With a single boundary
    both are the same.

    Example:
        Two triplets: their positive pairs at distance 1 lose 0.3, their negative pairs at distances 3 and 2 nothing.

        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(round(float(margin_loss(x, y, beta=0.9, measure="euclidean")), 4))
        0.3
        >>> print(round(float(margin_loss(x, y, beta=0.9, nu=0.5, measure="euclidean")), 4))  # and 0.5 * 0.9
        0.75
    """
    check_at_least("margin", margin, 0)
    check_number("beta", beta)
    m = as_measure(measure)
    boundary = m.as_score(as_float_array("beta", beta))
    if nu is not None:
        check_at_least("nu", nu, 0)
        nu = m.as_score(jnp.asarray(nu))  # as the boundary is turned: their product is not
    if boundary.ndim > 1 or not boundary.size:
        raise InputError(f"beta: expected one number or one for each class [c], got shape {boundary.shape}")
    if boundary.ndim:
        options["row_parameters"] = {"beta": values_of_rows(boundary, labels, "betas")}
    else:
        options["beta"] = boundary
    mined = isinstance(labels, Relation) and labels.triplets is not None
    return pair_loss(
        _of_mined_triplets if mined else _of_all_triplets,
        embeddings,
        labels,
        measure=m,
        default_reducer="mean_active",
        triplets=mined,
        margin=margin,
        nu=nu,
        **options,
    )


def _of_all_triplets(c: Array, positive: Array, negative: Array, **parameters: Any) -> Any:
    positives, negatives = (jnp.sum(pairs, axis=1, keepdims=True, dtype=jnp.int32) for pairs in (positive, negative))
    return _terms(c, positive * negatives, negative * positives, **parameters)


def _of_mined_triplets(c: Array, positive: Array, negatives_of: Any, **parameters: Any) -> Any:
    return _terms(c, *save_for_backward(count_triplets(positive, negatives_of)), **parameters)


def _terms(
    c: Array, as_positive: Array, as_negative: Array, *, beta: Array, margin: Array, nu: Array | None
) -> dict[str, RowSums]:
    """Of how often each pair is the positive and the negative one of a triplet, int32 [r, m]."""
    sides = (jax.nn.relu(margin + beta - c), as_positive), (jax.nn.relu(margin + c - beta), as_negative)
    above_zero = [(loss, jnp.where(~(loss <= 0), times, 0)) for loss, times in sides]
    total = sum(jnp.sum(jnp.where(times > 0, loss * times.astype(c.dtype), 0), axis=1) for loss, times in above_zero)
    number = sum(jnp.sum(times, axis=1) for _, times in above_zero)
    triplets = jnp.sum(as_positive, axis=1)
    found = {"pair": RowSums(jnp.asarray(total), jnp.asarray(number), 2 * triplets)}
    if nu is not None:
        any_triplet = (triplets > 0).astype(jnp.int32)
        found["beta"] = RowSums(any_triplet * (nu * beta).reshape(-1), any_triplet, any_triplet)
    return found
