"""The similarity matrix, and the closest rows of a gallery, in blocks of rows."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import InputError, map_rows
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure


def _row_bytes(m: Measure, y: Array) -> int:
    """What one row of a strip takes: its values and a copy, or without a matrix form every difference."""
    return y.shape[0] * y.dtype.itemsize * (2 if m.matrix is not None else 2 * y.shape[1])


def _rows(argument: str, x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise InputError(f"{argument}: expected rows [n, d], got shape {x.shape}")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _both(x: ArrayLike, y: ArrayLike, names: tuple[str, str]) -> tuple[Array, Array]:
    x, y = _rows(names[0], x), _rows(names[1], y)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{names[1]}: expected rows of {x.shape[1]} features as in {names[0]}, got {y.shape}")
    return x, y


def pairwise(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"] | None = None,
    measure: str | Measure = "cosine",
    *,
    block: int | None = None,
) -> Num[Array, "n _m"]:
    """The whole matrix S_ij = measure(x_i, y_j).

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself, where a distance's diagonal is exactly 0.
        measure: a name or a `Measure`.
        block: rows computed at once; None chooses.

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
    itself = y is None
    x, y = _both(x, x if y is None else y, ("x", "y"))
    return _pairwise(x, y, as_measure(measure), block=block, itself=itself)


@partial(jax.jit, static_argnames=("block", "itself"))
def _pairwise(x: Array, y: Array, measure: Measure, *, block: int | None, itself: bool) -> Array:
    s = map_rows(lambda strip: measure.strip(strip, y), x, block=block, row_bytes=_row_bytes(measure, y))
    if itself and not measure.higher_is_closer:
        s = jnp.where(jnp.eye(x.shape[0], dtype=bool), 0.0, s)
    return s


def top_k(
    query: Num[ArrayLike, "q d"],
    gallery: Num[ArrayLike, "m d"],
    k: int,
    measure: str | Measure = "cosine",
    *,
    exclude: Int[ArrayLike, " q"] | None = None,
    block: int | None = None,
) -> tuple[Num[Array, "q {k}"], Int[Array, "q {k}"]]:
    """The k rows of the gallery that are closest to each query, by exact search.

    Args:
        query: [q, d].
        gallery: [m, d].
        k: how many, at most m.
        measure: a name or a `Measure`.
        exclude: integers [q]: for each query the index of one gallery row that does not count, for instance itself.
        block: queries compared at once; None chooses.

    Returns:
        Values [q, k] in the measure's own direction and indices int32 [q, k], closest first, ties by lowest index.

    Raises:
        InputError: for shapes that do not fit, k out of range or an unknown measure.
    """
    query, gallery = _both(query, gallery, ("query", "gallery"))
    available = gallery.shape[0] - (exclude is not None)
    if not 1 <= k <= available:
        raise InputError(f"k: expected 1 to {available}, the rows of the gallery that count, got {k}")
    excluded = jnp.full(query.shape[0], -1) if exclude is None else jnp.asarray(exclude)
    return _top_k(query, gallery, excluded, as_measure(measure), k=k, block=block)


@partial(jax.jit, static_argnames=("k", "block"))
def _top_k(query: Array, gallery: Array, excluded: Array, measure: Measure, *, k: int, block: int | None):
    columns = jnp.arange(gallery.shape[0])

    def strip(rows: Array, skip: Array) -> tuple[Array, Array]:
        closeness = measure.closest_first(measure.strip(rows, gallery))
        closeness = jnp.where(columns[None] == skip[:, None], -jnp.inf, closeness)
        values, indices = jax.lax.top_k(closeness, k)
        return values, indices

    values, indices = map_rows(strip, query, excluded, block=block, row_bytes=_row_bytes(measure, gallery))
    return measure.closest_first(values), indices.astype(jnp.int32)
