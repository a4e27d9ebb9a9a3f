"""The similarity matrix, and the closest rows of a gallery, in blocks of rows."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Int, Num, Shaped

from simjax.core import (
    InputError,
    as_exact_array,
    as_float_array,
    as_host_array,
    as_matrices,
    auto_axes,
    dot_products,
    map_rows,
    promote_to_float32,
    rank_keys,
    replace_non_finite_rows,
    top_k_of_rows,
)
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure
from simjax.similarity._reduce_rows import reduce_rows

BY_PRODUCTS = Measure(dot_products, higher_is_closer=True, matrix=dot_products, propagates_nan=False)
"""The plain dot product of vectors that cannot overflow; no gradient goes back through it."""

SPARE = 8  # candidates beyond k and a quarter, against what a matrix product rounds


def pairwise(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    measure: str | Measure = "cosine",
    *,
    block_size: int | None = None,
    precision: str | None = None,
) -> Num[Array, "n _m"]:
    """The whole matrix S_ij = measure(x_i, y_j).

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself. Identical rows are at distance exactly 0.
        measure: a name or a `Measure`.
        block_size: rows computed at once; None chooses.
        precision: of matrix products, see `simjax.similarity.reduce_rows`.

    Returns:
        [n, m].

    Raises:
        InputError: for shapes that do not fit or an unknown measure.

    Example:
        >>> colours = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 255, 0]])
        >>> print(pairwise(colours).round(2))
        [[1.   0.77 0.  ]
         [0.77 1.   0.32]
         [0.   0.32 1.  ]]
    """
    kind = jnp.result_type(as_float_array("x", x), as_float_array("y", x if y is None else y))
    return reduce_rows(_whole_strip, x, y, measure=measure, block_size=block_size, precision=precision).astype(kind)


def _whole_strip(s: Array, i: Array, j: Array) -> Array:
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
    """The k rows of the gallery that are closest to each query, by exact search.

    Candidates are found through strips of the similarity matrix, a few more than k of them; for a measure whose order
    is that of a dot product (cosine, Euclidean, RBF, ...) a strip is one matrix product and nothing else. The measure
    is then computed again from each candidate's own features. So what a matrix product rounds neither shows in the
    values nor loses a neighbour, and gradients cost one pair for each candidate.

    Args:
        query: [q, d].
        gallery: [m, d].
        k: how many, at most m.
        measure: a name or a `Measure`.
        exclude: integers [q]: for each query the index of one gallery row that does not count, for instance itself.
        block_size: queries compared at once; None chooses.
        precision: Precision of the matrix products that find candidates, see `reduce_rows`. A low one is faster on
            hardware that has it, and may miss a neighbour.

    Returns:
        Values [q, k] in the measure's own direction and indices int32 [q, k], closest first, ties by lowest index;
        NaN comes after all numbers.

    Raises:
        InputError: for shapes that do not fit, k out of range or an unknown measure.
    """
    query, gallery = as_matrices(query, gallery, ("query", "gallery"))
    available = gallery.shape[0] - (exclude is not None)
    if not isinstance(k, int | np.integer) or not 1 <= k <= available:
        raise InputError(f"k: expected 1 to {available}, the rows of the gallery that count, got {k}")
    excluded = () if exclude is None else (_row_numbers("exclude", exclude, len(query), len(gallery)),)
    return _top_k(query, gallery, excluded, as_measure(measure), k=k, block_size=block_size, precision=precision)


def _row_numbers(argument: str, rows: ArrayLike, n: int, m: int) -> Array:
    """One of m row numbers for each of n queries; traced ones are taken as they are."""
    numbers = as_exact_array(argument, rows)
    if numbers.shape != (n,) or not jnp.issubdtype(numbers.dtype, jnp.integer):
        got = f"{numbers.dtype} {numbers.shape}"
        raise InputError(f"{argument}: expected one integer for each of {n} queries, got {got}")
    if n and not isinstance(given := as_host_array(rows), Tracer):
        known = np.asarray(given)
        if known.min() < 0 or known.max() >= m:
            raise InputError(
                f"{argument}: expected rows 0 to {m - 1} of the gallery, got {known.min()} to {known.max()}"
            )
    return numbers


@partial(jax.jit, static_argnames=("k", "block_size", "precision"))
@auto_axes
def _top_k(query, gallery, excluded, measure: Measure, *, k: int, block_size: int | None, precision: str | None):
    width = min(k + k // 4 + SPARE, gallery.shape[0])

    def nearest(by: Measure, s: Array, i: Array, j: Array, *skip: Array) -> Array:
        closeness = by.as_score(s)
        columns = top_k_of_rows(rank_keys(closeness, j != skip[0][:, None]) if skip else closeness, width)[1]
        return jnp.sort(columns, axis=1)  # so that the lowest is the first among equals

    def compare(query: Array, columns: Array, *skip: Array) -> tuple[Array, Array]:
        found = promote_to_float32(gallery[columns])  # [r, width, d]
        values = measure(promote_to_float32(query)[:, None], found)
        if measure.exact_zero:
            values = jnp.where(jnp.all(query[:, None] == found, axis=-1) & ~jnp.isnan(values), 0.0, values)
        keep = columns != skip[0][:, None] if skip else jnp.ones_like(columns, bool)
        _, place = jax.lax.top_k(rank_keys(jax.lax.stop_gradient(measure.as_score(values)), keep), k)
        closest = jnp.take_along_axis(values, place, axis=1)
        return closest.astype(gallery.dtype), jnp.take_along_axis(columns, place, axis=1)

    def candidates(x: Array, y: Array, by: Measure) -> Array:
        options = {"measure": by, "block_size": block_size, "precision": precision or measure.precision}
        return reduce_rows(Partial(nearest, by), x, y, rows=excluded, **options)

    x, y = jax.lax.stop_gradient((query, gallery))
    by_measure = partial(candidates, x, y, dataclasses.replace(measure, exact_zero=False))
    if measure.search is None:
        columns = by_measure()
    else:
        (x, _), (y, y_nan) = (replace_non_finite_rows(a, fill_with_minimum=True) for a in (x, y))
        x, y, fits = measure.search(x, y, **measure.parameters)
        by_products = partial(candidates, *jax.lax.stop_gradient((x, y + y_nan[:, None])), BY_PRODUCTS)
        columns = by_products() if fits is True else jax.lax.cond(fits, by_products, by_measure)
    row_bytes = width * gallery.shape[1] * gallery.dtype.itemsize
    return map_rows(compare, query, columns, *excluded, block_size=block_size, row_bytes=row_bytes)
