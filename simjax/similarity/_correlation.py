"""Correlation distance and the signal-to-noise distance: both compare rows after their own mean is subtracted."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Num, Shaped

from simjax.core import promote_to_float32
from simjax.similarity._angular import half_chords, prepare_chords, right_angles, square_chords
from simjax.similarity._define import define, pair_function
from simjax.similarity._dot_products import divided_by_norm
from simjax.similarity._euclidean import chords, norm, search_chords
from simjax.similarity._finite import largest, power_of_two, ratio


@pair_function()
def correlation_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """1 - Pearson's correlation of x and y [..., d], in [0, 2]; 1 where one is constant, 0 where they are identical.

    Example:
        >>> print(correlation_distance(jnp.array([1.0, 2.0, 3.0]), jnp.array([30.0, 20.0, 10.0])).round(4))
        2.0

    Differs from: SciPy gives NaN for a constant vector.
    """
    return square_chords(x, y, _directions(x), _directions(y))[0] / 2


@pair_function()
def signal_to_noise_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """var(x - y) / var(x): how much noise y adds to the signal x; not symmetric.

    Infinite, with zero gradient, for a constant x, unless y is x plus a constant, which gives 0.

    Args:
        x: [..., d], the anchor.
        y: [..., d].

    Returns:
        [...].

    Example:
        >>> print(signal_to_noise_distance(jnp.array([-1.0, 1.0]), jnp.array([-1.0, 2.0])))
        0.25

    References:
        Yuan, Deng, Tang, Tang, Chen (2019), Signal-to-noise ratio: a robust distance metric for deep metric learning.
    """
    (x, x_scale), (y, y_scale) = deviations(x / 2), deviations(y / 2)
    signal, noise = norm(x * x_scale), norm(x * x_scale - y * y_scale)
    return _bounded_square(noise, signal)


def deviations(x: Array) -> tuple[Array, Array]:
    """x - mean(x) of each row, over a power of two [..., 1]; and the power. A constant row gives exactly 0."""
    scale = power_of_two(largest(x))
    x = x / scale
    x = x - x[..., :1]  # the mean of a constant rounds, the difference from its first does not
    return x - jnp.sum(x, axis=-1, keepdims=True) / max(x.shape[-1], 1), scale


def _directions(x: Array) -> tuple[Array, Array]:
    x, _ = deviations(x)
    return right_angles(x, divided_by_norm(x))


def _prepare(x: Array, y: Array) -> tuple[Any, Any]:
    return prepare_chords(_directions(promote_to_float32(x)), _directions(promote_to_float32(y)))


def _bounded_square(noise: Array, signal: Array) -> Array:
    """(noise / signal)^2, infinite with zero gradient where it does not fit, 0 at 0 / 0."""
    fits, quotient = _bounded_ratio(noise, signal)
    return jnp.where(fits, quotient * quotient, jnp.inf)


def _bounded_ratio(a: Array, b: Array) -> tuple[Array, Array]:
    """Where (a / b)^2 fits the type, and a / b there."""
    fits = (a <= jnp.sqrt(jnp.finfo(a.dtype).max) / 2 * b) | (a == 0)
    return fits, ratio(jnp.where(fits, a, 0.0), b)


def _prepare_signals(x: Array, y: Array) -> tuple[Any, Any]:
    directions = _prepare(x, y)
    x_size, y_size = (
        norm(d * scale) for d, scale in (deviations(promote_to_float32(x) / 2), deviations(promote_to_float32(y) / 2))
    )
    return (directions[0], x_size), (directions[1], y_size)


def _signal_to_noise(x: Any, y: Any) -> Array:
    """|a - b|^2 / |a|^2 = (1 - r)^2 + r |u - v|^2 of deviations a = |a| u and b = |b| v, where r = |b| / |a|."""
    (x, signal), (y, other) = x, y
    signal, other = signal[:, None], other[None]
    fits, r = _bounded_ratio(other, signal)
    s = jnp.where(fits, (1 - r) ** 2 + r * chords(x, y), jnp.inf)
    return jnp.where((signal == 0) & (other == 0), 0.0, s)


define(
    correlation_distance,
    prepare=_prepare,
    matrix=half_chords,
    search=search_chords(_prepare),
    range=(0.0, 2.0),
    exact_zero=True,
)
define(
    signal_to_noise_distance,
    prepare=_prepare_signals,
    matrix=_signal_to_noise,
    range=(0.0, float("inf")),
    exact_zero=True,
    symmetric=False,
)
