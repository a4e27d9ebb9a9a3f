"""The dynamic soft margin loss: a triplet loss with weights that grow with the rank of a triplet among recent ones."""

from functools import partial
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from simjax.core import (
    as_float_array,
    check_at_least,
    check_fraction,
    check_positive,
    promote_to_float32,
)
from simjax.losses._options import Labels, PairOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss
from simjax.losses._terms import RowSums
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import fold_positives, take_columns
from simjax.similarity import Measure, reduce_rows


class HistogramOptions(TypedDict, total=False):
    """Options of `dynamic_soft_margin_histogram`: those of `PairOptions` without `weights` and `reducer`."""

    ref_embeddings: Num[ArrayLike, "m d"] | None
    ref_labels: Integer[ArrayLike, " m"] | None
    measure: str | Measure | None
    block_size: int | None


def dynamic_soft_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    histogram: Num[ArrayLike, " bins"] | None = None,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    **options: Unpack[PairOptions],
) -> Float[Array, ""]:
    """Compute a triplet loss whose weights grow from 0 for the easiest recent triplets to 1 for the hardest.

        loss = mean over all triplets of F(x) x,    x = d(a, p) - d(a, n)

    F is the cumulative share of a histogram of x, a constant for the gradient, so there is no margin to choose. The
    caller stores the histogram, like the state of an optimizer:

        histogram = dynamic_soft_margin_histogram(embeddings, labels, previous=histogram)
        loss = dynamic_soft_margin_loss(embeddings, labels, histogram=histogram)

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`.
        histogram: From `dynamic_soft_margin_histogram`, [bins]. Default: that of this batch.
        bins: Number of bins of the histogram of this batch; ignored if a histogram is given.
        spread: x is between -spread and spread.
        **options: See `PairOptions`; the reducer must be a name other than "mean_active". Default measure:
            normalized_euclidean.

    Returns:
        Mean over all triplets, below 0 if most positives are closer than the negatives; 0 if there are none.

    Raises:
        InputError: For shapes that do not match, less than one bin, or a spread that is not positive.

    Differs from pytorch-metric-learning, whose first value equals this one with `histogram=None`. There the gradient
    includes that of the histogram, which is a constant in the paper, so the backward pass of a second step fails. Its
    variant without labels, where each pair has its nearest negative, is missing here.

    Example:
        Two triplets, x = -2 and -1. Of bins at -5, -2.5, 0 and 2.5 the second gets a share of 0.6, the third 0.4:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> loss = dynamic_soft_margin_loss(x, labels, measure="euclidean", spread=5.0, bins=4)
        >>> print(round(float(loss), 4))  # 0.6 (-2 - 1) / 2
        -0.9

    References:
        Zhang, Rusinkiewicz (2019), Learning Local Descriptors with a CDF-Based Dynamic Soft Margin.
    """
    resolved = resolve_options(dynamic_soft_margin_loss, options, measure="normalized_euclidean")
    if histogram is None:
        histogram = _update_histogram(embeddings, labels, resolved, None, 1.0, bins, spread)
    check_positive("spread", spread)
    return compute_pair_loss(
        _dynamic_soft_margin_terms,
        embeddings,
        labels,
        resolved,
        histogram=promote_to_float32(as_float_array("histogram", histogram)),
        spread=spread,
    )


def dynamic_soft_margin_histogram(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    *,
    previous: Num[ArrayLike, " bins"] | None = None,
    momentum: ArrayLike = 0.01,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    **options: Unpack[HistogramOptions],
) -> Float[Array, " bins"]:
    """Compute the histogram of x = d(a, p) - d(a, n) of the triplets of a batch, averaged with earlier batches.

    Bin k is at -spread + 2 k spread / bins. An x between two bins is shared between them linearly, and one beyond the
    last bin is counted there.

    Args:
        embeddings: [n, d].
        labels: Class ids [n] or a `Relation`.
        previous: Histogram of earlier batches, [bins]. Default: zeros, for none.
        momentum: Weight of this batch if there were others, from 0 to 1.
        bins: Number of bins if `previous` is not given.
        spread: x is between -spread and spread.
        **options: See `HistogramOptions`. Default measure: normalized_euclidean.

    Returns:
        [bins] with the sum 1, a constant for the gradient; `previous` if the batch has no triplet.

    Raises:
        InputError: For shapes that do not match, less than one bin, a spread that is not positive, or a momentum
            outside of [0, 1].

    Differs from pytorch-metric-learning, where the momentum weights the numbers of triplets, so that after a batch of
    10,000 the earlier batches have 1% and not 99%.

    Example:
        Two triplets, x = -1 and x = -2, and bins at -4, -2, 0 and 2:

        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(dynamic_soft_margin_histogram(x, labels, measure="euclidean", spread=4.0, bins=4))
        [0.   0.75 0.25 0.  ]
    """
    resolved = resolve_options(
        dynamic_soft_margin_histogram, options, accepted=HistogramOptions, measure="normalized_euclidean"
    )
    return _update_histogram(embeddings, labels, resolved, previous, momentum, bins, spread)


def _update_histogram(
    embeddings: ArrayLike,
    labels: Labels,
    options: ResolvedOptions,
    previous: ArrayLike | None,
    momentum: ArrayLike,
    bins: int,
    spread: ArrayLike,
) -> Array:
    check_at_least("bins", bins, 1)
    check_positive("spread", spread)
    check_fraction("momentum", momentum)
    x, y, relation = rows_and_relation(embeddings, labels, options.ref_embeddings, options.ref_labels)
    before = jnp.zeros(bins) if previous is None else promote_to_float32(as_float_array("previous", previous))
    return _average_histograms(x, y, relation, options.measure, before, momentum, spread, block_size=options.block_size)


@partial(jax.jit, static_argnames="block_size")
def _average_histograms(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    before: Array,
    momentum: Array,
    spread: Array,
    *,
    block_size: int | None,
) -> Array:
    x, y, measure, spread = lax.stop_gradient((x, y, measure, spread))
    function = Partial(partial(_histogram_of_rows, len(before)), relation, measure, spread)
    counts = jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0)
    total = jnp.sum(counts)
    share = jnp.where(jnp.sum(before) > 0, momentum, 1.0)
    averaged = (1 - share) * before + share * counts / jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, before, averaged)


def _histogram_of_rows(
    bins: int, relation: Relation, measure: Measure, spread: Array, tile: Array, i: Array, j: Array
) -> Array:
    scores = promote_to_float32(measure.as_score(tile))
    positive, negative = relation.masks(i, j)
    numbers = jnp.arange(bins, dtype=scores.dtype)

    def add(histogram: Array, index: Array, is_valid: Array) -> Array:
        position = _position(scores - take_columns(scores, index)[:, 0], spread, bins)
        shares = lax.map(
            lambda k: jnp.sum(jnp.where(negative, jax.nn.relu(1 - jnp.abs(position - k)), 0), axis=1), numbers
        )
        return histogram + jnp.where(is_valid, shares.T, 0)

    return fold_positives(add, jnp.zeros((scores.shape[0], bins), scores.dtype), positive)


def _dynamic_soft_margin_terms(
    scores: Array, positive: Array, negative: Array, *, histogram: Array, spread: Array
) -> Terms:
    constant, spread, cumulative = lax.stop_gradient((scores, spread, jnp.cumsum(histogram)))
    columns = jnp.arange(scores.shape[1], dtype=jnp.int32)[None]

    def add(coefficient: Array, index: Array, is_valid: Array) -> Array:
        position = _position(constant - take_columns(constant, index)[:, 0], spread, len(cumulative))
        weight = jnp.where(negative & is_valid, cumulative[jnp.floor(position).astype(jnp.int32)], 0)
        return coefficient + weight - jnp.where(columns == index, jnp.sum(weight, axis=1, keepdims=True), 0)

    coefficient = fold_positives(add, jnp.zeros_like(constant), positive)
    count = jnp.sum(positive, axis=1, dtype=jnp.int32) * jnp.sum(negative, axis=1, dtype=jnp.int32)
    return {"triplet": RowSums(jnp.sum(coefficient * scores, axis=1), None, count)}


def _position(x: Array, spread: Array, bins: int) -> Array:
    """Return the position of x among the bins, from 0 to bins - 1."""
    return jnp.clip((x + spread) / (2 * spread / bins), 0, bins - 1)
