"""Triplet loss: an anchor should be closer to every positive than to every negative, by a margin.

    max(0, d(a, p) - d(a, n) + margin)

A batch of n holds up to n^3 triplets. They are reduced row by row (a row is an anchor), in blocks:

    all         every triplet
    hard        each anchor's farthest positive and nearest negative
    semi_hard   each pair of anchor and positive, with the nearest negative that is farther away than the positive;
                where there is none, with the farthest negative

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet. Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import check_choice, reduce_rows
from simjax.losses._relation import check_embeddings, same_class
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def triplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    *,
    margin: float = 0.2,
    mining: str = "all",
    measure: str | Measure = "euclidean",
    block: int | None = None,
) -> Num[Array, ""]:
    """Triplet loss over the triplets of a batch.

    Args:
        embeddings: [n, d].
        labels: integer class ids [n].
        margin: in units of the measure.
        mining: all, hard or semi_hard, see above.
        measure: a distance or a similarity, by name or as a `Measure`; its direction is respected.
        block: anchors computed at once; None chooses.

    Returns:
        The mean over the triplets with a loss above 0; 0 with zero gradient where there are none.

    Raises:
        InputError: for shapes that do not fit, an unknown mining or measure.

    Example:
        One anchor pair at distance 1, a negative at distance 3 and 2: only margins above 1 are violated.

        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> print(triplet_margin_loss(x, y, margin=1.0), triplet_margin_loss(x, y, margin=2.0))
        0.0 1.0
    """
    x, y = check_embeddings(embeddings, labels)
    check_choice("mining", mining, MININGS)
    return _triplet(x, y, margin, as_measure(measure), mining=mining, block=block)


@partial(jax.jit, static_argnames=("mining", "block"))
def _triplet(x: Array, labels: Array, margin: Array, measure: Measure, *, mining: str, block: int | None) -> Array:
    terms = MININGS[mining]

    def sums(s: Array, i: Array, j: Array) -> tuple[Array, Array]:
        loss = terms(measure.closest_first(s), *same_class(i, j, labels), margin).reshape(i.shape[0], -1)
        return jnp.sum(loss, 1), jnp.sum(loss > 0, 1, dtype=jnp.float32)

    copies = 4 * (1 if mining == "hard" else x.shape[0])
    totals, counts = reduce_rows(sums, x, measure=measure, copies=copies, block=block)
    return jnp.sum(totals) / jnp.maximum(jnp.sum(counts), 1)


def _all(closeness: Array, positive: Array, negative: Array, margin: Array) -> Array:
    """[r, n] closeness and masks to the loss of every triplet [r, n, n], 0 where it is none."""
    violation = jax.nn.relu(margin + closeness[:, None, :] - closeness[:, :, None])
    return jnp.where(positive[:, :, None] & negative[:, None, :], violation, 0)


def _hard(closeness: Array, positive: Array, negative: Array, margin: Array) -> Array:
    """One triplet an anchor, [r, 1]."""
    farthest = jnp.argmin(jnp.where(positive, closeness, jnp.inf), axis=1)
    nearest = jnp.argmax(jnp.where(negative, closeness, -jnp.inf), axis=1)
    violation = jax.nn.relu(margin + _pick(closeness, nearest[:, None]) - _pick(closeness, farthest[:, None]))
    return jnp.where((positive.any(1) & negative.any(1))[:, None], violation, 0)


def _semi_hard(closeness: Array, positive: Array, negative: Array, margin: Array) -> Array:
    """One triplet for each pair of anchor and positive, [r, n]."""
    farther = negative[:, None, :] & (closeness[:, None, :] < closeness[:, :, None])  # [r, positive, negative]
    nearest_farther = jnp.argmax(jnp.where(farther, closeness[:, None, :], -jnp.inf), axis=2)
    farthest = jnp.argmin(jnp.where(negative, closeness, jnp.inf), axis=1)
    chosen = jnp.where(farther.any(2), nearest_farther, farthest[:, None])  # [r, n]
    violation = jax.nn.relu(margin + _pick(closeness, chosen) - closeness)
    return jnp.where(positive & negative.any(1, keepdims=True), violation, 0)


def _pick(closeness: Array, columns: Array) -> Array:
    """The chosen entries of each row; the whole gradient goes to the entry chosen, the lowest index among ties."""
    return jnp.take_along_axis(closeness, columns, axis=1)


MININGS = {"all": _all, "hard": _hard, "semi_hard": _semi_hard}
