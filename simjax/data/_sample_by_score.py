"""Images by chance: in proportion to a score, without replacement within a batch.

Drawing one image after the other in proportion to its score, never one twice, is the same as adding Gumbel noise to the
logarithm of every score and taking the largest. That costs one pass over the scores and no loop.

References:
    Vieira (2014), Gumbel-max trick and weighted reservoir sampling. Efraimidis, Spirakis (2006), Weighted random
    sampling with a reservoir.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import InputError, as_float_array, check_at_least, promote_to_float32, top_k_of_rows
from simjax.data._sampler import ClassTable


def sample_by_score(key: Array, step: ArrayLike, scores: Num[ArrayLike, " n"], batch: int) -> Int[Array, " batch"]:
    """Batch number `step`: distinct images, the next one always in proportion to its score among those that are left.

    A score may be the image's last loss, how often it was mined as a hard negative, or one over the size of its class.
    Scores are data: others of the same number compile nothing anew. Time is that of one pass over them.

    Args:
        key: of the whole run: a batch is a function of key, step and scores, and of nothing else.
        step: which batch, counted from 0; may be traced.
        scores: of each image [n], at least 0. An image with 0 is never drawn while another has more; where fewer than
            `batch` have more, these come again, and where none has, all are equally likely.
        batch: how many images, at most n.

    Returns:
        int32 [batch].

    Raises:
        InputError: if `batch` is not 1 .. n, or a score that is known is negative or no number. A traced one that is
            counts as 0.

    Differs from pytorch-metric-learning: its TuplesToWeightsSampler draws with replacement.

    Example:
        >>> sorted(sample_by_score(jax.random.key(0), 0, jnp.array([0.0, 3.0, 0.0, 0.1]), 2).tolist())
        [1, 3]
    """
    weights = as_float_array("scores", scores)
    if weights.ndim != 1:
        raise InputError(f"scores: expected one for each image, got shape {weights.shape}")
    if not isinstance(scores, Tracer) and len(weights):
        check_at_least("scores", float(np.min(np.asarray(scores))), 0)
    if not 1 <= batch <= len(weights):
        raise InputError(f"batch: expected 1 .. {len(weights)}, the number of scores, got {batch}")
    return _sample_by_score(key, step, weights, batch)


@partial(jax.jit, static_argnames="batch")
def _sample_by_score(key: Array, step: ArrayLike, scores: Array, batch: int) -> Array:
    return _draw(jax.random.fold_in(key, step), scores, batch)


def sample_unique_labels(key: Array, step: ArrayLike, table: ClassTable, batch: int) -> Int[Array, " batch"]:
    """Batch number `step` with at most one image of each class: no row is a false negative of another.

    A softmax over the batch takes all rows but its own for negatives; images of one class would be pushed apart. As if
    images were drawn one by one and those left out whose class is there already: large classes come more often. (With
    m = 1 `sample_classes_in_turn` has batches of distinct classes, too: every class equally often, all in an epoch.)

    Args:
        key: of the whole run: a batch is a function of key, step and table, and of nothing else.
        step: which batch, counted from 0; may be traced.
        table: of the classes.
        batch: how many images, at most one for each class that has any.

    Returns:
        int32 [batch], images of distinct classes, each image of a class equally likely.

    Raises:
        InputError: if `batch` is not positive or larger than the number of classes with images. Where the table is
            traced, these come again instead.

    Differs from sentence-transformers: its NoDuplicatesBatchSampler goes through a list on the host and puts off what
    does not fit, so that an epoch has each row once and the last batches are short.

    Example:
        >>> from simjax.data import class_table
        >>> labels = np.array([0, 0, 0, 1, 2])
        >>> drawn = sample_unique_labels(jax.random.key(0), 0, class_table(labels, 3), 3)
        >>> sorted(labels[drawn].tolist())
        [0, 1, 2]
    """
    known = not isinstance(table.counts, Tracer)
    classes = int(np.sum(np.asarray(table.counts) > 0)) if known else len(table.counts)
    if not 1 <= batch <= classes:
        raise InputError(f"batch: expected 1 .. {classes}, the number of classes with images, got {batch}")
    return _sample_unique_labels(key, step, table, batch)


@partial(jax.jit, static_argnames="batch")
def _sample_unique_labels(key: Array, step: ArrayLike, table: ClassTable, batch: int) -> Array:
    class_key, image_key = jax.random.split(jax.random.fold_in(key, step))
    drawn = _draw(class_key, table.counts, batch)
    return table.rows[drawn, jax.random.randint(image_key, (batch,), 0, jnp.maximum(table.counts[drawn], 1))]


def _draw(key: Array, scores: Array, k: int) -> Array:
    """k of n, one after the other in proportion to their scores; int32 [k]."""
    scores = promote_to_float32(as_float_array("scores", scores))
    above = jnp.sum(scores > 0)
    scores = jnp.where(above > 0, scores, 1.0)
    chance = jnp.log(jnp.where(scores > 0, scores, 1.0)) + jax.random.gumbel(key, scores.shape, scores.dtype, "high")
    ranked = top_k_of_rows(jnp.where(scores > 0, chance, -jnp.inf)[None], k)[1][0]
    return ranked[jnp.arange(k) % jnp.where(above > 0, jnp.minimum(above, k), k)]
