"""Cross-batch memory: rows of earlier batches, for a loss to compare this batch with.

An encoder changes slowly, so that embeddings of some hundred steps ago are still good negatives and positives. A queue
keeps the last `size` of them as constants, and any loss takes them as its reference embeddings: a batch of 64 then sees
the pairs of a batch of thousands, for the price of one matrix product.

    memory = push(memory, embeddings, labels)
    loss = losses.contrastive_loss(embeddings, against(memory, labels), ref_embeddings=memory.embeddings)

The batch is pushed first and so compared with itself, too, each row but its own copy. In the first steps the memory is
filled by an encoder that still changes fast; whoever wants to wait for it takes the loss of the batch until then:

    ready = step >= 1000
    loss = jnp.where(ready, loss, losses.contrastive_loss(embeddings, labels))

With a second, slowly moving encoder this is the queue of MoCo: its embeddings of the batch are what is pushed, and with
`own=True` each row meets them all, the other view of itself as well.

    memory = push(memory, slow_embeddings, image_ids)
    loss = losses.nt_xent_loss(embeddings, against(memory, image_ids, own=True), ref_embeddings=memory.embeddings)

The memory is a pytree of fixed shapes: a part of the training state that is donated, saved and restored with it, and
one program serves all fill levels.

References:
    Wang, Zhang, Huang, Scott (2020), Cross-Batch Memory for Embedding Learning. He, Fan, Wu, Xie, Girshick (2020),
    Momentum Contrast for Unsupervised Visual Representation Learning.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.tree_util import Partial
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Integer, Num

from simjax.core import InputError, as_float_array, as_integer_array, auto_axes, check_at_least, fits_dtype
from simjax.pairs import Relation, as_relation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossBatchMemory:
    """The last rows that were pushed, in a ring.

    Attributes:
        embeddings: [size, d], 0 at empty places.
        labels: class ids [size], int32, or int64 if x64 is enabled where the memory is made. They may also number
            rows of a table of attributes, for other relations.
        filled: how many places hold a row, int32: those from 0 on.
        place: where the next row goes, int32.
    """

    embeddings: Array
    labels: Array
    filled: Array
    place: Array


def cross_batch_memory(size: int, width: int, dtype: DTypeLike = jnp.float32) -> CrossBatchMemory:
    """An empty memory.

    Args:
        size: how many rows it keeps, at least as many as a batch has.
        width: features of a row.
        dtype: of the embeddings, a floating-point type; halves take half the space.

    Raises:
        InputError: for a size or width below 1.
        TypeError: for a type that is no floating-point one.
    """
    check_at_least("size", size, 1)
    check_at_least("width", width, 1)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype: expected a floating-point type, got {jnp.dtype(dtype)}")
    zeros = jnp.zeros((size, width), dtype), jnp.zeros(size, int)
    return CrossBatchMemory(*zeros, filled=jnp.zeros((), jnp.int32), place=jnp.zeros((), jnp.int32))


def push(
    memory: CrossBatchMemory, embeddings: Num[ArrayLike, "b d"], labels: Integer[ArrayLike, " b"]
) -> CrossBatchMemory:
    """The memory with a batch put in, in place of the oldest rows.

    Args:
        memory: made by `cross_batch_memory`.
        embeddings: [b, d], b at most the memory's size; kept as constants of the memory's type.
        labels: class ids [b] that the type of the memory's labels holds. Ids of different pushes are compared, so that
            others are not replaced here, but refused.

    Returns:
        Another memory; the one given is unchanged, unless a jitted function around this donates it.

    Raises:
        InputError: for shapes that do not fit, or known ids that the memory's type does not hold.
        TypeError: for labels that are no integers.

    Example:
        >>> memory = push(cross_batch_memory(3, 1), jnp.array([[1.0], [2.0]]), jnp.array([4, 7]))
        >>> memory = push(memory, jnp.array([[3.0], [5.0]]), jnp.array([4, 9]))
        >>> print(memory.embeddings[:, 0], memory.labels, memory.filled, memory.place)
        [5. 2. 3.] [9 7 4] 3 1
    """
    rows, ids = as_float_array("embeddings", embeddings), as_integer_array("labels", labels)
    size, width = memory.embeddings.shape
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) > size:
        raise InputError(f"embeddings: expected at most {size} rows of {width} features, got shape {rows.shape}")
    if ids.shape != rows.shape[:1]:
        raise InputError(f"labels: expected one for each of {len(rows)} rows, got shape {ids.shape}")
    dtype = memory.labels.dtype
    if not fits_dtype(ids, dtype) or (isinstance(ids, Tracer) and ids.dtype.itemsize > dtype.itemsize):
        got = ids.dtype if isinstance(ids, Tracer) else f"{ids.min()} to {ids.max()}"
        raise InputError(
            f"labels: expected ids that the memory's {dtype} holds, got {got}; rank all ids once, by "
            "np.unique(ids, return_inverse=True)[1], or set jax_enable_x64 before the memory is made"
        )
    return _push(memory, rows, jnp.asarray(ids).astype(dtype))


@jax.jit
@auto_axes
def _push(memory: CrossBatchMemory, rows: Array, ids: Array) -> CrossBatchMemory:
    b, size = len(rows), len(memory.embeddings)
    at = (memory.place + jnp.arange(b, dtype=jnp.int32)) % size
    return CrossBatchMemory(
        memory.embeddings.at[at].set(jax.lax.stop_gradient(rows).astype(memory.embeddings.dtype), unique_indices=True),
        memory.labels.at[at].set(ids, unique_indices=True),
        jnp.minimum(memory.filled + b, size),
        (memory.place + b) % size,
    )


def against(memory: CrossBatchMemory, labels: Any, *, own: bool = False) -> Relation:
    """Who in the memory is similar to the rows of a batch: what a loss takes in place of labels.

    Empty places belong to no pair.

    Args:
        memory: of m places.
        labels: class ids [b] of the rows; or any `Relation` of b rows with the memory's m places, for instance
            `pairs.by_function(f, attributes[ids], attributes[memory.labels])`.
        own: whether rows meet what was last pushed for themselves. False leaves out of the last b rows pushed the first
            for row 0, the second for row 1, and so on: the batch was pushed just before. True leaves out nothing: it
            was not pushed, or in another view.

    Returns:
        A relation of b rows with m columns, to be used with `ref_embeddings=memory.embeddings`, by a loss or by a miner
        whose result goes to the loss.

    Raises:
        InputError: for a relation of another shape, or without `own`, more rows than the memory has places.
        TypeError: for labels that are no integers.

    Example:
        >>> labels = jnp.array([4, 7])
        >>> memory = push(push(cross_batch_memory(5, 1), jnp.ones((2, 1)), labels), jnp.ones((2, 1)), labels)
        >>> positive, negative = against(memory, labels).masks(jnp.arange(2)[:, None], jnp.arange(5)[None])
        >>> print(positive.astype(int) - negative.astype(int))
        [[ 1 -1  0 -1  0]
         [-1  1 -1  0  0]]
    """
    m = len(memory.labels)
    if isinstance(labels, Relation):
        relation = as_relation(labels, None, labels.shape[0], m)
    else:
        relation = as_relation(labels, memory.labels, len(as_integer_array("labels", labels)), m)
    b = relation.shape[0]
    filled = relation.where(Partial(_is_filled, memory.filled))
    if own:
        return filled
    if b > m:
        raise InputError(f"labels: expected at most {m}, the places of the memory, got {b}")
    return filled.where(Partial(_is_no_copy, (memory.place - b) % m, m))


def _is_filled(filled: Array, i: Array, j: Array) -> Array:
    return j < filled


def _is_no_copy(first: Array, size: Any, i: Array, j: Array) -> Array:
    return j != (first + i) % size
