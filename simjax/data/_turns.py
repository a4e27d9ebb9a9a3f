"""Turns: everyone is there once before anyone comes again, and batch b is found without the batches before it.

Within a pass the members of a group stand in a random order, and each visit takes the next m of them. Pass and place
follow from the number of the visit alone, so that a run which resumes at step s goes on bit for bit, and every host
draws the same. A sampler is two or three such steps: classes take turns, and then the images within each class.

The random order is never written down. A swap-or-not shuffle says which member stands at a place: in each round x may
change places with its partner, k - x modulo n, and one coin decides for both, a hash of the pair. It costs the same for
ten members as for ten million, where a permutation would be sorted at every step.

References:
    Hoang, Morris, Rogaway (2012), An Enciphering Scheme Based on a Card Shuffle.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int

from simjax.core import mixed_bits
from simjax.data._sampler import ClassTable

ROUNDS = 32
"""Twice what it takes until 60,000 draws tell no order of 5 members and no neighbours among 37 from any others."""


def shuffled(key: Array, place: Int[ArrayLike, "*s"], n: ArrayLike) -> Int[Array, "*s"]:
    """Which of 0 .. n - 1 stands at a place of a random order, without making the order.

    Args:
        key: of the order.
        place: integers in 0 .. n - 1, any shape.
        n: how many there are, at least 1; may be traced.

    Returns:
        int32 of the same shape; different places hold different members.

    Example:
        >>> order = shuffled(jax.random.key(0), jnp.arange(5), 5)
        >>> sorted(order.tolist())
        [0, 1, 2, 3, 4]
        >>> shuffled(jax.random.key(0), 3, 5) == order[3]
        Array(True, dtype=bool)
    """
    n = jnp.asarray(n, jnp.uint32)
    sums, salts = jax.random.bits(key, (2, ROUNDS))
    sums = sums % n

    def swap(i: Array, x: Array) -> Array:
        partner = (sums[i] + n - x) % n
        coin = mixed_bits(jnp.maximum(x, partner) ^ salts[i]) & 1  # the same for both of them
        return jnp.where(coin == 1, partner, x)

    return jax.lax.fori_loop(0, ROUNDS, swap, jnp.asarray(place, jnp.uint32)).astype(jnp.int32)


class Drawn(NamedTuple):
    """Who was drawn at a visit, [k] each, and how they are visited in turn.

    Attributes:
        members: their numbers.
        keys: of what is drawn within each of them.
        visits: the number of the visit to each.
        part: which part of that visit this is, where a member was drawn several times.
        parts: of how many.
    """

    members: Array
    keys: Array
    visits: Array
    part: Array
    parts: Array


def draw(key: Array, visit: Array, n: Array, k: int, part: ArrayLike = 0, parts: ArrayLike = 1) -> Drawn:
    """The next k of n members, at a visit of that number, or at one part of it.

    A pass has as many visits as it takes. Where the last of them is not full it is filled up with those who came first,
    who are then visited with a key of their own, so that this shifts nobody's turn. Where there are less than k, the
    same ones are drawn several times, and each time is a part of one visit.
    """
    n = jnp.maximum(n, 1)
    together = k * jnp.asarray(parts, jnp.int32)
    in_pass = -(-n // together)
    number = visit // in_pass
    place = visit % in_pass * together + k * jnp.asarray(part, jnp.int32) + jnp.arange(k, dtype=jnp.int32)
    members, time = shuffled(jax.random.fold_in(key, number), place % n, n), place // n
    too_few = n < together
    own = -1 - (members + jnp.where(too_few, 0, time) * n)  # numbers below 0, where no pass has its own
    return Drawn(
        members,
        jax.vmap(jax.random.fold_in, (None, 0))(key, own),
        jnp.broadcast_to(number, k),
        jnp.where(too_few, time, 0),
        jnp.broadcast_to(jnp.where(too_few, -(-together // n), 1), k),
    )


def draw_within(drawn: Drawn, table: ClassTable, m: int) -> Drawn:
    """The next m of each drawn class, next to each other: [k m] in all."""
    counts = table.counts[drawn.members]
    each = jax.vmap(draw, (0, 0, 0, None, 0, 0))
    within = each(drawn.keys, drawn.visits, counts, m, drawn.part, drawn.parts)
    members = table.rows[drawn.members[:, None], within.members]
    return jax.tree.map(lambda a: a.reshape(-1), within._replace(members=members))
