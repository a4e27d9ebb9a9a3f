"""Reductions of the rows of S = measure(x_i, y_j): sums, extremes, softmax, order.

S has the values of the measure: the closest pair is the maximum of a similarity and the minimum of a distance. Every
reduction takes rows x [n, d], columns y [m, d] and `ReductionOptions`. For a row without valid pairs, a weighted sum, a
sum, a mean and a count are 0, logsumexp is -inf, min is +inf and max is -inf with index -1, all with zero gradient.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import jax.numpy as jnp  # noqa: F401 (in doctests)
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Int, Num, Shaped

from simjax.core import InputError, as_float_array, promote_to_float32
from simjax.similarity import _row_reductions as row_reductions
from simjax.similarity._masks import Mask, as_pytree_function
from simjax.similarity._measure import Measure
from simjax.similarity._reduce_rows import reduce_rows

Rows = Shaped[ArrayLike, "n d"]
Columns = Shaped[ArrayLike, "m d"] | None
"""Default: the rows."""


class ReductionOptions(TypedDict, total=False):
    """Options that every reduction takes.

    mask: Function of row and column that is True for valid pairs, see `same_label`. Default: all pairs are valid.
    function: Elementwise function that is applied to S first, for instance a division by a temperature.
    measure: Name of a measure or a `Measure`. Default: "dot".
    block_size, precision, axis_name: See `reduce_rows`.
    """

    mask: Mask | None
    function: Callable[[Array], Array] | None
    measure: str | Measure
    block_size: int | None
    precision: str | None
    axis_name: str | tuple[str, ...] | None


def logsumexp(x: Rows, y: Columns = None, **options: Unpack[ReductionOptions]) -> Num[Array, " n"]:
    """Compute log sum_j exp S_ij of each row i without overflow, [n].

    Example:
        The InfoNCE loss of a pair at temperature 0.1 is logsumexp minus the scaled similarity of the pair:

        >>> x, y = jnp.eye(3), jnp.eye(3)
        >>> loss = logsumexp(x, y, measure="cosine", function=lambda s: s / 0.1) - 1 / 0.1
        >>> print(loss.round(6))
        [9.1e-05 9.1e-05 9.1e-05]
    """
    return _reduce(row_reductions.logsumexp, x, y, **options)


def softmax_weighted_sum(
    x: Rows, y: Shaped[ArrayLike, "m d"], values: Num[ArrayLike, "m e"], **options: Unpack[ReductionOptions]
) -> Num[Array, "n e"]:
    """Compute sum_j softmax_j(S_ij) values_j of each row i, [n, e]: attention, and soft nearest neighbours.

    Args:
        values: [m, e].
    """
    values = promote_to_float32(as_float_array("values", values))
    if (axis_name := options.get("axis_name")) is not None:
        values = lax.all_gather(values, axis_name, tiled=True)
    return _reduce(Partial(row_reductions.softmax_weighted_sum, values), x, y, **options)


def sum(x: Rows, y: Columns = None, **options: Unpack[ReductionOptions]) -> Num[Array, " n"]:
    """Compute the sum of function(S_ij) over the valid pairs of each row i, [n]."""
    return _reduce(row_reductions.sum, x, y, **options)


def mean(x: Rows, y: Columns = None, **options: Unpack[ReductionOptions]) -> Num[Array, " n"]:
    """Compute the mean of function(S_ij) over the valid pairs of each row i, [n]."""
    return _reduce(row_reductions.mean, x, y, **options)


def count(x: Rows, y: Columns = None, **options: Unpack[ReductionOptions]) -> Int[Array, " n"]:
    """Count the valid pairs of each row i for which `function`, which must be given, is True, int32 [n].

    Example:
        >>> x = jnp.array([[0.0], [1.0], [2.0], [9.0]])
        >>> print(count(x, mask=lambda i, j: i != j, function=lambda s: s < 1.5, measure="euclidean"))
        [1 2 1 0]
    """
    return _reduce(row_reductions.count, x, y, **options)


def min(x: Rows, y: Columns = None, **options: Unpack[ReductionOptions]) -> tuple[Num[Array, " n"], Int[Array, " n"]]:
    """Return the smallest S_ij of each row i, [n], and its column, int32 [n], the lowest of equal ones."""
    return _reduce(row_reductions.min, x, y, **options)


def max(x: Rows, y: Columns = None, **options: Unpack[ReductionOptions]) -> tuple[Num[Array, " n"], Int[Array, " n"]]:
    """Return the largest S_ij of each row i, [n], and its column, int32 [n], the lowest of equal ones."""
    return _reduce(row_reductions.max, x, y, **options)


def largest_k(
    x: Rows, y: Columns = None, *, k: int, **options: Unpack[ReductionOptions]
) -> tuple[Num[Array, "n {k}"], Int[Array, "n {k}"]]:
    """Return the k largest S_ij of each row i and their columns, the lowest column first among equal values.

    Args:
        k: At most m.
        **options: See `ReductionOptions`; `function=jnp.negative` finds the smallest distances.

    Returns:
        Values [n, k] and columns int32 [n, k]. NaN comes after all numbers. With fewer than k valid pairs, the
        remaining entries are -inf and -1.
    """
    return _reduce(_cached_partial(row_reductions.largest_k, k=k), x, y, **options)


def order_statistics(
    x: Rows, y: Columns = None, *, ks: Sequence[int], **options: Unpack[ReductionOptions]
) -> Num[Array, "n _k"]:
    """Return the k-th smallest S_ij of each row i, for several k, [n, len(ks)].

    NaN comes after all numbers. Where a row has fewer than k valid pairs, the result is +inf.

    Args:
        ks: Values of k, from 1 to m.

    Example:
        The distances to the nearest and the second nearest other row:

        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> print(order_statistics(x, ks=(1, 2), mask=lambda i, j: i != j, measure="euclidean"))
        [[1. 3.]
         [1. 2.]
         [2. 3.]]
    """
    return _reduce(_cached_partial(row_reductions.order_statistics, ks=tuple(ks)), x, y, **options)


def histogram(
    x: Rows,
    y: Columns = None,
    *,
    edges: Num[ArrayLike, " _b"],
    soft: bool = False,
    **options: Unpack[ReductionOptions],
) -> Num[Array, "n _c"]:
    """Count the S_ij of each row i in bins. Values outside of the edges are ignored.

    Args:
        edges: Ascending edges of the bins, [b].
        soft: Share each value linearly between the two nearest edges, which is differentiable (on an edge, with
            the slope to its right). Default: count the values between two edges, including the last edge, as NumPy
            does.

    Returns:
        Counts [n, b - 1], or with `soft` shares [n, b] whose sum is the number of values within the edges; NaN for a
        row with a valid NaN.

    References:
        Ustinova, Lempitsky (2016), Learning Deep Embeddings with Histogram Loss (soft histograms).
    """
    edges = as_float_array("edges", edges)
    if edges.ndim != 1 or edges.shape[0] < 2:
        raise InputError(f"edges: expected shape [b] with at least 2 edges, got shape {edges.shape}")
    reduction = row_reductions.soft_histogram if soft else row_reductions.histogram
    return _reduce(Partial(reduction, edges), x, y, **options)


# Equal arguments give the same object, with which JAX compiles only once.
_cached_partial = functools.cache(functools.partial)


def _reduce(
    reduction: Callable[..., Any],
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    mask: Mask | None = None,
    function: Callable[[Array], Array] | None = None,
    **options: Any,
) -> Any:
    arguments = (as_pytree_function(f) for f in (reduction, mask, function))
    return reduce_rows(Partial(row_reductions.reduce_tile, *arguments), x, y, cast_result=True, **options)
