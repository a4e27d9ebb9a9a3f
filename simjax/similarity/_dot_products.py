"""The dot product and its normalised forms: cosine similarity and its distance, and unit vectors.

Each measure takes x, y [..., d] and gives [...]. The suffix says the direction: `_similarity` and `_product` are
larger when closer, `_distance` is smaller. None gives a NaN, in value or gradient, for finite input.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import dot_products, wide
from simjax.similarity._define import define, pair_function


def unit_vectors(x: Num[ArrayLike, "*batch d"]) -> Num[Array, "*batch d"]:
    """x [..., d] divided by its Euclidean norm; a zero vector stays zero, with zero gradient.

    Each row is divided by its largest absolute value first, so that 1e30 and 1e-30 give the right answer.
    """
    x = jnp.asarray(x)
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)
    nonzero = largest > 0
    scaled = jnp.where(nonzero, x / jnp.where(nonzero, largest, 1.0), 0.0)
    square = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    return jnp.where(nonzero, scaled / jnp.sqrt(jnp.where(nonzero, square, 1.0)), 0.0)


@pair_function()
def dot_product(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """x . y, for x, y [..., d]; unbounded, larger is closer."""
    return jnp.sum(x * y, axis=-1)


@pair_function()
def cosine_similarity(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """x . y / (|x| |y|), for x, y [..., d], in [-1, 1]; 0 at a zero vector.

    Example:
        >>> round(float(cosine_similarity(jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99]))), 2)
        0.86
    """
    return jnp.sum(unit_vectors(x) * unit_vectors(y), axis=-1)


@pair_function()
def cosine_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """1 - cosine similarity, for x, y [..., d], in [0, 2]; 1 at a zero vector."""
    return 1 - jnp.sum(unit_vectors(x) * unit_vectors(y), axis=-1)


def unit_rows(x: Array, y: Array) -> tuple[Array, Array]:
    """Both made of unit vectors, once and not for each block."""
    return unit_vectors(wide(x)), unit_vectors(wide(y))


# A dot product of halves accumulates in float32 by itself, so they need not be widened first.
define(dot_product, "dot", prepare=lambda x, y: (x, y), matrix=dot_products)
define(cosine_similarity, "cosine", prepare=unit_rows, matrix=dot_products, range=(-1.0, 1.0))
define(
    cosine_distance,
    "cosine_distance",
    prepare=unit_rows,
    matrix=lambda x, y: 1 - dot_products(x, y),
    range=(0.0, 2.0),
    exact_zero=True,
)
