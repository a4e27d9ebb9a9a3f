"""Hard negatives of a whole data set: for every row the closest rows that are not similar to it.

A batch holds few of them, and late in training none. Between epochs all rows are embedded and compared, and each gets a
list to draw its negatives from. The very closest are often wrong labels or unnamed positives, which is what the bounds
are for: a negative must be farther away than the row's positives by a margin, or not closer than a score.

The matrix is reduced in strips and never stored, so that the memory is that of one strip for any number of rows; time
is n m d. From the result, how often each row is a hard negative is a score for `data.sample_by_score`:

    often = jnp.zeros(n).at[columns].add(columns >= 0)

References:
    Moreira et al. (2024), NV-Retriever: Improving text embedding models with effective hard-negative mining (margins
    relative to the positive). Xuan, Stylianou, Liu, Pless (2020), Hard negative examples are hard, but useful.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import InputError, check_at_least, check_choice, promote_to_float32, rank_keys, top_k_of_rows
from simjax.mining._mined import related
from simjax.pairs import Relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure

SAMPLINGS = ("top", "random")
POSITIVES = ("farthest", "nearest", "mean")
CANDIDATES = 10  # for each negative that is drawn at random, where no range says how many


def hard_negatives(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    k: int = 3,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "cosine",
    range_min: int = 0,
    range_max: int | None = None,
    max_score: ArrayLike | None = None,
    min_score: ArrayLike | None = None,
    absolute_margin: ArrayLike | None = None,
    relative_margin: ArrayLike | None = None,
    positive: str = "farthest",
    sampling: str = "top",
    key: Array | None = None,
    block_size: int | None = None,
    precision: str | None = None,
) -> Int[Array, "n {k}"]:
    """For each row, k of its closest negatives within bounds.

    Of the negatives that keep all the bounds given, in the order of their closeness from rank 0, those of the ranks
    range_min to range_max - 1 are candidates. Scores are the measure's own values, and its direction is respected: with
    a distance "at most this close" is "at least this far".

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        k: how many for each row.
        ref_embeddings: where to look for negatives, [m, d]; None is among the embeddings.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`.
        range_min: ranks to skip.
        range_max: the rank to stop before; None is range_min + k, or range_min + 10 k for the sampling "random".
        max_score: how close a negative may be.
        min_score: how close it must be.
        absolute_margin: how much farther than the row's positive it must be: s <= s_p - margin, d >= d_p + margin.
        relative_margin: the same as a share of the positive's score: s <= s_p - margin |s_p|, d >= d_p + margin |d_p|.
            0.05 lets a negative be 95% as similar as the positive.
        positive: which of the row's positives that is: the farthest, the nearest, or the mean of all their scores. A
            row without any has no margin to keep.
        sampling: "top" takes the first k candidates, "random" any k of them.
        key: of the sampling "random".
        block_size: rows computed at once; None chooses.
        precision: of matrix products, see `simjax.similarity.reduce_rows`.

    Returns:
        int32 [n, k], rows of the embeddings or of the reference embeddings, closest first, the lowest first among
        equals; those with the score NaN come after all others; -1 where there are fewer.

    Raises:
        InputError: for shapes that do not fit, an unknown measure, sampling or positive, an empty range, a negative
            margin, or "random" without a key.
        TypeError: for labels that are no integers.

    Differs from sentence-transformers' mine_hard_negatives in that no candidate is missed: it looks at the nearest
    rows alone and applies the bounds to those, here the bounds come first. Its relative margin is of s_p, not of |s_p|,
    which lets negatives closer than the positive pass where that is below 0. Its positive is the farthest, too.

    Example:
        From 0 the negatives are 3, 4 and 9 apart, and the positive 2; a margin of 2 leaves 4 and 9.

        >>> x, labels = jnp.array([[0.0], [2.0], [3.0], [-4.0], [9.0]]), jnp.array([0, 0, 1, 1, 2])
        >>> print(hard_negatives(x, labels, k=2, measure="euclidean")[0])
        [2 3]
        >>> print(hard_negatives(x, labels, k=3, measure="euclidean", absolute_margin=2.0)[0])
        [ 3  4 -1]
    """
    check_choice("sampling", sampling, SAMPLINGS)
    check_choice("positive", positive, POSITIVES)
    check_at_least("k", k, 1)
    check_at_least("range_min", range_min, 0)
    check_at_least("absolute_margin", absolute_margin, 0)
    check_at_least("relative_margin", relative_margin, 0)
    if range_max is None:
        range_max = range_min + (k if sampling == "top" else CANDIDATES * k)
    if range_max <= range_min:
        raise InputError(f"range_max: expected more than range_min = {range_min}, got {range_max}")
    if sampling == "random" and key is None:
        raise InputError('key: expected a key for the sampling "random", got None')
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    bounds = {
        "max_score": max_score,
        "min_score": min_score,
        "absolute_margin": absolute_margin,
        "relative_margin": relative_margin,
    }
    key = key if sampling == "random" else None
    return _hard_negatives(
        x, y, relation, as_measure(measure), bounds, key, positive, k, range_min, range_max, block_size, precision
    )


@partial(jax.jit, static_argnums=(6, 7, 8, 9, 10, 11))
def _hard_negatives(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    bounds: dict[str, ArrayLike | None],
    key: Array | None,
    positive: str,
    k: int,
    range_min: int,
    range_max: int,
    block_size: int | None,
    precision: str | None,
) -> Array:
    depth = min(range_max, y.shape[0])
    if depth <= range_min:
        return jnp.full((x.shape[0], k), -1, jnp.int32)
    function = Partial(partial(_closest, positive, depth), relation, measure, bounds)
    columns = reduce_rows(function, x, y, measure=measure, block_size=block_size, precision=precision)
    candidates = columns[:, range_min:]
    if key is not None:
        candidates = _any(key, candidates, k)
    missing = max(k - candidates.shape[1], 0)
    return jnp.pad(candidates[:, :k], ((0, 0), (0, missing)), constant_values=-1)


def _closest(
    positive: str,
    depth: int,
    relation: Relation,
    measure: Measure,
    bounds: dict[str, Any],
    s: Array,
    i: Array,
    j: Array,
) -> Array:
    """The columns of the closest negatives within bounds, int32 [r, depth]; -1 where there are fewer."""
    c = measure.as_score(promote_to_float32(s))
    similar, keep = relation.masks(i, j)
    if bounds["max_score"] is not None:
        keep &= ~(c > measure.as_score(jnp.asarray(bounds["max_score"])))
    if bounds["min_score"] is not None:
        keep &= ~(c < measure.as_score(jnp.asarray(bounds["min_score"])))
    if bounds["absolute_margin"] is not None or bounds["relative_margin"] is not None:
        own, found = _of_positives(positive, c, similar)
        for margin, unit in (("absolute_margin", 1), ("relative_margin", jnp.abs(own))):
            if bounds[margin] is not None:
                keep &= ~found | ~(c > own - bounds[margin] * unit)
    columns = top_k_of_rows(rank_keys(c, keep), depth)[1]
    return jnp.where(jnp.arange(depth) < jnp.sum(keep, axis=1, keepdims=True), columns, -1)


def _of_positives(which: str, c: Array, similar: Array) -> tuple[Array, Array]:
    """The closeness of the positive that margins count from, and whether there is one, [r, 1] both."""
    number = jnp.sum(similar, axis=1, keepdims=True)
    if which == "farthest":
        own = jnp.min(jnp.where(similar, c, jnp.inf), axis=1, keepdims=True)
    elif which == "nearest":
        own = jnp.max(jnp.where(similar, c, -jnp.inf), axis=1, keepdims=True)
    else:
        own = jnp.sum(jnp.where(similar, c, 0), axis=1, keepdims=True) / jnp.maximum(number, 1)
    return own, number > 0


def _any(key: Array, candidates: Array, k: int) -> Array:
    """At most k of each row's candidates, each as likely, still in their order."""
    chance = jnp.where(candidates >= 0, jax.random.uniform(key, candidates.shape), -1.0)
    chosen = jax.lax.top_k(chance, min(k, candidates.shape[1]))[1]
    return jnp.take_along_axis(candidates, jnp.sort(chosen, axis=1), axis=1)
