"""Who is similar to whom in a batch, as masks of one strip of rows."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError


def same_class(i: Array, j: Array, labels: Array) -> tuple[Array, Array]:
    """Masks of a strip of the batch against itself: same class but not the row itself, and other class.

    Args:
        i: numbers of the strip's rows [r, 1].
        j: numbers of its columns [1, n].
        labels: class ids of the batch [n].

    Returns:
        Two boolean arrays [r, n].
    """
    same = labels[i] == labels[j]
    return same & (i != j), ~same


def check_embeddings(embeddings: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Embeddings [n, d] and labels [n] as arrays.

    Raises:
        InputError: if the shapes do not fit.
        TypeError: if the labels are not integers.
    """
    x, y = jnp.asarray(embeddings), jnp.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise InputError(f"embeddings, labels: expected shapes [n, d] and [n], got {list(x.shape)} and {list(y.shape)}")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"labels: expected integer class ids, got {y.dtype}")
    return x, y
