"""Losses that compare the positives of a row with the other pairs of the row by a softmax or a sigmoid.

NT-Xent, InfoNCE    each positive against itself and all negatives
N-pairs             NT-Xent with one positive pair of each class
SupCon              each positive against all pairs, averaged over the positives of a row
NCA                 the positives of a row together against all pairs
SigLIP              each pair separately, by a sigmoid

A term function (`_..._terms`) takes the scores [r, m] of a tile, r rows of the similarity matrix, the masks of its
positive and negative pairs, and the parameters of the loss. It returns `Terms`, a dict from names to (terms, mask of
the valid ones), both [r, m] with a term for each pair or [r, 1] with a term for each row.

References:
    Chen, Kornblith, Norouzi, Hinton (2020), A Simple Framework for Contrastive Learning of Visual Representations
    (NT-Xent). van den Oord, Li, Vinyals (2018), Representation Learning with Contrastive Predictive Coding (InfoNCE).
    Sohn (2016), Improved Deep Metric Learning with Multi-class N-pair Loss Objective (N-pairs). Khosla et al. (2020),
    Supervised Contrastive Learning (SupCon). Goldberger, Roweis, Hinton, Salakhutdinov (2004), Neighbourhood Components
    Analysis (NCA). Zhai, Mustafa, Kolesnikov, Beyer (2023), Sigmoid Loss for Language Image Pre-Training (SigLIP).
"""

import dataclasses
import math
from functools import partial
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Int

from simjax.core import InputError, as_float_array, auto_axes, check_choice, check_positive, map_rows
from simjax.losses._options import ClassOptions, Labels, PairOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, log_sum_exp, softplus
from simjax.losses._terms import Embeddings, References, Scalar
from simjax.pairs import Relation, as_relation, by_position
from simjax.similarity import Measure, unit_vectors

LOG_TEN = math.log(10)


def nt_xent_loss(
    embeddings: Embeddings, labels: Labels, *, temperature: ArrayLike = 0.07, **options: Unpack[PairOptions]
) -> Scalar:
    """Compute the normalized temperature-scaled cross entropy, one term for each positive pair (i, p).

        loss_ip = -log( exp(s_ip / t) / (exp(s_ip / t) + sum over negatives n of exp(s_in / t)) )

    Args:
        temperature: t, above 0; may be learned.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(nt_xent_loss(x, jnp.array([0, 0, 1]), temperature=1.0)), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("temperature", temperature)
    resolved = resolve_options(nt_xent_loss, options)
    return compute_pair_loss(_nt_xent_terms, embeddings, labels, resolved, temperature=temperature)


def info_nce_loss(
    x: Embeddings,
    y: Embeddings,
    *,
    temperature: ArrayLike = 0.07,
    directions: Literal["rows", "both"] = "rows",
    measure: str | Measure = "cosine",
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute InfoNCE: row i of x has row i of y as its positive and all other rows of y as negatives.

    This is `nt_xent_loss` with these pairs.

    Args:
        temperature: Divisor of the scores, above 0; may be learned.
        directions: "rows" compares each row of x with all rows of y; "both" averages this and the loss of each row of y
            with all rows of x, as CLIP does.

    Example:
        >>> print(round(float(info_nce_loss(jnp.eye(2), jnp.eye(2), temperature=1.0, directions="both")), 4))
        0.3133
    """
    check_positive("temperature", temperature)
    check_choice("directions", directions, ("rows", "both"))
    resolved = resolve_options(info_nce_loss, options, accepted=ClassOptions, measure=measure)
    x, y = as_float_array("x", x), as_float_array("y", y)
    _check_same_shape(x, y)
    by_rows = _info_nce(x, y, resolved, temperature)
    return by_rows if directions == "rows" else (by_rows + _info_nce(y, x, resolved, temperature)) / 2


def _info_nce(x: Array, y: Array, options: ResolvedOptions, temperature: ArrayLike) -> Array:
    options = dataclasses.replace(options, ref_embeddings=y)
    return compute_pair_loss(_nt_xent_terms, x, by_position(len(x)), options, temperature=temperature)


def _check_same_shape(x: Array, y: Array) -> None:
    if x.shape != y.shape:
        raise InputError(f"y: expected one row for each row of x {x.shape}, got shape {y.shape}")


def _nt_xent_terms(scores: Array, positive: Array, negative: Array, *, temperature: Array) -> Terms:
    z = scores / temperature
    return {"positive": (softplus(log_sum_exp(z, negative) - z), positive)}


def n_pairs_loss(
    embeddings: Embeddings, labels: Labels, *, measure: str | Measure = "cosine", **options: Unpack[ClassOptions]
) -> Scalar:
    """Compute NT-Xent at temperature 1 of one pair of each class: its first two rows (a_k, p_k) in the batch.

        loss_k = log( sum over pairs l of exp(s(a_k, p_l)) ) - s(a_k, p_k)

    All other rows are ignored. If anchors and positives are two arrays, use `info_nce_loss` at temperature 1.

    Args:
        labels: Class ids [n], or a `Relation` whose positive pairs form groups. Without groups, an anchor is a row
            without an earlier positive, and its positives are the rows whose only earlier positive is the anchor.
        measure: Name of a measure or a `Measure`. The paper uses "dot", and penalizes squared lengths.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> print(round(float(n_pairs_loss(x, jnp.array([0, 1, 0, 1, 1]))), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    resolved = resolve_options(n_pairs_loss, options, accepted=ClassOptions, measure=measure)
    x = as_float_array("embeddings", embeddings)
    relation = as_relation(labels, None, len(x), None)
    pairs = relation.where(Partial(_is_first_pair, earlier_positives(relation, block_size=resolved.block_size)))
    return compute_pair_loss(_nt_xent_terms, x, pairs, resolved, temperature=1.0)


def _is_first_pair(n_earlier: Array, i: Array, j: Array) -> Array:
    return (n_earlier[i] == 0) & (n_earlier[j] == 1)


@partial(jax.jit, static_argnames="block_size")
@auto_axes
def earlier_positives(relation: Relation, *, block_size: int | None = None) -> Int[Array, " n"]:
    """Count the positives of each row that come before it: 0 for the first row of a class, 1 for the second."""
    rows = jnp.arange(relation.shape[0], dtype=jnp.int32)

    def count(i: Array) -> Array:
        i, j = i[:, None], rows[None]
        return jnp.sum(relation.masks(i, j)[0] & (j < i), axis=1, dtype=jnp.int32)

    return map_rows(count, rows, block_size=block_size, row_bytes=4 * len(rows))


def supervised_contrastive_loss(
    embeddings: Embeddings, labels: Labels, *, temperature: ArrayLike = 0.1, **options: Unpack[PairOptions]
) -> Scalar:
    """Compute SupCon, one term for each row with a positive, averaged over its positives P_i.

        loss_i = -1 / |P_i| sum over positives p of log( exp(s_ip / t) / sum over all pairs a of exp(s_ia / t) )

    Args:
        temperature: t, above 0; may be learned.
        **options: See `PairOptions`. Default measure: cosine. Default reducer: "mean_active".

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = supervised_contrastive_loss(x, jnp.array([0, 0, 1]), temperature=1.0)
        >>> print(round(float(loss), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("temperature", temperature)
    resolved = resolve_options(supervised_contrastive_loss, options, reducer="mean_active")
    return compute_pair_loss(_supervised_contrastive_terms, embeddings, labels, resolved, temperature=temperature)


def _supervised_contrastive_terms(scores: Array, positive: Array, negative: Array, *, temperature: Array) -> Terms:
    z = scores / temperature
    count = jnp.sum(positive, axis=1, keepdims=True)
    mean = jnp.sum(jnp.where(positive, z, 0), axis=1, keepdims=True) / jnp.maximum(count, 1)
    return {"row": (log_sum_exp(z, positive | negative) - mean, count > 0)}


def nca_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    scale: ArrayLike = 1.0,
    normalize: bool = True,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute neighbourhood components analysis, one term for each row with a positive.

        loss_i = -log( sum over positives of exp(scale * s_ip) / sum over positives and negatives of exp(scale * s_ia) )

    The logarithm is of the probability that a soft nearest neighbour is a positive. By default s is the negated squared
    distance. Unlike in SupCon, one close positive is enough.

    Args:
        scale: Factor of the scores, the inverse of a temperature, above 0.
        normalize: Scale rows to unit length first.
        **options: See `PairOptions`. Default measure: squared_euclidean.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(nca_loss(x, jnp.array([0, 0, 1]))), 4))  # log(1 + exp(-2))
        0.1269
    """
    check_positive("scale", scale)
    resolved = resolve_options(nca_loss, options, measure="squared_euclidean")
    if normalize:
        embeddings, resolved = unit_vectors(embeddings), resolved.with_unit_vectors()
    return compute_pair_loss(_nca_terms, embeddings, labels, resolved, scale=scale)


def _nca_terms(scores: Array, positive: Array, negative: Array, *, scale: Array) -> Terms:
    z = scale * scores
    has_positive = jnp.any(positive, axis=1, keepdims=True)
    loss = log_sum_exp(z, positive | negative) - log_sum_exp(z, positive)
    return {"row": (jnp.where(has_positive, loss, 0), has_positive)}


def siglip_loss(
    x: Embeddings,
    y: References,
    relation: Relation | None = None,
    *,
    log_scale: ArrayLike = LOG_TEN,
    bias: ArrayLike = -10.0,
    measure: str | Measure = "cosine",
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute the sigmoid loss of two sets, one term for each row, the sum over its pairs.

        loss_i = -sum over pairs j of log sigmoid( y_ij * (exp(log_scale) * s_ij + bias) ),   y = 1 if positive, else -1

    Args:
        relation: A `Relation` of n rows and m columns. Default: the positive of row i is row i of y.
        log_scale: Logarithm of the factor of the scores; in the paper it is learned and starts at log 10.
            `nn.ScaleAndBias` learns it and keeps the factor at 100 or less.
        bias: Added to the scaled scores; in the paper it is learned and starts at -10.

    Example:
        >>> print(round(float(siglip_loss(jnp.eye(2), jnp.eye(2))), 4))  # log(1 + exp(10 - 10)) + log(1 + exp(-10))
        0.6932
    """
    resolved = resolve_options(siglip_loss, options, accepted=ClassOptions, measure=measure)
    x, y = as_float_array("x", x), as_float_array("y", y)
    if relation is None:
        _check_same_shape(x, y)
        relation = by_position(len(x))
    resolved = dataclasses.replace(resolved, ref_embeddings=y)
    return compute_pair_loss(_siglip_terms, x, relation, resolved, log_scale=log_scale, bias=bias)


def _siglip_terms(scores: Array, positive: Array, negative: Array, *, log_scale: Array, bias: Array) -> Terms:
    # The scale is multiplied in two halves, so that a score of 0 stays 0 if the scale itself would overflow.
    half = jnp.exp(jnp.minimum(log_scale / 2, math.log(float(jnp.finfo(scores.dtype).max)) - 1))
    z = half * (half * scores) + bias
    z = jnp.where(jnp.isinf(z), lax.stop_gradient(z), z)
    terms = jnp.where(positive | negative, jax.nn.softplus(jnp.where(positive, -z, z)), 0)
    loss = jnp.sum(terms, axis=1, keepdims=True)
    return {"row": (loss, jnp.ones_like(loss, bool))}
