"""Order within a row of S = measure(x_i, y_j): the largest k, the k-th, and the histogram."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Int, Num, Shaped

from simjax.core import InputError, as_float_array, rank_keys, top_k_of_rows
from simjax.similarity._masks import Mask
from simjax.similarity._reductions import Options, reduce_masked
from simjax.similarity._row_reductions import Function, masked, nan_of_rows


def largest_k(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    k: int,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> tuple[Num[Array, "n {k}"], Int[Array, "n {k}"]]:
    """The k largest S_ij of each row i and their columns: [n, k] and int32 [n, k], lowest column first among equals.

    NaN comes after all numbers.

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        k: how many, at most m.
        mask: of the pairs that count; where there are fewer than k, the rest is -inf with index -1.
        function: applied to S first; `jnp.negative` finds the smallest of a distance.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.

    Raises:
        InputError: if k is out of range.
    """
    return reduce_masked(_top_k(k), x, y, mask, function, **options)


def order_statistics(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    ks: Sequence[int],
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> Num[Array, "n _k"]:
    """The k-th smallest S_ij of each row i, for several k; NaN comes after all numbers.

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        ks: counted from 1, each at most m.
        mask: of the pairs that count; where there are fewer than k, the value is +inf.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.

    Returns:
        [n, len(ks)].

    Raises:
        InputError: if a k is out of range.

    Example:
        The distance to the nearest and to the second nearest other row:

        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> print(order_statistics(x, ks=(1, 2), mask=lambda i, j: i != j, measure="euclidean"))
        [[1. 3.]
         [1. 2.]
         [2. 3.]]
    """
    return reduce_masked(_order_statistics(tuple(ks)), x, y, mask, function, **options)


def histogram(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    edges: Num[ArrayLike, " _b"],
    soft: bool = False,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> Num[Array, "n _c"]:
    """How many S_ij of each row i fall into each bin.

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        edges: ascending [b]. Values outside of them are not counted.
        soft: False counts entries between two edges, the last edge included, as NumPy does: piecewise constant. True
            shares each entry out linearly between the two edges it lies between: differentiable (on an edge, with the
            slope to its right).
        mask: of the pairs that count.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.

    Returns:
        [n, b - 1] counts, or with `soft` [n, b] shares that add up to the number of entries within the edges; NaN
        for a row with a NaN.

    References:
        Ustinova, Lempitsky (2016), Learning Deep Embeddings with Histogram Loss (the soft form).
    """
    edges = as_float_array("edges", edges)
    if edges.ndim != 1 or edges.shape[0] < 2:
        raise InputError(f"edges: expected at least 2 in one row, got shape {edges.shape}")
    return reduce_masked(_soft_histogram if soft else _histogram, x, y, mask, function, edges, **options)


def soft_bins(s: Array, keep: Array, edges: Array) -> Array:
    """The kept entries of each row of a strip, shared out linearly between the two edges they lie between.

    Args:
        s: [r, m].
        keep: which entries count, boolean [r, m]; those outside of the edges do not.
        edges: ascending [b].

    Returns:
        [r, b], of each edge the sum of its shares.

    Example:
        >>> print(soft_bins(jnp.array([[0.25, 1.0, 7.0]]), jnp.full((1, 3), True), jnp.array([0.0, 1.0, 2.0])))
        [[0.75 1.25 0.  ]]
    """
    nan = nan_of_rows(s, keep)
    keep = keep & (s >= edges[0]) & (s <= edges[-1])
    below = jnp.concatenate([edges[:1] - 1, edges[:-1]])
    above = jnp.concatenate([edges[1:], edges[-1:] + 1])

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def share(edge: tuple[Array, Array, Array]) -> Array:
        low, here, high = edge
        rising, falling = (s - low) / (here - low), (high - s) / (high - here)
        return jnp.sum(jnp.where(keep, jax.nn.relu(jnp.where(s < here, rising, falling)), 0), axis=1)

    return lax.map(share, (below, edges, above)).T + nan[:, None]  # [r, b]


@functools.cache
def _top_k(k: int) -> Callable[..., Any]:
    def block_function(mask: Any, function: Any, s: Array, i: Array, j: Array) -> tuple[Array, Array]:
        s, keep = masked(mask, function, s, i, j)
        columns = top_k_of_rows(rank_keys(lax.stop_gradient(s), keep), k)[1]
        values = jnp.take_along_axis(s, columns, axis=1)
        found = jnp.arange(k)[None] < jnp.sum(keep, axis=1, keepdims=True)
        return jnp.where(found, values, -jnp.inf), jnp.where(found, columns, -1)

    return block_function


@functools.cache
def _order_statistics(ks: tuple[int, ...]) -> Callable[..., Array]:
    def block_function(mask: Any, function: Any, s: Array, i: Array, j: Array) -> Array:
        if not ks or min(ks) < 1 or max(ks) > s.shape[1]:
            raise InputError(f"ks: expected numbers from 1 to {s.shape[1]}, the number of columns, got {ks}")
        s, keep = masked(mask, function, s, i, j)
        columns = top_k_of_rows(rank_keys(lax.stop_gradient(-s), keep), max(ks))[1][:, jnp.array(ks) - 1]
        found = jnp.array(ks)[None] <= jnp.sum(keep, axis=1, keepdims=True)
        return jnp.where(found, jnp.take_along_axis(s, columns, axis=1), jnp.inf)

    return block_function


def _histogram(mask: Any, function: Any, edges: Array, s: Array, i: Array, j: Array) -> Array:
    s, keep = masked(mask, function, s, i, j)
    nan = nan_of_rows(s, keep)
    keep = keep & (s <= edges[-1])
    from_edge = lax.map(lambda edge: jnp.sum(keep & (s >= edge), axis=1), edges).T  # [r, b]
    from_edge = jnp.concatenate([from_edge[:, :-1], jnp.zeros_like(from_edge[:, :1])], axis=1)
    return (from_edge[:, :-1] - from_edge[:, 1:]).astype(s.dtype) + nan[:, None]


def _soft_histogram(mask: Any, function: Any, edges: Array, s: Array, i: Array, j: Array) -> Array:
    return soft_bins(*masked(mask, function, s, i, j), edges)
