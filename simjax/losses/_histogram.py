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

from simjax.core import InputError, Relation, check_at_least, reduce_rows, rows_and_relation, soft_bins, wide
from simjax.losses._pair_loss import pair_loss
from simjax.losses._terms import Summed
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def histogram_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    bins: int = 100,
    measure: str | Measure = "cosine",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    block: int | None = None,
    **options: Any,
) -> Any:
    """Histogram loss: one term for each negative pair, against all positive pairs; time n m (d + bins).

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        bins: of the histogram.
        measure: one with a bounded range, by name or as a `Measure`; its direction is respected.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        block: rows computed at once; None chooses.
        **options: weights, reducer (a name, not mean_nonzero): see `pair_loss`.

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
    edges = jnp.linspace(low, high, bins + 1)
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    no_closer = _share_of_positives(x, y, relation, m, edges, block=block)
    return pair_loss(
        _terms,
        x,
        labels,
        ref_embeddings=None if ref_embeddings is None else y,
        ref_labels=ref_labels,
        measure=m,
        block=block,
        edges=edges,
        no_closer=no_closer,
        **options,
    )


@partial(jax.jit, static_argnames="block")
def _share_of_positives(
    x: Array, y: Array, relation: Relation, measure: Measure, edges: Array, *, block: int | None
) -> Array:
    """Of every edge the share of all positive pairs up to it, [bins + 1]; 0 where there are none."""
    found = reduce_rows(Partial(_of_positives, relation, measure, edges), x, y, measure=measure, copies=8, block=block)
    sums = jnp.cumsum(jnp.sum(found, axis=0))
    return sums / jnp.where(sums[-1] > 0, sums[-1], 1)


def _of_positives(relation: Relation, measure: Measure, edges: Array, s: Array, i: Array, j: Array) -> Array:
    return soft_bins(_within(wide(measure.closest_first(s)), edges), relation.masks(i, j)[0], edges)


def _terms(c: Array, positive: Array, negative: Array, *, edges: Array, no_closer: Array) -> Any:
    total = jnp.sum(soft_bins(_within(c, edges), negative, edges) * no_closer[None], axis=1)
    any_positive = no_closer[-1] > 0
    return {"negative": Summed(total, None, jnp.sum(negative, axis=1, dtype=jnp.int32) * any_positive)}


def _within(c: Array, edges: Array) -> Array:
    """Without rounding errors beyond the range."""
    return jnp.clip(c, edges[0], edges[-1])
