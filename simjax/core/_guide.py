"""A guide: another model's embeddings say which negatives of a batch are false.

In a large batch some of the rows that are called negative are in truth similar: other pictures of the same thing,
other answers to the same question. A guide, trained before, finds them: a negative that it takes for more similar to
the row than the row's own positive counts nowhere.

References:
    Solatorio (2024), GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._arrays import matrix_rows, wide
from simjax.core._masks import Mask, all_of
from simjax.core._measure import Measure
from simjax.core._measure import measure as as_measure
from simjax.core._reduce import reduce_rows
from simjax.core._relation import Relation, as_relation


def by_guide(
    guide: Num[ArrayLike, "n e"],
    labels: Any,
    *,
    ref_guide: Num[ArrayLike, "m e"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "cosine",
    margin: ArrayLike = 0.0,
) -> Relation:
    """A relation without those negatives that a guide takes for more similar to the row than its positive.

    Where a row has several positives, it is the one that the guide takes for the most similar; where it has none, all
    its negatives stay. A loss computes the guide's similarities strip by strip, too: time n m e more.

    Args:
        guide: what the guide makes of the rows, [n, e]; constants for the gradient.
        labels: class ids [n] or a `Relation`, of which the positives stay as they are.
        ref_guide: what it makes of the columns, [m, e]; None is the rows'.
        ref_labels: class ids [m], where `labels` are class ids and there is a `ref_guide`.
        measure: of the guide, a name or a `Measure`; one with a matrix form, or a strip takes r m e numbers.
        margin: negatives up to this much less similar than the positive are left out, too, in units of the measure.

    Raises:
        InputError: for shapes that do not fit.
        TypeError: for labels that are no integers.

    Example:
        Two questions and two answers each. To the guide the second answer is closer to the first question than the
        first answer is:

        >>> from simjax.core import by_position
        >>> questions, answers = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 2.0], [1.0, 1.0]])
        >>> relation = by_guide(questions, by_position(2), ref_guide=answers)
        >>> positive, negative = relation.masks(jnp.arange(2)[:, None], jnp.arange(2)[None])
        >>> print(positive.astype(int) - negative.astype(int))
        [[1 0]
         [0 1]]
    """
    rows, columns = matrix_rows(guide, guide if ref_guide is None else ref_guide, ("guide", "ref_guide"))
    relation = as_relation(labels, ref_labels, len(rows), None if ref_guide is None else len(columns))
    rows, columns, m, margin = lax.stop_gradient((rows, columns, as_measure(measure), jnp.asarray(margin)))
    nearest = reduce_rows(Partial(_nearest_positive, m, relation.positive), rows, columns, measure=m)
    trusted = Partial(_no_nearer, m, rows, columns, nearest - margin)
    return dataclasses.replace(relation, negative=all_of(relation.negative, trusted))


def _nearest_positive(measure: Measure, positive: Mask, s: Array, i: Array, j: Array) -> Array:
    """The closeness of each row's nearest positive, [r]; more than any where there is none."""
    there = positive(i, j)
    nearest = jnp.max(jnp.where(there, wide(measure.closest_first(s)), -jnp.inf), axis=1, initial=-jnp.inf)
    return jnp.where(jnp.any(there, axis=1), nearest, jnp.inf)


def _no_nearer(measure: Measure, rows: Array, columns: Array, bound: Array, i: Array, j: Array) -> Array:
    return wide(measure.closest_first(measure.all_pairs(rows[i[:, 0]], columns[j[0]]))) <= bound[i]
