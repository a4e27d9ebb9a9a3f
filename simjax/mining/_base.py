"""Parts that miners share.

A tile is a block of rows of the similarity matrix, with all columns. A miner is a function of the scores of a tile
(larger is closer: a distance is negated) and of the masks of its positive and negative pairs. It selects pairs or
triplets, and returns a `Relation` that computes the selection tile by tile, so no n x m array is stored. No gradient
flows through a selection. Every pair whose score is NaN is selected, so that the loss is NaN.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num, PyTree

from simjax.core import InputError, auto_axes, promote_to_float32
from simjax.pairs import Relation
from simjax.pairs._relation import Labels, Masks, RefLabels, rows_and_relation
from simjax.pairs._triplets import NegativesOf, take_columns
from simjax.similarity import Measure

Tiles = Callable[[Array, Array], Array]
"""Function of the row indices i [r, 1] and of all column indices j [1, m] that returns the scores [r, m] of a tile."""


def check_inputs(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    ref_embeddings: Num[ArrayLike, "m d"] | None,
    ref_labels: RefLabels,
    names: tuple[str, str] = ("embeddings", "ref_embeddings"),
) -> tuple[Array, Array, Relation]:
    """Return rows x [n, d] and columns y [m, d], without gradient, and their relation; InputError if it was mined."""
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels, names)
    if relation.triplets is not None or relation.indices is not None:
        raise InputError("labels: expected class ids or a relation of pairs, got triplets that a miner selected")
    return lax.stop_gradient(x), lax.stop_gradient(y), relation


def score_tiles(x: Array, y: Array, measure: Measure) -> Tiles:
    """Return the function that computes the scores of x and y by tiles; the inputs are prepared once for all tiles."""
    return Partial(_score_tile, measure, *_tile_inputs(measure, x, y))


def select_pairs(select: Callable[..., Masks], tiles: Tiles, relation: Relation) -> Relation:
    """Return the relation of the pairs that `select(scores, i, positive, negative)` returns as two masks.

    `select` is a `Partial` that binds the hyperparameters; i [r, 1] are the row indices of the tile.
    """
    masks = Partial(_selected_masks, jax.tree.map(jnp.asarray, select), tiles, relation.pair_masks)
    return dataclasses.replace(relation, pair_masks=masks, needs_all_columns=True)


def select_triplets(select: Callable[..., NegativesOf], tiles: Tiles, relation: Relation) -> Relation:
    """Return the relation of the triplets that `select(scores, i, negative)` returns.

    `select` is a `Partial` that returns another `Partial`: it maps the columns [r, k] of positives to the mask of their
    negatives, [r, k, m].
    """
    return dataclasses.replace(relation, triplets=Partial(_selected_triplets, jax.tree.map(jnp.asarray, select), tiles))


def relation_of_indices(
    positives: Array, negatives: Array, shape: tuple[int, int], classes: tuple[Array, Array] | None
) -> Relation:
    """Return the relation with these columns: of positives [n, k] and negatives [n, l] of each row, padded with -1."""
    return Relation(Partial(_is_listed, positives, negatives), shape, classes, indices=(positives, negatives))


def row_min(values: Array, mask: Array) -> Array:
    """Return the smallest masked value of each row, [r, 1]; inf for a row without masked values."""
    return jnp.min(jnp.where(mask, values, jnp.inf), axis=1, keepdims=True, initial=jnp.inf)


def row_max(values: Array, mask: Array) -> Array:
    """Return the largest masked value of each row, [r, 1]; -inf for a row without masked values."""
    return jnp.max(jnp.where(mask, values, -jnp.inf), axis=1, keepdims=True, initial=-jnp.inf)


@jax.jit
@auto_axes
def _tile_inputs(measure: Measure, x: Array, y: Array) -> tuple[PyTree, PyTree]:
    return measure.tile_inputs(x, y)


def _score_tile(measure: Measure, rows: PyTree, columns: PyTree, i: Array, j: Array) -> Array:
    part = jax.tree.map(lambda a: a[i[:, 0]], rows)
    scores = promote_to_float32(measure.as_score(measure.tile(part, columns)))
    if scores.shape[1] != j.shape[1]:
        raise InputError(f"j: a mined relation needs all {scores.shape[1]} columns at once, got {j.shape[1]}")
    return scores


def _selected_masks(
    select: Callable[..., Masks], tiles: Tiles, pair_masks: Callable[[Array, Array], Masks], i: Array, j: Array
) -> Masks:
    scores, is_nan = _without_nan(tiles(i, j))
    positive, negative = pair_masks(i, j)
    selected_positive, selected_negative = select(scores, i, positive, negative)
    return selected_positive | (positive & is_nan), selected_negative | (negative & is_nan)


def _selected_triplets(
    select: Callable[..., NegativesOf], tiles: Tiles, i: Array, j: Array, positive: Array, negative: Array
) -> Partial:
    scores, is_nan = _without_nan(tiles(i, j))
    return Partial(_negatives_or_nan, select(scores, i, negative), is_nan, negative)


def _negatives_or_nan(negatives_of: NegativesOf, is_nan: Array, negative: Array, columns: Array) -> Array:
    return negatives_of(columns) | (negative[:, None] & (is_nan[:, None] | take_columns(is_nan, columns)))


def _without_nan(scores: Array) -> tuple[Array, Array]:
    is_nan = jnp.isnan(scores)
    return jnp.where(is_nan, 0, scores), is_nan


def _is_listed(positives: Array, negatives: Array, i: Array, j: Array) -> Masks:
    positive, negative = (jnp.any(a[i[:, 0], :, None] == j[:, None], axis=1) for a in (positives, negatives))
    return positive, negative
