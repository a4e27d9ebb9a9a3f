"""Kernels: functions of the dot product (polynomial, sigmoid) and of a distance (RBF, Laplacian).

scikit-learn's names and defaults: gamma is 1 / d, coef0 1 and degree 3. Each of them may be learned, but the degree.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import fingerprints, same_fingerprint
from simjax.similarity._define import Reduce, define, define_terms, pair_function
from simjax.similarity._dot_products import Scaled, dot_product, products, rows_to_multiply, vectors_to_multiply
from simjax.similarity._euclidean import scaled_rows, search_scaled, squared_euclidean_distance, squares
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import saturate
from simjax.similarity._manhattan import manhattan


@pair_function(degree=0.0, gamma=0.0, coef0=-float("inf"))
def polynomial_kernel(
    x: Shaped[Array, "*#b d"],
    y: Shaped[Array, "*#b d"],
    *,
    degree: ArrayLike = 3,
    gamma: ArrayLike | None = None,
    coef0: ArrayLike = 1.0,
) -> Num[Array, "*b"]:
    """(gamma x . y + coef0)^degree.

    Args:
        x: [..., d].
        y: [..., d].
        degree: a whole number, at least 0.
        gamma: at least 0; None is 1 / d.
        coef0: any number.

    Returns:
        [...]; infinite, with zero gradient, where it does not fit the type.

    Raises:
        InputError: for features that do not fit, or a parameter out of its range.

    Example:
        >>> print(polynomial_kernel(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5]), degree=2))
        9.0
    """
    return _polynomial(dot_product(x, y), x.shape[-1], degree, gamma, coef0)


@pair_function(gamma=0.0, coef0=-float("inf"))
def sigmoid_kernel(
    x: Shaped[Array, "*#b d"],
    y: Shaped[Array, "*#b d"],
    *,
    gamma: ArrayLike | None = None,
    coef0: ArrayLike = 1.0,
) -> Num[Array, "*b"]:
    """tanh(gamma x . y + coef0), in [-1, 1].

    Args:
        x: [..., d].
        y: [..., d].
        gamma: at least 0; None is 1 / d.
        coef0: any number.

    Returns:
        [...].

    Raises:
        InputError: for features that do not fit, or a parameter out of its range.

    Example:
        >>> print(sigmoid_kernel(jnp.array([1.0, 2.0]), jnp.array([3.0, -1.5]), coef0=0.0))
        0.0
    """
    return _sigmoid(dot_product(x, y), x.shape[-1], gamma, coef0)


@pair_function(gamma=0.0)
def rbf_kernel(
    x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, gamma: ArrayLike | None = None
) -> Num[Array, "*b"]:
    """exp(-gamma |x - y|^2), in [0, 1].

    Args:
        x: [..., d].
        y: [..., d].
        gamma: at least 0; None is 1 / d.

    Returns:
        [...].

    Raises:
        InputError: for features that do not fit, or a gamma that is negative or NaN.

    Example:
        >>> print(rbf_kernel(jnp.array([0.0, 0.0]), jnp.array([0.0, 2.0])).round(4))
        0.1353
    """
    return _falling(squared_euclidean_distance(x, y), x.shape[-1], gamma)


@pair_function(gamma=0.0)
def laplacian_kernel(
    x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, gamma: ArrayLike | None = None
) -> Num[Array, "*b"]:
    """exp(-gamma times the Manhattan distance), in [0, 1].

    Args:
        x: [..., d].
        y: [..., d].
        gamma: at least 0; None is 1 / d.

    Returns:
        [...].

    Raises:
        InputError: for features that do not fit, or a gamma that is negative or NaN.

    Example:
        >>> print(laplacian_kernel(jnp.array([0.0, 0.0]), jnp.array([3.0, -1.0])).round(4))
        0.1353
    """
    return _laplacian(reduce_features, x, y, gamma=gamma)


def _rate(gamma: ArrayLike | None, d: int) -> ArrayLike:
    return 1 / max(d, 1) if gamma is None else gamma


def _line(dot: Array, d: int, gamma: ArrayLike | None, coef0: ArrayLike) -> Array:
    return saturate(saturate(dot) * _rate(gamma, d) + coef0)


def _polynomial(dot: Array, d: int, degree: ArrayLike, gamma: ArrayLike | None, coef0: ArrayLike) -> Array:
    line = _line(dot, d, gamma, coef0)
    whole = degree if isinstance(degree, int) else jnp.asarray(degree).astype(jnp.int32)
    fits = jnp.isfinite(line**whole)
    return jnp.where(fits, jnp.where(fits, line, 0.0) ** whole, lax.stop_gradient(line**whole))


def _sigmoid(dot: Array, d: int, gamma: ArrayLike | None, coef0: ArrayLike) -> Array:
    return jnp.tanh(_line(dot, d, gamma, coef0))


def _falling(distance: Array, d: int, gamma: ArrayLike | None) -> Array:
    return jnp.exp(-saturate(distance) * _rate(gamma, d))


def _laplacian(reduce: Reduce, x: Array, y: Array, *, gamma: ArrayLike | None) -> Array:
    return _falling(manhattan(reduce, x, y), x.shape[-1], gamma)


def _scaled_rows(x: Array, y: Array, **_: Any) -> tuple[Any, Any]:
    return scaled_rows(x, y)


def _prepare_rbf(x: Array, y: Array, **_: Any) -> tuple[Any, Any]:
    (rows, columns), marks = scaled_rows(x, y), (fingerprints(x), fingerprints(y))
    return (rows, marks[0]), (columns, marks[1])


def _rbf_matrix(x: Any, y: Any, *, gamma: ArrayLike | None) -> Array:
    (x, x_marks), (y, y_marks) = x, y
    # A product of matrices rounds the distance of identical rows; their kernel is exactly 1.
    square = jnp.where(same_fingerprint(x_marks, y_marks), 0.0, squares(x, y))
    return _falling(square, x.vectors.shape[-1], gamma)


def _polynomial_matrix(x: Scaled, y: Scaled, **parameters: Any) -> Array:
    return _polynomial(products(x, y), x[0].shape[-1], **parameters)


def _sigmoid_matrix(x: Scaled, y: Scaled, **parameters: Any) -> Array:
    return _sigmoid(products(x, y), x[0].shape[-1], **parameters)


define(polynomial_kernel, prepare=rows_to_multiply, matrix=_polynomial_matrix)
define(
    sigmoid_kernel,
    prepare=rows_to_multiply,
    matrix=_sigmoid_matrix,
    search=vectors_to_multiply,
    range=(-1.0, 1.0),
)
define(
    rbf_kernel,
    prepare=_prepare_rbf,
    matrix=_rbf_matrix,
    search=search_scaled(_scaled_rows),
    range=(0.0, 1.0),
    precision="highest",
)
define_terms(laplacian_kernel, _laplacian, range=(0.0, 1.0))
