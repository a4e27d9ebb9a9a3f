"""Kernels: functions of the dot product, of a distance, or of the chi-squared statistic of histograms.

Names and defaults are those of scikit-learn: gamma, at least 0, is 1 / d (1 for chi-squared), coef0 1 and degree 3. All
parameters but the degree may be learned. `pair_function` checks the arguments of a kernel, x and y [..., d].
`_dot_products` describes their types and errors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from simjax.core import current_precision
from simjax.similarity._define import Reduce, Values, Vectors, define, define_featurewise, pair_function
from simjax.similarity._dot_products import ScaledRows, dot_product, multiply_tile, prepare_products, search_products
from simjax.similarity._elementwise import manhattan
from simjax.similarity._euclidean import search_rows, squared_euclidean_distance
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import ratio, saturate
from simjax.similarity._measure import measure

SQUARED_EUCLIDEAN = measure("squared_euclidean")


@pair_function(minimum={"degree": 0.0, "gamma": 0.0, "coef0": -float("inf")})
def polynomial_kernel(
    x: Vectors, y: Vectors, *, degree: ArrayLike = 3, gamma: ArrayLike | None = None, coef0: ArrayLike = 1.0
) -> Values:
    """Compute (gamma x . y + coef0)^degree; infinite, with zero gradient, where it overflows.

    Args:
        degree: A whole number, at least 0.

    Example:
        >>> print(polynomial_kernel(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5]), degree=2))
        9.0
    """
    return _polynomial(dot_product(x, y), x.shape[-1], degree, gamma, coef0)


@pair_function(minimum={"gamma": 0.0, "coef0": -float("inf")})
def sigmoid_kernel(x: Vectors, y: Vectors, *, gamma: ArrayLike | None = None, coef0: ArrayLike = 1.0) -> Values:
    """Compute tanh(gamma x . y + coef0), in [-1, 1].

    Args:
        gamma: At least 0. Default: 1 / d.

    Example:
        >>> print(sigmoid_kernel(jnp.array([1.0, 2.0]), jnp.array([3.0, -1.5]), coef0=0.0))
        0.0
    """
    return _sigmoid(dot_product(x, y), x.shape[-1], gamma, coef0)


@pair_function(minimum={"gamma": 0.0})
def rbf_kernel(x: Vectors, y: Vectors, *, gamma: ArrayLike | None = None) -> Values:
    """Compute exp(-gamma |x - y|^2), in [0, 1].

    Example:
        >>> print(rbf_kernel(jnp.array([0.0, 0.0]), jnp.array([0.0, 2.0])).round(4))
        0.1353
    """
    return _decay(squared_euclidean_distance(x, y), x.shape[-1], gamma)


@pair_function(minimum={"gamma": 0.0})
def laplacian_kernel(x: Vectors, y: Vectors, *, gamma: ArrayLike | None = None) -> Values:
    """Compute exp(-gamma sum_k |x_k - y_k|), in [0, 1].

    Example:
        >>> print(laplacian_kernel(jnp.array([0.0, 0.0]), jnp.array([3.0, -1.0])).round(4))
        0.1353
    """
    return _laplacian(reduce_features, x, y, gamma=gamma)


@pair_function()
def additive_chi2_kernel(x: Vectors, y: Vectors) -> Values:
    """Compute -sum_k (x_k - y_k)^2 / (x_k + y_k), at most 0.

    x and y are histograms, at least 0. A feature whose sum is not positive adds 0, with zero gradient.

    Example:
        >>> print(additive_chi2_kernel(jnp.array([1.0, 0.0]), jnp.array([3.0, 0.0])))
        -1.0

    References:
        Zhang, Marszalek, Lazebnik, Schmid (2007), Local features and kernels for classification of texture and object
        categories.

    Differs from scikit-learn, which rejects negative numbers.
    """
    return _additive_chi2(reduce_features, x, y)


@pair_function(minimum={"gamma": 0.0})
def chi2_kernel(x: Vectors, y: Vectors, *, gamma: ArrayLike = 1.0) -> Values:
    """Compute exp(-gamma sum_k (x_k - y_k)^2 / (x_k + y_k)), in [0, 1]; see `additive_chi2_kernel`.

    Example:
        >>> print(chi2_kernel(jnp.array([1.0, 0.0]), jnp.array([3.0, 0.0]), gamma=2.0).round(4))
        0.1353
    """
    return _chi2(reduce_features, x, y, gamma=gamma)


def _gamma(gamma: ArrayLike | None, d: int) -> ArrayLike:
    return 1 / max(d, 1) if gamma is None else gamma


def _affine(dot: Array, d: int, gamma: ArrayLike | None, coef0: ArrayLike) -> Array:
    return saturate(saturate(dot) * _gamma(gamma, d) + coef0)


def _polynomial(dot: Array, d: int, degree: ArrayLike, gamma: ArrayLike | None, coef0: ArrayLike) -> Array:
    base = _affine(dot, d, gamma, coef0)
    exponent = degree if isinstance(degree, int) else jnp.asarray(degree).astype(jnp.int32)
    finite = jnp.isfinite(base**exponent)
    return jnp.where(finite, jnp.where(finite, base, 0.0) ** exponent, lax.stop_gradient(base**exponent))


def _sigmoid(dot: Array, d: int, gamma: ArrayLike | None, coef0: ArrayLike) -> Array:
    return jnp.tanh(_affine(dot, d, gamma, coef0))


def _of_products(function: Callable[..., Array], x: ScaledRows, y: ScaledRows, **parameters: Any) -> Array:
    rows, _ = x
    return function(multiply_tile(x, y), rows.shape[-1], **parameters)


def _decay(distance: Array, d: int, gamma: ArrayLike | None) -> Array:
    return jnp.exp(-saturate(distance) * _gamma(gamma, d))


def _laplacian(reduce: Reduce, x: Array, y: Array, *, gamma: ArrayLike | None) -> Array:
    return _decay(manhattan(reduce, x, y), x.shape[-1], gamma)


def _additive_chi2(reduce: Reduce, x: Array, y: Array) -> Array:
    def term(a: Array, b: Array) -> tuple[Array]:
        difference, total = a - b, a + b
        return (difference * ratio(difference, jnp.where(total > 0, total, 0.0)),)

    return -2 * reduce(term, x / 2, y / 2)[0]  # x + y may overflow where its half does not


def _chi2(reduce: Reduce, x: Array, y: Array, *, gamma: ArrayLike) -> Array:
    return jnp.exp(gamma * saturate(_additive_chi2(reduce, x, y)))


def _prepare_rbf(x: Array, y: Array, **_: Any) -> tuple[Any, Any]:
    return SQUARED_EUCLIDEAN.tile_inputs(x, y)


def _rbf_of_tile(x: Any, y: Any, *, gamma: ArrayLike | None) -> Array:
    rows, *_ = x
    # The tile of the measure, whose distance of identical rows is exactly 0, so that their kernel is exactly 1.
    return _decay(SQUARED_EUCLIDEAN.tile(x, y, current_precision()), rows.vectors.shape[-1], gamma)


define(polynomial_kernel, prepare=prepare_products, matrix=partial(_of_products, _polynomial), keeps_half=True)
define(
    sigmoid_kernel,
    prepare=prepare_products,
    matrix=partial(_of_products, _sigmoid),
    search=search_products,
    range=(-1.0, 1.0),
    keeps_half=True,
)
define(rbf_kernel, prepare=_prepare_rbf, matrix=_rbf_of_tile, search=search_rows, range=(0.0, 1.0), precision="highest")
define_featurewise(laplacian_kernel, _laplacian, range=(0.0, 1.0))
define_featurewise(additive_chi2_kernel, _additive_chi2, range=(-float("inf"), 0.0))
define_featurewise(chi2_kernel, _chi2, range=(0.0, 1.0))
