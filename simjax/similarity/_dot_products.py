"""The dot product, cosine similarity and its distance, unit vectors, and the learned bilinear similarity.

Each measure takes x, y [..., d] and gives [...]. The suffix says the direction: `_similarity` and `_product` are
larger when closer, `_distance` is smaller. None gives a NaN, in value or gradient, for finite input.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import (
    InputError,
    as_float_array,
    current_precision,
    dot_products,
    promote_to_float32,
    replace_non_finite_rows,
)
from simjax.similarity._define import define, pair_function
from simjax.similarity._finite import clip_to_range, largest, power_of_two


def unit_vectors(x: Num[ArrayLike, "*batch d"]) -> Num[Array, "*batch d"]:
    """x [..., d] divided by its Euclidean norm; a zero vector stays zero, with zero gradient, and NaN stays NaN.

    Each row is divided by its largest absolute value first (by the power of two below it), so that 1e30 and 1e-30
    give the right answer.

    Example:
        >>> print(unit_vectors(jnp.array([[5.0, 0.0], [0.0, 0.0]])))
        [[1. 0.]
         [0. 0.]]
    """
    given = as_float_array("x", x)
    x, nan = replace_non_finite_rows(promote_to_float32(given))
    return (divided_by_norm(x) + nan[..., None]).astype(given.dtype)


def divided_by_norm(x: Array) -> Array:
    """Unit vectors of rows [..., d] that are known to be finite."""
    if x.shape[-1:] == (1,):
        return jnp.sign(x)  # exactly, where XLA would multiply by the inverse of the norm
    most = largest(x)
    nonzero = most > 0
    scaled = x / power_of_two(most)
    square = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    return jnp.where(nonzero, scaled / jnp.sqrt(jnp.where(nonzero, square, 1.0)), 0.0)


@pair_function()
def dot_product(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """x . y, for x, y [..., d]; unbounded, larger is closer.

    Example:
        >>> round(float(dot_product(jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99]))), 4)
        1.1601
    """
    return _product_of_pairs(x, y)


@pair_function()
def cosine_similarity(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """x . y / (|x| |y|), for x, y [..., d], in [-1, 1]; 0 at a zero vector.

    Example:
        >>> round(float(cosine_similarity(jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99]))), 2)
        0.86
    """
    return clip_to_range(jnp.sum(divided_by_norm(x) * divided_by_norm(y), axis=-1), -1.0, 1.0)


@pair_function(matrix=-float("inf"))
def bilinear_similarity(
    x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, matrix: ArrayLike | None = None
) -> Num[Array, "*b"]:
    """x^T M y, a learned dot product; unbounded, larger is closer, symmetric if M is.

    Args:
        x: [..., d].
        y: [..., d].
        matrix: M [d, d]; None is the identity, which is the dot product.

    Returns:
        [...].

    Raises:
        InputError: for features or a matrix that do not fit.

    Example:
        >>> print(bilinear_similarity(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), matrix=jnp.array([[0, 1], [1, 0]])))
        10.0

    References:
        Chechik, Sharma, Shalit, Bengio (2010), Large scale online learning of image similarity through ranking.
    """
    x = x if matrix is None else jnp.matmul(x, square_matrix(matrix, x))
    return _product_of_pairs(x, y)


def square_matrix(matrix: ArrayLike, x: Array) -> Array:
    """A parameter [d, d] for rows x [..., d], in their type.

    Raises:
        InputError: for any other shape.
    """
    matrix, d = as_float_array("matrix", matrix), x.shape[-1]
    if matrix.shape != (d, d):
        raise InputError(f"matrix: expected shape {(d, d)}, got {matrix.shape}")
    return matrix.astype(x.dtype)


def _of_pairs(x: Array, y: Array, *scales: Array, for_gradient_of_y: bool = False) -> Array:
    return functools.reduce(operator.mul, (scale[..., 0] for scale in scales), jnp.sum(x * y, axis=-1))


def _of_all_pairs(x: Array, y: Array, *scales: Array, precision: Any, for_gradient_of_y: bool = False) -> Array:
    # A product of halves accumulates in float32 by itself: they need not be widened first, only kept so.
    kind = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    s = jnp.matmul(x, y.T, precision=precision, preferred_element_type=kind)
    return s * scales[0] * scales[1].T if scales else s


def _scales(x: Array) -> Array:
    """A power of two for each row [..., 1], 1 for all but huge ones: no sum of products of divided rows overflows."""
    kind = jnp.promote_types(x.dtype, jnp.float32)
    # Both rows of a pair stay below the root of the largest number, and the sum of d products below that number.
    most = jnp.finfo(kind).maxexp // 2 - 2 - (x.shape[-1].bit_length() + 1) // 2
    exponents = jnp.frexp(largest(lax.stop_gradient(x)).astype(kind))[1]
    return jnp.ldexp(jnp.ones_like(exponents, kind), jnp.maximum(exponents - most, 0))


def _product_of_pairs(x: Array, y: Array) -> Array:
    return _product(_of_pairs, x, y, _scales(x), _scales(y))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(product: Callable[..., Array], x: Array, y: Array, x_scale: Array, y_scale: Array) -> Array:
    """product(x, y) in which inf - inf cannot occur; its gradients, which are y and x, never see the scales."""
    return product(x / x_scale.astype(x.dtype), y / y_scale.astype(y.dtype), x_scale, y_scale)


def _product_jvp(product: Callable[..., Array], primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, y, *scales), (dx, dy, *_) = primals, tangents
    s = _product(product, x, y, *scales)
    of_x = [] if isinstance(dx, SymbolicZero) else [product(dx, y)]
    of_y = [] if isinstance(dy, SymbolicZero) else [product(x, dy, for_gradient_of_y=True)]
    return s, sum(of_x + of_y, jnp.zeros_like(s))


_product.defjvp(_product_jvp, symbolic_zeros=True)

Scaled = tuple[Array, Array]
"""Rows [n, d] and their scales [n, 1]."""


def rows_to_multiply(x: Array, y: Array, matrix: ArrayLike | None = None, **_: Any) -> tuple[Scaled, Scaled]:
    """Rows x (times M) and columns y for `products`."""
    x = x if matrix is None else dot_products(promote_to_float32(x), square_matrix(matrix, promote_to_float32(x)).T)
    return (x, _scales(x)), (y, _scales(y))


def products(x: Scaled, y: Scaled, **_: Any) -> Array:
    """Dot products, in float32 or wider, of what `rows_to_multiply` prepared."""
    product = functools.partial(_of_all_pairs, precision=current_precision())
    return _product(product, x[0], y[0], x[1], y[1])


def unit_rows(x: Array, y: Array) -> tuple[Array, Array]:
    """Both made of unit vectors, once and not for each block."""
    return divided_by_norm(promote_to_float32(x)), divided_by_norm(promote_to_float32(y))


def vectors_to_multiply(x: Array, y: Array, **parameters: Any) -> tuple[Array, Array, bool]:
    """Rows x (times M), each so small that no dot product with y overflows, which leaves its order as it is; and y."""
    x = promote_to_float32(rows_to_multiply(x, y, **parameters)[0][0])
    return x / power_of_two(largest(x)) * 2.0 ** -(x.shape[1].bit_length() + 1), promote_to_float32(y), True


def _cosines(x: Array, y: Array) -> Array:
    return clip_to_range(dot_products(x, y), -1.0, 1.0)


def _search_units(x: Array, y: Array) -> tuple[Array, Array, bool]:
    return *unit_rows(x, y), True


define(dot_product, "dot", prepare=rows_to_multiply, matrix=products, search=vectors_to_multiply)
define(bilinear_similarity, prepare=rows_to_multiply, matrix=products, search=vectors_to_multiply, symmetric=False)
define(cosine_similarity, "cosine", prepare=unit_rows, matrix=_cosines, search=_search_units, range=(-1.0, 1.0))
