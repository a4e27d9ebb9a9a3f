"""The similarity matrix, and the closest rows of a gallery, in blocks of rows."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from simjax.core import InputError, Measure, matrix_rows, reduce_rows
from simjax.core import measure as as_measure


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
    return reduce_rows(_whole_strip, x, y, measure=measure, copies=1, block=block)


def _whole_strip(s: Array, i: Array, j: Array) -> Array:
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
    query, gallery = matrix_rows(query, gallery, ("query", "gallery"))
    available = gallery.shape[0] - (exclude is not None)
    if not 1 <= k <= available:
        raise InputError(f"k: expected 1 to {available}, the rows of the gallery that count, got {k}")
    excluded = jnp.full(query.shape[0], -1) if exclude is None else jnp.asarray(exclude)
    return _top_k(query, gallery, excluded, as_measure(measure), k=k, block=block)


@partial(jax.jit, static_argnames=("k", "block"))
def _top_k(query: Array, gallery: Array, excluded: Array, measure: Measure, *, k: int, block: int | None):
    def strip(s: Array, i: Array, j: Array, skip: Array) -> tuple[Array, Array]:
        closeness = jnp.where(j == skip[:, None], -jnp.inf, measure.closest_first(s))
        return tuple(jax.lax.top_k(closeness, k))

    values, indices = reduce_rows(strip, query, gallery, measure=measure, rows=(excluded,), block=block)
    return measure.closest_first(values), indices.astype(jnp.int32)
