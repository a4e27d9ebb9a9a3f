"""What miners share: a strip of their own measure, and a relation that keeps a part of another.

A miner is a formula of a strip, as a loss is: of closeness c [r, m] and of the positive and negative pairs it keeps
some, or makes triplets of some. Its result is a `Relation`, so that every loss of pairs or triplets takes it. What a
miner finds is constant for the gradient, and nothing of n x m is stored: a loss asks it strip by strip.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, auto_axes, promote_to_float32
from simjax.pairs import Relation
from simjax.pairs._fold_positives import take_columns
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def related(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    ref_embeddings: Num[ArrayLike, "m d"] | None,
    ref_labels: Any,
    names: tuple[str, str] = ("embeddings", "ref_embeddings"),
) -> tuple[Array, Array, Relation]:
    """Rows x [n, d], columns y [m, d], both constants for the gradient, and who is similar to whom.

    Raises:
        InputError: for shapes that do not fit, or labels that are triplets already.
    """
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels, names)
    if relation.triplets is not None or relation.indices is not None:
        raise InputError("labels: expected class ids or a relation of pairs, got what a miner has made triplets of")
    return lax.stop_gradient(x), lax.stop_gradient(y), relation


def closeness(x: Array, y: Array, measure: str | Measure) -> Any:
    """Strips by a miner's measure: a function of rows i [r, 1] and columns j [1, m] that gives [r, m]."""
    m = as_measure(measure)
    return Partial(_strip, m, *_prepared(m, x, y))  # made ready once, and not for each block


def keep_pairs(
    function: Callable[..., tuple[Array, Array]], strips: Callable[..., Array], relation: Relation, **settings: Any
) -> Relation:
    """The pairs that `function(c, i, positive, negative, **settings)` keeps, as two masks; rows are i [r, 1]."""
    return dataclasses.replace(
        relation, miner=Partial(_bound(_kept, function), relation.miner, strips, _arrays(settings))
    )


def keep_triplets(
    function: Callable[..., Callable[[Array], Array]], strips: Callable[..., Array], relation: Relation, **settings: Any
) -> Relation:
    """The triplets that `function(c, i, negative, **settings)` keeps.

    It gives a `Partial` that takes the columns of a few positives [r, few] and says which negatives make triplets with
    them [r, few, m].
    """
    return dataclasses.replace(relation, triplets=Partial(_bound(_of_triplets, function), strips, _arrays(settings)))


@jax.jit
@auto_axes
def _prepared(measure: Measure, x: Array, y: Array) -> tuple[Any, Any]:
    return measure.tile_inputs(x, y)


@functools.cache
def _bound(outer: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(outer, function)  # one object each, so that mining outside of jit compiles a loss once


def _arrays(settings: dict[str, Any]) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, settings)


def _strip(measure: Measure, rows: Any, columns: Any, i: Array, j: Array) -> Array:
    part = jax.tree.map(lambda a: a[i[:, 0]], rows)
    s = promote_to_float32(measure.as_score(measure.tile(part, columns)))
    if s.shape[1] != j.shape[1]:
        raise InputError(f"j: a mined relation needs all {s.shape[1]} columns at once, got {j.shape[1]}")
    return s


def _kept(function: Any, earlier: Any, strips: Any, settings: Any, i: Array, j: Array, *masks: Array) -> Any:
    masks = masks if earlier is None else earlier(i, j, *masks)
    c, missing = _without_nan(strips(i, j))
    found = function(c, i, *masks, **settings)
    return tuple(kept | (mask & missing) for kept, mask in zip(found, masks, strict=True))


def _of_triplets(function: Any, strips: Any, settings: Any, i: Array, j: Array, _: Array, negative: Array) -> Any:
    c, missing = _without_nan(strips(i, j))
    return Partial(_or_nan, function(c, i, negative, **settings), missing, negative)


def _without_nan(c: Array) -> tuple[Array, Array]:
    """Closeness without NaN, which comparisons would drop, and where it was: a miner selects all of these pairs."""
    missing = jnp.isnan(c)
    return jnp.where(missing, 0, c), missing


def _or_nan(negatives_of: Callable[[Array], Array], missing: Array, negative: Array, columns: Array) -> Array:
    """The negatives of a few positives, and every negative whose pair or whose positive has the score NaN."""
    return negatives_of(columns) | (negative[:, None] & (missing[:, None] | take_columns(missing, columns)))
