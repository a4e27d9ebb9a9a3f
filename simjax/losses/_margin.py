"""Losses that keep positives within a radius and negatives outside of a radius.

margin         a boundary beta, which may be learned, with a margin on both sides
ranked list    two radii, and pairs weighted by their distance from the correct side

A term function (`_..._terms`) takes the scores [r, m] of a tile, r rows of the similarity matrix, the masks of its
positive and negative pairs, and the parameters of the loss. It returns `Terms`, a dict from names to (terms, mask of
the valid ones), both [r, 1] with a term for each row, or to `RowSums`, the sum of the terms of each row.

References:
    Wu, Manmatha, Smola, Krähenbühl (2017), Sampling Matters in Deep Embedding Learning (margin). Wang, Hua, Kodirov,
    Hu, Garnier, Robertson (2019), Ranked List Loss for Deep Metric Learning (ranked list).
"""

from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array, check_at_least, check_fraction, check_number, save_for_backward
from simjax.losses._options import Labels, PairOptions, resolve_options, values_of_rows
from simjax.losses._pair_loss import Terms, compute_pair_loss
from simjax.losses._terms import Embeddings, RowSums, Scalar
from simjax.pairs import Relation
from simjax.pairs._triplets import count_triplets

SMALLEST_WEIGHT = 1e-5
"""Added to the sum of the weights of the ranked list loss for each column."""


def margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    beta: Num[ArrayLike, ""] | Num[ArrayLike, " c"] = 1.2,
    margin: ArrayLike = 0.2,
    nu: ArrayLike | None = None,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Keep positive pairs closer than a boundary beta and negative pairs farther than it, both by a margin.

        positive pair: max(0, d - beta + margin)    negative pair: max(0, beta - d + margin)

    The loss is over the pairs of all triplets: a positive pair is included once for each negative of its row, and a
    negative pair once for each positive.

    Args:
        beta: Boundary in units of the measure, or one for each class [c], selected by the class of the row. A traced id
            that is not from 0 to c - 1 gives NaN, a known one is an error.
        margin: Distance from the boundary, in units of the measure, at least 0.
        nu: Weight of a regularizer that keeps a learned boundary small, nu times the mean boundary of the rows with a
            triplet; at least 0. Default: no regularizer.
        **options: See `PairOptions`; a `Reducer` may have no bound but `above=0`. Default measure:
            normalized_euclidean. Default reducer: "mean_active".

    Differs from pytorch-metric-learning, which adds nu times the sum of the boundaries of all triplets, divided by the
    number of pairs with a loss above 0: the fewer such pairs, the larger is the weight of the regularizer. With one
    boundary for all classes both are equal.

    Example:
        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> loss = margin_loss(x, labels, beta=0.9, nu=0.5, measure="euclidean")
        >>> print(round(float(loss), 4))  # (1 - 0.9 + 0.2) + 0.5 * 0.9
        0.75
    """
    check_at_least("margin", margin, 0)
    check_number("beta", beta)
    check_at_least("nu", nu, 0)
    resolved = resolve_options(margin_loss, options, measure="normalized_euclidean", reducer="mean_active")
    boundary = resolved.as_score(as_float_array("beta", beta))
    if boundary.ndim > 1 or not boundary.size:
        raise InputError(f"beta: expected one number or one for each class [c], got shape {boundary.shape}")
    is_mined = isinstance(labels, Relation) and labels.triplets is not None
    betas_of_rows = {"beta": values_of_rows(boundary, labels, "betas")} if boundary.ndim else None
    return compute_pair_loss(
        _margin_terms_of_mined_triplets if is_mined else _margin_terms_of_all_triplets,
        embeddings,
        labels,
        resolved,
        row_parameters=betas_of_rows,
        triplets=is_mined,
        margin=margin,
        # For a distance beta is negated; negating nu as well leaves the regularizer nu * beta unchanged.
        nu=None if nu is None else resolved.as_score(nu),
        **({} if betas_of_rows else {"beta": boundary}),
    )


def _margin_terms_of_all_triplets(scores: Array, positive: Array, negative: Array, **parameters: Any) -> Terms:
    positives, negatives = (jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.int32) for mask in (positive, negative))
    return _margin_terms(scores, positive * negatives, negative * positives, **parameters)


def _margin_terms_of_mined_triplets(scores: Array, positive: Array, negatives_of: Any, **parameters: Any) -> Terms:
    return _margin_terms(scores, *save_for_backward(count_triplets(positive, negatives_of)), **parameters)


def _margin_terms(
    scores: Array, as_positive: Array, as_negative: Array, *, beta: Array, margin: Array, nu: Array | None
) -> Terms:
    """Return terms, given in how many triplets each pair is the positive and the negative, int32 [r, m] each."""
    total, above_zero = jnp.zeros(scores.shape[0], scores.dtype), jnp.zeros(scores.shape[0], jnp.int32)
    for loss, times in ((margin + beta - scores, as_positive), (margin + scores - beta, as_negative)):
        active = jnp.where(~(loss <= 0), times, 0)  # also if beta is NaN
        total += jnp.sum(jnp.where(active > 0, loss * active.astype(scores.dtype), 0), axis=1)
        above_zero += jnp.sum(active, axis=1)
    count = jnp.sum(as_positive, axis=1)
    terms = {"pair": RowSums(total, above_zero, 2 * count)}
    if nu is not None:
        has_triplet = (count > 0).astype(jnp.int32)
        terms["beta"] = RowSums(has_triplet * (nu * beta).reshape(-1), has_triplet, has_triplet)
    return terms


def ranked_list_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    margin: ArrayLike = 0.4,
    alpha: ArrayLike | None = None,
    imbalance: ArrayLike = 0.5,
    positive_temperature: ArrayLike = 0.0,
    negative_temperature: ArrayLike = 10.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Keep the positives of a row within a ball around it, and the negatives outside of a larger ball.

        v_p = max(0, d_ip - (alpha - margin))        v_n = max(0, alpha - d_in)

        loss_i = (1 - imbalance) * mean of v_p with weights exp(Tp v_p)
                 +    imbalance  * mean of v_n with weights exp(Tn v_n)

    The means are over the pairs of row i with v > 0; 1e-5 for each of the m columns is added to the sum of the weights.

    Args:
        margin: Difference of the two radii, in units of the measure, at least 0.
        alpha: Radius that negatives should be outside of. Default: 1 + margin / 2.
        imbalance: Weight of the negatives, from 0 to 1.
        positive_temperature: Tp, at least 0; 0 gives the same weight to all positives with v > 0.
        negative_temperature: Tn, at least 0; larger values give more weight to the closest negatives.
        **options: See `PairOptions`. Default measure: normalized_euclidean.

    Differs from pytorch-metric-learning, where margin and Tn have no defaults (the defaults here are from the paper), a
    negative at distance 0 is ignored, and large temperatures overflow.

    Example:
        >>> x, labels = jnp.array([[0.0], [1.5], [-0.5]]), jnp.array([0, 0, 1])
        >>> loss = ranked_list_loss(x, labels, measure="euclidean")
        >>> print(round(float(loss), 3))  # mean of (0.7 + 0.7) / 2, and of 0.7 / 2 for the two others
        0.467
    """
    check_at_least("margin", margin, 0)
    check_fraction("imbalance", imbalance)
    check_at_least("positive_temperature", positive_temperature, 0)
    check_at_least("negative_temperature", negative_temperature, 0)
    resolved = resolve_options(ranked_list_loss, options, measure="normalized_euclidean")
    boundary = resolved.as_score(1 + jnp.asarray(margin) / 2 if alpha is None else alpha)
    temperatures = positive_temperature, negative_temperature
    parameters = {"margin": margin, "boundary": boundary, "imbalance": imbalance, "temperatures": temperatures}
    return compute_pair_loss(_ranked_list_terms, embeddings, labels, resolved, **parameters)


def _ranked_list_terms(
    scores: Array,
    positive: Array,
    negative: Array,
    *,
    margin: Array,
    boundary: Array,
    imbalance: Array,
    temperatures: tuple[Array, Array],
) -> Terms:
    positive_temperature, negative_temperature = temperatures
    positive_mean = _mean_violation(boundary + margin - scores, positive, positive_temperature)
    negative_mean = _mean_violation(scores - boundary, negative, negative_temperature)
    loss = (1 - imbalance) * positive_mean + imbalance * negative_mean
    return {"row": (loss, jnp.any(positive | negative, axis=1, keepdims=True))}


def _mean_violation(v: Array, mask: Array, temperature: Array) -> Array:
    """Return the weighted mean of the masked entries above 0 of v [r, m]: [r, 1]."""
    active = mask & (v > 0)
    v = jnp.where(active, v, 0)
    # Numerator and denominator are divided by the largest weight, which alone could overflow.
    largest = lax.stop_gradient(temperature * jnp.max(v, axis=1, keepdims=True, initial=0))
    weight = jnp.where(active, jnp.exp(temperature * v - largest), 0)
    total = jnp.sum(weight, axis=1, keepdims=True) + SMALLEST_WEIGHT * v.shape[1] * jnp.exp(-largest)
    is_positive = total > 0
    mean = jnp.sum(weight * v, axis=1, keepdims=True) / jnp.where(is_positive, total, 1)
    return jnp.where(is_positive, mean, 0)
