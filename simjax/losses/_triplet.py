"""Triplet loss: an anchor should be closer to every positive than to every negative, by a margin.

    max(0, d(a, p) - d(a, n) + margin)

A row of the similarity matrix is an anchor. A batch of n holds up to n^3 triplets, and none is ever written down: what
mining finds is how often each pair takes part, a number that is constant for the gradient, and the loss is a sum of
distances weighted by it.

    all         every triplet
    hard        each anchor's farthest positive and nearest negative
    semi_hard   each pair of anchor and positive, with the nearest negative that is farther away than the positive;
                where there is none, with the farthest negative

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet. Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_choice, for_each_marked
from simjax.losses._pair_loss import pair_loss
from simjax.losses._terms import Summed
from simjax.similarity import Measure


def triplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 0.05,
    mining: str = "all",
    measure: str | Measure = "normalized_euclidean",
    **options: Any,
) -> Any:
    """Triplet loss over the triplets of a batch: any relation, memory of a strip, time of n m for each positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        margin: in units of the measure.
        mining: all, hard or semi_hard, see above.
        measure: a distance or a similarity, by name or as a `Measure`; its direction is respected.
        **options: ref_embeddings, ref_labels, weights, reducer (a name), block: see `pair_loss`.

    Returns:
        The mean over the triplets with a loss above 0; 0 with zero gradient where there are none.

    Raises:
        InputError: for shapes that do not fit, an unknown mining, measure or reducer.

    Example:
        One anchor pair at distance 1, a negative at distance 3 and 2: only margins above 1 are violated.

        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> for margin in (1.0, 2.0):
        ...     print(triplet_margin_loss(x, y, margin=margin, measure="euclidean"))
        0.0
        1.0
    """
    check_choice("mining", mining, MININGS)
    return pair_loss(
        MININGS[mining],
        embeddings,
        labels,
        measure=measure,
        default_reducer="mean_nonzero",
        copies=12,
        margin=margin,
        **options,
    )


def _all(c: Array, positive: Array, negative: Array, *, margin: Array) -> Any:
    bound = lax.stop_gradient(c + margin)
    columns = jnp.arange(c.shape[1], dtype=jnp.int32)[None]

    def step(carry: tuple[Array, Array], value: Array, column: Array, there: Array) -> tuple[Array, Array]:
        coefficient, violated = carry
        active = negative & there & (bound > value)
        number = jnp.sum(active, axis=1, keepdims=True, dtype=jnp.int32)
        return coefficient + active - jnp.where(columns == column, number, 0), violated + number

    start = jnp.zeros(c.shape, jnp.int32), jnp.zeros((c.shape[0], 1), jnp.int32)
    coefficient, violated = for_each_marked(step, start, c, positive)
    triplets = jnp.sum(positive, axis=1) * jnp.sum(negative, axis=1)
    return {"triplet": _weighted(c, coefficient, violated[:, 0], triplets, margin)}


def _hard(c: Array, positive: Array, negative: Array, *, margin: Array) -> Any:
    farthest, nearest = _largest(jnp.where(positive, -c, -jnp.inf)), _largest(jnp.where(negative, c, -jnp.inf))
    columns = jnp.arange(c.shape[1])[None]
    found = positive.any(1) & negative.any(1)
    sign = jnp.where(columns == nearest[:, None], 1, 0) - jnp.where(columns == farthest[:, None], 1, 0)
    violated = found & (margin + jnp.sum(sign * c, axis=1) > 0)
    return {"triplet": _weighted(c, sign * violated[:, None], violated.astype(int), found.astype(int), margin)}


def _semi_hard(c: Array, positive: Array, negative: Array, *, margin: Array) -> Any:
    still, slack = lax.stop_gradient((c, margin))
    columns = jnp.arange(c.shape[1], dtype=jnp.int32)[None]
    farthest = _largest(jnp.where(negative, -still, -jnp.inf))[:, None]
    any_negative = jnp.any(negative, axis=1, keepdims=True)

    def step(carry: tuple[Array, Array], value: Array, column: Array, there: Array) -> tuple[Array, Array]:
        coefficient, violated = carry
        farther = jnp.where(negative & (still < value), still, -jnp.inf)
        found = jnp.max(farther, axis=1, keepdims=True) > -jnp.inf
        chosen = jnp.where(found, _largest(farther)[:, None], farthest)
        active = there & any_negative & (slack + jnp.take_along_axis(still, chosen, axis=1) > value)
        pair = jnp.where(columns == chosen, 1, 0) - jnp.where(columns == column, 1, 0)
        return coefficient + jnp.where(active, pair, 0), violated + active

    start = jnp.zeros(c.shape, jnp.int32), jnp.zeros((c.shape[0], 1), jnp.int32)
    coefficient, violated = for_each_marked(step, start, c, positive)
    triplets = jnp.sum(positive & any_negative, axis=1)
    return {"triplet": _weighted(c, coefficient, violated[:, 0], triplets, margin)}


def _largest(c: Array) -> Array:
    """The column of each row's largest entry, the lowest among equals; 0 where there are no columns."""
    return jnp.argmax(c, axis=1) if c.shape[1] else jnp.zeros(c.shape[0], int)


def _weighted(c: Array, coefficient: Array, violated: Array, triplets: Array, margin: Array) -> Summed:
    """The sum of the violated triplets of each row: what their pairs' closeness adds, and the margins."""
    pairs = jnp.where(coefficient != 0, coefficient.astype(c.dtype) * c, 0)
    return Summed(jnp.sum(pairs, axis=1) + margin * violated, violated, triplets)


MININGS = {"all": _all, "hard": _hard, "semi_hard": _semi_hard}
