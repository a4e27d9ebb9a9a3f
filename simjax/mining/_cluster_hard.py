"""Cluster hard: of each class its centre, the member farthest from it, and the nearest centre of another class.

Single rows may be mislabelled or blurred; the mean of a class in the batch is steadier. The centres are not rows of the
batch, so they are given along with the relation, and gradients flow through them:

    anchors, references, relation = cluster_hard(embeddings, labels)
    loss = losses.triplet_margin_loss(anchors, relation, ref_embeddings=references)
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import promote_to_float32, replace_non_finite_rows
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import first_largest


def cluster_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> tuple[Array, Array, Relation]:
    """Centres of the classes as anchors, each with its farthest member and the nearest centre of another class.

    Args:
        embeddings: [n, d].
        labels: class ids [n], or a `Relation` whose positives are classes.
        measure: a name or a `Measure`; its direction is respected.
        block_size: rows computed at once; None chooses.

    Returns:
        Anchors [n, d]: row i is the mean of the rows of i's class. References [2 n, d]: the embeddings, then the
        anchors. And the relation of these: one triplet for each class of two rows or more, in the place of its first
        row; the other rows have none.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.

    Example:
        Classes around 1 and 6; the rows farthest from there are numbers 2 and 4, centres are found from number 5 on:

        >>> x = jnp.array([[0.0], [0.5], [2.5], [6.0], [6.0]])
        >>> anchors, references, relation = cluster_hard(x, jnp.array([0, 0, 0, 1, 1]), measure="euclidean")
        >>> print(anchors[:, 0], relation.indices[0][:, 0], relation.indices[1][:, 0])
        [1. 1. 1. 6. 6.] [ 2 -1 -1  3 -1] [ 8 -1 -1  5 -1]
    """
    x, _, relation = rows_and_relation(embeddings, labels)
    anchors, positives, negatives = _of_classes(x, relation, as_measure(measure), block_size)
    chosen = positives[:, None], jnp.where(negatives >= 0, len(x) + negatives, -1)[:, None]
    classes = relation.classes and (relation.classes[0], jnp.concatenate(relation.classes))
    none = Partial(_none)
    found = Relation(none, none, (len(x), 2 * len(x)), classes, indices=chosen)
    return anchors, jnp.concatenate([x, anchors]), found


@partial(jax.jit, static_argnames="block_size")
def _of_classes(x: Array, relation: Relation, measure: Measure, block_size: int | None) -> tuple[Array, Array, Array]:
    options: dict[str, Any] = {"measure": measure, "block_size": block_size}
    centres, first, several = reduce_rows(Partial(_means, relation, promote_to_float32(x)), x, **options)
    still = lax.stop_gradient(centres)
    positives = reduce_rows(Partial(_farthest_member, relation, measure), still, lax.stop_gradient(x), **options)
    negatives = reduce_rows(Partial(_nearest_other, relation, measure, first), still, **options)
    there = first & several & (negatives >= 0)
    return centres.astype(x.dtype), jnp.where(there, positives, -1), jnp.where(there, negatives, -1)


def _means(relation: Relation, x: Array, s: Array, i: Array, j: Array) -> tuple[Array, Array, Array]:
    """Of each row the mean of its class, whether it is the first of it, and whether there are others."""
    positive, _ = relation.masks(i, j)
    member = positive | (i == j)
    x, nan = replace_non_finite_rows(x)  # so that a NaN reaches the centre of its own class alone
    members = member.astype(x.dtype)
    means = jnp.matmul(members, x, precision="highest") / jnp.sum(members, axis=1, keepdims=True)
    means = means + jnp.sum(jnp.where(member, nan[None], 0), axis=1, keepdims=True)
    return means, ~jnp.any(positive & (j < i), axis=1), jnp.any(positive, axis=1)


def _farthest_member(relation: Relation, measure: Measure, s: Array, i: Array, j: Array) -> Array:
    return first_largest(-promote_to_float32(measure.as_score(s)), relation.masks(i, j)[0] | (i == j))


def _nearest_other(relation: Relation, measure: Measure, first: Array, s: Array, i: Array, j: Array) -> Array:
    return first_largest(promote_to_float32(measure.as_score(s)), relation.masks(i, j)[1] & first[j[0]][None])


def _none(i: Array, j: Array) -> Array:
    return jnp.zeros((1, 1), bool)
