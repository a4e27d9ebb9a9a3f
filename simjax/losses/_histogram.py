"""Histogram loss: the probability that a negative pair is closer than a positive one.

Soft histograms p+ and p- of the closeness of all positive and of all negative pairs of the batch, each pair shared out
linearly between the two edges it lies between:

    loss = sum over edges r of p-(r) (p+(1) + ... + p+(r))

That is the mean over the negative pairs of the share of positives that are no closer. So there are two passes: one for
the histogram of the positives, a few numbers, and one that looks every negative pair up in its cumulative sum.

References:
    Ustinova, Lempitsky (2016), Learning Deep Embeddings with Histogram Loss.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, check_at_least, promote_to_float32
from simjax.losses._legacy import pair_loss
from simjax.losses._terms import RowSums
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure


def histogram_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    bins: int = 100,
    measure: str | Measure = "cosine",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    block_size: int | None = None,
    **options: Any,
) -> Any:
    """Histogram loss: one term for each negative pair, against all positive pairs; time n m d.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        bins: of the histogram.
        measure: one with a bounded range, by name or as a `Measure`; its direction is respected.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        block_size: rows computed at once; None chooses.
        **options: weights, reducer (a name, not mean_active): see `pair_loss`.

    Returns:
        The mean over the negative pairs, in [0, 1]; 0 where there are no positive or no negative ones.

    Raises:
        InputError: for shapes that do not fit, less than one bin, or a measure without bounds.

    Differs from pytorch-metric-learning, which leaves out negative pairs of two rows that have no positive, and fails
    where a similarity is 1.

    Example:
        The positive pair has cosine 0, one negative pair 0.6 and the other 0.8: both are closer.

        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> print(round(float(histogram_loss(x, jnp.array([0, 0, 1]))), 4))
        1.0
    """
    check_at_least("bins", bins, 1)
    m = as_measure(measure)
    if not np.isfinite(m.range).all():
        raise InputError(f"measure: expected one with a bounded range, got {m.name} with {m.range}")
    low, high = m.range if m.higher_is_closer else (-m.range[1], -m.range[0])
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    no_closer = _share_of_positives(x, y, relation, m, low, high, bins=bins, block_size=block_size)
    return pair_loss(
        _terms,
        x,
        labels,
        ref_embeddings=None if ref_embeddings is None else y,
        ref_labels=ref_labels,
        measure=m,
        block_size=block_size,
        low=low,
        high=high,
        no_closer=no_closer,
        **options,
    )


@partial(jax.jit, static_argnames=("bins", "block_size"))
def _share_of_positives(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    low: ArrayLike,
    high: ArrayLike,
    *,
    bins: int,
    block_size: int | None,
) -> Array:
    """Of every edge the share of all positive pairs up to it, [bins + 1]; 0 where there are none."""
    function = Partial(partial(_histogram_of_positives, bins), relation, measure, low, high)
    sums = jnp.cumsum(jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0))
    return sums / jnp.where(sums[-1] > 0, sums[-1], 1)


def _histogram_of_positives(
    bins: int, relation: Relation, measure: Measure, low: Array, high: Array, s: Array, i: Array, j: Array
) -> Array:
    """Of each row, [r, bins + 1]."""
    edge, beyond = _place(promote_to_float32(measure.as_score(s)), low, high, bins)
    positive = relation.masks(i, j)[0]
    rows = jnp.arange(len(edge), dtype=jnp.int32)[:, None]
    empty = jnp.zeros((len(edge), bins + 1), beyond.dtype)
    return (
        empty.at[rows, edge]
        .add(jnp.where(positive, 1 - beyond, 0), mode="promise_in_bounds")
        .at[rows, edge + 1]
        .add(jnp.where(positive, beyond, 0), mode="promise_in_bounds")
    )


def _terms(c: Array, positive: Array, negative: Array, *, low: Array, high: Array, no_closer: Array) -> Any:
    edge, beyond = _place(c, low, high, len(no_closer) - 1)
    here, above = (no_closer.at[k].get(mode="promise_in_bounds") for k in (edge, edge + 1))
    total = jnp.sum(jnp.where(negative, (1 - beyond) * here + beyond * above, 0), axis=1)
    any_positive = no_closer[-1] > 0
    return {"negative": RowSums(total, None, jnp.sum(negative, axis=1, dtype=jnp.int32) * any_positive)}


def _place(c: Array, low: Array, high: Array, bins: int) -> tuple[Array, Array]:
    """The edge below each closeness, and how far beyond it lies on the way to the next, 0 to 1."""
    place = (jnp.clip(c, low, high) - low) * (bins / (high - low))  # rounding errors may leave the range
    edge = jnp.clip(place.astype(jnp.int32), 0, bins - 1)
    return edge, place - edge
