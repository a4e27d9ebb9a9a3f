"""Hard negatives of a whole data set: the closest negatives of every row, as row indices.

A batch has few hard negatives, and late in training it has none. Between epochs, all rows are embedded and compared,
and each row gets a list of negatives to sample from. The closest negatives are often mislabelled or unlabelled
positives. Bounds exclude them: a negative must be farther than the positives by a margin, or have at most a maximum
score.

The similarity matrix is reduced in tiles, blocks of rows with all columns, so memory does not grow with n m; time is
n m d. The number of rows of which a row is a hard negative can be the score for `data.sample_by_score`:

    counts = jnp.zeros(n).at[columns].add(columns >= 0)

References:
    Moreira et al. (2024), NV-Retriever: Improving text embedding models with effective hard-negative mining (margins
    relative to the positive). Xuan, Stylianou, Liu, Pless (2020), Hard negative examples are hard, but useful.
"""

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import InputError, check_at_least, check_choice, promote_to_float32, rank_keys, top_k_of_rows
from simjax.mining._base import check_inputs, row_max, row_min
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, RefLabels
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure

Sampling = Literal["top", "random"]
Positive = Literal["farthest", "nearest", "mean"]
Bounds = dict[str, ArrayLike | None]


def hard_negatives(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    k: int = 3,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "cosine",
    range_min: int = 0,
    range_max: int | None = None,
    max_score: ArrayLike | None = None,
    min_score: ArrayLike | None = None,
    absolute_margin: ArrayLike | None = None,
    relative_margin: ArrayLike | None = None,
    positive: Positive = "farthest",
    sampling: Sampling = "top",
    key: Array | None = None,
    block_size: int | None = None,
    precision: str | None = None,
) -> Int[Array, "n {k}"]:
    """Return k of the closest negatives within bounds for each row.

    The negatives of a row that satisfy all bounds are ranked from 0, the closest first; the candidates are the
    negatives with ranks range_min to range_max - 1. Scores s are values of the measure here, not negated: for a
    distance, a limit of how close a negative may be is the smallest distance.

    Args:
        k: Number of negatives for each row.
        range_min: Number of closest negatives to skip.
        range_max: End of the range of ranks. Default: range_min + k, or range_min + 10 k if `sampling` is "random".
        max_score, min_score: Limits of how close and of how far a negative may be.
        absolute_margin: Margin to the score s_p of the row's positive: s <= s_p - margin, or d >= d_p + margin for a
            distance.
        relative_margin: Margin as a share of the score of the positive: s <= s_p - margin |s_p|, or d >= d_p + margin
            |d_p|. 0.05 allows negatives that are at most 95% as similar as the positive.
        positive: The positive that margins refer to: the farthest, the nearest, or the mean score of all positives of
            the row. Margins do not apply to rows without positives.
        sampling: "top" returns the first k candidates, "random" draws k candidates.
        key: PRNG key of the draw; required if `sampling` is "random".
        precision: Precision of matrix products, see `simjax.similarity.reduce_rows`.
        Other arguments: See `simjax.mining`.

    Returns:
        int32 [n, k], row indices of the reference embeddings (or of the embeddings), closest first, the lowest first
        among equal scores; NaN scores last; padded with -1.

    Differs from mine_hard_negatives of sentence-transformers, which applies the bounds to the nearest rows only and so
    misses candidates. Its relative margin is a share of s_p instead of |s_p|, which admits negatives closer than the
    positive if s_p < 0. Its margins refer to the farthest positive as well.

    Example:
        The negatives of row 0 are at distances 3, 4 and 9, its positive at 2; a margin of 2 admits 4 and 9:

        >>> x, labels = jnp.array([[0.0], [2.0], [3.0], [-4.0], [9.0]]), jnp.array([0, 0, 1, 1, 2])
        >>> print(hard_negatives(x, labels, k=2, measure="euclidean")[0])
        [2 3]
        >>> print(hard_negatives(x, labels, k=3, measure="euclidean", absolute_margin=2.0)[0])
        [ 3  4 -1]
    """
    check_choice("sampling", sampling, get_args(Sampling))
    check_choice("positive", positive, get_args(Positive))
    check_at_least("k", k, 1)
    check_at_least("range_min", range_min, 0)
    check_at_least("absolute_margin", absolute_margin, 0)
    check_at_least("relative_margin", relative_margin, 0)
    if range_max is None:
        range_max = range_min + (k if sampling == "top" else 10 * k)
    if range_max <= range_min:
        raise InputError(f"range_max: expected more than range_min = {range_min}, got {range_max}")
    if sampling == "random" and key is None:
        raise InputError('key: expected a PRNG key, because sampling is "random"; got None')
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    limits: Bounds = {"max_score": max_score, "min_score": min_score}
    margins: Bounds = {"absolute_margin": absolute_margin, "relative_margin": relative_margin}
    options = {"measure": as_measure(measure), "block_size": block_size, "precision": precision}
    return _hard_negatives(
        x,
        y,
        relation,
        limits | margins,
        key if sampling == "random" else None,
        positive,
        k,
        range_min,
        range_max,
        **options,
    )


@partial(jax.jit, static_argnums=(5, 6, 7, 8), static_argnames=("block_size", "precision"))
def _hard_negatives(
    x: Array,
    y: Array,
    relation: Relation,
    bounds: Bounds,
    key: Array | None,
    positive: Positive,
    k: int,
    start: int,
    stop: int,
    *,
    measure: Measure,
    **options: Any,
) -> Array:
    depth = min(stop, y.shape[0])
    if depth <= start:
        return jnp.full((x.shape[0], k), -1, jnp.int32)
    function = Partial(partial(_closest, positive, depth), relation, measure, bounds)
    candidates = reduce_rows(function, x, y, measure=measure, **options)[:, start:]
    if key is not None:
        # Draw at most k candidates of each row with equal probability, in their order.
        priority = jnp.where(candidates >= 0, jax.random.uniform(key, candidates.shape), -1.0)
        indices = jax.lax.top_k(priority, min(k, candidates.shape[1]))[1]
        candidates = jnp.take_along_axis(candidates, jnp.sort(indices, axis=1), axis=1)
    missing = max(k - candidates.shape[1], 0)
    return jnp.pad(candidates[:, :k], ((0, 0), (0, missing)), constant_values=-1)


def _closest(
    positive: Positive, depth: int, relation: Relation, measure: Measure, bounds: Bounds, s: Array, i: Array, j: Array
) -> Array:
    """Return the columns of the closest negatives within bounds, int32 [r, depth], padded with -1.

    The tile s [r, m] has values of the measure, of the row indices i [r, 1] and the column indices j [1, m].
    """
    scores = measure.as_score(promote_to_float32(s))
    is_positive, allowed = relation.masks(i, j)
    # Negated comparisons are true for NaN, so NaN scores are allowed; they rank after all other scores.
    if bounds["max_score"] is not None:
        allowed &= ~(scores > measure.as_score(jnp.asarray(bounds["max_score"])))
    if bounds["min_score"] is not None:
        allowed &= ~(scores < measure.as_score(jnp.asarray(bounds["min_score"])))
    if bounds["absolute_margin"] is not None or bounds["relative_margin"] is not None:
        positive_score = _score_of_positive(positive, scores, is_positive)
        has_positive = jnp.any(is_positive, axis=1, keepdims=True)
        for margin, unit in ((bounds["absolute_margin"], 1), (bounds["relative_margin"], jnp.abs(positive_score))):
            if margin is not None:
                allowed &= ~has_positive | ~(scores > positive_score - jnp.asarray(margin) * unit)
    columns = top_k_of_rows(rank_keys(scores, allowed), depth)[1]
    return jnp.where(jnp.arange(depth) < jnp.sum(allowed, axis=1, keepdims=True), columns, -1)


def _score_of_positive(positive: Positive, scores: Array, mask: Array) -> Array:
    """Return the score of the positive that margins refer to, [r, 1]."""
    if positive == "farthest":
        return row_min(scores, mask)
    if positive == "nearest":
        return row_max(scores, mask)
    total = jnp.sum(jnp.where(mask, scores, 0), axis=1, keepdims=True)
    return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
