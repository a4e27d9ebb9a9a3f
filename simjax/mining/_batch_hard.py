"""Batch-hard miners: select one positive and one negative of each row or class, the hardest or an easier one.

A score is larger for closer pairs (a distance is negated): hard positives have low scores, hard negatives high scores.
A tile is a block of rows of the similarity matrix, with all columns. Functions of a tile take its values of the measure
s [r, m], its row indices i [r, 1] and its column indices j [1, m], and return arrays [r, ...].

References:
    Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss for Person Re-Identification (batch hard). Xuan,
    Stylianou, Pless (2020), Improved Embeddings with Easy Positive Triplet Mining.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import (
    InputError,
    check_at_least,
    check_choice,
    promote_to_float32,
    replace_non_finite_rows,
    top_k_of_rows,
)
from simjax.mining._base import check_inputs, relation_of_indices
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, Masks, RefLabels, rows_and_relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import first_largest

Strategy = Literal["hard", "semi_hard", "easy", "all"]
Range = tuple[float, float]
POSITIVE, NEGATIVE = 0, 1  # indices of the two kinds in a pair of masks, ranges, strategies or columns


def batch_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Select the farthest positive and the nearest negative of each row that has both.

    Args:
        Other arguments: See `simjax.mining`.

    Returns:
        A relation with `indices`, so a loss computes these pairs only.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0], [4.0], [9.0]])
        >>> positives, negatives = batch_hard(x, jnp.array([0, 0, 0, 1, 1]), measure="euclidean").indices
        >>> print(positives[:, 0], negatives[:, 0])
        [2 2 0 4 3] [3 3 3 2 2]
    """
    return batch_easy_hard(
        embeddings,
        labels,
        positive="hard",
        negative="hard",
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        measure=measure,
        block_size=block_size,
    )


def batch_easy_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    positive: Strategy = "easy",
    negative: Strategy = "semi_hard",
    positive_range: Range | None = None,
    negative_range: Range | None = None,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Select one positive and one negative of each row, or one of them and all of the other.

        hard         the farthest positive, the nearest negative
        easy         the nearest positive, the farthest negative
        semi_hard    the farthest positive that is nearer than the selected negative, or the nearest negative that is
                     farther than the selected positive
        all          every pair

    Args:
        positive, negative: Strategies, see above. "semi_hard" needs "hard" or "easy" for the other kind.
        positive_range, negative_range: Only pairs whose value of the measure is in this range, ends included, are
            selected. Ignored by "all". Default: any value.
        Other arguments: See `simjax.mining`.

    Returns:
        A relation. Unless a strategy is "all", a row without a selected positive or negative has no pair.

    Example:
        The nearest positive, and the nearest negative that is farther than this positive:

        >>> x = jnp.array([[0.0], [2.0], [5.0], [1.0], [4.5]])
        >>> positives, negatives = batch_easy_hard(x, jnp.array([0, 0, 0, 1, 1]), measure="euclidean").indices
        >>> print(positives[:, 0], negatives[:, 0])
        [1 0 1 4 3] [4 4 3 2 0]
    """
    for name, strategy in (("positive", positive), ("negative", negative)):
        check_choice(name, strategy, get_args(Strategy))
    if "semi_hard" in (positive, negative) and (positive == negative or "all" in (positive, negative)):
        raise InputError(
            f"positive, negative: expected semi_hard together with hard or easy, got {positive} and {negative}; a "
            "semi-hard pair depends on the one selected pair of the other kind"
        )
    for name, bounds in (("positive_range", positive_range), ("negative_range", negative_range)):
        if bounds is not None and not bounds[0] <= bounds[1]:
            raise InputError(f"{name}: expected the smallest value first, got {bounds}")
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    ranges = tuple(None if r is None else jnp.asarray(r, jnp.float32) for r in (positive_range, negative_range))
    strategies = (positive, negative)
    columns = _selected_columns(x, y, relation, as_measure(measure), ranges, strategies, block_size)
    if "all" not in strategies:
        has_both = (columns[POSITIVE] >= 0) & (columns[NEGATIVE] >= 0)
        positives, negatives = (jnp.where(has_both, c, -1)[:, None] for c in columns)
        return relation_of_indices(positives, negatives, relation.shape, relation.classes)
    selected = tuple(None if s == "all" else c for s, c in zip(strategies, columns, strict=True))
    return dataclasses.replace(relation, pair_masks=Partial(_restrict_to_columns, relation.pair_masks, selected))


def n_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    n_positive: int = 2,
    n_negative: int = 2,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Select the n farthest positives and the n nearest negatives of each row.

    Args:
        n_positive, n_negative: Numbers of positives and negatives; fewer if the row has fewer.
        Other arguments: See `simjax.mining`.

    Returns:
        A relation with `indices`, so a loss computes these pairs only.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0], [4.0], [9.0]])
        >>> mined = n_hard(x, jnp.array([0, 0, 0, 1, 1]), n_positive=1, measure="euclidean")
        >>> print(mined.indices[0][:3, 0], mined.indices[1][0], mined.indices[1][3])
        [2 2 0] [3 4] [2 1]
    """
    check_at_least("n_positive", n_positive, 1)
    check_at_least("n_negative", n_negative, 1)
    x, y, relation = check_inputs(embeddings, labels, ref_embeddings, ref_labels)
    counts = (min(n_positive, max(len(y), 1)), min(n_negative, max(len(y), 1)))
    positives, negatives = _hardest(x, y, relation, as_measure(measure), counts, block_size)
    return relation_of_indices(positives, negatives, relation.shape, relation.classes)


def cluster_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> tuple[Array, Array, Relation]:
    """Return class means as anchors, each with its farthest member and the nearest mean of another class.

    Single rows may be mislabelled or blurred; the mean of a class is more robust. The means are not rows of the batch,
    so they are returned beside the relation, and gradients flow through them:

        anchors, references, relation = cluster_hard(embeddings, labels)
        loss = losses.triplet_margin_loss(anchors, relation, ref_embeddings=references)

    Args:
        labels: Class ids [n], or a `Relation` whose positives are classes.
        Other arguments: See `simjax.mining`.

    Returns:
        Anchors [n, d]: the mean of the class of each row. References [2 n, d]: the embeddings, then the anchors. The
        relation of anchors and references: one triplet for each class of at least two rows, at the first row of the
        class; other rows have no pairs.

    Example:
        Class means are 1 and 6. The farthest member of the first class is row 2; both of the second are equally far, so
        it is row 3. The mean of row i is reference 5 + i:

        >>> x = jnp.array([[0.0], [0.5], [2.5], [6.0], [6.0]])
        >>> anchors, references, relation = cluster_hard(x, jnp.array([0, 0, 0, 1, 1]), measure="euclidean")
        >>> print(anchors[:, 0], relation.indices[0][:, 0], relation.indices[1][:, 0])
        [1. 1. 1. 6. 6.] [ 2 -1 -1  3 -1] [ 8 -1 -1  5 -1]
    """
    x, _, relation = rows_and_relation(embeddings, labels)
    n = len(x)
    anchors, positives, negatives = _class_means(x, relation, as_measure(measure), block_size)
    negatives = jnp.where(negatives >= 0, n + negatives, -1)
    classes = relation.classes and (relation.classes[0], jnp.concatenate(relation.classes))
    mined = relation_of_indices(positives[:, None], negatives[:, None], (n, 2 * n), classes)
    return anchors, jnp.concatenate([x, anchors]), mined


@partial(jax.jit, static_argnames=("strategies", "block_size"))
def _selected_columns(
    x: Array, y: Array, relation: Relation, measure: Measure, ranges: tuple, strategies: tuple, block_size: int | None
) -> tuple[Array, Array]:
    """Return the columns of the selected positive and of the selected negative of each row, int32 [n] each.

    -1 stands for a missing one. `ranges` (arrays [2] or None) and `strategies` are for positives and for negatives; the
    columns of a kind with strategy "all" are not used.
    """

    def select(relation: Relation, measure: Measure, ranges: tuple, s: Array, i: Array, j: Array) -> tuple[Array, ...]:
        scores = promote_to_float32(measure.as_score(s))
        columns = [jnp.full(len(s), -1), jnp.full(len(s), -1)]
        masks = relation.masks(i, j)
        # The semi-hard kind comes last, because it depends on the selected pair of the other kind.
        for kind in (NEGATIVE, POSITIVE) if strategies[POSITIVE] == "semi_hard" else (POSITIVE, NEGATIVE):
            strategy, mask, bounds = strategies[kind], masks[kind], ranges[kind]
            hardness = scores if kind == NEGATIVE else -scores
            # Comparisons with NaN are False. They are negated, so that a pair with a NaN stays in the mask;
            # `first_largest` prefers NaN, and the loss becomes NaN.
            if bounds is not None:
                mask = mask & ~((s < bounds[0]) | (s > bounds[1]))
            if strategy == "semi_hard" and s.shape[1]:  # there is an index 0
                other = columns[NEGATIVE if kind == POSITIVE else POSITIVE][:, None]
                # The hardness that this kind has at the distance of the selected pair of the other kind.
                limit = jnp.take_along_axis(hardness, jnp.maximum(other, 0), axis=1)
                mask = mask & (other >= 0) & ~(hardness >= limit)
            columns[kind] = first_largest(-hardness if strategy == "easy" else hardness, mask)
        return tuple(columns)

    return reduce_rows(Partial(select, relation, measure, ranges), x, y, measure=measure, block_size=block_size)


def _restrict_to_columns(
    pair_masks: Callable[[Array, Array], Masks], selected: tuple[Array | None, ...], i: Array, j: Array
) -> Masks:
    """Return the masks of pairs, restricted to the selected column of each row where columns are given."""
    positive, negative = (
        mask if columns is None else mask & (columns[i] == j)
        for mask, columns in zip(pair_masks(i, j), selected, strict=True)
    )
    return positive, negative


@partial(jax.jit, static_argnames=("counts", "block_size"))
def _hardest(
    x: Array, y: Array, relation: Relation, measure: Measure, counts: tuple[int, int], block_size: int | None
) -> tuple[Array, Array]:
    """Return the columns of the hardest positives [n, k] and negatives [n, l]; `counts` is (k, l). Padded with -1."""

    def select(relation: Relation, measure: Measure, s: Array, i: Array, j: Array) -> tuple[Array, ...]:
        scores = promote_to_float32(measure.as_score(s))
        columns = []
        for hardness, mask, k in zip((-scores, scores), relation.masks(i, j), counts, strict=True):
            hardness = jnp.where(jnp.isnan(scores), jnp.inf, hardness)
            values, hardest = top_k_of_rows(jnp.where(mask, hardness, -jnp.inf), k)
            columns.append(jnp.where(values > -jnp.inf, hardest, -1))
        return tuple(columns)

    if not x.shape[0] or not y.shape[0]:
        positives, negatives = (jnp.full((x.shape[0], k), -1, jnp.int32) for k in counts)
        return positives, negatives
    return reduce_rows(Partial(select, relation, measure), x, y, measure=measure, block_size=block_size)


@partial(jax.jit, static_argnames="block_size")
def _class_means(x: Array, relation: Relation, measure: Measure, block_size: int | None) -> tuple[Array, Array, Array]:
    """Return the mean of the class of each row [n, d] and, for the first row of a class, two row indices, int32 [n].

    They are the farthest member and the first row of the class with the nearest mean; -1 at other rows.
    """

    def mean(relation: Relation, x: Array, s: Array, i: Array, j: Array) -> tuple[Array, Array, Array]:
        positive, _ = relation.masks(i, j)
        is_member = positive | (i == j)
        x, nan = replace_non_finite_rows(x)  # NaN affects only the mean of its own class
        weights = is_member.astype(x.dtype)
        means = jnp.matmul(weights, x, precision="highest") / jnp.sum(weights, axis=1, keepdims=True)
        means = means + jnp.sum(jnp.where(is_member, nan[None], 0), axis=1, keepdims=True)
        return means, ~jnp.any(positive & (j < i), axis=1), jnp.any(positive, axis=1)

    def farthest_member(relation: Relation, measure: Measure, s: Array, i: Array, j: Array) -> Array:
        return first_largest(-promote_to_float32(measure.as_score(s)), relation.masks(i, j)[0] | (i == j))

    def nearest_other(relation: Relation, measure: Measure, is_first: Array, s: Array, i: Array, j: Array) -> Array:
        return first_largest(promote_to_float32(measure.as_score(s)), relation.masks(i, j)[1] & is_first[j[0]])

    compute = partial(reduce_rows, measure=measure, block_size=block_size)
    means, is_first, has_others = compute(Partial(mean, relation, promote_to_float32(x)), x)
    constant = lax.stop_gradient(means)
    positives = compute(Partial(farthest_member, relation, measure), constant, lax.stop_gradient(x))
    negatives = compute(Partial(nearest_other, relation, measure, is_first), constant)
    is_valid = is_first & has_others & (negatives >= 0)
    return means.astype(x.dtype), jnp.where(is_valid, positives, -1), jnp.where(is_valid, negatives, -1)
