"""The few hardest: of each row its farthest positives and its nearest negatives."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least, promote_to_float32, top_k_of_rows
from simjax.mining._mined import related
from simjax.pairs import Relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure


def n_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    n_positive: int = 2,
    n_negative: int = 2,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Of each row its farthest positives and its nearest negatives, as many as are asked for or there are.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        n_positive: how many, at least 1.
        n_negative: the same.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.
        block_size: rows computed at once; None chooses.

    Returns:
        A relation of so few pairs in a row that losses compute them without a strip.

    Raises:
        InputError: for shapes that do not fit, an unknown measure or less than one.
        TypeError: for labels that are no integers.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [3.0], [4.0], [9.0]])
        >>> mined = n_hard(x, jnp.array([0, 0, 0, 1, 1]), n_positive=1, measure="euclidean")
        >>> print(mined.indices[0][:3, 0], mined.indices[1][0], mined.indices[1][3])
        [2 2 0] [3 4] [2 1]
    """
    check_at_least("n_positive", n_positive, 1)
    check_at_least("n_negative", n_negative, 1)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    numbers = tuple(min(k, max(y.shape[0], 1)) for k in (n_positive, n_negative))
    return dataclasses.replace(relation, indices=_choose(x, y, relation, as_measure(measure), numbers, block_size))


@partial(jax.jit, static_argnames=("numbers", "block_size"))
def _choose(
    x: Array, y: Array, relation: Relation, measure: Measure, numbers: tuple[int, int], block_size: int | None
) -> tuple[Array, Array]:
    if not x.shape[0] or not y.shape[0]:
        positives, negatives = (jnp.full((x.shape[0], k), -1, jnp.int32) for k in numbers)
        return positives, negatives
    function = Partial(partial(_columns, numbers), relation, measure)
    return reduce_rows(function, x, y, measure=measure, block_size=block_size)


def _columns(
    numbers: tuple[int, int], relation: Relation, measure: Measure, s: Array, i: Array, j: Array
) -> tuple[Array, Array]:
    c = promote_to_float32(measure.as_score(s))
    found = []
    for hardest_first, mask, k in zip((-c, c), relation.masks(i, j), numbers, strict=True):
        hardest_first = jnp.where(jnp.isnan(c), jnp.inf, hardest_first)  # a NaN is selected before all numbers
        values, columns = top_k_of_rows(jnp.where(mask, hardest_first, -jnp.inf), k)
        found.append(jnp.where(values > -jnp.inf, columns, -1))
    return found[0], found[1]
