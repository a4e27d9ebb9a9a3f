"""Distances of directions: cosine distance, the angle, and the distance of correlation.

All three are functions of q = |u - v|^2 = 2 - 2 cos, u and v the unit vectors. arccos(cos) and 1 - cos lose half of
the digits of a small angle and the first has an infinite gradient at 0; |u - v| loses none. A zero vector is at a
right angle to every other (q = 2), and at 0 from itself.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Num, Shaped

from simjax.core import promote_to_float32
from simjax.similarity._define import define, pair_function
from simjax.similarity._dot_products import divided_by_norm
from simjax.similarity._euclidean import chords, search_chords, squared_rows
from simjax.similarity._finite import clip_to_range, largest, safe_sqrt


@pair_function()
def cosine_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """1 - cosine similarity, for x, y [..., d], in [0, 2]; 1 at a zero vector, exactly 0 for identical vectors.

    Example:
        >>> print(cosine_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 5.0])))
        1.0
    """
    return _squares(x, y)[0] / 2


@pair_function()
def angular_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """arccos(cosine similarity) / pi, for x, y [..., d], in [0, 1]; 1/2 at a zero vector.

    Unlike cosine distance it obeys the triangle inequality. The gradient is 0 at equal and at opposite directions.

    Example:
        >>> print(angular_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 5.0])))
        0.5

    References:
        Kahan (2006), How futile are mindless assessments of roundoff in floating-point computation?, section 12.
    """
    return _angle(*_squares(x, y))


def right_angles(x: Array, units: Array) -> tuple[Array, Array]:
    """Unit vectors [..., d] of rows x, and what to add to |u - v|^2 [...]: 1 for a zero vector."""
    return units, (largest(x)[..., 0] == 0).astype(units.dtype)


def _squares(x: Array, y: Array) -> tuple[Array, Array]:
    return square_chords(x, y, right_angles(x, divided_by_norm(x)), right_angles(y, divided_by_norm(y)))


def square_chords(x: Array, y: Array, units: tuple[Array, Array], others: tuple[Array, Array]) -> tuple[Array, Array]:
    """|u - v|^2 and |u + v|^2 of pairs, of what `right_angles` made of x and y."""
    (u, at_u), (v, at_v) = units, others
    same = jnp.all(x == y, axis=-1)
    chord, other = (jnp.sum(a * a, axis=-1) + at_u + at_v for a in (u - v, u + v))
    return jnp.where(same, 0.0, clip_to_range(chord, 0.0, 4.0)), other


def _angle(chord: Array, other: Array) -> Array:
    """The angle over pi from |u - v|^2 and |u + v|^2."""
    return jnp.arctan2(safe_sqrt(chord), safe_sqrt(other)) * (2 / jnp.pi)


def prepare_chords(units: tuple[Array, Array], others: tuple[Array, Array]) -> tuple[Any, Any]:
    """Rows and columns of `chords` from what `right_angles` made of rows [n, d] and [m, d]."""
    (u, at_u), (v, at_v) = units, others
    (u, u_squares), (v, v_squares) = squared_rows(u, v)
    return (u, u_squares + at_u), (v, v_squares + at_v)


def _prepare(x: Array, y: Array) -> tuple[Any, Any]:
    x, y = promote_to_float32(x), promote_to_float32(y)
    return prepare_chords(right_angles(x, divided_by_norm(x)), right_angles(y, divided_by_norm(y)))


def half_chords(x: Any, y: Any) -> Array:
    """1 - cos = |u - v|^2 / 2 of what `prepare_chords` prepared."""
    return chords(x, y) / 2


def _angles(x: Any, y: Any) -> Array:
    square = chords(x, y)
    return _angle(square, 4 - square)


_form = {"search": search_chords(_prepare), "exact_zero": True}
define(cosine_distance, "cosine_distance", prepare=_prepare, matrix=half_chords, range=(0.0, 2.0), **_form)
define(angular_distance, prepare=_prepare, matrix=_angles, range=(0.0, 1.0), **_form)
