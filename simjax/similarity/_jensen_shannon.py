"""Jensen-Shannon distance between distributions.

With p + q = 2 m and t = (p - q) / (p + q) each outcome adds m ((1 + t) log(1 + t) + (1 - t) log(1 - t)) / 2. Both
parts cancel for a small t, where the series t^2 + t^4/6 + t^6/15 + ... keeps every digit.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import promote_to_float32
from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import largest, power_of_two, ratio, safe_sqrt

SMALL = 0.1
"""Below it six terms of the series are exact in float64, above it the logarithms cancel less than one digit."""


@pair_function(base=1.0)
def jensen_shannon_distance(
    x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, base: ArrayLike | None = None
) -> Num[Array, "*b"]:
    """sqrt((KL(p | m) + KL(q | m)) / 2), p = x / sum(x), q = y / sum(y), m = (p + q) / 2.

    The gradient is 0 at p = q and, for each outcome, where one of its probabilities is 0.

    Args:
        x: [..., d], at least 0; what is negative counts as 0.
        y: [..., d], likewise.
        base: of the logarithm, larger than 1; None is e, with which the distance is at most sqrt(log 2).

    Returns:
        [...]. A vector of zeros, which is no distribution, counts as probabilities of 0.

    Raises:
        InputError: for features that do not fit, or a base below 1 or NaN.

    Example:
        >>> print(jensen_shannon_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0]), base=2))
        1.0

    References:
        Endres, Schindelin (2003), A new metric for probability distributions.

    Differs from: SciPy gives NaN for a vector of zeros, and infinity for negative numbers.
    """
    return _jensen_shannon(reduce_features, *_distributions(x, y), base=base)


def _jensen_shannon(reduce: Reduce, p: Array, q: Array, *, base: ArrayLike | None) -> Array:
    square = reduce(_divergence, p, q)[0]
    if base is not None:
        square = square / jnp.log(jnp.asarray(base, square.dtype))
    return safe_sqrt(square)


def _divergence(p: Array, q: Array) -> tuple[Array]:
    both = p + q
    t = ratio(p - q, both)
    small = jnp.abs(t) < SMALL
    near, far = jnp.where(small, t, 0.0), jnp.where(small, 0.5, t)
    s = near * near
    series = s * (1 + s * (1 / 6 + s * (1 / 15 + s * (1 / 28 + s * (1 / 45 + s / 66)))))
    return (both / 4 * jnp.where(small, series, _x_log_x(1 + far) + _x_log_x(1 - far)),)


def _x_log_x(x: Array) -> Array:
    positive = x > 0
    return jnp.where(positive, x * jnp.log(jnp.where(positive, x, 1.0)), 0.0)


def _distributions(x: Array, y: Array, **_: ArrayLike | None) -> tuple[Array, Array]:
    def distribution(x: Array) -> Array:
        x = jnp.where(x > 0, x, 0.0)
        x = x / power_of_two(largest(x))
        return ratio(x, jnp.sum(x, axis=-1, keepdims=True))

    return distribution(promote_to_float32(x)), distribution(promote_to_float32(y))


define_terms(jensen_shannon_distance, _jensen_shannon, prepare=_distributions, range=(0.0, float("inf")))
