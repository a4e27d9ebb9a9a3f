"""Measures of two vectors: cosine similarity and its distance, Euclidean distance, its square.

Each takes x, y [..., d] and gives [...]. The suffix says the direction: `_similarity` and `_product` are larger
when closer, `_distance` is smaller. None gives a NaN, in value or gradient, for finite input: the square root's and
the norm's argument is replaced *before* the operation where it is zero, and the gradient there is zero.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num


def safe_sqrt(x: Num[Array, "*s"]) -> Num[Array, "*s"]:
    """Square root with gradient 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


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


def dot_product(x: Num[ArrayLike, "... d"], y: Num[ArrayLike, "... d"]) -> Num[Array, "..."]:
    """x . y, for x, y [..., d]; unbounded, larger is closer."""
    return jnp.sum(jnp.asarray(x) * jnp.asarray(y), axis=-1)


def cosine_similarity(x: Num[ArrayLike, "... d"], y: Num[ArrayLike, "... d"]) -> Num[Array, "..."]:
    """x . y / (|x| |y|), for x, y [..., d], in [-1, 1]; 0 at a zero vector.

    Example:
        >>> round(float(cosine_similarity(jnp.array([0.2, 0.99]), jnp.array([0.9, 0.99]))), 2)
        0.86
    """
    return dot_product(unit_vectors(x), unit_vectors(y))


def cosine_distance(x: Num[ArrayLike, "... d"], y: Num[ArrayLike, "... d"]) -> Num[Array, "..."]:
    """1 - cosine similarity, for x, y [..., d], in [0, 2]."""
    return 1 - cosine_similarity(x, y)


def squared_euclidean_distance(x: Num[ArrayLike, "... d"], y: Num[ArrayLike, "... d"]) -> Num[Array, "..."]:
    """|x - y|^2, for x, y [..., d]."""
    difference = jnp.asarray(x) - jnp.asarray(y)
    return jnp.sum(difference * difference, axis=-1)


def euclidean_distance(x: Num[ArrayLike, "... d"], y: Num[ArrayLike, "... d"]) -> Num[Array, "..."]:
    """|x - y|, for x, y [..., d]; the gradient at x = y is 0."""
    return safe_sqrt(squared_euclidean_distance(x, y))
