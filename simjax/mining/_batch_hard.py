"""Batch hard, and its easier relatives: one positive and one negative for each row.

    hard         the positive that is farthest away, the negative that is nearest
    easy         the other way round
    semi_hard    given the one, the hardest of the other that is not harder: a positive nearer than the negative, a
                 negative farther away than the positive
    all          every one

References:
    Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss for Person Re-Identification (batch hard). Xuan,
    Stylianou, Pless (2020), Improved Embeddings with Easy Positive Triplet Mining.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, check_choice, promote_to_float32
from simjax.mining._mined import related
from simjax.pairs import Relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import first_largest

STRATEGIES = ("hard", "semi_hard", "easy", "all")
Range = tuple[float, float]


def batch_hard(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Of each row its farthest positive and its nearest negative; rows that lack one of them have none.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`.
        block_size: rows computed at once; None chooses.

    Returns:
        A relation of one pair of each kind in a row, which losses compute without a strip; among equals the lowest
        column.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.

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
    labels: Any,
    *,
    positive: str = "easy",
    negative: str = "semi_hard",
    positive_range: Range | None = None,
    negative_range: Range | None = None,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """Of each row one positive and one negative, or all of one kind, as hard as is asked for.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        positive: hard, semi_hard, easy or all, see above.
        negative: the same.
        positive_range: lowest and highest value by the measure of positives that may be chosen; None is any. Not for
            "all".
        negative_range: the same of negatives.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`.
        block_size: rows computed at once; None chooses.

    Returns:
        A relation; a row that lacks what is asked for has no pair where both are chosen, and no such pair otherwise.

    Raises:
        InputError: for shapes that do not fit, an unknown measure or strategy, two that both depend on the other, or
            a range upside down.
        TypeError: for labels that are no integers.

    Example:
        The nearest positive, and the nearest negative that is farther away than it:

        >>> x = jnp.array([[0.0], [2.0], [5.0], [1.0], [4.5]])
        >>> positives, negatives = batch_easy_hard(x, jnp.array([0, 0, 0, 1, 1]), measure="euclidean").indices
        >>> print(positives[:, 0], negatives[:, 0])
        [1 0 1 4 3] [4 4 3 2 0]
    """
    for name, strategy in (("positive", positive), ("negative", negative)):
        check_choice(name, strategy, STRATEGIES)
    if "semi_hard" in (positive, negative) and (positive == negative or "all" in (positive, negative)):
        raise InputError(
            f"positive, negative: semi_hard depends on the one that is chosen of the other kind, got {positive} and "
            f"{negative}"
        )
    for name, bounds in (("positive_range", positive_range), ("negative_range", negative_range)):
        if bounds is not None and not bounds[0] <= bounds[1]:
            raise InputError(f"{name}: expected the lowest value first, got {bounds}")
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    ranges = tuple(None if r is None else jnp.asarray(r, jnp.float32) for r in (positive_range, negative_range))
    columns = _choose(x, y, relation, m, ranges, (positive, negative), block_size)
    if "all" not in (positive, negative):
        both = (columns[0] >= 0) & (columns[1] >= 0)
        return dataclasses.replace(relation, indices=tuple(jnp.where(both, c, -1)[:, None] for c in columns))
    kept = tuple(None if s == "all" else c for s, c in zip((positive, negative), columns, strict=True))
    return dataclasses.replace(relation, miner=Partial(_only, relation.miner, kept))


@partial(jax.jit, static_argnames=("strategies", "block_size"))
def _choose(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    ranges: tuple[Array | None, Array | None],
    strategies: tuple[str, str],
    block_size: int | None,
) -> tuple[Array, Array]:
    function = Partial(partial(_columns, strategies), relation, measure, ranges)
    return reduce_rows(function, x, y, measure=measure, block_size=block_size)


def _columns(
    strategies: tuple[str, str], relation: Relation, measure: Measure, ranges: Any, s: Array, i: Array, j: Array
) -> tuple[Array, Array]:
    allowed = tuple(
        mask if r is None else mask & ~((s < r[0]) | (s > r[1]))
        for mask, r in zip(relation.masks(i, j), ranges, strict=True)
    )
    c = promote_to_float32(measure.as_score(s))
    found: dict[int, Array] = {}
    for kind in sorted((0, 1), key=lambda kind: strategies[kind] == "semi_hard"):  # what depends on the other, last
        keep = allowed[kind]
        if strategies[kind] == "semi_hard":
            other = found[1 - kind]
            bound = jnp.take_along_axis(c, jnp.maximum(other, 0)[:, None], axis=1) if c.shape[1] else c
            keep = keep & (other >= 0)[:, None] & ~((c <= bound) if kind == 0 else (c >= bound))
        hardest_first = c if kind == 1 else -c
        found[kind] = first_largest(-hardest_first if strategies[kind] == "easy" else hardest_first, keep)
    return found[0], found[1]


def _only(earlier: Any, kept: tuple[Array | None, Array | None], i: Array, j: Array, *masks: Array) -> Any:
    masks = masks if earlier is None else earlier(i, j, *masks)
    return tuple(
        mask if columns is None else mask & (columns[i] == j) for mask, columns in zip(masks, kept, strict=True)
    )
