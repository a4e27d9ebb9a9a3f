"""The similarity matrix, and exact search for the closest rows of a gallery, in blocks of rows.

A tile is a block of rows of the similarity matrix, with all columns. Scores are larger for closer pairs: a distance is
negated.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Int, Num, Shaped

from simjax.core import (
    InputError,
    as_exact_array,
    as_matrices,
    auto_axes,
    map_rows,
    promote_to_float32,
    rank_keys,
    replace_non_finite_rows,
    top_k_of_rows,
)
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure
from simjax.similarity._reduce_rows import reduce_rows

SPARE = 8
"""Candidates beyond 1.25 k, because the rounding of a matrix product changes the order of scores."""


def pairwise(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    measure: str | Measure = "cosine",
    *,
    block_size: int | None = None,
    precision: str | None = None,
) -> Num[Array, "n _m"]:
    """Compute the matrix S_ij = measure(x_i, y_j), [n, m]. Identical rows have a distance of exactly 0.

    Args:
        x, y: [n, d] and [m, d]. Default of y: x.
        measure: Name of a measure or a `Measure`.
        block_size: Rows per block. Default: chosen from a memory budget.
        precision: Precision of matrix products, see `reduce_rows`. Default: the precision of the measure.

    Example:
        >>> colours = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 255, 0]])
        >>> print(pairwise(colours).round(2))
        [[1.   0.77 0.  ]
         [0.77 1.   0.32]
         [0.   0.32 1.  ]]
    """
    return reduce_rows(_whole_tile, x, y, measure=measure, block_size=block_size, precision=precision, cast_result=True)


def _whole_tile(s: Array, i: Array, j: Array) -> Array:
    return s


def top_k(
    query: Shaped[ArrayLike, "q d"],
    gallery: Shaped[ArrayLike, "m d"],
    k: int,
    measure: str | Measure = "cosine",
    *,
    exclude: Int[ArrayLike, " q"] | None = None,
    block_size: int | None = None,
    precision: str | None = None,
) -> tuple[Num[Array, "q {k}"], Int[Array, "q {k}"]]:
    """Find the k rows of the gallery that are closest to each query, by exact search.

    Tiles of the similarity matrix give somewhat more than k candidates per query. For a measure with the order of a dot
    product (cosine, Euclidean, RBF, ...), a tile is a single matrix product. The measure of the candidates is then
    computed from their features. The rounding of the matrix product therefore affects neither values nor order, and a
    gradient costs one pair for each candidate.

    Args:
        k: At most m.
        measure: Name of a measure or a `Measure`.
        exclude: Index of one gallery row to ignore for each query, for instance the query itself, integers [q].
        block_size: Queries per block. Default: chosen from a memory budget.
        precision: Precision of the matrix products that find candidates, see `reduce_rows`. A low one is faster on
            hardware that supports it, and may miss a neighbour. Default: the precision of the measure.

    Returns:
        Values of the measure [q, k] and indices int32 [q, k], closest first, equal values by index; NaN comes last.
    """
    query, gallery = as_matrices(query, gallery, ("query", "gallery"))
    available = gallery.shape[0] - (exclude is not None)
    if not isinstance(k, int | np.integer) or not 1 <= k <= available:
        raise InputError(f"k: expected 1 to {available}, the number of gallery rows to search, got {k}")
    excluded = () if exclude is None else (_checked_row_indices("exclude", exclude, len(query), len(gallery)),)
    return _top_k(query, gallery, excluded, as_measure(measure), k=k, block_size=block_size, precision=precision)


def _checked_row_indices(argument: str, rows: ArrayLike, n: int, m: int) -> Array:
    """Return the row indices, one of m rows for each of n queries; the values of traced indices are not checked."""
    indices = as_exact_array(argument, rows)
    if indices.shape != (n,) or not jnp.issubdtype(indices.dtype, jnp.integer):
        given = f"{indices.dtype} {indices.shape}"
        raise InputError(f"{argument}: expected one integer for each of {n} queries, got {given}")
    if n and not isinstance(indices, Tracer):
        smallest, largest = np.asarray(indices).min(), np.asarray(indices).max()
        if smallest < 0 or largest >= m:
            raise InputError(f"{argument}: expected rows 0 to {m - 1} of the gallery, got {smallest} to {largest}")
    return indices


@partial(jax.jit, static_argnames=("k", "block_size", "precision"))
@auto_axes
def _top_k(query, gallery, excluded, measure: Measure, *, k: int, block_size: int | None, precision: str | None):
    """Compute `top_k` of checked arguments; `excluded` is () or (exclude,)."""
    dtype, n_candidates = gallery.dtype, min(k + k // 4 + SPARE, gallery.shape[0])
    query, gallery = promote_to_float32(query), promote_to_float32(gallery)
    j = jnp.arange(gallery.shape[0], dtype=jnp.int32)[None]

    def candidates(scores: Array, *excluded: Array) -> Array:
        sort_keys = rank_keys(scores, j != excluded[0][:, None]) if excluded else scores
        # In ascending order, so that the lowest index is the first of equal scores.
        return jnp.sort(top_k_of_rows(sort_keys, n_candidates)[1], axis=1)

    def find_by_products(x: Array, y: Array) -> Array:
        def find(x: Array, *excluded: Array) -> Array:
            return candidates(jnp.matmul(x, y.T, precision=precision or measure.precision), *excluded)

        return map_rows(find, x, *excluded, block_size=block_size, row_bytes=y.shape[0] * y.dtype.itemsize)

    def find_by_measure(x: Array, y: Array) -> Array:
        rounded = dataclasses.replace(measure, exact_zero=False)
        rows, columns = rounded.tile_inputs(x, y)

        def find(rows: Any, *excluded: Array) -> Array:
            return candidates(rounded.as_score(rounded.tile(rows, columns, precision)), *excluded)

        return map_rows(find, rows, *excluded, block_size=block_size, row_bytes=rounded.row_bytes(x, y))

    def compare(query: Array, columns: Array, *excluded: Array) -> tuple[Array, Array]:
        found = gallery[columns]  # [r, n_candidates, d]
        values = measure.of_pairs(query[:, None], found)
        if measure.exact_zero:
            values = jnp.where(jnp.all(query[:, None] == found, axis=-1) & ~jnp.isnan(values), 0.0, values)
        valid = columns != excluded[0][:, None] if excluded else jnp.ones_like(columns, bool)
        _, order = lax.top_k(rank_keys(lax.stop_gradient(measure.as_score(values)), valid), k)
        closest = jnp.take_along_axis(values, order, axis=1)
        return closest.astype(dtype), jnp.take_along_axis(columns, order, axis=1)

    x, y = lax.stop_gradient((query, gallery))
    if measure.search is None:
        columns = find_by_measure(x, y)
    else:
        queries, _ = replace_non_finite_rows(x, fill_with_minimum=True)
        vectors, nan = replace_non_finite_rows(y, fill_with_minimum=True)
        queries, vectors, cannot_overflow = measure.search(queries, vectors, **measure.parameters)
        products = lax.stop_gradient((queries, vectors + nan[:, None]))
        if cannot_overflow is True:
            columns = find_by_products(*products)
        else:
            columns = lax.cond(cannot_overflow, lambda: find_by_products(*products), lambda: find_by_measure(x, y))
    row_bytes = n_candidates * gallery.shape[1] * gallery.dtype.itemsize
    return map_rows(compare, query, columns, *excluded, block_size=block_size, row_bytes=row_bytes)
