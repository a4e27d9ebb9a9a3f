"""Euclidean distance, its square, and the distance of unit vectors.

For a tile of the matrix |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, which costs one matrix product. Three things keep the error
of a pair a matter of its own two rows, below 8 eps d (|x|^2 + |y|^2), whatever the other rows hold:

    offset   All rows are moved by the point closest to 0 of the smallest box that holds them, which brings every row
             closer to 0 and cancels what they have in common.
    scale    Each row is divided by its own power of four s, so that neither 1e30 nor 1e-30 leaves the range when it is
             squared: with u = x / s and v = y / t, |x - y|^2 = s t (|u|^2 s / t + |v|^2 t / s - 2 u.v).
    zeros    Identical rows are found by their fingerprints and are at distance exactly 0.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Num, Shaped

from simjax.core import dot_products, promote_to_float32
from simjax.similarity._define import define, pair_function
from simjax.similarity._dot_products import divided_by_norm, unit_rows
from simjax.similarity._finite import clip_to_range, largest, power_of_two, safe_sqrt, saturate


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
    return clip_to_range(norm(divided_by_norm(x) - divided_by_norm(y)), 0.0, 2.0)


def norm(x: Array) -> Array:
    """|x| of rows [..., d], with gradient 0 at 0, where neither 1e30 nor 1e-30 may be squared."""
    scale = power_of_two(largest(x))
    scaled = x / scale
    return scale[..., 0] * safe_sqrt(jnp.sum(scaled * scaled, axis=-1))


class Rows(NamedTuple):
    """Rows made ready for a tile of distances, each divided by its own scale."""

    vectors: Array
    """[n, d]; those of the columns are multiplied by -2, which costs less here than in the tile."""
    squares: Array
    """Squared norms after the division, times the scale over `_unit`, [n]."""
    inverses: Array
    """`_unit` over the scale, [n]."""
    roots: Array
    """Square roots of the scales, powers of two, [n]."""
    norms: Array
    """Norms before the division, [n], constants for the gradient."""


def _unit(d: int) -> float:
    """A power of four for rows of d features, relative to which scales are stored.

    It is just so large that the squares of the largest numbers fit, and so that inverses of the smallest do.
    """
    return 4.0 ** (d.bit_length() // 2 + 3)


def shift_towards_zero(x: Array, y: Array) -> tuple[Array, Array]:
    """Subtract the point closest to 0 of the smallest box that holds the rows x [n, d] and y [m, d]."""
    rows = lax.stop_gradient((x, y))
    low = functools.reduce(jnp.minimum, (jnp.min(a, axis=0, initial=jnp.inf) for a in rows))
    high = functools.reduce(jnp.maximum, (jnp.max(a, axis=0, initial=-jnp.inf) for a in rows))
    offset = jnp.clip(jnp.zeros_like(low), low, high)[None]
    return x - offset, y - offset


def scaled_rows(x: Array, y: Array, multiply: Callable[[Array], Array] = lambda x: x) -> tuple[Rows, Rows]:
    """Rows x [n, d] and columns y [m, d] made ready for `squares` and `distances`.

    Args:
        x: [n, d].
        y: [m, d].
        multiply: The product of rows [n, d] with a symmetric matrix M, for the distance sqrt((x - y)^T M (x - y)).
    """
    (x, x_root), (y, y_root) = (_divided(a) for a in shift_towards_zero(promote_to_float32(x), promote_to_float32(y)))
    product = multiply(x)
    rows = _with_norms(product, jnp.sum(product * x, axis=-1), x_root)
    return rows, _with_norms(-2 * y, jnp.sum(multiply(y) * y, axis=-1), y_root)


def _divided(x: Array) -> tuple[Array, Array]:
    """Rows [n, d] over the largest power of four up to their largest absolute value, and its square root [n]."""
    smallest = (float(jnp.finfo(x.dtype).tiny) * _unit(x.shape[1])) ** 0.5
    root = jnp.maximum(power_of_two(jnp.sqrt(largest(x))), smallest)
    return x / root / root, root[:, 0]


def _with_norms(vectors: Array, squares: Array, roots: Array) -> Rows:
    scales, unit = roots * roots, _unit(vectors.shape[1])
    norms = lax.stop_gradient(roots * safe_sqrt(squares) * roots)
    return Rows(vectors, squares * (scales / unit), unit / scales, roots, norms)


def _relative_squares(x: Rows, y: Rows) -> Array:
    """|x - y|^2 over both scales [r, m], which rounding may bring below 0.

    It is infinite where one row is more than 1e30 times as long as the other.
    """
    products = dot_products(*_padded(x.vectors, y.vectors))
    return x.squares[:, None] * y.inverses[None] + x.inverses[:, None] * y.squares[None] + products


def _padded(x: Array, y: Array) -> tuple[Array, Array]:
    """Add a second feature, 0, to rows of one: XLA would otherwise round after the sum and miss exact zeros."""
    if x.shape[1] != 1:
        return x, y
    return jnp.pad(x, ((0, 0), (0, 1))), jnp.pad(y, ((0, 0), (0, 1)))


def squares(x: Rows, y: Rows, **_: Any) -> Array:
    """|x - y|^2 [r, m]; infinite, with zero gradient, where it does not fit; for zero gradients see `distances`."""
    x_scale, y_scale = (x.roots**2)[:, None], (y.roots**2)[None]
    square = jax.nn.relu(_relative_squares(x, y)) * x_scale * y_scale
    return jnp.where(square == jnp.inf, (x.norms[:, None] + y.norms[None]) ** 2, square)


def distances(x: Rows, y: Rows, **_: Any) -> Array:
    """|x - y| [r, m]; the gradient is 0 where one row is more than 1e30 times as long as the other."""
    square = _relative_squares(x, y)
    distance = safe_sqrt(square) * x.roots[:, None] * y.roots[None]
    return jnp.where(square == jnp.inf, x.norms[:, None] + y.norms[None], distance)


def squared_rows(x: Array, y: Array) -> tuple[Any, Any]:
    """Rows x [n, d] and columns y [m, d] of `chords`, for vectors no longer than 1."""
    x, y = shift_towards_zero(x, y)
    return (x, jnp.sum(x * x, axis=-1)), (-2 * y, jnp.sum(y * y, axis=-1))


def chords(x: tuple[Array, Array], y: tuple[Array, Array]) -> Array:
    """|u - v|^2 [r, m] of unit vectors, from 0 to 4."""
    products = dot_products(*_padded(x[0], y[0]))
    return jnp.minimum(jax.nn.relu(x[1][:, None] + y[1][None] + products), 4.0)


def search_scaled(prepare: Callable[..., tuple[Rows, Rows]]) -> Callable[..., tuple[Array, Array, Array]]:
    """The closest y has the largest 2 x . y - |y|^2: a dot product of vectors with one feature more.

    Each query may be divided by its own scale, which leaves its order as it is; columns need a common one. It serves
    where no square of a divided row leaves the range, and says so.
    """

    def search(x: Array, y: Array, **parameters: Any) -> tuple[Array, Array, Array]:
        rows, columns = prepare(x, y, **parameters)
        every_root = jnp.concatenate([rows.roots, columns.roots])
        most, least = jnp.max(every_root, initial=0.0), jnp.min(every_root, initial=jnp.inf)
        queries = jnp.concatenate([rows.vectors, ((most / rows.roots) ** 2)[:, None]], axis=1)
        scales = ((columns.roots / most) ** 2)[:, None]
        # squares * inverses is the squared norm after the division
        squares = (columns.squares * columns.inverses)[:, None] * scales * scales
        return queries, -jnp.concatenate([columns.vectors * scales, squares], axis=1), least >= most * 2.0**-30

    return search


def search_chords(prepare: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Array, Array, bool]]:
    """As `search_scaled`, of unit vectors, which need no scale."""

    def search(x: Array, y: Array, **parameters: Any) -> tuple[Array, Array, bool]:
        (rows, _), (columns, squares) = prepare(x, y, **parameters)
        queries = jnp.pad(rows, ((0, 0), (0, 1)), constant_values=1)
        return queries, -jnp.concatenate([columns, squares[:, None]], axis=1), True

    return search


def _prepare(x: Array, y: Array) -> tuple[Rows, Rows]:
    return scaled_rows(x, y)


def _prepare_units(x: Array, y: Array) -> tuple[Any, Any]:
    return squared_rows(*unit_rows(x, y))


def _chord_lengths(x: Any, y: Any) -> Array:
    return safe_sqrt(chords(x, y))


_scaled = {"search": search_scaled(_prepare), "prepare": _prepare, "range": (0.0, float("inf")), "exact_zero": True}
_units = {"search": search_chords(_prepare_units), "prepare": _prepare_units, "range": (0.0, 2.0), "exact_zero": True}
define(squared_euclidean_distance, matrix=squares, **_scaled)
define(euclidean_distance, matrix=distances, **_scaled)
define(normalized_euclidean_distance, matrix=_chord_lengths, **_units)
