"""Which images make up a batch: pure functions of a key that run inside the jitted training step.

A loss over a batch finds positives only if classes meet in it, so `sample_m_per_class` draws a few classes and m images
of each. Distinct images come from Floyd's algorithm: to draw m of N without replacement, take for j = N-m .. N-1 a
random t in 0..j, or j itself if t was taken before. It runs in all drawn classes at once and its cost depends on m
alone, not on the size of a class.

References:
    J. Bentley and R. Floyd (1987), A Sample of Brilliance, CACM 30(9).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError, as_integer_array


class ClassTable(NamedTuple):
    """Which images each class has.

    Attributes:
        rows: int32 [c, max_count], the images of each class; behind the last one they start again.
        counts: int32 [c], how many images each class has.
    """

    rows: Array
    counts: Array


def class_table(labels: ArrayLike, n_classes: int) -> ClassTable:
    """Gather the images of each class. Made once, on the host.

    Args:
        labels: int [n], in 0 .. n_classes - 1.
        n_classes: how many classes there are.

    Raises:
        InputError: if a label is out of range.
        TypeError: if labels are not integers.

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
    return ClassTable(jnp.asarray(rows, jnp.int32), jnp.asarray(counts, jnp.int32))


@partial(jax.jit, static_argnames="n")
def epoch_order(key: Array, n: int) -> Array:
    """All n images in random order, int32 [n]."""
    return jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))


@partial(jax.jit, static_argnames=("classes_per_batch", "m"))
def sample_m_per_class(key: Array, table: ClassTable, classes_per_batch: int, m: int) -> Array:
    """Draw distinct classes, and m images of each.

    The images of a class are distinct while it has m, and each is there once before any comes again. Classes without
    images are never drawn; if fewer classes have some than are asked for, they come again.

    Args:
        key: of the draw.
        table: of the classes.
        classes_per_batch: at most as many as there are classes.
        m: images of each drawn class.

    Returns:
        int32 [classes_per_batch * m], the m images of a class next to each other, in random order.

    Raises:
        InputError: if more classes are asked for than there are.
    """
    if not 0 < classes_per_batch <= table.rows.shape[0]:
        raise InputError(f"classes_per_batch: expected 1 .. {table.rows.shape[0]} classes, got {classes_per_batch}")
    class_key, image_key, order_key = jax.random.split(key, 3)
    score = jnp.where(table.counts > 0, jax.random.uniform(class_key, table.counts.shape), -1.0)
    ranked = jax.lax.top_k(score, classes_per_batch)[1]
    chosen = ranked[jnp.arange(classes_per_batch) % jnp.maximum((table.counts > 0).sum(), 1)]
    position = _floyd(image_key, table.counts[chosen], m)
    # Floyd's algorithm draws a random set, not a random order: the last images seldom come first.
    order = jnp.argsort(jax.random.uniform(order_key, position.shape), axis=1)
    position = jnp.take_along_axis(position, order, axis=1)
    return table.rows[chosen[:, None], position].reshape(-1)


def _floyd(key: Array, counts: Array, m: int) -> Array:
    """For each count N: m of 0 .. N-1, distinct if N >= m, else all of them and random others; int32 [k, m]."""
    counts = jnp.maximum(counts, 1)[:, None]  # [k, 1]
    step = jnp.arange(m)[None]
    last = jnp.where(step < counts, counts - jnp.minimum(counts, m) + step, counts - 1)  # [k, m]
    drawn = jax.random.randint(key, last.shape, 0, last + 1)

    def take(i: Array, taken: Array) -> Array:
        candidate, top = drawn[:, i], last[:, i]
        again = (taken == candidate[:, None]).any(1) & (i < counts[:, 0])
        return taken.at[:, i].set(jnp.where(again, top, candidate))

    return jax.lax.fori_loop(0, m, take, jnp.full(last.shape, -1, jnp.int32))


@partial(jax.jit, static_argnames=("n", "batch", "same_fraction"))
def sample_pairs(
    key: Array, n: int, batch: int, *, table: ClassTable | None = None, same_fraction: float | None = None
) -> tuple[Array, Array]:
    """Draw pairs of two different images.

    Without a fraction both images are uniformly random, as in the classic Siamese recipe: with c balanced classes one
    pair in c is alike. With one, the first round(batch * same_fraction) pairs are uniformly random among the pairs of
    one class, and the others among those of two classes.

    Args:
        key: of the draw.
        n: images to draw from.
        batch: how many pairs.
        table: of the classes; needed with a fraction.
        same_fraction: in [0, 1], or None.

    Returns:
        int32 [batch] and int32 [batch], the first and the second image of each pair. Where no class has two images,
        the pairs that are to be alike are of one image with itself.

    Raises:
        InputError: for a fraction out of range or without a table, or a table of one class.
    """
    first_key, second_key = jax.random.split(key)
    if same_fraction is None:
        i = jax.random.randint(first_key, (batch,), 0, n)
        return i, (i + jax.random.randint(second_key, (batch,), 1, max(n, 2))) % n
    if not 0 <= same_fraction <= 1:
        raise InputError(f"same_fraction: expected a number in [0, 1], got {same_fraction}")
    if table is None or table.rows.shape[0] < 2:
        raise InputError("table: expected a table of at least two classes where same_fraction is given")
    alike = round(batch * same_fraction)
    keys = jax.random.split(first_key)
    # A place is an image's position in the list of all images, class after class; only classes with two have pairs.
    paired = jnp.where(table.counts >= 2, table.counts, 0)
    paired = jnp.where(paired.sum() > 0, paired, table.counts)
    row, column = locate(jax.random.randint(keys[0], (alike,), 0, paired.sum()), paired)
    count = table.counts[row]
    other = (column + jax.random.randint(second_key, (alike,), 1, jnp.maximum(count, 2))) % count
    # From the end of its own class on and around to its start lie exactly the images of other classes.
    place = jax.random.randint(keys[1], (batch - alike,), 0, n)
    row_1, column_1 = locate(place, table.counts)
    own = table.counts[row_1]
    onwards = jax.random.randint(jax.random.fold_in(second_key, 1), place.shape, 0, jnp.maximum(n - own, 1))
    row_2, column_2 = locate((place - column_1 + own + onwards) % n, table.counts)
    first = jnp.concatenate([table.rows[row, column], table.rows[row_1, column_1]])
    return first, jnp.concatenate([table.rows[row, other], table.rows[row_2, column_2]])


def locate(place: Array, counts: Array) -> tuple[Array, Array]:
    """The class of a place in the list of all images, class after class, and the position in that class.

    With counts of 0 and 1 it is the class of that number among those with a 1.
    """
    ends = jnp.cumsum(counts)
    row = jnp.searchsorted(ends, place, side="right")
    return row, place - (ends - counts)[row]
