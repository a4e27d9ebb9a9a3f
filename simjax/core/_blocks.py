"""Map a function over blocks of rows. Every reduction of a similarity matrix is computed in this way.

The similarity matrix S [n, m] compares n rows with m columns: S_ij is a similarity or a distance of x_i and y_j. A tile
is a block of rows of S, with all columns. A reduction of the rows of S needs one tile at a time. `map_rows` calls a
function with the rows of x block by block; the function computes its tile with ordinary `jnp` code and reduces it. If
there are several blocks, the backward pass computes every tile again (`jax.checkpoint`), so only the arrays of one
block exist at a time, apart from results and from values of `save_for_backward`. If all rows fit into one block, the
function is called without a loop or checkpoint.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from simjax.core._mesh import replicated, shard_second_axis

TILE_BYTES = 4 * 2**20
"""Default size of a tile. A function typically computes 4 to 12 arrays of this size, which fit the cache of a CPU."""

LARGEST_TILE_BYTES = 32 * 2**20
"""Largest default size of a tile, for tiles that exceed `TILE_BYTES` because they have `MIN_ROWS` rows."""

MIN_ROWS = 128
"""Default minimum of rows per block. A matrix product with fewer rows of x takes most of its time to read y."""

SAVED_BYTES = 64 * 2**20
"""Values of `save_for_backward` are saved only if all tiles together are at most this large."""


def rows_per_block(n: int, row_bytes: int, min_rows: int = MIN_ROWS) -> int:
    """Return the default number of rows in a block, at least 1.

    Args:
        n: Number of rows.
        row_bytes: Bytes of the largest array that is computed for a block, divided by the rows of the block.
        min_rows: Smallest number of rows, as far as `LARGEST_TILE_BYTES` allows it.

    Example:
        >>> rows_per_block(5000, row_bytes=2**14)  # 256 rows are 4 MiB; 20 blocks of 250 need no padding
        250
    """
    row_bytes = max(row_bytes, 1)
    most_rows = max(TILE_BYTES // row_bytes, min(min_rows, LARGEST_TILE_BYTES // row_bytes), 1)
    fewest_blocks = max(1, -(-n // most_rows))
    # Blocks of equal size, at least half as large, need no padding, whose removal would copy the result.
    for blocks in range(fewest_blocks, 2 * fewest_blocks):
        if n % blocks == 0 and n >= blocks * min_rows:
            return max(1, n // blocks)
    return max(1, -(-n // fewest_blocks))


def save_for_backward(values: Any) -> Any:
    """Mark values that `map_rows` saves for the backward pass, subject to `SAVED_BYTES` and a default `block_size`."""
    return checkpoint_name(values, "saved")


def map_rows(function: Callable[..., Any], *rows: Any, block_size: int | None = None, row_bytes: int = 0) -> Any:
    """Compute `function(*rows)` block by block, and return its result, a pytree of arrays [n, ...].

    Args:
        function: Takes arrays of r rows and returns a pytree of arrays of r rows. Row i of the result must depend only
            on row i of the arguments and on values the function closes over.
        *rows: Arrays or pytrees of arrays [n, ...], which are split into blocks.
        block_size: Rows per block. With several blocks of an explicit size, the backward pass recomputes all values,
            also those of `save_for_backward`. Default: `rows_per_block`.
        row_bytes: Bytes of the largest array that the function computes, divided by the number of its rows. The default
            0 stands for small arrays: there are several blocks only if there are millions of rows.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    saved = ["saved"] if block_size is None and 0 < n * row_bytes <= SAVED_BYTES else []
    block_size = block_size or rows_per_block(n, row_bytes)
    if block_size >= n:
        return function(*rows)
    blocks = -(-n // block_size)
    padding = blocks * block_size - n
    # A sharded axis cannot be padded and split, so rows are replicated first, and then sharded in each block.
    # The padding is a copy of the first rows. It is not zero, because the gradient of the function may be NaN at zero.
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:padding]]) if padding else a, replicated(rows))
    split = jax.tree.map(lambda a: a.reshape(blocks, block_size, *a.shape[1:]), padded)
    split = jax.tree.map(shard_second_axis, split, rows)  # sharded as the first axis of `rows` was
    policy = jax.checkpoint_policies.save_only_these_names(*saved)
    out = jax.lax.map(jax.checkpoint(lambda r: function(*r), prevent_cse=False, policy=policy), split)
    return jax.tree.map(lambda a: a.reshape(blocks * block_size, *a.shape[2:])[:n], replicated(out))
