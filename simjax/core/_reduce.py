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
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._arrays import matrix_rows
from simjax.core._blocks import map_rows, rows_in_block
from simjax.core._measure import Measure
from simjax.core._measure import measure as as_measure


def reduce_rows(
    function: Callable[..., Any],
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"] | None = None,
    *,
    measure: str | Measure = "dot",
    rows: Any = (),
    copies: int = 2,
    block: int | None = None,
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
        copies: how many arrays like the strip the function holds at once.
        block: rows computed at once; None chooses (see `block_size`).
        precision: of matrix products, as in `jax.default_matmul_precision`; None is the measure's own, which is the
            highest for distances.
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
    if jax.tree_util.all_leaves([function]):
        function = jax.tree_util.Partial(function)
    x, y = matrix_rows(x, x if y is None else y)
    return _reduce_rows(
        function, as_measure(measure), x, y, rows, copies=copies, block=block, precision=precision, axis_name=axis_name
    )


def block_size(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"] | None = None,
    *,
    measure: str | Measure = "dot",
    copies: int = 2,
) -> int:
    """How many rows `reduce_rows` computes at once when it chooses.

    Args:
        x: [n, d].
        y: [m, d]; None is x.
        measure: a name or a `Measure`; what it holds in memory counts.
        copies: as in `reduce_rows`.

    Example:
        >>> block_size(jnp.zeros((65536, 128))), block_size(jnp.zeros((65536, 128)), measure="manhattan")
        (25, 6)
    """
    x, y = matrix_rows(x, x if y is None else y)
    return rows_in_block(x.shape[0], as_measure(measure).row_bytes(x, y, copies))


@partial(jax.jit, static_argnames=("copies", "block", "precision", "axis_name"))
def _reduce_rows(function, measure, x, y, rows, *, copies, block, precision, axis_name):
    axes = _explicit_axes(x)
    if axes is None:
        return _reduce_local(function, measure, x, y, rows, copies, block, precision, axis_name)
    # Rows that are sharded over an Explicit mesh stay on their devices; everything else is replicated.
    cut, whole = PartitionSpec(axes), PartitionSpec()
    local = partial(_reduce_local, copies=copies, block=block, precision=precision, axis_name=None)

    def on_device(function, measure, x, y, rows):
        return local(function, measure, x, y, rows, first=lax.axis_index(axes) * x.shape[0])

    replicated = jax.tree.map(lambda a: jax.reshard(a, whole), (function, measure))
    return jax.shard_map(on_device, in_specs=(whole, whole, cut, whole, cut), out_specs=cut)(
        *replicated, jax.reshard(x, cut), jax.reshard(y, whole), jax.tree.map(lambda a: jax.reshard(a, cut), rows)
    )


def _reduce_local(function, measure, x, y, rows, copies, block, precision, axis_name, first=0):
    if axis_name is not None:
        first = lax.axis_index(axis_name) * x.shape[0]
        y = lax.all_gather(y, axis_name, tiled=True)
    j = jnp.arange(y.shape[0], dtype=jnp.int32)[None]
    prepared, columns = measure.rows_and_columns(x, y)

    def reduce(part: Any, i: Array, rows: Any) -> Any:
        return function(measure.strip(part, columns, precision), i[:, None], j, *rows)

    i = first + jnp.arange(x.shape[0], dtype=jnp.int32)
    return map_rows(reduce, prepared, i, rows, block=block, row_bytes=measure.row_bytes(x, y, copies))


def _explicit_axes(x: Array) -> Any:
    """The Explicit mesh axes over which the rows of x are cut, or None."""
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.are_all_axes_explicit or not sharding.spec:
        return None
    return sharding.spec[0]
