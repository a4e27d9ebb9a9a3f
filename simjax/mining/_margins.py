"""Miners by a margin: pairs and triplets that are not yet as far apart as they should be.

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet: A Unified Embedding for Face Recognition and Clustering (semi-hard).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_choice, check_number
from simjax.mining._mined import closeness, keep_pairs, keep_triplets, related
from simjax.pairs import Relation
from simjax.pairs._fold_positives import take_columns
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import first_largest

KINDS = ("all", "hard", "semi_hard", "easy")


def pair_margin(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    positive_margin: ArrayLike = 0.2,
    negative_margin: ArrayLike = 0.8,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Positive pairs farther apart than a margin, negative pairs closer than another.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        positive_margin: in units of the measure; may be traced.
        negative_margin: the same.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.

    Returns:
        A relation of the pairs that are kept.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    near, far = (m.as_score(jnp.asarray(margin)) for margin in (positive_margin, negative_margin))
    return keep_pairs(_beyond_margins, closeness(x, y, m), relation, near=near, far=far)


def triplet_margin(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 0.2,
    kind: str = "all",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Triplets by their gap, how much farther the negative is from the anchor than the positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        margin: in units of the measure; may be traced.
        kind: "all" that violate the margin (gap at most the margin), of these the "hard" ones (gap at most 0) or the
            "semi_hard" ones (gap above 0), or the "easy" ones (gap above the margin).
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.

    Returns:
        A relation of triplets. A loss of pairs takes each pair that is in one of them once.

    Raises:
        InputError: for shapes that do not fit, an unknown measure or kind.
        TypeError: for labels that are no integers.
    """
    check_number("margin", margin)
    check_choice("kind", kind, KINDS)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    return keep_triplets(_BY_GAP[kind], closeness(x, y, measure), relation, margin=margin)


def semi_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Each positive pair with the nearest negative that is farther away; where there is none, with the farthest.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.

    Returns:
        A relation of triplets, one for each positive pair of a row that has a negative.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.
    """
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    return keep_triplets(_farther_ones, closeness(x, y, measure), relation)


def _beyond_margins(
    c: Array, i: Array, positive: Array, negative: Array, *, near: Array, far: Array
) -> tuple[Array, Array]:
    return positive & (c < near), negative & (c > far)


def _by_gap(within: Callable[..., Array], c: Array, i: Array, negative: Array, *, margin: Array) -> Partial:
    # No gap to what is no negative is within anything: one array to read in each turn, and not two.
    return Partial(partial(_within, within), c, jnp.where(negative, c, jnp.nan), margin)


def _within(within: Callable[..., Array], c: Array, of_negatives: Array, margin: Array, columns: Array) -> Array:
    return within(take_columns(c, columns) - of_negatives[:, None], margin)


_BY_GAP = {
    "all": partial(_by_gap, lambda gap, margin: gap <= margin),
    "hard": partial(_by_gap, lambda gap, margin: (gap <= margin) & (gap <= 0)),
    "semi_hard": partial(_by_gap, lambda gap, margin: (gap <= margin) & (gap > 0)),
    "easy": partial(_by_gap, lambda gap, margin: gap > margin),
}


def _farther_ones(c: Array, i: Array, negative: Array) -> Partial:
    return Partial(_nearest_farther, c, negative, first_largest(-c, negative))


def _nearest_farther(c: Array, negative: Array, farthest: Array, columns: Array) -> Array:
    numbers = jnp.arange(c.shape[1], dtype=jnp.int32)[None, None]
    farther = jnp.where(negative[:, None] & (c[:, None] < take_columns(c, columns)), c[:, None], -jnp.inf)
    most = jnp.max(farther, axis=2, keepdims=True)
    first = jnp.min(jnp.where(farther == most, numbers, c.shape[1]), axis=2, keepdims=True)
    return numbers == jnp.where(most > -jnp.inf, first, farthest[:, None, None])
