"""Dot products and cosines of vectors, the learned bilinear similarity, and embeddings made of unit vectors.

Every measure of `simjax.similarity` takes vectors x and y of real numbers, [..., d], whose leading axes broadcast, and
returns [...] in their common dtype. The suffix of its name says the direction: a `_distance` is smaller for closer
vectors, any other measure larger. All raise InputError for shapes or parameters out of range and TypeError for complex
numbers and text. Finite input never gives NaN, in value or gradient; a vector with NaN or infinity gives NaN.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np  # noqa: F401 (in doctests)
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import (
    InputError,
    as_float_array,
    check_choice,
    current_precision,
    promote_to_float32,
    replace_non_finite_rows,
    row_products,
)
from simjax.similarity._define import Values, Vectors, define, pair_function
from simjax.similarity._finite import clip_to_range, largest, power_of_two


def unit_vectors(x: Num[ArrayLike, "*batch d"]) -> Num[Array, "*batch d"]:
    """Divide vectors [..., d] by their Euclidean norms, x / |x|; norms from 1e-30 to 1e30 do not under- or overflow.

    A zero vector stays zero, with zero gradient, and a vector with NaN or infinity becomes NaN.

    Example:
        >>> print(unit_vectors(jnp.array([[5.0, 0.0], [0.0, 0.0]])))
        [[1. 0.]
         [0. 0.]]
    """
    return _unit_vectors(as_float_array("x", x))


@jax.jit
def _unit_vectors(given: Array) -> Array:
    x, nan = replace_non_finite_rows(promote_to_float32(given))
    return (normalize_rows(x) + nan[..., None]).astype(given.dtype)


def combine_embeddings(embeddings: Sequence[Num[ArrayLike, "n _"]], how: str = "average") -> Num[Array, "n _"]:
    """Combine the embeddings of the same n inputs by several encoders into one embedding of each input.

    Args:
        embeddings: One array [n, e] of each encoder, where e may differ.
        how: "average": The cosine similarity of two combined embeddings is the mean of the encoders' cosine
            similarities. "concatenate": Encoders with longer vectors have more influence.

    Returns:
        [n, sum of all e].

    Example:
        One encoder gives two inputs the same direction, another one a right angle:

        >>> a, b = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 5.0]])
        >>> x, y = np.asarray(combine_embeddings([a, b]))
        >>> print(f"{np.dot(x, y):.3f}")
        0.500
    """
    check_choice("how", how, ("average", "concatenate"))
    arrays = [as_float_array("embeddings", a) for a in embeddings]
    if not arrays or any(a.ndim != 2 or a.shape[0] != arrays[0].shape[0] for a in arrays):
        raise InputError(f"embeddings: expected one or more of shape [n, e], got shapes {[a.shape for a in arrays]}")
    if how == "average":
        arrays = [unit_vectors(a) / len(arrays) ** 0.5 for a in arrays]
    return jnp.concatenate(arrays, axis=1)


@pair_function()
def dot_product(x: Vectors, y: Vectors) -> Values:
    """Compute x . y.

    Example:
        >>> round(float(dot_product(jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99]))), 4)
        1.1601
    """
    return _scaled_product(_multiply_pairs, x, y, _scales(x), _scales(y))


@pair_function()
def cosine_similarity(x: Vectors, y: Vectors) -> Values:
    """Compute x . y / (|x| |y|), in [-1, 1]; 0 for a zero vector.

    Example:
        >>> round(float(cosine_similarity(jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99]))), 2)
        0.86
    """
    return clip_to_range(jnp.sum(normalize_rows(x) * normalize_rows(y), axis=-1), -1.0, 1.0)


@pair_function(minimum={"matrix": -float("inf")})
def bilinear_similarity(x: Vectors, y: Vectors, *, matrix: ArrayLike | None = None) -> Values:
    """Compute x^T M y, a learned dot product, symmetric if `matrix` M [d, d] is. Default: M is the identity.

    Example:
        >>> print(bilinear_similarity(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), matrix=jnp.array([[0, 1], [1, 0]])))
        10.0

    References:
        Chechik, Sharma, Shalit, Bengio (2010), Large scale online learning of image similarity through ranking.
    """
    x = x if matrix is None else jnp.matmul(x, square_matrix(matrix, x))
    return _scaled_product(_multiply_pairs, x, y, _scales(x), _scales(y))


def normalize_rows(x: Array) -> Array:
    """Divide finite rows [..., d] by their norms; see `unit_vectors`."""
    if x.shape[-1:] == (1,):
        return jnp.sign(x)  # XLA would multiply by the rounded inverse of the norm
    scaled = x / power_of_two(largest(x))
    square = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    return jnp.where(square > 0, scaled / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def square_matrix(matrix: ArrayLike, x: Array) -> Array:
    """Return a parameter of shape [d, d] in the type of x [..., d], at least float32."""
    matrix, d = as_float_array("matrix", matrix), x.shape[-1]
    if matrix.shape != (d, d):
        raise InputError(f"matrix: expected shape {(d, d)}, got {matrix.shape}")
    return matrix.astype(jnp.promote_types(x.dtype, jnp.float32))


def _scales(x: Array) -> Array:
    """Return a power of two for each row, [..., 1]; 1 unless a sum of products of such rows could overflow."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    # Both rows of a pair stay below the root of the largest number, and the sum of d products below that number.
    limit = jnp.finfo(dtype).maxexp // 2 - 2 - (x.shape[-1].bit_length() + 1) // 2
    exponents = jnp.frexp(largest(lax.stop_gradient(x)).astype(dtype))[1]
    return jnp.ldexp(jnp.ones_like(exponents, dtype), jnp.maximum(exponents - limit, 0))


def _multiply_pairs(x: Array, y: Array, x_scale: Array | None = None, y_scale: Array | None = None) -> Array:
    s = jnp.sum(x * y, axis=-1)
    return s if x_scale is None or y_scale is None else s * x_scale[..., 0] * y_scale[..., 0]


def _multiply_tile(
    x: Array, y: Array, x_scale: Array | None = None, y_scale: Array | None = None, *, precision: Any
) -> Array:
    # float16 and bfloat16 are multiplied as they are, with sums in float32: tensor cores do so at full speed.
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    s = jnp.matmul(x, y.T, precision=precision, preferred_element_type=dtype)
    return s if x_scale is None or y_scale is None else s * x_scale * y_scale.T


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _scaled_product(product: Callable[..., Array], x: Array, y: Array, x_scale: Array, y_scale: Array) -> Array:
    """Compute product(x, y) without inf - inf.

    The derivatives are y and x, which are finite. Differentiating through the scales would overflow at 1e30.
    """
    return product(x / x_scale.astype(x.dtype), y / y_scale.astype(y.dtype), x_scale, y_scale)


def _scaled_product_jvp(product: Callable[..., Array], primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, y, *scales), (dx, dy, *_) = primals, tangents
    s = _scaled_product(product, x, y, *scales)
    from_x = [] if isinstance(dx, SymbolicZero) else [product(dx, y)]
    from_y = [] if isinstance(dy, SymbolicZero) else [product(x, dy)]
    return s, sum(from_x + from_y, jnp.zeros_like(s))


_scaled_product.defjvp(_scaled_product_jvp, symbolic_zeros=True)

ScaledRows = tuple[Array, Array]
"""Rows [n, d] and their scales [n, 1]."""


def prepare_products(x: Array, y: Array, matrix: ArrayLike | None = None, **_: Any) -> tuple[ScaledRows, ScaledRows]:
    """Return rows x (or x M) and columns y with their scales, for `multiply_tile`."""
    x = x if matrix is None else row_products(promote_to_float32(x), square_matrix(matrix, x).T)
    return (x, _scales(x)), (y, _scales(y))


def multiply_tile(x: ScaledRows, y: ScaledRows, **_: Any) -> Array:
    """Compute the dot products of rows and columns, [r, m], in float32 or wider."""
    (rows, row_scales), (columns, column_scales) = x, y
    multiply = functools.partial(_multiply_tile, precision=current_precision())
    return _scaled_product(multiply, rows, columns, row_scales, column_scales)


def search_products(x: Array, y: Array, **parameters: Any) -> tuple[Array, Array, bool]:
    """Return queries x (or x M), keys y, and True: queries are divided so that no dot product overflows."""
    (x, _), _ = prepare_products(x, y, **parameters)
    return x / power_of_two(largest(x)) * 2.0 ** -(x.shape[1].bit_length() + 1), y, True


def _prepare_cosines(x: Array, y: Array) -> tuple[Array, Array]:
    return normalize_rows(x), normalize_rows(y)


def _cosines(x: Array, y: Array) -> Array:
    return clip_to_range(row_products(x, y), -1.0, 1.0)


def _search_cosines(x: Array, y: Array) -> tuple[Array, Array, bool]:
    return normalize_rows(x), normalize_rows(y), True


PRODUCTS: dict[str, Any] = {
    "prepare": prepare_products,
    "matrix": multiply_tile,
    "search": search_products,
    "keeps_half": True,
}
define(dot_product, **PRODUCTS)
define(bilinear_similarity, **PRODUCTS, symmetric=False)
define(cosine_similarity, prepare=_prepare_cosines, matrix=_cosines, search=_search_cosines, range=(-1.0, 1.0))
