"""Map a function over blocks of rows, as every reduction of a similarity matrix does.

A reduction of the rows of S = measure(x_i, y_j) needs one tile of S at a time: the values of a block of rows with all
columns. `map_rows` calls a function with the rows of x block by block; the function computes its tile with ordinary
`jnp` code and reduces it. Each block is checkpointed: the backward pass computes its tile again, so no more than one
tile exists at a time, forward or backward. If all rows fit into one block, the function is called without a loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from simjax.core._mesh import replicated, shard_second_axis

TILE_BYTES = 4 * 2**20
"""Default size of a tile. A function typically computes 4 to 12 arrays of this size, which then stay in the cache."""

LARGEST_TILE_BYTES = 32 * 2**20
"""Size to which a tile may grow to have `MIN_ROWS` rows."""

MIN_ROWS = 128
"""Matrix products of fewer rows with many columns spend their time on reading the columns."""

SAVED_BYTES = 64 * 2**20
"""Size of all tiles together up to which the backward pass reads the values of `save_for_backward`."""


def rows_per_block(n: int, row_bytes: int, min_rows: int = MIN_ROWS) -> int:
    """Return the default number of rows in a block, at least 1.

    Args:
        n: Number of rows.
        row_bytes: Size of one row of the largest array that the function of a block computes.
        min_rows: Smallest number of rows, as far as `LARGEST_TILE_BYTES` allows it.

    Example:
        >>> rows_per_block(5000, row_bytes=2**14)  # 256 rows are 4 MiB; 20 blocks of 250 need no padding
        250
    """
    row_bytes = max(row_bytes, 1)
    most_rows = max(TILE_BYTES // row_bytes, min(min_rows, LARGEST_TILE_BYTES // row_bytes), 1)
    fewest_blocks = max(1, -(-n // most_rows))
    for blocks in range(fewest_blocks, 2 * fewest_blocks):
        if n % blocks == 0 and n >= blocks * min_rows:  # no padding, whose removal would copy the result
            return max(1, n // blocks)
    return max(1, -(-n // fewest_blocks))


def save_for_backward(values: Any) -> Any:
    """Mark values that the backward pass of `map_rows` reads instead of recomputing them, if there are few blocks."""
    return checkpoint_name(values, "saved")


def map_rows(function: Callable[..., Any], *rows: Any, block_size: int | None = None, row_bytes: int = 0) -> Any:
    """Compute `function(*rows)` block by block, a pytree of arrays [n, ...].

    Args:
        function: Takes arrays of r rows and returns a pytree of arrays of r rows. Row i of the result must depend only
            on row i of the arguments and on values the function closes over.
        *rows: Arrays or pytrees of arrays [n, ...], which are split into blocks.
        block_size: Rows per block. With an explicit value every block is recomputed in the backward pass.
            Default: `rows_per_block`.
        row_bytes: Size of one row of the largest array that the function computes.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    saved = ["saved"] if block_size is None and 0 < n * row_bytes <= SAVED_BYTES else []
    block_size = block_size or rows_per_block(n, row_bytes)
    if block_size >= n:
        return function(*rows)
    blocks = -(-n // block_size)
    padding = blocks * block_size - n
    # The padding repeats the first rows instead of zeros, at which the gradient of the function may be NaN.
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:padding]]) if padding else a, replicated(rows))
    split = jax.tree.map(lambda a: a.reshape(blocks, block_size, *a.shape[1:]), padded)
    split = jax.tree.map(shard_second_axis, split, rows)  # each device computes its rows of every block
    policy = jax.checkpoint_policies.save_only_these_names(*saved)
    out = jax.lax.map(jax.checkpoint(lambda r: function(*r), prevent_cse=False, policy=policy), split)
    return jax.tree.map(lambda a: a.reshape(blocks * block_size, *a.shape[2:])[:n], replicated(out))
