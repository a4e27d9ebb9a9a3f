"""Euclidean distance, its square, and the distance of unit vectors.

In blocks they are |x|^2 + |y|^2 - 2 x.y, one matrix product. That difference of large numbers loses the digits of a
small distance, so rows are moved to the common mean first, divided by a power of two so that no square overflows, and
identical rows are found by comparison. The error that remains is below 8 eps d (|x|^2 + |y|^2).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Num, Shaped

from simjax.core import dot_products, wide
from simjax.similarity._define import define, pair_function
from simjax.similarity._dot_products import unit_rows, unit_vectors
from simjax.similarity._finite import largest, power_of_two, safe_sqrt, saturate


@pair_function()
def squared_euclidean_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """|x - y|^2, for x, y [..., d].

    Example:
        >>> print(squared_euclidean_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])))
        25.0
    """
    difference = saturate(x - y)
    return jnp.sum(difference * difference, axis=-1)


@pair_function()
def euclidean_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """|x - y|, for x, y [..., d]; the gradient at x = y is 0.

    Example:
        >>> print(euclidean_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])))
        5.0
    """
    return 2 * norm(x / 2 - y / 2)  # x - y may overflow where its half does not


@pair_function()
def normalized_euclidean_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """|x / |x| - y / |y||, for x, y [..., d], in [0, 2]; a zero vector is 1 away from any other.

    Example:
        >>> print(normalized_euclidean_distance(jnp.array([2.0, 0.0]), jnp.array([-3.0, 0.0])))
        2.0
    """
    return norm(unit_vectors(x) - unit_vectors(y))


def norm(x: Array) -> Array:
    """|x| of rows [..., d], with gradient 0 at 0, where neither 1e30 nor 1e-30 may be squared."""
    scale = power_of_two(largest(x))
    scaled = x / scale
    return scale[..., 0] * safe_sqrt(jnp.sum(scaled * scaled, axis=-1))


def moved(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Rows divided by a common power of two and moved to the mean of y; and the power."""
    x, y = wide(x), wide(y)
    scale = power_of_two(jnp.maximum(jnp.max(jnp.abs(x), initial=0.0), jnp.max(jnp.abs(y), initial=0.0)))
    return *_to_the_mean(x / scale, y / scale), scale


def _to_the_mean(x: Array, y: Array) -> tuple[Array, Array]:
    """Rows moved to the mean of y."""
    mean = jnp.sum(y, axis=0, keepdims=True) / max(y.shape[0], 1)
    return x - mean, y - mean


def centred(x: Array, y: Array, **_: Any) -> tuple[Any, Any]:
    """What `moved` makes, with the squares of the rows."""
    return _with_squares(*moved(x, y))


def _with_squares(x: Array, y: Array, scale: Array) -> tuple[Any, Any]:
    """(x, |x|^2), (-2 y, |y|^2, scale).

    The factor stands with the m rows of y, where it costs less than with the r x m products and their gradients.
    """
    return (x, jnp.sum(x * x, axis=-1)), (-2 * y, jnp.sum(y * y, axis=-1), scale)


def scaled_squares(x: tuple[Array, Array], y: tuple[Array, Array, Array]) -> Array:
    """|x - y|^2 of what `centred` prepared, over the square of the scale."""
    rows, columns = x[0], y[0]
    if rows.shape[1] == 1:  # XLA would multiply and round only after the sum, so that |x - x|^2 were not 0
        rows, columns = (jnp.pad(a, ((0, 0), (0, 1))) for a in (rows, columns))
    return jax.nn.relu(x[1][:, None] + y[1][None] + dot_products(rows, columns))


def squared_distances(x: tuple[Array, Array], y: tuple[Array, Array, Array], **_: Any) -> Array:
    """|x - y|^2 of what `centred` prepared; infinite, with zero gradient, where it does not fit."""
    scale = y[2]
    squares = scaled_squares(x, y) * scale * scale
    return jnp.where(jnp.isfinite(squares) & jnp.isfinite(scale * scale), squares, lax.stop_gradient(squares))


def distances(x: tuple[Array, Array], y: tuple[Array, Array, Array], **_: Any) -> Array:
    """|x - y| of what `centred` prepared."""
    return safe_sqrt(scaled_squares(x, y)) * y[2]


def centred_units(x: Array, y: Array) -> tuple[Any, Any]:
    """Unit vectors made ready for `distances`; their squares need no scale."""
    x, y = _to_the_mean(*unit_rows(x, y))
    return _with_squares(x, y, jnp.ones((), x.dtype))


def search_by_products(prepare: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Array, Array]]:
    """The closest y has the largest 2 x . y - |y|^2, a dot product of rows that have one feature more."""

    def search(x: Array, y: Array, **parameters: Any) -> tuple[Array, Array]:
        (x, _), (y, squares, _) = prepare(x, y, **parameters)  # y is times -2
        return jnp.pad(x, ((0, 0), (0, 1)), constant_values=1), -jnp.concatenate([y, squares[:, None]], axis=1)

    return search


def define_distance(function: Callable[..., Array], prepare: Callable[..., tuple[Any, Any]], **form: Any) -> None:
    """Enter a distance that `distances` gives of what `prepare` makes."""
    form = {"matrix": distances, "range": (0.0, float("inf")), **form}
    define(function, prepare=prepare, search=search_by_products(prepare), exact_zero=True, **form)


define_distance(squared_euclidean_distance, centred, matrix=squared_distances)
define_distance(euclidean_distance, centred)
define_distance(normalized_euclidean_distance, centred_units, range=(0.0, 2.0))
