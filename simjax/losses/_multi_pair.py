"""Losses that combine several pairs of a row, or of two rows, in one term.

multi-similarity               hard positives and hard negatives of a row get exponentially larger weights
circle                         each pair gets a weight that is larger the farther its score is from the best score
tuplet margin                  each positive pair against all negatives of its row, with a margin between angles
lifted structure               each positive pair against the negatives of both of its rows
generalized lifted structure   all positives against all negatives of a row

In the formulas, p is a positive and n a negative of row i. s_ip and s_in are their scores, which are larger for closer
pairs (a distance is negated), and d = -s.

A term function (`_..._terms`) takes the scores [r, m] of a tile, r rows of the similarity matrix, the masks of its
positive and negative pairs, and the parameters of the loss. It returns `Terms`, a dict from names to (terms, mask of
the valid ones), both [r, m] with a term for each pair or [r, 1] with a term for each row.

References:
    Wang et al. (2019), Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning (multi-similarity).
    Sun et al. (2020), Circle Loss: A Unified Perspective of Pair Similarity Optimization (circle). Yu, Tao (2019), Deep
    Metric Learning with Tuplet Margin Loss (tuplet margin). Song, Xiang, Jegelka, Savarese (2016), Deep Metric Learning
    via Lifted Structured Feature Embedding (lifted structure). Hermans, Beyer, Leibe (2017), In Defense of the Triplet
    Loss for Person Re-Identification (generalized lifted structure).
"""

import dataclasses
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_number, check_positive
from simjax.losses._options import Labels, PairOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, compute_terms, log_sum_exp, square
from simjax.losses._terms import REDUCERS, Embeddings, LossTerms, Scalar
from simjax.pairs._relation import rows_and_relation


def multi_similarity_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    alpha: ArrayLike = 2.0,
    beta: ArrayLike = 50.0,
    base: ArrayLike = 0.5,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute the multi-similarity loss, one term for each row, also for one without positives or negatives.

        loss_i = (1 / alpha) log(1 + sum over positives of exp(alpha * (base - s_ip)))
               + (1 / beta)  log(1 + sum over negatives of exp(beta * (s_in - base)))

    Args:
        alpha, beta: Larger values give more weight to the hardest positives (alpha) and negatives (beta); above 0.
        base: Value of the measure that separates positives from negatives: positives should be closer.
        **options: See `PairOptions`. Default measure: cosine.

    Example:
        The terms are log(1 + exp(-1)) / 2 for the rows 0 and 1, and about 0 for the row 2, which has no positive:

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(multi_similarity_loss(x, jnp.array([0, 0, 1]))), 4))
        0.1044
    """
    check_number("base", base)
    check_positive("alpha", alpha)
    check_positive("beta", beta)
    resolved = resolve_options(multi_similarity_loss, options)
    base = resolved.as_score(base)
    return compute_pair_loss(_multi_similarity_terms, embeddings, labels, resolved, alpha=alpha, beta=beta, base=base)


def _multi_similarity_terms(
    scores: Array, positive: Array, negative: Array, *, alpha: Array, beta: Array, base: Array
) -> Terms:
    positive_part = jax.nn.softplus(log_sum_exp(alpha * (base - scores), positive)) / alpha
    negative_part = jax.nn.softplus(log_sum_exp(beta * (scores - base), negative)) / beta
    loss = positive_part + negative_part
    return {"row": (loss, jnp.ones_like(loss, bool))}


def circle_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    margin: ArrayLike = 0.4,
    gamma: ArrayLike = 80.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute the circle loss, one term for each row that has positives and negatives.

        loss_i = softplus( log sum over negatives of exp(gamma * max(0, s_in + m) * (s_in - m))
                         + log sum over positives of exp(-gamma * max(0, 1 + m - s_ip) * (s_ip - 1 + m)) )

    No gradient flows through the weights max(0, ...).

    Args:
        margin: m, at least 0; positives should exceed 1 - m, negatives stay below m.
        gamma: Factor of the scores, above 0.
        **options: See `PairOptions`. The measure must be a similarity whose largest value is 1. Default measure:
            cosine. Default reducer: "mean_active".

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> print(round(float(circle_loss(x, jnp.array([0, 0, 1]), gamma=10.0)), 4))
        2.496
    """
    check_at_least("margin", margin, 0)
    check_positive("gamma", gamma)
    resolved = resolve_options(circle_loss, options, reducer="mean_active")
    if not resolved.measure.higher_is_closer:
        raise InputError(f"measure: expected a similarity, got {resolved.measure.name}, which is smaller when closer")
    return compute_pair_loss(_circle_terms, embeddings, labels, resolved, margin=margin, gamma=gamma)


def _circle_terms(scores: Array, positive: Array, negative: Array, *, margin: Array, gamma: Array) -> Terms:
    positive_weight = jax.nn.relu(lax.stop_gradient(1 + margin - scores))
    negative_weight = jax.nn.relu(lax.stop_gradient(scores + margin))
    positive_part = log_sum_exp(-gamma * positive_weight * (scores - 1 + margin), positive)
    negative_part = log_sum_exp(gamma * negative_weight * (scores - margin), negative)
    return {"row": (jax.nn.softplus(positive_part + negative_part), _has_both(positive, negative))}


def _has_both(positive: Array, negative: Array) -> Array:
    """Return whether each row has positives and negatives, [r, 1]."""
    return jnp.any(positive, axis=1, keepdims=True) & jnp.any(negative, axis=1, keepdims=True)


def tuplet_margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    margin: ArrayLike = 5.73,
    scale: ArrayLike = 64.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute the tuplet margin loss, one term for each positive pair (i, p).

        loss_ip = log(1 + sum over negatives n of exp(scale * (cos theta_in - cos(theta_ip - margin))))

    theta is the angle between two embeddings, whose cosine is the score.

    Args:
        margin: Degrees by which the angle of a positive pair is reduced, at least 0.
        scale: Factor of the cosines, above 0.
        **options: See `PairOptions`. Default measure: cosine.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> print(round(float(tuplet_margin_loss(x, jnp.array([0, 0, 1]), scale=1.0, margin=0.0)), 4))
        0.6178
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    resolved = resolve_options(tuplet_margin_loss, options)
    radians = jnp.deg2rad(margin)
    return compute_pair_loss(_tuplet_margin_terms, embeddings, labels, resolved, margin=radians, scale=scale)


def _tuplet_margin_terms(scores: Array, positive: Array, negative: Array, *, margin: Array, scale: Array) -> Terms:
    # cos(theta - margin) without the arc cosine, whose slope is infinite at 1.
    sine = jnp.sqrt(jnp.maximum(1 - scores * scores, jnp.finfo(scores.dtype).eps))
    cosine = scores * jnp.cos(margin) + sine * jnp.sin(margin)
    return {"positive": (jax.nn.softplus(log_sum_exp(scale * scores, negative) - scale * cosine), positive)}


def lifted_structure_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    positive_margin: ArrayLike = 0.0,
    negative_margin: ArrayLike = 1.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute the lifted structure loss, one term for each positive pair (i, p), against the negatives of both rows.

        loss_ip = max(0, J_ip)^2 / 2
        J_ip    = d_ip - positive_margin + log( sum over negatives n of i of exp(negative_margin - d_in)
                                              + sum over negatives n of p of exp(negative_margin - d_pn) )

    A positive pair has a term if i or p has a negative. The sums over the negatives of the columns p are computed
    before the loss, so the similarity matrix is computed twice.

    Args:
        labels: Class ids [n] or a `Relation`, not a mined relation if there are reference embeddings.
        positive_margin, negative_margin: Positives should be closer than the first value of the measure, negatives
            farther than the second.
        **options: See `PairOptions`. Default measure: normalized_euclidean. The negatives of a reference row are among
            the embeddings.

    Differs from pytorch-metric-learning, which takes the negatives of embedding k instead of those of a positive that
    is reference row k.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = lifted_structure_loss(x, jnp.array([0, 0, 1]), negative_margin=2.0)
        >>> print(round(float(loss), 4))  # (log 2 + 2 - 2^0.5)^2 / 2
        0.8178
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    resolved = resolve_options(lifted_structure_loss, options, measure="normalized_euclidean")
    x, y, relation = rows_and_relation(embeddings, labels, resolved.ref_embeddings, resolved.ref_labels)
    has_references = resolved.ref_embeddings is not None
    positive_margin, negative_margin = resolved.as_score(positive_margin), resolved.as_score(negative_margin)
    column_options = ResolvedOptions(
        resolved.measure,
        REDUCERS["sum"],
        ref_embeddings=x if has_references else None,
        block_size=resolved.block_size,
    )
    column_relation = relation.transposed() if has_references else relation  # without references, columns are rows
    columns = compute_terms(_negative_terms, y, column_relation, column_options, negative_margin=negative_margin)["row"]
    return compute_pair_loss(
        _lifted_structure_terms,
        x,
        relation,
        dataclasses.replace(resolved, ref_labels=None),  # `relation` includes the ids of the reference rows
        row_parameters=None if has_references else {"rows": columns},
        column_parameters={"columns": columns},
        positive_margin=positive_margin,
        negative_margin=negative_margin,
    )


def _negative_terms(
    scores: Array, positive: Array, negative: Array, *, negative_margin: Array
) -> dict[str, tuple[Array, Array]]:
    """Return log(sum of exp(negative_margin - d)) over the negatives of each row, and whether the row has any."""
    return {"row": (log_sum_exp(scores - negative_margin, negative), jnp.any(negative, axis=1, keepdims=True))}


def _lifted_structure_terms(
    scores: Array,
    positive: Array,
    negative: Array,
    *,
    positive_margin: Array,
    negative_margin: Array,
    columns: LossTerms,
    rows: LossTerms | None = None,
) -> Terms:
    """Compute the terms from `_negative_terms` of the columns and of the rows. Default: computed from this tile."""
    if rows is None:
        total, is_valid = _negative_terms(scores, positive, negative, negative_margin=negative_margin)["row"]
        rows = LossTerms(total, is_valid)
    lowest = jnp.finfo(scores.dtype).min / 4  # as in `log_sum_exp`, for a row or column without negatives
    row_part, column_part = (jnp.where(side.count > 0, side.total, lowest) for side in (rows, columns))
    violation = jax.nn.relu(jnp.logaddexp(row_part, column_part) + positive_margin - scores)
    return {"positive": (square(violation) / 2, positive & ((rows.count > 0) | (columns.count > 0)))}


def generalized_lifted_structure_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    positive_margin: ArrayLike = 0.0,
    negative_margin: ArrayLike = 1.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute the generalized lifted structure loss, one term for each row that has positives and negatives.

        loss_i = max(0, log sum over positives of exp(d_ip - positive_margin)
                      + log sum over negatives of exp(negative_margin - d_in))

    Args:
        positive_margin, negative_margin: See `lifted_structure_loss`.
        **options: See `PairOptions`. Default measure: normalized_euclidean.

    Differs from pytorch-metric-learning, where a row without positives has a term of its negatives alone.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = generalized_lifted_structure_loss(x, jnp.array([0, 0, 1]), negative_margin=2.0)
        >>> print(round(float(loss), 4))  # 2 - 2^0.5
        0.5858
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    resolved = resolve_options(generalized_lifted_structure_loss, options, measure="normalized_euclidean")
    positive_margin, negative_margin = resolved.as_score(positive_margin), resolved.as_score(negative_margin)
    margins = {"positive_margin": positive_margin, "negative_margin": negative_margin}
    return compute_pair_loss(_generalized_lifted_structure_terms, embeddings, labels, resolved, **margins)


def _generalized_lifted_structure_terms(
    scores: Array, positive: Array, negative: Array, *, positive_margin: Array, negative_margin: Array
) -> Terms:
    positive_part = log_sum_exp(positive_margin - scores, positive)
    negative_part = log_sum_exp(scores - negative_margin, negative)
    return {"row": (jax.nn.relu(positive_part + negative_part), _has_both(positive, negative))}
