"""What is made of a row of S = measure(x_i, y_j): sums, extremes, softmax, order.

Each function is `reduce_rows` with a block function of a few lines. They share its options, and:

    mask        which pairs count: a function of row and column (see `same_label`); None is all of them
    function    applied to S first, for instance a division by a temperature; None leaves S as it is

S is taken as the measure gives it: for a similarity the maximum is the closest, for a distance the minimum. Over an
empty set of pairs a weighted sum, a sum, a mean and a count are 0, logsumexp is -inf, min is +inf and max -inf with
index -1, all with zero gradient.
"""

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Int, Num, Shaped

from simjax.core import as_float_array, promote_to_float32
from simjax.similarity import _row_reductions as row_reductions
from simjax.similarity._masks import Mask, as_pytree_function
from simjax.similarity._measure import Measure
from simjax.similarity._reduce_rows import reduce_rows


class Options(TypedDict, total=False):
    """What every reduction takes, as `reduce_rows` documents it."""

    measure: str | Measure
    block_size: int | None
    precision: str | None
    axis_name: str | tuple[str, ...] | None


Function = Callable[[Array], Array]


def logsumexp(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> Num[Array, " n"]:
    """log sum_j exp S_ij, for each row i, without overflow.

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        mask: of the pairs that count.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.

    Returns:
        [n]; -inf where no pair counts.

    Example:
        The InfoNCE loss of a batch of pairs at temperature 0.1 is the mean of this less the positive's score:

        >>> x, y = jnp.eye(3), jnp.eye(3)
        >>> loss = logsumexp(x, y, measure="cosine", function=lambda s: s / 0.1) - 1 / 0.1
        >>> print(loss.round(6))
        [9.1e-05 9.1e-05 9.1e-05]
    """
    return reduce_masked(row_reductions.logsumexp, x, y, mask, function, **options)


def softmax_weighted_sum(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"],
    values: Num[ArrayLike, "m e"],
    *,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> Num[Array, "n e"]:
    """sum_j softmax_j(S_ij) values_j, for each row i: attention, and soft nearest neighbours.

    Args:
        x: [n, d].
        y: [m, d].
        values: [m, e].
        mask: of the pairs that count.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.

    Returns:
        [n, e]; 0 where no pair counts.
    """
    weighted = promote_to_float32(as_float_array("values", values))
    if (axis_name := options.get("axis_name")) is not None:
        weighted = lax.all_gather(weighted, axis_name, tiled=True)
    return reduce_masked(row_reductions.softmax_weighted_sum, x, y, mask, function, weighted, **options)


def sum(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> Num[Array, " n"]:
    """The sum of function(S_ij) over the pairs that count, for each row i: [n].

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        mask: of the pairs that count.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.
    """
    return reduce_masked(row_reductions.sum, x, y, mask, function, **options)


def mean(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> Num[Array, " n"]:
    """The mean of function(S_ij) over the pairs that count, for each row i: [n].

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        mask: of the pairs that count.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.
    """
    return reduce_masked(row_reductions.mean, x, y, mask, function, **options)


def count(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    mask: Mask | None = None,
    function: Function,
    **options: Unpack[Options],
) -> Int[Array, " n"]:
    """How many of the pairs that count make function(S_ij) true, for each row i: int32 [n].

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        mask: of the pairs that count.
        function: of S, giving a boolean.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [2.0], [9.0]])
        >>> print(count(x, mask=lambda i, j: i != j, function=lambda s: s < 1.5, measure="euclidean"))
        [1 2 1 0]
    """
    return reduce_masked(row_reductions.count, x, y, mask, function, **options)


def min(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> tuple[Num[Array, " n"], Int[Array, " n"]]:
    """The smallest S_ij of each row i and its column: [n] and int32 [n], the lowest column among equals.

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        mask: of the pairs that count; a row without any gives +inf and -1.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.
    """
    return reduce_masked(row_reductions.min, x, y, mask, function, **options)


def max(
    x: Shaped[ArrayLike, "n d"],
    y: Shaped[ArrayLike, "m d"] | None = None,
    *,
    mask: Mask | None = None,
    function: Function | None = None,
    **options: Unpack[Options],
) -> tuple[Num[Array, " n"], Int[Array, " n"]]:
    """The largest S_ij of each row i and its column: [n] and int32 [n], the lowest column among equals.

    Args:
        x: [n, d].
        y: [m, d]; None compares x with itself.
        mask: of the pairs that count; a row without any gives -inf and -1.
        function: applied to S first.
        **options: measure, block_size, precision, axis_name: see `reduce_rows`.
    """
    return reduce_masked(row_reductions.max, x, y, mask, function, **options)


def reduce_masked(
    block_function: Callable[..., Any], x: Any, y: Any, mask: Any, function: Any, *more: Any, **options: Any
) -> Any:
    """`reduce_rows` with a block function of (mask, function, *more, s, i, j), cast back to the inputs' type."""
    out = reduce_rows(
        Partial(block_function, as_pytree_function(mask), as_pytree_function(function), *more), x, y, **options
    )
    kind = jnp.result_type(as_float_array("x", x), as_float_array("y", x if y is None else y))
    return jax.tree.map(lambda a: a.astype(kind) if jnp.issubdtype(a.dtype, jnp.floating) else a, out)
