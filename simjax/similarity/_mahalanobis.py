"""Euclidean distance with a weight for each feature, or with a whole matrix that may be learned."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import InputError, as_float_array, dot_products, promote_to_float32
from simjax.similarity._define import define, pair_function
from simjax.similarity._dot_products import square_matrix
from simjax.similarity._euclidean import Rows, distances, norm, scaled_rows, search_scaled
from simjax.similarity._finite import largest, power_of_two, safe_sqrt


@pair_function(variance=0.0)
def standardized_euclidean_distance(
    x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, variance: ArrayLike | None = None
) -> Num[Array, "*b"]:
    """The square root of the sum of (x_k - y_k)^2 / variance_k.

    Args:
        x: [..., d].
        y: [..., d].
        variance: [d] or a scalar, at least 0; a feature of variance 0 is left out. None is 1 everywhere.

    Returns:
        [...], at least 0; the gradient at x = y is 0.

    Raises:
        InputError: for features or variances that do not fit, or a variance that is negative or NaN.

    Example:
        >>> print(standardized_euclidean_distance(jnp.zeros(2), jnp.array([3.0, 8.0]), variance=jnp.array([1.0, 4.0])))
        5.0

    Differs from: SciPy's default is the variance of all rows at hand, so that a distance depends on other rows.
    """
    weights = _weights(variance, x)
    return 2 * norm((x / 2 - y / 2) * weights.reshape((1,) * (x.ndim - 1) + weights.shape))


def _weights(variance: ArrayLike | None, x: Array) -> Array:
    """1 / sqrt(variance), [d] or [1]."""
    variance = jnp.ones(1) if variance is None else as_float_array("variance", variance).reshape(-1)
    if variance.shape[0] not in (1, x.shape[-1]):
        raise InputError(f"variance: expected shape {(x.shape[-1],)} or (), got {variance.shape}")
    positive = variance > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0).astype(x.dtype)


@pair_function(matrix=-float("inf"))
def mahalanobis_distance(
    x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, matrix: ArrayLike | None = None
) -> Num[Array, "*b"]:
    """sqrt((x - y)^T M (x - y)), 0 where a matrix that is not positive semidefinite makes it negative below the root.

    Args:
        x: [..., d].
        y: [..., d].
        matrix: M [d, d], the inverse of a covariance, or learned, for instance as L L^T; only its symmetric part
            counts. None is the identity.

    Returns:
        [...], at least 0; the gradient at x = y is 0.

    Raises:
        InputError: for features or a matrix that do not fit.

    Example:
        >>> print(mahalanobis_distance(jnp.zeros(2), jnp.array([3.0, 2.0]), matrix=jnp.diag(jnp.array([1.0, 4.0]))))
        5.0

    References:
        Mahalanobis (1936), On the generalized distance in statistics.

    Differs from: SciPy's default is the inverse covariance of all rows at hand.
    """
    difference = x / 2 - y / 2
    scale = power_of_two(largest(difference))
    scaled = difference / scale
    square = jnp.sum(_times(scaled, matrix) * scaled, axis=-1)
    return 2 * scale[..., 0] * safe_sqrt(square)


def _times(x: Array, matrix: ArrayLike | None) -> Array:
    """x [..., d] times the symmetric part of the matrix."""
    if matrix is None:
        return x
    m = square_matrix(matrix, x)
    with jax.default_matmul_precision("highest"):
        return dot_products(x.reshape(-1, x.shape[-1]), (m + m.T) / 2).reshape(x.shape)


def _prepare_standardized(x: Array, y: Array, variance: ArrayLike | None) -> tuple[Rows, Rows]:
    x, y = promote_to_float32(x), promote_to_float32(y)
    weights = _weights(variance, x)[None]
    return scaled_rows(x * weights, y * weights)


def _prepare_mahalanobis(x: Array, y: Array, matrix: ArrayLike | None) -> tuple[Rows, Rows]:
    return scaled_rows(x, y, lambda rows: _times(rows, matrix))


for _function, _prepare in (
    (standardized_euclidean_distance, _prepare_standardized),
    (mahalanobis_distance, _prepare_mahalanobis),
):
    _form = {"matrix": distances, "range": (0.0, float("inf")), "exact_zero": True}
    define(_function, prepare=_prepare, search=search_scaled(_prepare), **_form)
