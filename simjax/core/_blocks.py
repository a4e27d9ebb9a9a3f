"""Map a function over blocks of rows: the engine under every reduction of a similarity matrix.

A reduction of the rows of S = measure(x_i, y_j) needs one strip of S at a time. `map_rows` gives a function
the rows of x block by block; the function builds its strip with ordinary `jnp` code and reduces it. Each block is
checkpointed, so that the backward pass computes its strip again and no more than one ever exists, forward or
backward. All rows in one block *is* the dense form: there is no second implementation.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from simjax.core._mesh import replicated, shard_second_axis

STRIP_BYTES = 128 * 2**20
"""The most that a block's intermediates may take when no `block_size` is given."""

CACHED_BYTES = 24 * 2**20
"""What they take where that makes `ENOUGH_ROWS`: the strip, a fifth of them, is then reduced in a CPU's cache."""

AT_ONCE_BYTES = 2 * CACHED_BYTES
"""What all rows together may take to be one block: going backward, that one needs no second computation."""

KEPT_BYTES = 512 * 2**20
"""What the intermediates of all blocks may take if of each block some are to be `kept` for the backward pass."""

ENOUGH_ROWS = 128
"""Products of fewer rows with many columns spend their time on reading the columns."""


def rows_per_block(n: int, row_bytes: int, enough: int = ENOUGH_ROWS) -> int:
    """How many of n rows are computed at once where one of them takes `row_bytes`: blocks of equal size, at least 1.

    Args:
        n: all of them.
        row_bytes: what the intermediates of one row take.
        enough: this many, if `STRIP_BYTES` allows, even if they leave the cache.

    Example:
        >>> rows_in_block(1000, row_bytes=2**15)  # 768 stay in the cache; two equal blocks need 500
        500
    """
    row_bytes = max(row_bytes, 1)
    most = min(STRIP_BYTES // row_bytes, max(CACHED_BYTES // row_bytes, enough))
    blocks = max(1, -(-n // max(most, 1)))
    # Where the last block need not be filled up, the result need not be cut, which would copy it.
    blocks = next((b for b in range(blocks, 2 * blocks) if n % b == 0 and n >= b * enough), blocks)
    return max(1, -(-n // blocks))


def default_rows_per_block(n: int, row_bytes: int) -> int:
    """All n rows where they are few and small, blocks of `rows_in_block` otherwise."""
    return max(n, 1) if n * row_bytes <= AT_ONCE_BYTES else rows_per_block(n, row_bytes)


def save_for_backward(values: Any) -> Any:
    """Values that took long to compute: where blocks are few, the backward pass of `map_rows` does not repeat them."""
    return checkpoint_name(values, "kept")


def map_rows(function: Callable[..., Any], *rows: Any, block_size: int | None = None, row_bytes: int = 0) -> Any:
    """`function(*rows)` computed in blocks of rows.

    Args:
        function: takes arrays of r rows and returns a pytree of arrays of r rows; row i of the result must depend
            on row i of the arguments only (and on whatever the function closes over).
        *rows: arrays or pytrees of arrays [n, ...] that are cut into blocks.
        block_size: rows in a block; None asks `rows_in_block`.
        row_bytes: what the function's intermediates take for each row, in bytes.

    Returns:
        A pytree of arrays [n, ...].
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    block_size = block_size or rows_per_block(n, row_bytes)
    if block_size >= n:
        return function(*rows)
    blocks = -(-n // block_size)
    # The last block is filled up with rows from the start, not with zeros: the function is defined on them, so
    # that not even a gradient that is thrown away can be a NaN.
    missing = blocks * block_size - n
    filled = jax.tree.map(lambda a: jnp.concatenate([a, a[:missing]]) if missing else a, replicated(rows))
    cut = jax.tree.map(lambda a: a.reshape(blocks, block_size, *a.shape[1:]), filled)
    cut = jax.tree.map(shard_second_axis, cut, rows)  # each device computes its rows of every block
    policy = jax.checkpoint_policies.save_only_these_names("kept") if 0 < n * row_bytes <= KEPT_BYTES else None
    out = jax.lax.map(jax.checkpoint(lambda r: function(*r), prevent_cse=False, policy=policy), cut)
    return jax.tree.map(lambda a: a.reshape(blocks * block_size, *a.shape[2:])[:n], replicated(out))
