"""Reduce the rows of a similarity matrix that is never stored.

`reduce_rows` maps a block function over strips of S = measure(x_i, y_j). The block function is ordinary `jnp` code on
a strip [r, m]; whatever it makes of a row is the result for that row. Attention, losses, mining and search are all
such functions.
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
) -> Any:
    """What `function` makes of every row of S = measure(x_i, y_j).

    Args:
        function: takes a strip s [r, m] of S, the numbers of its rows i [r, 1] and of its columns j [1, m] (and the
            strip's part of `rows`), and returns a pytree of arrays [r, ...]. A plain function is traced anew where it
            is a new object; one that carries arrays and should not be is a `jax.tree_util.Partial`.
        x: [n, d].
        y: [m, d]; None compares x with itself.
        measure: a name or a `Measure`.
        rows: a tuple of arrays [n, ...] that are cut along with x and given to the function after i and j.
        chunk_size: The largest array that the function computes is [r, chunk_size, m].
        block_size: Rows per block. With an explicit value every block is recomputed in the backward pass; with None,
            expensive intermediates may be saved when there are few blocks.
        precision: of matrix products, one of `PRECISIONS`, which JAX explains at `jax.lax.Precision`; None is the
            measure's own, which is the highest for distances.
        axis_name: inside `jax.shard_map`, the mesh axis over which x and y are cut: columns are gathered from all
            devices, rows stay where they are, and i and j count over all devices.

    Returns:
        A pytree of arrays [n, ...].

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for values that are no real numbers.

    Example:
        How many rows lie within a distance of 1.5, the row itself not counted:

        >>> x = jnp.array([[0.0], [1.0], [2.0], [9.0]])
        >>> print(reduce_rows(lambda s, i, j: jnp.sum((s < 1.5) & (i != j), axis=1), x, measure="euclidean"))
        [1 2 1 0]
    """
    x, y = as_matrices(x, x if y is None else y)
    check_at_least("block_size", block_size, 1)
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
    return _reduce_rows(
        as_pytree_function(function),
        as_measure(measure),
        x,
        y,
        jax.tree.map(partial(as_exact_array, "rows"), rows),
        chunk_size=chunk_size,
        block_size=block_size,
        precision=precision,
        axis_name=axis_name,
    )


def default_block_size(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    measure: str | Measure = "dot",
) -> int:
    """Return the number of rows that `reduce_rows` computes in one block by default.

    Args:
        x: [n, d].
        y: [m, d]. Default: x.
        measure: Name of a measure or a `Measure`.

    Example:
        >>> block_size(jnp.zeros((65536, 128))), block_size(jnp.zeros((65536, 128)), measure="manhattan")
        (128, 128)
    """
    x, y = as_matrices(x, x if y is None else y)
    return rows_per_block(x.shape[0], as_measure(measure).row_bytes(x, y))


@partial(jax.jit, static_argnames=("chunk_size", "block_size", "precision", "axis_name"))
def _reduce_rows(function, measure, x, y, rows, *, chunk_size, block_size, precision, axis_name):
    def local(function: Any, measure: Measure, x: Array, y: Array, rows: Any, first: Any = 0) -> Any:
        if axis_name is not None:
            first = lax.axis_index(axis_name) * x.shape[0]
            y = lax.all_gather(y, axis_name, tiled=True)
        i = first + jnp.arange(x.shape[0], dtype=jnp.int32)
        j = jnp.arange(y.shape[0], dtype=jnp.int32)[None]
        prepared, columns = measure.tile_inputs(x, y)

        def reduce(part: Any, i: Array, rows: Any) -> Any:
            return function(measure.tile(part, columns, precision), i[:, None], j, *rows)

        row_bytes = chunk_size * measure.row_bytes(x, y)
        return map_rows(reduce, prepared, i, rows, block_size=block_size, row_bytes=row_bytes)

    axes = _explicit_axes(x)
    return (
        local(*replicated((function, measure, x, y, rows)))
        if axes is None
        else _on_devices(local, axes, function, measure, x, y, rows)
    )


def _explicit_axes(x: Array) -> Any:
    """The Explicit mesh axes over which the rows of x are cut, or None."""
    sharding = jax.typeof(x).sharding
    return sharding.spec[0] if sharding.mesh.are_all_axes_explicit and sharding.spec else None


def _on_devices(local, axes, function, measure, x, y, rows):
    """Rows stay on the devices over which an Explicit mesh cuts them; everything else is replicated."""
    cut, whole = PartitionSpec(axes), PartitionSpec()
    specs = (whole, whole, cut, whole, cut)

    def on_device(function, measure, x, y, rows):
        return local(function, measure, x, y, rows, first=lax.axis_index(axes) * x.shape[0])

    return call_on_devices(on_device, jax.typeof(x).sharding.mesh, specs, cut, function, measure, x, y, rows)
