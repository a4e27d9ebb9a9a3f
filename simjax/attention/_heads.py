"""A function of one attention head, over batches and heads and groups of heads that share their keys.

As many heads as the budget of a block allows are computed at once (`jax.vmap`), the others one after another, by the
same `map_rows` that cuts the rows of a single head: one mechanism from a small batch of short sequences, all in one
block, to one long sequence, some rows of one head at a time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array

from simjax.core import map_rows, rows_per_block


def over_heads(
    function: Callable[..., Any],
    query: Array,
    key: Array,
    value: Array,
    *arrays: Any,
    block_size: int | None,
    row_bytes: int,
) -> Any:
    """`function` of each head's query [t, k], key [s, k], value [s, e] and its part of the arrays.

    Args:
        function: gives a pytree of arrays [t, ...].
        query: [b, t, h, k].
        key: [b, s, g, k], where g divides h: each serves h / g heads of the query.
        value: [b, s, g, e].
        *arrays: pytrees of arrays [b, h, ...]; an axis of 1 is shared by all.
        block_size: rows of all heads together that are computed at once; None chooses.
        row_bytes: what one row takes, in bytes.

    Returns:
        A pytree of arrays [b, h, t, ...].
    """
    b, t, h, k = query.shape
    g = key.shape[2]
    q = query.transpose(0, 2, 1, 3).reshape(b, g, h // g, t, k)
    shared = [a.transpose(0, 2, 1, 3)[:, :, None] for a in (key, value)]  # [b, g, 1, s, k]
    grouped = jax.tree.map(
        lambda a: a.reshape(a.shape[0], *((g, h // g) if a.shape[1] == h else (1, 1)), *a.shape[2:]), arrays
    )
    rows = t
    for size in (h // g, g, b):  # heads of a group, groups, batches
        at_once = max(1, block_size // rows) if block_size else rows_per_block(size, row_bytes * rows, min_rows=1)
        function = partial(map_shared, _each(function), block_size=at_once)
        rows *= size
    out = function(q, *shared, *grouped)  # [b, g, h / g, t, ...]
    return jax.tree.map(lambda a: a.reshape(b, h, *a.shape[3:]), out)


def map_shared(function: Callable[..., Any], *arrays: Any, block_size: int | None, row_bytes: int = 0) -> Any:
    """`map_rows` where an array of one row, if the first array has more, is shared by all blocks."""
    leaves, tree = jax.tree.flatten(arrays)
    n = leaves[0].shape[0]
    cut = [a.shape[0] == n for a in leaves]

    def on_block(rows: list[Array]) -> Any:
        rest = iter(rows)
        return function(*tree.unflatten([next(rest) if c else a for a, c in zip(leaves, cut, strict=True)]))

    return map_rows(
        on_block, [a for a, c in zip(leaves, cut, strict=True) if c], block_size=block_size, row_bytes=row_bytes
    )


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of every row of arrays; those of one row are shared."""

    def of_rows(*arrays: Any) -> Any:
        n = jax.tree.leaves(arrays)[0].shape[0]
        if n == 1:
            return jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a[0], arrays)))
        axes = jax.tree.map(lambda a: 0 if a.shape[0] == n else None, arrays)
        return jax.vmap(function, axes)(*jax.tree.map(lambda a: a if a.shape[0] == n else a[0], arrays))

    return of_rows
