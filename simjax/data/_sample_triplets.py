"""A fixed set of triplets: nobody knows classes, only that a is more similar to p than to n.

The set may come from people's judgements, or be drawn once from classes, as an experiment. Batches then go through it
in turn. Rows are anchors and columns the others of the batch, of which each row has one positive and one negative:

    anchor, positive, negative = sample_triplets(key, step, triplets, b)
    relation = pairs.by_matrix(jnp.eye(b, 2 * b, dtype=bool), jnp.eye(b, 2 * b, k=b, dtype=bool))
    others = jnp.concatenate([embed(positive), embed(negative)])
    loss = losses.triplet_margin_loss(embed(anchor), relation, ref_embeddings=others)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int

from simjax.core import InputError, as_exact_array, as_integer_array, check_at_least
from simjax.data._sampler import ClassTable, locate
from simjax.data._turns import draw


def fixed_triplets(key: Array, table: ClassTable, n_triplets: int) -> Int[Array, "{n_triplets} 3"]:
    """Draw a set of triplets from classes. Made once.

    Args:
        key: of the draw.
        table: of the classes.
        n_triplets: how many, at least 1; they are independent, so that two may be equal.

    Returns:
        int32 [n_triplets, 3]: two images of a class, which is uniformly random among those that have two, and one of
        another class, uniformly random among the others.

    Raises:
        InputError: if there are no two classes with images, or none with two of them.

    Differs from pytorch-metric-learning: in its FixedSetOfTriplets an anchor whose class has no other image is its own
    positive.

    Example:
        >>> from simjax.data import class_table
        >>> fixed_triplets(jax.random.key(0), class_table(np.array([0, 1, 1]), 2), 2)[:, 2].tolist()
        [0, 0]
    """
    check_at_least("n_triplets", n_triplets, 1)
    counts = np.asarray(table.counts)
    if np.sum(counts > 0) < 2 or counts.max() < 2:
        raise InputError(
            f"table: expected two classes with images, one of them with two, got at most {counts.max(initial=0)} "
            f"images in {np.sum(counts > 0)} classes"
        )
    return _fixed_triplets(key, table, n_triplets)


@partial(jax.jit, static_argnames="t")
def _fixed_triplets(key: Array, table: ClassTable, t: int) -> Array:
    keys = jax.random.split(key, 5)
    there, paired = (table.counts > 0).astype(jnp.int32), (table.counts > 1).astype(jnp.int32)
    own, _ = locate(jax.random.randint(keys[0], (t,), 0, paired.sum()), paired)
    rank = jnp.cumsum(there)[own] - 1  # of the own class among those with images
    other = jax.random.randint(keys[1], (t,), 0, there.sum() - 1)
    other, _ = locate(other + (other >= rank), there)
    anchor = jax.random.randint(keys[2], (t,), 0, table.counts[own])
    positive = (anchor + jax.random.randint(keys[3], (t,), 1, table.counts[own])) % table.counts[own]
    negative = jax.random.randint(keys[4], (t,), 0, table.counts[other])
    return jnp.stack([table.rows[own, anchor], table.rows[own, positive], table.rows[other, negative]], axis=1)


def sample_triplets(
    key: Array, step: ArrayLike, triplets: Int[ArrayLike, "t 3"], batch: int
) -> tuple[Int[Array, " batch"], Int[Array, " batch"], Int[Array, " batch"]]:
    """Batch number `step`: the triplets whose turn it is.

    An epoch has ceil(t / batch) batches. In it each triplet comes once before any comes again; only the last batch,
    where it is not full, takes in some a second time. The next epoch has another order.

    Args:
        key: of the whole run: a batch is a function of key, step and triplets, and of nothing else.
        step: which batch, counted from 0 over all epochs; may be traced.
        triplets: images as (anchor, positive, negative), [t, 3].
        batch: how many triplets, at most t.

    Returns:
        int32 [batch] each: anchors, positives and negatives.

    Raises:
        InputError: if `batch` is not 1 .. t, the triplets have another shape, or a number is beyond int32.
        TypeError: if the triplets are not integers.

    Example:
        >>> triplets = jnp.array([[0, 1, 2], [3, 4, 5]])
        >>> anchors = [sample_triplets(jax.random.key(0), step, triplets, 1)[0].tolist() for step in range(2)]
        >>> sorted(anchors)
        [[0], [3]]
    """
    triplets = as_exact_array("triplets", as_integer_array("triplets", triplets), jnp.int32)
    if triplets.ndim != 2 or triplets.shape[1] != 3:
        raise InputError(f"triplets: expected shape [t, 3], got {triplets.shape}")
    if not 1 <= batch <= len(triplets):
        raise InputError(f"batch: expected 1 .. {len(triplets)}, the number of triplets, got {batch}")
    return _sample_triplets(key, step, triplets, batch)


@partial(jax.jit, static_argnames="batch")
def _sample_triplets(key: Array, step: ArrayLike, triplets: Array, batch: int) -> tuple[Array, Array, Array]:
    drawn = draw(key, jnp.asarray(step, jnp.int32), jnp.asarray(len(triplets)), batch).members
    anchor, positive, negative = triplets[drawn].T
    return anchor, positive, negative
