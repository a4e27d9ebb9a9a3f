"""Euclidean distance of vectors with missing features, which are NaN."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Num, Shaped

from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import power_of_two, safe_sqrt


@pair_function(propagates_nan=False)
def nan_euclidean_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """sqrt(d / p times the sum of (x_k - y_k)^2 over the p features that neither x nor y misses).

    Args:
        x: [..., d]; NaN is a missing feature.
        y: [..., d], likewise.

    Returns:
        [...]; infinite where there is no common feature, so that such a row is never the nearest. Missing features
        get zero gradient.

    Example:
        >>> print(nan_euclidean_distance(jnp.array([3.0, jnp.nan]), jnp.array([1.0, 5.0])).round(4))
        2.8284

    References:
        Dixon (1979), Pattern recognition with partly missing data.

    Differs from: scikit-learn gives NaN where there is no common feature.
    """
    return _nan_euclidean(reduce_features, x, y)


def _nan_euclidean(reduce: Reduce, x: Array, y: Array) -> Array:
    d = x.shape[-1]
    # Zeros in place of what is missing: a NaN that is only thrown away later still spoils a gradient.
    known_x, known_y = ((jnp.where(jnp.isnan(a), 0.0, a / 2), (~jnp.isnan(a)).astype(a.dtype)) for a in (x, y))

    def difference(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
        present = x[1] * y[1]
        return (x[0] - y[0]) * present, present

    most, _ = reduce(lambda x, y: tuple(map(jnp.abs, difference(x, y))), known_x, known_y, "max")
    scale = power_of_two(lax.stop_gradient(most))

    def square(x: tuple[Array, Array], y: tuple[Array, Array], scale: Array) -> tuple[Array, Array]:
        apart, present = difference(x, y)
        return (apart / scale) ** 2, present

    total, present = reduce(square, known_x, known_y, scale=scale)
    distance = 2 * scale * safe_sqrt(total * (d / jnp.maximum(present, 1.0)))
    return jnp.where((present > 0) | (d == 0), distance, jnp.inf)


define_terms(nan_euclidean_distance, _nan_euclidean, range=(0.0, float("inf")))
