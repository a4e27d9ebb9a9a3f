"""Euclidean distance, its square, and its variants with weights, a matrix, or missing features.

Each measure has a function of pairs x, y [..., d], and one of tiles: a tile is r rows of the distance matrix with all m
columns. The function of tiles computes |x - y|^2 = |x|^2 + |y|^2 - 2 x.y with one matrix product. Three things keep the
error of a pair below 8 eps d (|x|^2 + |y|^2), whatever the other rows are:

    offset   The point closest to 0 in the smallest axis-aligned box around all rows is subtracted from every row. No
             feature becomes larger, and a large value that all rows share is removed, so it causes no rounding error.
    scale    Each row is divided by its own power of four s, so that the squares of 1e30 and 1e-30 do not overflow or
             underflow: with u = x / s and v = y / t, |x - y|^2 = s t (|u|^2 s / t + |v|^2 t / s - 2 u.v).
    zeros    Identical rows are found by a hash of their features, and have distance 0 (`Measure.exact_zero`).

`pair_function` checks the arguments of a measure, x and y [..., d]. `_dot_products` describes their types and errors.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from simjax.core import InputError, as_float_array, row_products
from simjax.similarity._define import Reduce, Values, Vectors, define, define_featurewise, pair_function
from simjax.similarity._dot_products import square_matrix
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import largest, power_of_two, safe_norm, safe_sqrt, saturate


@pair_function()
def squared_euclidean_distance(x: Vectors, y: Vectors) -> Values:
    """Compute |x - y|^2.

    Example:
        >>> print(squared_euclidean_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])))
        25.0
    """
    difference = saturate(x - y)
    return jnp.sum(difference * difference, axis=-1)


@pair_function()
def euclidean_distance(x: Vectors, y: Vectors) -> Values:
    """Compute |x - y|. The gradient at x = y is 0.

    Example:
        >>> print(euclidean_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])))
        5.0
    """
    return 2 * safe_norm(x / 2 - y / 2)  # x - y may overflow where its half does not


@pair_function(minimum={"variance": 0.0})
def standardized_euclidean_distance(x: Vectors, y: Vectors, *, variance: ArrayLike | None = None) -> Values:
    """Compute sqrt(sum_k (x_k - y_k)^2 / variance_k). The gradient at x = y is 0.

    Args:
        variance: [d] or a scalar, at least 0. A feature of variance 0 is ignored. Default: 1.

    Example:
        >>> print(standardized_euclidean_distance(jnp.zeros(2), jnp.array([3.0, 8.0]), variance=jnp.array([1.0, 4.0])))
        5.0

    Differs from SciPy, whose default is the variance of all given rows, so that a distance depends on other rows.
    """
    weights = _weights(variance, x)
    weights = weights.reshape((1,) * (x.ndim - 1) + weights.shape)  # works with `jax_numpy_rank_promotion="raise"`
    return 2 * safe_norm((x / 2 - y / 2) * weights)  # x - y may overflow where its half does not


@pair_function(minimum={"matrix": -float("inf")})
def mahalanobis_distance(x: Vectors, y: Vectors, *, matrix: ArrayLike | None = None) -> Values:
    """Compute sqrt((x - y)^T M (x - y)). The gradient at x = y is 0.

    The distance is 0 where a matrix that is not positive semidefinite makes the square negative.

    Args:
        matrix: M, [d, d], the inverse of a covariance, or learned, for instance as L L^T. Only its symmetric part has
            an effect. Default: the identity.

    Example:
        >>> print(mahalanobis_distance(jnp.zeros(2), jnp.array([3.0, 2.0]), matrix=jnp.diag(jnp.array([1.0, 4.0]))))
        5.0

    References:
        Mahalanobis (1936), On the generalized distance in statistics.

    Differs from SciPy, whose default is the inverse covariance of all given rows.
    """
    difference = x / 2 - y / 2
    scale = power_of_two(largest(difference))
    scaled = difference / scale
    square = jnp.sum(_multiply_symmetric(scaled, matrix) * scaled, axis=-1)
    return 2 * scale[..., 0] * safe_sqrt(square)


@pair_function(propagates_nan=False)
def nan_euclidean_distance(x: Vectors, y: Vectors) -> Values:
    """Compute sqrt(d / p sum_k (x_k - y_k)^2) over the p features that are present in both x and y.

    NaN is a missing feature, whose gradient is 0. The distance is infinite without a common feature, so that such a row
    is never the nearest.

    Example:
        >>> print(nan_euclidean_distance(jnp.array([3.0, jnp.nan]), jnp.array([1.0, 5.0])).round(4))
        2.8284

    References:
        Dixon (1979), Pattern recognition with partly missing data.

    Differs from scikit-learn, which gives NaN without a common feature.
    """
    return _nan_euclidean(reduce_features, x, y)


def _weights(variance: ArrayLike | None, x: Array) -> Array:
    """Return 1 / sqrt(variance), or 0 where the variance is 0, [d] or [1]."""
    variance = jnp.ones(1) if variance is None else as_float_array("variance", variance).reshape(-1)
    if variance.shape[0] not in (1, x.shape[-1]):
        raise InputError(f"variance: expected shape {(x.shape[-1],)} or (), got {variance.shape}")
    positive = variance > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0).astype(x.dtype)


def _multiply_symmetric(x: Array, matrix: ArrayLike | None) -> Array:
    """Multiply x [..., d] by the symmetric part of the matrix."""
    if matrix is None:
        return x
    m = square_matrix(matrix, x)
    with jax.default_matmul_precision("highest"):
        return row_products(x.reshape(-1, x.shape[-1]), (m + m.T) / 2).reshape(x.shape)


def _nan_euclidean(reduce: Reduce, x: Array, y: Array) -> Array:
    """Compute `nan_euclidean_distance`, of pairs or of a tile; `reduce` sums terms over the features."""
    d = x.shape[-1]
    # Missing features become 0 before any arithmetic: a NaN that is discarded later would still reach the gradient.
    known_x, known_y = ((jnp.where(jnp.isnan(a), 0.0, a / 2), (~jnp.isnan(a)).astype(a.dtype)) for a in (x, y))

    def difference(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
        (a, has_a), (b, has_b) = x, y
        present = has_a * has_b
        return (a - b) * present, present

    size, _ = reduce(lambda x, y: tuple(map(jnp.abs, difference(x, y))), known_x, known_y, "max")
    scale = power_of_two(lax.stop_gradient(size))

    def square(x: tuple[Array, Array], y: tuple[Array, Array], scale: Array) -> tuple[Array, Array]:
        delta, present = difference(x, y)
        return (delta / scale) ** 2, present

    total, present = reduce(square, known_x, known_y, scale=scale)
    distance = 2 * scale * safe_sqrt(total * (d / jnp.maximum(present, 1.0)))
    return jnp.where((present > 0) | (d == 0), distance, jnp.inf)


class Rows(NamedTuple):
    """Rows prepared for a tile: each row x is divided by its scale s. c is `_reference_scale(d)`.

    vectors: x / s [n, d]; for the rows of y, -2 y / s, because multiplying a tile by -2 would take more time.
    squares: |x / s|^2 (s / c), [n].
    inverses: c / s, [n].
    roots: sqrt(s), powers of two, [n].
    norms: |x|, [n], without gradient.
    """

    vectors: Array
    squares: Array
    inverses: Array
    roots: Array
    norms: Array


def _reference_scale(d: int) -> float:
    """Return a power of four c, at least 32 d, with which `Rows.squares` and `Rows.inverses` do not overflow.

    In float32, |x / s|^2 < 16 d and s <= 2^126, so |x / s|^2 s / c < 2^126. In `_scaled` s is at least c times the
    smallest normal number, so c / s is finite.
    """
    return 4.0 ** (d.bit_length() // 2 + 3)


def shift_towards_zero(x: Array, y: Array) -> tuple[Array, Array]:
    """Subtract the point closest to 0 in the smallest axis-aligned box around the rows x [n, d] and y [m, d]."""
    a, b = lax.stop_gradient((x, y))
    low = jnp.minimum(jnp.min(a, axis=0, initial=jnp.inf), jnp.min(b, axis=0, initial=jnp.inf))
    high = jnp.maximum(jnp.max(a, axis=0, initial=-jnp.inf), jnp.max(b, axis=0, initial=-jnp.inf))
    offset = jnp.clip(jnp.zeros_like(low), low, high)[None]
    return x - offset, y - offset


def prepare_rows(x: Array, y: Array, multiply: Callable[[Array], Array] = lambda x: x, **_: Any) -> tuple[Rows, Rows]:
    """Prepare rows x [n, d] and y [m, d] for a tile, which `squares` or `distances` computes.

    `multiply` is the product of rows with a symmetric matrix M, for the distance sqrt((x - y)^T M (x - y)).
    """
    x, y = shift_towards_zero(x, y)
    (x, x_root), (y, y_root) = _scaled(x), _scaled(y)
    product = multiply(x)
    rows = _with_norms(product, jnp.sum(product * x, axis=-1), x_root)
    return rows, _with_norms(-2 * y, jnp.sum(multiply(y) * y, axis=-1), y_root)


def _scaled(x: Array) -> tuple[Array, Array]:
    """Divide rows [n, d] by their scales, powers of four up to the largest value; also return the scales' roots [n]."""
    smallest = (float(jnp.finfo(x.dtype).tiny) * _reference_scale(x.shape[1])) ** 0.5
    root = jnp.maximum(power_of_two(jnp.sqrt(largest(x))), smallest)
    return x / root / root, root[:, 0]


def _with_norms(vectors: Array, squares: Array, roots: Array) -> Rows:
    scales, reference = roots * roots, _reference_scale(vectors.shape[1])
    norms = lax.stop_gradient(roots * safe_sqrt(squares) * roots)
    return Rows(vectors, squares * (scales / reference), reference / scales, roots, norms)


def _relative_squares(x: Rows, y: Rows) -> Array:
    """Compute |x - y|^2 divided by both scales, [r, m]; negative values are rounding errors.

    It is infinite where one row is more than 1e30 times as long as the other.
    """
    products = row_products(*pad_single_feature(x.vectors, y.vectors))
    return x.squares[:, None] * y.inverses[None] + x.inverses[:, None] * y.squares[None] + products


def pad_single_feature(x: Array, y: Array) -> tuple[Array, Array]:
    """Add a zero feature to rows of one feature: XLA would otherwise fuse the product and round after the sum."""
    if x.shape[1] != 1:
        return x, y
    return jnp.pad(x, ((0, 0), (0, 1))), jnp.pad(y, ((0, 0), (0, 1)))


def squares(x: Rows, y: Rows) -> Array:
    """Compute |x - y|^2, [r, m]; infinite, with zero gradient, where it overflows."""
    x_scale, y_scale = (x.roots**2)[:, None], (y.roots**2)[None]
    square = jax.nn.relu(_relative_squares(x, y)) * x_scale * y_scale
    return jnp.where(square == jnp.inf, (x.norms[:, None] + y.norms[None]) ** 2, square)


def distances(x: Rows, y: Rows, **_: Any) -> Array:
    """Compute |x - y|, [r, m]; the gradient is 0 where one row is more than 1e30 times as long as the other."""
    square = _relative_squares(x, y)
    distance = safe_sqrt(square) * x.roots[:, None] * y.roots[None]
    return jnp.where(square == jnp.inf, x.norms[:, None] + y.norms[None], distance)


def search_rows(
    x: Array, y: Array, *, prepare: Callable[..., tuple[Rows, Rows]] = prepare_rows, **parameters: Any
) -> tuple[Array, Array, Array]:
    """Return queries and keys for a search: the closest y has the largest 2 x . y - |y|^2.

    Each query is divided by its own scale, which does not change the order of its scores; the keys need a common scale.
    The third result is True if the scales differ by at most 2^60, so that no square overflows or underflows.
    """
    rows, columns = prepare(x, y, **parameters)
    roots = jnp.concatenate([rows.roots, columns.roots])
    largest_root, smallest_root = jnp.max(roots, initial=0.0), jnp.min(roots, initial=jnp.inf)
    queries = jnp.concatenate([rows.vectors, ((largest_root / rows.roots) ** 2)[:, None]], axis=1)
    scales = ((columns.roots / largest_root) ** 2)[:, None]
    # squares * inverses is the squared norm after the division
    squares = (columns.squares * columns.inverses)[:, None] * scales * scales
    keys = -jnp.concatenate([columns.vectors * scales, squares], axis=1)
    return queries, keys, smallest_root >= largest_root * 2.0**-30


def _prepare_standardized(x: Array, y: Array, variance: ArrayLike | None) -> tuple[Rows, Rows]:
    weights = _weights(variance, x)[None]
    return prepare_rows(x * weights, y * weights)


def _prepare_mahalanobis(x: Array, y: Array, matrix: ArrayLike | None) -> tuple[Rows, Rows]:
    return prepare_rows(x, y, lambda rows: _multiply_symmetric(rows, matrix))


for _function, _prepare, _matrix in (
    (squared_euclidean_distance, prepare_rows, squares),
    (euclidean_distance, prepare_rows, distances),
    (standardized_euclidean_distance, _prepare_standardized, distances),
    (mahalanobis_distance, _prepare_mahalanobis, distances),
):
    define(
        _function,
        prepare=_prepare,
        matrix=_matrix,
        search=functools.partial(search_rows, prepare=_prepare),
        range=(0.0, float("inf")),
        exact_zero=True,
        precision="highest",
    )
define_featurewise(nan_euclidean_distance, _nan_euclidean)
