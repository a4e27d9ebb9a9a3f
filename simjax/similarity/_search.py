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

SPARE_CANDIDATES = 8
"""Candidates in addition to 1.25 k: a matrix product may round a row behind the first k."""


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

    First, 1.25 k + 8 candidates per query are found from tiles of the similarity matrix. If the measure has a function
    `Measure.search`, as cosine, Euclidean and RBF have, a tile is a single matrix product of its vectors (unless that
    could overflow), which has the order of the scores. Then the measure of each query and its candidates is computed
    from their features, and the closest k are returned. So the rounding of a matrix product affects neither values nor
    order of the candidates; it can only miss a row that it places behind all candidates. The backward pass computes
    only the pairs of queries and candidates.

    Args:
        query, gallery: [q, d] and [m, d].
        k: Number of rows to find for each query, at most m, or m - 1 with `exclude`.
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
    """Return indices of gallery rows, each below m, for n queries; the values of traced indices are not checked."""
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
    """Compute `top_k` of checked arguments; `excluded` is () or (exclude,). A block has r queries."""
    dtype, n_candidates = gallery.dtype, min(k + k // 4 + SPARE_CANDIDATES, gallery.shape[0])
    query, gallery = promote_to_float32(query), promote_to_float32(gallery)
    j = jnp.arange(gallery.shape[0], dtype=jnp.int32)[None]

    def candidates_of(scores: Array, *excluded: Array) -> Array:
        """Return the column indices [r, n_candidates] of the largest scores [r, m]."""
        # `top_k_of_rows` puts NaN last. With `rank_keys`, excluded rows come after NaN.
        sort_keys = rank_keys(scores, j != excluded[0][:, None]) if excluded else scores
        # Indices in ascending order: `compare` then puts the lowest index first among equal values.
        return jnp.sort(top_k_of_rows(sort_keys, n_candidates)[1], axis=1)

    def find_by_products(queries: Array, keys: Array) -> Array:
        def find(queries: Array, *excluded: Array) -> Array:
            return candidates_of(jnp.matmul(queries, keys.T, precision=precision or measure.precision), *excluded)

        return map_rows(find, queries, *excluded, block_size=block_size, row_bytes=len(keys) * keys.dtype.itemsize)

    def find_by_measure(x: Array, y: Array) -> Array:
        inexact = dataclasses.replace(measure, exact_zero=False)  # `compare` gives identical rows the distance 0
        x_inputs, y_inputs = inexact.tile_inputs(x, y)

        def find(x_inputs: Any, *excluded: Array) -> Array:
            return candidates_of(measure.as_score(inexact.tile(x_inputs, y_inputs, precision)), *excluded)

        return map_rows(find, x_inputs, *excluded, block_size=block_size, row_bytes=inexact.row_bytes(x, y))

    def compare(query: Array, candidates: Array, *excluded: Array) -> tuple[Array, Array]:
        """Return the values and the indices [r, k] of the closest candidates, from indices [r, n_candidates]."""
        features = gallery[candidates]  # [r, n_candidates, d]
        values = measure.of_pairs(query[:, None], features)
        if measure.exact_zero:
            values = jnp.where(jnp.all(query[:, None] == features, axis=-1) & ~jnp.isnan(values), 0.0, values)
        valid = candidates != excluded[0][:, None] if excluded else jnp.ones_like(candidates, bool)
        _, order = lax.top_k(rank_keys(lax.stop_gradient(measure.as_score(values)), valid), k)
        closest = jnp.take_along_axis(values, order, axis=1)
        return closest.astype(dtype), jnp.take_along_axis(candidates, order, axis=1)

    x, y = lax.stop_gradient((query, gallery))
    if measure.search is None:
        candidates = find_by_measure(x, y)
    else:
        # Rows with NaN or infinity are replaced by the minimum of each feature, so that they do not affect other rows.
        finite_x, _ = replace_non_finite_rows(x, fill_with_minimum=True)
        finite_y, nan_or_zero = replace_non_finite_rows(y, fill_with_minimum=True)
        queries, keys, cannot_overflow = measure.search(finite_x, finite_y, **measure.parameters)
        products = lax.stop_gradient((queries, keys + nan_or_zero[:, None]))  # NaN for replaced rows
        if cannot_overflow is True:  # known without the values of the rows; otherwise a traced boolean
            candidates = find_by_products(*products)
        else:
            candidates = lax.cond(cannot_overflow, lambda: find_by_products(*products), lambda: find_by_measure(x, y))
    row_bytes = n_candidates * gallery.shape[1] * gallery.dtype.itemsize
    return map_rows(compare, query, candidates, *excluded, block_size=block_size, row_bytes=row_bytes)
