"""Dynamic soft margin: triplets weigh as much as they are worse than others that were seen lately.

Of a triplet, x = d(a, p) - d(a, n), larger when worse. With F the share of triplets whose x is no larger, from a
histogram that follows training:

    loss = mean over all triplets of F(x) x

So there is no margin to choose: the weight grows from 0 for the easiest triplets to 1 for the hardest. The histogram is
an array that the caller keeps, like the state of an optimiser:

    histogram = dynamic_soft_margin_histogram(embeddings, labels, previous=histogram)
    loss = dynamic_soft_margin_loss(embeddings, labels, histogram=histogram)

References:
    Zhang, Rusinkiewicz (2019), Learning Local Descriptors with a CDF-Based Dynamic Soft Margin.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import as_float_array, check_at_least, check_fraction, check_positive, promote_to_float32
from simjax.losses._pair_loss import pair_loss
from simjax.losses._terms import Summed
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import fold_positives, take_columns
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure


def dynamic_soft_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    histogram: Num[ArrayLike, " bins"] | None = None,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    measure: str | Measure = "normalized_euclidean",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    block_size: int | None = None,
    **options: Any,
) -> Any:
    """Dynamic soft margin: one term for each triplet; memory of a strip, time of n m for each positive of a row.

    The weights F are constants for the gradient.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        histogram: from `dynamic_soft_margin_histogram`, [bins]; None is this batch's own.
        bins: of the batch's own histogram; not looked at where one is given.
        spread: x lies between -spread and spread.
        measure: a distance or a similarity, by name or as a `Measure`; its direction is respected.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        block_size: rows computed at once; None chooses.
        **options: weights, reducer (a name, not mean_nonzero): see `pair_loss`.

    Returns:
        The mean over all triplets, below 0 where most are in order; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, less than one bin, or a spread that is not positive.

    Differs from pytorch-metric-learning, whose first value is this one with `histogram=None`. There the gradient goes
    through the histogram, too, which in the paper is a constant, and so the backward pass of a second step fails. Its
    way without labels, each pair with the nearest of its negatives, is not here.

    Example:
        Two triplets, x = -2 and -1. Of bins at -5, -2.5, 0 and 2.5 the second gets 0.6 of them, the third 0.4:

        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> found = dynamic_soft_margin_loss(x, jnp.array([0, 0, 1]), measure="euclidean", spread=5.0, bins=4)
        >>> print(round(float(found), 4))  # 0.6 (-2 - 1) / 2
        -0.9
    """
    if histogram is None:
        histogram = dynamic_soft_margin_histogram(
            embeddings,
            labels,
            bins=bins,
            spread=spread,
            measure=measure,
            ref_embeddings=ref_embeddings,
            ref_labels=ref_labels,
            block_size=block_size,
        )
    check_positive("spread", spread)
    return pair_loss(
        _terms,
        embeddings,
        labels,
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        measure=measure,
        block_size=block_size,
        histogram=promote_to_float32(as_float_array("histogram", histogram)),
        spread=spread,
        **options,
    )


def dynamic_soft_margin_histogram(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    previous: Num[ArrayLike, " bins"] | None = None,
    momentum: ArrayLike = 0.01,
    bins: int = 10,
    spread: ArrayLike = 2.0,
    measure: str | Measure = "normalized_euclidean",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    block_size: int | None = None,
) -> Float[Array, " bins"]:
    """How the x of the triplets is distributed: this batch's histogram mixed into that of the batches before.

    Bin k is at -spread + 2 k spread / bins; an x between two bins is shared out linearly, one beyond the last is its.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        previous: the histogram of the batches before, [bins]; None or zeros where there were none.
        momentum: the weight of this batch, where there were others before, from 0 to 1.
        bins: of the histogram, where none is given.
        spread: x lies between -spread and spread.
        measure: a name or a `Measure`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        block_size: rows computed at once; None chooses.

    Returns:
        [bins], a constant for the gradient that adds up to 1; the previous one where the batch has no triplet.

    Raises:
        InputError: for shapes that do not fit, less than one bin, a spread that is not positive, or a momentum that is
            not in [0, 1].

    Differs from pytorch-metric-learning, where the momentum weighs numbers of triplets, so that of a batch of 10,000
    the batches before get 1% and not 99%.

    Example:
        Two triplets, x = -1 and x = -2, and bins at -4, -2, 0 and 2:

        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(dynamic_soft_margin_histogram(x, y, measure="euclidean", spread=4.0, bins=4))
        [0.   0.75 0.25 0.  ]
    """
    check_at_least("bins", bins, 1)
    check_positive("spread", spread)
    check_fraction("momentum", momentum)
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    before = jnp.zeros(bins) if previous is None else promote_to_float32(as_float_array("previous", previous))
    return _mixed(x, y, relation, as_measure(measure), before, momentum, spread, block_size=block_size)


@partial(jax.jit, static_argnames="block_size")
def _mixed(
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
    here = jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0)
    total = jnp.sum(here)
    share = jnp.where(jnp.sum(before) > 0, momentum, 1.0)
    mixed = (1 - share) * before + share * here / jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, before, mixed)


def _histogram_of_rows(
    bins: int, relation: Relation, measure: Measure, spread: Array, s: Array, i: Array, j: Array
) -> Array:
    c = promote_to_float32(measure.as_score(s))
    positive, negative = relation.masks(i, j)
    numbers = jnp.arange(bins, dtype=c.dtype)

    def step(histogram: Array, column: Array, there: Array) -> Array:
        place = _place(c - take_columns(c, column)[:, 0], spread, bins)
        shares = lax.map(
            lambda k: jnp.sum(jnp.where(negative, jax.nn.relu(1 - jnp.abs(place - k)), 0), axis=1), numbers
        )
        return histogram + jnp.where(there, shares.T, 0)

    return fold_positives(step, jnp.zeros((c.shape[0], bins), c.dtype), positive)


def _terms(c: Array, positive: Array, negative: Array, *, histogram: Array, spread: Array) -> Any:
    still, spread, cumulative = lax.stop_gradient((c, spread, jnp.cumsum(histogram)))
    columns = jnp.arange(c.shape[1], dtype=jnp.int32)[None]

    def step(coefficient: Array, column: Array, there: Array) -> Array:
        place = _place(still - take_columns(still, column)[:, 0], spread, len(cumulative))
        weight = jnp.where(negative & there, cumulative[jnp.floor(place).astype(jnp.int32)], 0)
        return coefficient + weight - jnp.where(columns == column, jnp.sum(weight, axis=1, keepdims=True), 0)

    coefficient = fold_positives(step, jnp.zeros_like(still), positive)
    triplets = jnp.sum(positive, axis=1, dtype=jnp.int32) * jnp.sum(negative, axis=1, dtype=jnp.int32)
    return {"triplet": Summed(jnp.sum(coefficient * c, axis=1), None, triplets)}


def _place(x: Array, spread: Array, bins: int) -> Array:
    """Where x lies among the bins, from 0 to bins - 1."""
    return jnp.clip((x + spread) / (2 * spread / bins), 0, bins - 1)
