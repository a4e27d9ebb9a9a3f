"""Reduce the rows of a similarity matrix that is never stored.

`reduce_rows` maps a function over tiles of S = measure(x_i, y_j). A tile [r, m] is a block of r rows of S, with all m
columns. The function is ordinary `jnp` code on a tile and returns one result per row. Reductions, losses, mining and
search are such functions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.lax import DotAlgorithmPreset
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Shaped

from simjax.core import (
    as_exact_array,
    as_matrices,
    call_on_devices,
    check_at_least,
    check_choice,
    map_rows,
    replicated,
    rows_per_block,
)
from simjax.similarity._masks import as_pytree_function
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure

PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32", *DotAlgorithmPreset.__members__)
"""Names of the precisions of matrix products, which JAX explains at `jax.lax.Precision`."""


def reduce_rows(
    function: Callable[..., Any],
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    measure: str | Measure = "dot",
    rows: Any = (),
    chunk_size: int = 1,
    block_size: int | None = None,
    precision: str | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    cast_result: bool = False,
) -> Any:
    """Compute `function` of every row of S = measure(x_i, y_j), tile by tile.

    Args:
        function: Takes a tile s [r, m] of S, the indices of its rows i [r, 1] and of its columns j [1, m], and the
            tile's part of `rows`; returns a pytree of arrays [r, ...]. A new plain function is traced again. A
            function that carries arrays can be a `jax.tree_util.Partial`, which is traced once.
        x, y: [n, d] and [m, d]. Default of y: x.
        measure: Name of a measure or a `Measure`.
        rows: Tuple of arrays [n, ...] that are split like x and passed to the function after i and j.
        chunk_size: The largest array that the function computes is [r, chunk_size, m].
        block_size: Rows per block. With an explicit value every block is recomputed in the backward pass. By default,
            expensive intermediates are saved if all tiles together are small.
        precision: Precision of matrix products, one of `PRECISIONS`. Default: the precision of the measure, which
            is the highest for distances.
        axis_name: Inside `jax.shard_map`, the mesh axis over which x and y are sharded. Columns are gathered from all
            devices, rows stay on their device, and i and j are indices over all devices.
        cast_result: Cast floating-point results to the dtype of x and y. Default: results have the dtype of the
            function, which computes in float32 or wider.

    Returns:
        A pytree of arrays [n, ...].

    Example:
        The number of other rows within a distance of 1.5:

        >>> x = jnp.array([[0.0], [1.0], [2.0], [9.0]])
        >>> print(reduce_rows(lambda s, i, j: jnp.sum((s < 1.5) & (i != j), axis=1), x, measure="euclidean"))
        [1 2 1 0]
    """
    x, y = as_matrices(x, x if y is None else y)
    check_at_least("block_size", block_size, 1)
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
    return reduce_rows_of_arrays(
        as_pytree_function(function),
        as_measure(measure),
        x,
        y,
        jax.tree.map(partial(as_exact_array, "rows"), rows),
        chunk_size=chunk_size,
        block_size=block_size,
        precision=precision,
        axis_name=axis_name,
        cast_result=cast_result,
    )


def default_block_size(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    measure: str | Measure = "dot",
) -> int:
    """Return the number of rows that `reduce_rows` computes in one block by default.

    Example:
        >>> x = jnp.zeros((65536, 128))
        >>> default_block_size(x), default_block_size(x, measure="manhattan")
        (128, 128)
    """
    x, y = as_matrices(x, x if y is None else y)
    return rows_per_block(x.shape[0], as_measure(measure).row_bytes(x, y))


@partial(jax.jit, static_argnames=("chunk_size", "block_size", "precision", "axis_name", "cast_result"))
def reduce_rows_of_arrays(
    function: Callable[..., Any],
    measure: Measure,
    x: Array,
    y: Array,
    rows: Any = (),
    *,
    chunk_size: int = 1,
    block_size: int | None = None,
    precision: str | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    cast_result: bool = False,
) -> Any:
    """Compute `reduce_rows` of arguments that are already checked and converted; `function` is a pytree."""

    def reduce(function: Any, measure: Measure, x: Array, y: Array, rows: Any, first_row: Any = 0) -> Any:
        if axis_name is not None:
            first_row = lax.axis_index(axis_name) * x.shape[0]
            y = lax.all_gather(y, axis_name, tiled=True)
        i = first_row + jnp.arange(x.shape[0], dtype=jnp.int32)
        j = jnp.arange(y.shape[0], dtype=jnp.int32)[None]
        x_inputs, y_inputs = measure.tile_inputs(x, y)

        def reduce_block(x_inputs: Any, i: Array, rows: Any) -> Any:
            out = function(measure.tile(x_inputs, y_inputs, precision), i[:, None], j, *rows)
            if not cast_result:
                return out
            dtype = jnp.result_type(x, y)
            return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, out)

        row_bytes = chunk_size * measure.row_bytes(x, y)
        return map_rows(reduce_block, x_inputs, i, rows, block_size=block_size, row_bytes=row_bytes)

    sharding = jax.typeof(x).sharding
    axes = sharding.spec[0] if sharding.mesh.are_all_axes_explicit and sharding.spec else None
    if axes is None:
        return reduce(*replicated((function, measure, x, y, rows)))

    def reduce_on_device(function: Any, measure: Measure, x: Array, y: Array, rows: Any) -> Any:
        return reduce(function, measure, x, y, rows, first_row=lax.axis_index(axes) * x.shape[0])

    # Rows stay on the devices over which they are sharded; all other arrays are replicated.
    by_row, whole = PartitionSpec(axes), PartitionSpec()
    specs = (whole, whole, by_row, whole, by_row)
    return call_on_devices(reduce_on_device, sharding.mesh, specs, by_row, function, measure, x, y, rows)
