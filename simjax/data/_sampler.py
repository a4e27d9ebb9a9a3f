"""Samplers of independent batches: pure functions of a PRNG key that run inside a jitted training step.

A loss over the pairs of a batch needs several images of each class, so `sample_m_per_class` draws a few classes and m
images of each. Distinct images are drawn by Floyd's algorithm: to draw m of N without replacement, draw a random t in
0..j for j = N-m .. N-1, and take j instead if t was drawn before. The cost depends on m only, not on the size of a
class, and all classes are drawn at once.

Drawing images one after the other in proportion to their scores, without replacement, is the same as adding Gumbel
noise to the logarithm of every score and selecting the largest.

Arguments that are out of range are an `InputError`, and labels that are not integers are a `TypeError`.

References:
    Bentley, Floyd (1987), A Sample of Brilliance, CACM 30(9).
    Vieira (2014), Gumbel-max trick and weighted reservoir sampling.
    Efraimidis, Spirakis (2006), Weighted random sampling with a reservoir.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import (
    InputError,
    as_float_array,
    as_integer_array,
    check_at_least,
    promote_to_float32,
    top_k_of_rows,
)


class ClassTable(NamedTuple):
    """The images of each class.

    Attributes:
        rows: int32 [c, max_count], the indices of the images of each class, repeated from the first to fill the row.
        counts: int32 [c], the number of images of each class.
    """

    rows: Array
    counts: Array


def class_table(labels: ArrayLike, n_classes: int) -> ClassTable:
    """Make a table of the images of each class, once, on the host, from labels, int [n] in 0 .. n_classes - 1.

    Example:
        >>> table = class_table(np.array([1, 0, 1, 1]), 2)
        >>> table.rows.tolist(), table.counts.tolist()
        ([[1, 1, 1], [0, 2, 3]], [1, 3])
    """
    labels = np.asarray(as_integer_array("labels", labels))
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise InputError(f"labels: expected 0 .. {n_classes - 1}, got {labels.min()} .. {labels.max()}")
    labels = labels.astype(np.int64)
    counts = np.bincount(labels, minlength=n_classes)
    order, starts = np.append(np.argsort(labels, kind="stable"), 0), np.cumsum(counts) - counts
    column = np.arange(counts.max(initial=1))[None] % np.maximum(counts, 1)[:, None]  # [c, max_count]
    rows = np.where(counts[:, None] > 0, order[starts[:, None] + column], 0)
    return ClassTable(*jax.device_put((rows.astype(np.int32), counts.astype(np.int32))))


@partial(jax.jit, static_argnames="n")
def epoch_order(key: Array, n: int) -> Array:
    """Return a random order of n images, int32 [n]."""
    return jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))


@partial(jax.jit, static_argnames=("classes_per_batch", "m"))
def sample_m_per_class(key: Array, table: ClassTable, classes_per_batch: int, m: int) -> Array:
    """Draw distinct classes, and m images of each.

    The images of a class are distinct if it has at least m; otherwise all of them are drawn, and some repeatedly.
    Classes without images are never drawn. If there are fewer classes with images than `classes_per_batch`, classes
    repeat.

    Args:
        key: PRNG key of the batch.
        table: The images of each class, from `class_table`.
        classes_per_batch: From 1 to the number of classes.
        m: Images of each selected class.

    Returns:
        int32 [classes_per_batch * m], the m images of a class next to each other, in random order.
    """
    if not 0 < classes_per_batch <= table.rows.shape[0]:
        raise InputError(f"classes_per_batch: expected 1 .. {table.rows.shape[0]} classes, got {classes_per_batch}")
    class_key, image_key, order_key = jax.random.split(key, 3)
    score = jnp.where(table.counts > 0, jax.random.uniform(class_key, table.counts.shape), -1.0)
    ranked = jax.lax.top_k(score, classes_per_batch)[1]
    selected = ranked[jnp.arange(classes_per_batch) % jnp.maximum((table.counts > 0).sum(), 1)]
    column = _floyd(image_key, table.counts[selected], m)
    # Floyd's algorithm draws a random set, but not in random order: the last images are seldom first.
    order = jnp.argsort(jax.random.uniform(order_key, column.shape), axis=1)
    return table.rows[selected[:, None], jnp.take_along_axis(column, order, axis=1)].reshape(-1)


def _floyd(key: Array, counts: Array, m: int) -> Array:
    """Draw m of 0 .. N-1 for each count N, distinct if N >= m, otherwise all and some repeatedly; int32 [k, m]."""
    counts = jnp.maximum(counts, 1)[:, None]  # [k, 1]
    step = jnp.arange(m)[None]
    last = jnp.where(step < counts, counts - jnp.minimum(counts, m) + step, counts - 1)  # [k, m]
    candidates = jax.random.randint(key, last.shape, 0, last + 1)

    def take(i: Array, drawn: Array) -> Array:
        candidate = candidates[:, i]
        is_repeated = (drawn == candidate[:, None]).any(1) & (i < counts[:, 0])
        return drawn.at[:, i].set(jnp.where(is_repeated, last[:, i], candidate))

    return jax.lax.fori_loop(0, m, take, jnp.full(last.shape, -1, jnp.int32))


@partial(jax.jit, static_argnames=("n", "batch", "same_fraction"))
def sample_pairs(
    key: Array, n: int, batch: int, *, table: ClassTable | None = None, same_fraction: float | None = None
) -> tuple[Array, Array]:
    """Draw pairs of two different images.

    By default both images are uniformly random, as in the classic Siamese recipe: with c balanced classes, one pair in
    c has the same class. With `same_fraction`, the first round(batch * same_fraction) pairs are uniformly random among
    the pairs of one class, and the others among the pairs of two classes.

    Args:
        key: PRNG key of the batch.
        n: The number of images.
        batch: The number of pairs.
        table: A `class_table` of two classes or more, which `same_fraction` needs.
        same_fraction: Fraction of pairs of one class, in [0, 1].

    Returns:
        The first and the second image of each pair, int32 [batch] each. If no class has two images, a pair of one class
        is an image and itself.
    """
    first_key, second_key = jax.random.split(key)
    if same_fraction is None:
        i = jax.random.randint(first_key, (batch,), 0, n)
        return i, (i + jax.random.randint(second_key, (batch,), 1, max(n, 2))) % n
    if not 0 <= same_fraction <= 1:
        raise InputError(f"same_fraction: expected a number in [0, 1], got {same_fraction}")
    if table is None or table.rows.shape[0] < 2:
        raise InputError("table: expected a table of at least two classes, because same_fraction is given")
    n_same = round(batch * same_fraction)
    keys = jax.random.split(first_key)
    # Only classes with two or more images have pairs.
    paired = jnp.where(table.counts >= 2, table.counts, 0)
    paired = jnp.where(paired.sum() > 0, paired, table.counts)
    row, column = locate(jax.random.randint(keys[0], (n_same,), 0, paired.sum()), paired)
    count = table.counts[row]
    other = (column + jax.random.randint(second_key, (n_same,), 1, jnp.maximum(count, 2))) % count
    # In the list of all images, class after class, continued at its start, the images of other classes follow the own
    # class of an image.
    position = jax.random.randint(keys[1], (batch - n_same,), 0, n)
    row_1, column_1 = locate(position, table.counts)
    own = table.counts[row_1]
    offset = jax.random.randint(jax.random.fold_in(second_key, 1), position.shape, 0, jnp.maximum(n - own, 1))
    row_2, column_2 = locate((position - column_1 + own + offset) % n, table.counts)
    first = jnp.concatenate([table.rows[row, column], table.rows[row_1, column_1]])
    return first, jnp.concatenate([table.rows[row, other], table.rows[row_2, column_2]])


def locate(position: Array, counts: Array) -> tuple[Array, Array]:
    """Return the class of a position in the list of all images, class after class, and the position in this class.

    With counts of 0 and 1, this is the class with the given rank among the classes with count 1.
    """
    ends = jnp.cumsum(counts)
    row = jnp.searchsorted(ends, position, side="right")
    return row, position - (ends - counts)[row]


def sample_by_score(key: Array, step: ArrayLike, scores: Num[ArrayLike, " n"], batch: int) -> Int[Array, " batch"]:
    """Draw distinct images one after the other, each in proportion to its score among the remaining images.

    A score may be the image's last loss, how often it was mined as a hard negative, or one over the size of its class.

    Args:
        key: PRNG key of the run.
        step: Index of the batch. May be traced.
        scores: Score of each image [n]. If fewer than `batch` scores are positive, their images repeat; if no score is
            positive, all images are equally likely. A negative score or NaN is an error, or 0 if scores are traced.
        batch: The number of images, 1 to n.

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
    return _gumbel_top_k(jax.random.fold_in(key, step), scores, batch)


def sample_unique_labels(key: Array, step: ArrayLike, table: ClassTable, batch: int) -> Int[Array, " batch"]:
    """Draw at most one image of each class, so that no row of the batch is a false negative of another.

    The classes are distributed as if images were drawn one by one and images of a class already drawn were rejected, so
    large classes are drawn more often. (`sample_balanced` with m = 1 draws every class equally often.)

    Args:
        key: PRNG key of the run.
        step: Index of the batch. May be traced.
        table: The images of each class, from `class_table`.
        batch: The number of images, at most the number of classes with images. With a traced table, which cannot be
            checked, classes repeat if there are fewer.

    Returns:
        int32 [batch], images of distinct classes; the images of a class are equally likely.

    Differs from sentence-transformers: its NoDuplicatesBatchSampler iterates over a list on the host and postpones
    duplicates, so that an epoch has each row once and its last batches are short.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 2])
        >>> drawn = sample_unique_labels(jax.random.key(0), 0, class_table(labels, 3), 3)
        >>> sorted(labels[drawn].tolist())
        [0, 1, 2]
    """
    is_traced = isinstance(table.counts, Tracer)
    classes = len(table.counts) if is_traced else int(np.sum(np.asarray(table.counts) > 0))
    if not 1 <= batch <= classes:
        raise InputError(f"batch: expected 1 .. {classes}, the number of classes with images, got {batch}")
    return _sample_unique_labels(key, step, table, batch)


@partial(jax.jit, static_argnames="batch")
def _sample_unique_labels(key: Array, step: ArrayLike, table: ClassTable, batch: int) -> Array:
    class_key, image_key = jax.random.split(jax.random.fold_in(key, step))
    classes = _gumbel_top_k(class_key, table.counts, batch)
    return table.rows[classes, jax.random.randint(image_key, (batch,), 0, jnp.maximum(table.counts[classes], 1))]


def _gumbel_top_k(key: Array, scores: Array, k: int) -> Array:
    """Draw k of n without replacement in proportion to their scores; int32 [k]."""
    scores = promote_to_float32(as_float_array("scores", scores))
    n_positive = jnp.sum(scores > 0)
    scores = jnp.where(n_positive > 0, scores, 1.0)
    noisy = jnp.log(jnp.where(scores > 0, scores, 1.0)) + jax.random.gumbel(key, scores.shape, scores.dtype, "high")
    ranked = top_k_of_rows(jnp.where(scores > 0, noisy, -jnp.inf)[None], k)[1][0]
    return ranked[jnp.arange(k) % jnp.where(n_positive > 0, jnp.minimum(n_positive, k), k)]
