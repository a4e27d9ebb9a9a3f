"""Distances between directions: cosine, angular, normalized Euclidean, correlation, signal to noise, and haversine.

The first five are functions of q = |u - v|^2 = 2 - 2 cos, the squared chord between the unit vectors u and v of x and
y (for correlation and signal to noise, of x and y minus their means); signal to noise also depends on the norms.
arccos(cos) and 1 - cos lose half of the digits of a small angle, and the former has an infinite gradient at 0; |u - v|
loses none. Where a measure needs an angle, a zero vector is at a right angle to every other vector (q = 2), and at
distance 0 from an identical one.

Each measure has a function of pairs x, y [..., d], whose arguments `pair_function` checks, and a function of a tile: r
rows of the similarity matrix with all m columns. See `_dot_products` for the types and errors that all measures share.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Shaped

from simjax.core import InputError, row_products
from simjax.similarity._define import Values, Vectors, define, pair_function
from simjax.similarity._dot_products import normalize_rows
from simjax.similarity._euclidean import pad_single_feature, shift_towards_zero
from simjax.similarity._finite import clip_to_range, largest, power_of_two, ratio, safe_norm, safe_sqrt


@pair_function()
def cosine_distance(x: Vectors, y: Vectors) -> Values:
    """Compute 1 - x . y / (|x| |y|), in [0, 2]; 1 for a zero vector, exactly 0 for identical vectors.

    Example:
        >>> print(cosine_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 5.0])))
        1.0
    """
    return _squared_chords(x, y, _directions(x), _directions(y))[0] / 2


@pair_function()
def angular_distance(x: Vectors, y: Vectors) -> Values:
    """Compute arccos(cosine similarity) / pi, in [0, 1]; 1/2 for a zero vector.

    Unlike the cosine distance it obeys the triangle inequality. The gradient is 0 at equal and at opposite directions.

    Example:
        >>> print(angular_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 5.0])))
        0.5

    References:
        Kahan (2006), How futile are mindless assessments of roundoff in floating-point computation?, section 12.
    """
    return _angle(*_squared_chords(x, y, _directions(x), _directions(y)))


@pair_function()
def normalized_euclidean_distance(x: Vectors, y: Vectors) -> Values:
    """Compute |x / |x| - y / |y||, in [0, 2]; 1 between a zero vector and any other.

    Example:
        >>> print(normalized_euclidean_distance(jnp.array([2.0, 0.0]), jnp.array([-3.0, 0.0])))
        2.0
    """
    return clip_to_range(safe_norm(normalize_rows(x) - normalize_rows(y)), 0.0, 2.0)


@pair_function()
def correlation_distance(x: Vectors, y: Vectors) -> Values:
    """Compute 1 - Pearson's correlation of x and y, in [0, 2]; 1 if one is constant, 0 if they are identical.

    Example:
        >>> print(correlation_distance(jnp.array([1.0, 2.0, 3.0]), jnp.array([30.0, 20.0, 10.0])).round(4))
        2.0

    Differs from SciPy, which gives NaN for a constant vector.
    """
    return _squared_chords(x, y, _centered_directions(x), _centered_directions(y))[0] / 2


@pair_function()
def signal_to_noise_distance(x: Vectors, y: Vectors) -> Values:
    """Compute var(x - y) / var(x), the noise of y relative to the signal x; not symmetric.

    For a constant x the distance is infinite, with zero gradient; 0 if y is constant as well.

    Example:
        >>> print(signal_to_noise_distance(jnp.array([-1.0, 1.0]), jnp.array([-1.0, 2.0])))
        0.25

    References:
        Yuan, Deng, Tang, Tang, Chen (2019), Signal-to-noise ratio: a robust distance metric for deep metric learning.
    """
    (x, x_scale), (y, y_scale) = _deviations(x / 2), _deviations(y / 2)  # halved: no difference overflows
    signal, noise = safe_norm(x * x_scale), safe_norm(x * x_scale - y * y_scale)
    is_finite, quotient = _ratio_with_finite_square(noise, signal)
    return jnp.where(is_finite, quotient * quotient, jnp.inf)


@pair_function()
def haversine_distance(x: Shaped[Array, "*#b 2"], y: Shaped[Array, "*#b 2"]) -> Values:
    """Compute the angle between two points on a sphere, in radians, in [0, pi].

    Multiplied by the radius it is the distance along the surface. With a and b half the differences of the latitudes
    and of the longitudes, and c half the sum of the latitudes,

        h = cos^2(b) sin^2(a) + sin^2(b) cos^2(c)    and    1 - h = cos^2(b) cos^2(a) + sin^2(b) sin^2(c)

    are sums of squares, in which nothing cancels. The angle 2 arctan(sqrt(h) / sqrt(1 - h)) is accurate also for
    opposite points, where 2 arcsin(sqrt(h)) is not. The gradient is 0 at identical and at opposite points.

    Args:
        x, y: Latitude and longitude in radians, [..., 2].

    Example:
        From Paris to Bangalore, in kilometres:

        >>> paris, bangalore = jnp.radians(jnp.array([48.8566, 2.3522])), jnp.radians(jnp.array([12.9716, 77.5946]))
        >>> print(round(float(6371 * haversine_distance(paris, bangalore)), -2))
        7800.0

    References:
        Sinnott (1984), Virtues of the haversine.
    """
    return _haversine(_coordinates("x", x), _coordinates("y", y))


Directions = tuple[Array, Array]
"""Unit vectors u [..., d], and a correction of q, [...]: 1 where u is 0, and else 0.

With the corrections of x and y added to it, q is 2, a right angle, between a zero vector and any other.
"""


def _directions(x: Array) -> Directions:
    units = normalize_rows(x)
    return units, (largest(x)[..., 0] == 0).astype(units.dtype)


def _units(x: Array) -> Directions:
    """Return directions for `normalized_euclidean_distance`, which needs no angle: the corrections are 0."""
    units = normalize_rows(x)
    return units, jnp.zeros(units.shape[:-1], units.dtype)


def _centered_directions(x: Array) -> Directions:
    return _directions(_deviations(x)[0])


def _deviations(x: Array) -> tuple[Array, Array]:
    """Return (x - mean(x)) / s and the power of two s, [..., 1], of each row; a constant row gives exactly 0."""
    scale = power_of_two(largest(x))
    x = x / scale
    x = x - x[..., :1]  # the mean of equal numbers is rounded, their difference is not
    return x - jnp.sum(x, axis=-1, keepdims=True) / max(x.shape[-1], 1), scale


def _squared_chords(x: Array, y: Array, x_directions: Directions, y_directions: Directions) -> tuple[Array, Array]:
    """Compute q = |u - v|^2 and |u + v|^2 = 4 - q of pairs x, y [..., d], from their directions."""
    (u, u_correction), (v, v_correction) = x_directions, y_directions
    is_same = jnp.all(x == y, axis=-1)
    q, opposite_q = (jnp.sum(a * a, axis=-1) + u_correction + v_correction for a in (u - v, u + v))
    return jnp.where(is_same, 0.0, clip_to_range(q, 0.0, 4.0)), opposite_q


def _angle(q: Array, opposite_q: Array) -> Array:
    """Return the angle between u and v, divided by pi, from q = |u - v|^2 and |u + v|^2."""
    return jnp.arctan2(safe_sqrt(q), safe_sqrt(opposite_q)) * (2 / jnp.pi)


def _ratio_with_finite_square(a: Array, b: Array) -> tuple[Array, Array]:
    """Return whether (a / b)^2 is finite, and a / b if so, else 0; 0 / 0 is 0."""
    is_finite = (a <= jnp.sqrt(jnp.finfo(a.dtype).max) / 2 * b) | (a == 0)
    return is_finite, ratio(jnp.where(is_finite, a, 0.0), b)


Chords = tuple[Array, Array]
"""Rows u [n, d] (or columns -2 v [m, d]), and |u|^2 [n] (|v|^2 [m]) plus the corrections of `Directions`.

u and v are shifted by the same vector, so |u - v|^2 = |u|^2 + |v|^2 - 2 u . v is unchanged and loses fewer digits.
"""


def _prepare_chords(x: Array, y: Array, directions: Callable[[Array], Directions]) -> tuple[Chords, Chords]:
    (u, u_correction), (v, v_correction) = directions(x), directions(y)
    u, v = shift_towards_zero(u, v)
    return (u, jnp.sum(u * u, axis=-1) + u_correction), (-2 * v, jnp.sum(v * v, axis=-1) + v_correction)


def _tile_of_q(x: Chords, y: Chords) -> Array:
    """Compute q, [r, m], in [0, 4]."""
    (rows, row_squares), (columns, column_squares) = x, y
    products = row_products(*pad_single_feature(rows, columns))
    return jnp.minimum(jax.nn.relu(row_squares[:, None] + column_squares[None] + products), 4.0)


def _search_chords(x: Array, y: Array, directions: Callable[[Array], Directions]) -> tuple[Array, Array, bool]:
    """Return vectors for `Measure.search`, whose dot products 2 u . v - |v|^2 are largest for the smallest q."""
    (rows, _), (columns, squares) = _prepare_chords(x, y, directions)
    queries = jnp.pad(rows, ((0, 0), (0, 1)), constant_values=1)
    return queries, -jnp.concatenate([columns, squares[:, None]], axis=1), True


def _half_q(x: Chords, y: Chords) -> Array:
    return _tile_of_q(x, y) / 2


def _angles(x: Chords, y: Chords) -> Array:
    q = _tile_of_q(x, y)
    return _angle(q, 4 - q)


def _chord_lengths(x: Chords, y: Chords) -> Array:
    return safe_sqrt(_tile_of_q(x, y))


def _prepare_signals(x: Array, y: Array) -> tuple[tuple[Chords, Array], tuple[Chords, Array]]:
    rows, columns = _prepare_chords(x, y, _centered_directions)
    x_norms, y_norms = (safe_norm(deviation * scale) for deviation, scale in (_deviations(x / 2), _deviations(y / 2)))
    return (rows, x_norms), (columns, y_norms)


def _signal_to_noise(x: tuple[Chords, Array], y: tuple[Chords, Array]) -> Array:
    """Compute |a - b|^2 / |a|^2 = (1 - r)^2 + r q of deviations a = |a| u and b = |b| v, with r = |b| / |a|."""
    (x_chords, x_norms), (y_chords, y_norms) = x, y
    x_norms, y_norms = x_norms[:, None], y_norms[None]
    is_finite, r = _ratio_with_finite_square(y_norms, x_norms)
    s = jnp.where(is_finite, (1 - r) ** 2 + r * _tile_of_q(x_chords, y_chords), jnp.inf)
    return jnp.where((x_norms == 0) & (y_norms == 0), 0.0, s)


Coordinates = tuple[Array, Array]
"""Latitudes and longitudes, [...] each."""


def _coordinates(name: str, x: Array) -> Coordinates:
    if x.shape[-1] != 2:
        raise InputError(f"{name}: expected latitude and longitude [..., 2], got shape {x.shape}")
    return x[..., 0], x[..., 1]


def _haversine(x: Coordinates, y: Coordinates) -> Array:
    """Compute the angle, in the notation of `haversine_distance`."""
    (x_latitude, x_longitude), (y_latitude, y_longitude) = x, y
    a, b = (x_latitude - y_latitude) / 2, (x_longitude - y_longitude) / 2
    c = (x_latitude + y_latitude) / 2
    cos2_b, sin2_b = jnp.cos(b) ** 2, jnp.sin(b) ** 2
    h = cos2_b * jnp.sin(a) ** 2 + sin2_b * jnp.cos(c) ** 2
    one_minus_h = cos2_b * jnp.cos(a) ** 2 + sin2_b * jnp.sin(c) ** 2
    return 2 * jnp.arctan2(safe_sqrt(h), safe_sqrt(one_minus_h))


def _haversine_of_tile(x: Array, y: Array) -> Array:
    return _haversine(_coordinates("x", x[:, None]), _coordinates("y", y[None]))


for _function, _name, _directions_of, _matrix, _largest in (
    (cosine_distance, "cosine_distance", _directions, _half_q, 2.0),  # "cosine" is the similarity
    (angular_distance, "angular", _directions, _angles, 1.0),
    (normalized_euclidean_distance, "normalized_euclidean", _units, _chord_lengths, 2.0),
    (correlation_distance, "correlation", _centered_directions, _half_q, 2.0),
):
    define(
        _function,
        _name,
        prepare=partial(_prepare_chords, directions=_directions_of),
        matrix=_matrix,
        search=partial(_search_chords, directions=_directions_of),
        range=(0.0, _largest),
        exact_zero=True,
        precision="highest",
    )
define(
    signal_to_noise_distance,
    prepare=_prepare_signals,
    matrix=_signal_to_noise,
    range=(0.0, float("inf")),
    symmetric=False,
    exact_zero=True,
    precision="highest",
)
define(haversine_distance, matrix=_haversine_of_tile, range=(0.0, float(jnp.pi)))
