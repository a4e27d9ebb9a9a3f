"""Haversine distance: the angle between two points on a sphere.

With half differences and half sums of latitude and longitude, h = cos^2(dl) sin^2(df) + sin^2(dl) cos^2(sf) and
1 - h = cos^2(dl) cos^2(df) + sin^2(dl) sin^2(sf) are both sums of squares: unlike arcsin(sqrt(h)), the angle from both
roots is as exact for opposite points as it is for near ones.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Num, Shaped

from simjax.core import InputError, promote_to_float32
from simjax.similarity._define import define, pair_function
from simjax.similarity._finite import safe_sqrt


@pair_function()
def haversine_distance(x: Shaped[Array, "*#b 2"], y: Shaped[Array, "*#b 2"]) -> Num[Array, "*b"]:
    """The angle between two points on a sphere, in radians, in [0, pi]; times the radius it is their distance.

    Args:
        x: [..., 2], latitude and longitude in radians.
        y: [..., 2], likewise.

    Returns:
        [...]; the gradient is 0 at identical and at opposite points.

    Raises:
        InputError: unless there are two features.

    Example:
        From Paris to Bangalore, in kilometres:

        >>> paris, bangalore = jnp.radians(jnp.array([48.8566, 2.3522])), jnp.radians(jnp.array([12.9716, 77.5946]))
        >>> print(round(float(6371 * haversine_distance(paris, bangalore)), -2))
        7800.0

    References:
        Sinnott (1984), Virtues of the haversine.
    """
    return _angle(*(_angles("x", x)), *(_angles("y", y)))


def _angles(name: str, x: Array) -> tuple[Array, Array]:
    if x.shape[-1] != 2:
        raise InputError(f"{name}: expected latitude and longitude [..., 2], got shape {x.shape}")
    return x[..., 0], x[..., 1]


def _angle(x_latitude: Array, x_longitude: Array, y_latitude: Array, y_longitude: Array) -> Array:
    apart, sideways = (x_latitude - y_latitude) / 2, (x_longitude - y_longitude) / 2
    together = (x_latitude + y_latitude) / 2
    near, far = jnp.cos(sideways) ** 2, jnp.sin(sideways) ** 2
    h = near * jnp.sin(apart) ** 2 + far * jnp.cos(together) ** 2
    rest = near * jnp.cos(apart) ** 2 + far * jnp.sin(together) ** 2
    return 2 * jnp.arctan2(safe_sqrt(h), safe_sqrt(rest))


def _prepare(x: Array, y: Array) -> tuple[Any, Any]:
    return _angles("x", promote_to_float32(x)), _angles("y", promote_to_float32(y))


def _matrix(x: tuple[Array, Array], y: tuple[Array, Array]) -> Array:
    return _angle(x[0][:, None], x[1][:, None], y[0][None], y[1][None])


define(haversine_distance, prepare=_prepare, matrix=_matrix, range=(0.0, float(jnp.pi)))
