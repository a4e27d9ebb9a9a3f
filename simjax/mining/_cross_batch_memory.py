"""Cross-batch memory: rows of earlier batches, which a loss compares with the current batch.

An encoder changes slowly, so embeddings from a few hundred steps ago are still useful positives and negatives. A queue
stores the last `size` rows without gradient, and any loss accepts them as its reference embeddings. A batch of 64 is
then compared with thousands of rows at the cost of one matrix product:

    memory = push(memory, embeddings, labels)
    loss = losses.contrastive_loss(embeddings, against(memory, labels), ref_embeddings=memory.embeddings)

The batch is pushed first, so it is also compared with itself; `against` excludes each row's own copy. In the first
steps the encoder changes fast, so the loss of the batch alone may be used there:

    loss = jnp.where(step >= 1000, loss, losses.contrastive_loss(embeddings, labels))

With a momentum encoder (a moving average of the encoder's weights) the memory is the queue of MoCo: the momentum
encoder's embeddings of another augmented view of the batch are pushed, and with `own=True` each row is compared with
all of them, including the other view of the same image:

    memory = push(memory, momentum_embeddings, image_ids)
    loss = losses.nt_xent_loss(embeddings, against(memory, image_ids, own=True), ref_embeddings=memory.embeddings)

The memory is a pytree of fixed shapes. It can be donated, saved and restored as part of the training state, and a
function of it is compiled only once, however many rows are stored.

References:
    Wang, Zhang, Huang, Scott (2020), Cross-Batch Memory for Embedding Learning. He, Fan, Wu, Xie, Girshick (2020),
    Momentum Contrast for Unsupervised Visual Representation Learning.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.tree_util import Partial
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Integer, Num

from simjax.core import InputError, as_float_array, as_integer_array, auto_axes, check_at_least, fits_dtype
from simjax.pairs import Relation, as_relation
from simjax.pairs._relation import Labels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossBatchMemory:
    """A ring buffer of the last rows that were pushed.

    Attributes:
        embeddings: [size, d], 0 where no row is stored.
        labels: Class ids [size], int32, or int64 if x64 is enabled when the memory is made. They may also be row
            indices of a table of attributes, for relations other than equality of class ids, see `against`.
        filled: Number of stored rows, int32. Until the buffer is full, they are rows 0 to filled - 1.
        place: Index at which the next row is stored, int32.
    """

    embeddings: Array
    labels: Array
    filled: Array
    place: Array


def cross_batch_memory(size: int, width: int, dtype: DTypeLike = jnp.float32) -> CrossBatchMemory:
    """Return an empty memory.

    Args:
        size: Largest number of stored rows, at least the batch size.
        width: Number of features of a row.
        dtype: Floating-point dtype of the embeddings.
    """
    check_at_least("size", size, 1)
    check_at_least("width", width, 1)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype: expected a floating-point type, got {jnp.dtype(dtype)}")
    scalar = ((), jnp.int32)
    shapes_and_dtypes = (((size, width), dtype), (size, int), scalar, scalar)  # int: int32, or int64 with x64
    return CrossBatchMemory(*(jnp.zeros(shape, dtype) for shape, dtype in shapes_and_dtypes))


def push(
    memory: CrossBatchMemory, embeddings: Num[ArrayLike, "b d"], labels: Integer[ArrayLike, " b"]
) -> CrossBatchMemory:
    """Return the memory with the oldest rows replaced by a batch.

    Args:
        embeddings: [b, d], b at most the size of the memory. Stored without gradient in the dtype of the memory.
        labels: Class ids [b] that fit the dtype of the memory's labels. Larger ids are refused instead of replaced,
            because ids of different calls are compared.

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
            f"labels: expected ids that fit {dtype}, the dtype of the memory, got {got}; number all ids once with "
            "np.unique(ids, return_inverse=True)[1], or set jax_enable_x64 before the memory is made"
        )
    return _push(memory, rows, jnp.asarray(ids).astype(dtype))


@jax.jit
@auto_axes
def _push(memory: CrossBatchMemory, rows: Array, ids: Array) -> CrossBatchMemory:
    b, size = len(rows), len(memory.embeddings)
    indices = (memory.place + jnp.arange(b, dtype=jnp.int32)) % size
    return CrossBatchMemory(
        memory.embeddings.at[indices].set(
            jax.lax.stop_gradient(rows).astype(memory.embeddings.dtype), unique_indices=True
        ),
        memory.labels.at[indices].set(ids, unique_indices=True),
        jnp.minimum(memory.filled + b, size),
        (memory.place + b) % size,
    )


def against(memory: CrossBatchMemory, labels: Labels, *, own: bool = False) -> Relation:
    """Return the relation of the rows of a batch with the rows of the memory, without pairs of its empty rows.

    Args:
        memory: Its size is m.
        labels: Class ids [b] of the rows, or a `Relation` of b rows and m columns, for example
            `pairs.by_function(f, attributes[ids], attributes[memory.labels])`.
        own: Pair a row with its own copy. False: the batch was pushed immediately before, and row i is not paired with
            the i-th of the last b rows of the memory. True: the batch was not pushed, or another augmented view of it
            was.

    Returns:
        A relation of b rows with m columns. Pass it to a loss with `ref_embeddings=memory.embeddings`, or to a miner,
        whose result is passed to the loss.

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
        raise InputError(f"labels: expected at most {m} rows, the size of the memory, got {b}")
    return filled.where(Partial(_is_not_own_copy, (memory.place - b) % m, m))


def _is_filled(filled: Array, i: Array, j: Array) -> Array:
    return j < filled


def _is_not_own_copy(first: Array, size: ArrayLike, i: Array, j: Array) -> Array:
    return j != (first + i) % size
