"""Hard-aware mining: the hardest share of all pairs of a batch, whatever rows they belong to.

Where a share ends is the k-th hardest of n m pairs. They are not stored, so it is searched: numbers are ordered as
their bits are, and each pass over the strips finds four bits more by counting.

References:
    Yuan, Yang, Zhang (2017), Hard-Aware Deeply Cascaded Embedding.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_carry, promote_to_float32
from simjax.mining._mined import closeness, keep_pairs, related
from simjax.pairs import Relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure

BITS = 4  # found in a pass
ROUNDING = 64  # units in the last place: a strip computed again in other blocks may differ by some


def hard_aware(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    share: float = 0.5,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """The hardest share of all positive pairs, and of all negative pairs; eight passes over the strips.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        share: above 0, at most 1; rounded up to whole pairs.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.
        block_size: rows computed at once; None chooses.

    Returns:
        A relation of the pairs that are kept; pairs as hard as the last one, but for rounding, are kept, too.

    Raises:
        InputError: for shapes that do not fit, an unknown measure or a share out of range.
        TypeError: for labels that are no integers.

    Example:
        Positive pairs at 1, 2 and 3, each seen from both sides: the hardest third is the pair at 3.

        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> mined = hard_aware(x, jnp.array([0, 0, 0]), share=1 / 3, measure="euclidean")
        >>> print(mined.masks(jnp.arange(3)[:, None], jnp.arange(3)[None])[0].astype(int))
        [[0 0 1]
         [0 0 0]
         [1 0 0]]
    """
    if not 0 < share <= 1:
        raise InputError(f"share: expected above 0 and at most 1, got {share}")
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    bounds = _bounds(x, y, relation, m, jnp.float32(share), block_size)
    return keep_pairs(_from_bounds, closeness(x, y, m), relation, bounds=bounds)


def _from_bounds(c: Array, i: Array, positive: Array, negative: Array, *, bounds: Array) -> tuple[Array, Array]:
    last = jnp.maximum(bounds, ROUNDING) - ROUNDING
    return positive & (_ordered(-c) >= last[0]), negative & (_ordered(c) >= last[1])


@partial(jax.jit, static_argnames="block_size")
def _bounds(x: Array, y: Array, relation: Relation, measure: Measure, share: Array, block_size: int | None) -> Array:
    """The bits of the last pair that is kept of each kind, uint32 [2]."""

    def count(bounds: Array) -> Array:  # of [2, b] how many pairs of each kind reach them
        found = reduce_rows(Partial(_reaching, relation, measure, bounds), x, y, measure=measure, block_size=block_size)
        return jnp.sum(found, axis=0, dtype=jnp.uint32)

    pairs = count(jnp.zeros((2, 1), jnp.uint32))[:, 0]
    wanted = jnp.maximum(jnp.ceil(pairs.astype(jnp.float32) * share).astype(jnp.uint32), 1)

    def next_bits(turn: Array, known: Array) -> Array:
        shift = 32 - BITS * (turn + 1).astype(jnp.uint32)
        candidates = known[:, None] | (jnp.arange(1, 2**BITS, dtype=jnp.uint32)[None] << shift)
        reached = jnp.sum(count(candidates) >= wanted[:, None], axis=1, dtype=jnp.uint32)
        return known | (reached << shift)

    start = as_carry(partial(next_bits, jnp.int32(0)), jnp.zeros(2, jnp.uint32))
    return lax.fori_loop(0, 32 // BITS, next_bits, start)


def _reaching(relation: Relation, measure: Measure, bounds: Array, s: Array, i: Array, j: Array) -> Array:
    c = promote_to_float32(measure.as_score(s))
    kinds = zip((-c, c), relation.masks(i, j), bounds, strict=True)
    counts = [[jnp.sum(mask & (_ordered(hard) >= b), axis=1) for b in of_kind] for hard, mask, of_kind in kinds]
    return jnp.stack([jnp.stack(of_kind, axis=1) for of_kind in counts], axis=1).astype(jnp.uint32)  # [r, 2, b]


def _ordered(values: Array) -> Array:
    """Numbers as uint32 in the same order."""
    bits = lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
