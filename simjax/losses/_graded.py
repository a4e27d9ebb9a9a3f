"""Losses of graded pairs: the more similar of two pairs should be the closer one.

With s_a the similarity of pair a = (x_a, y_a) and g_a its grade:

    loss = log(1 + sum over pairs of pairs with g_a > g_b of exp(scale (s_b - s_a)))

Only the order of the grades counts, so that they may be in any unit.

References:
    Su (2022), CoSENT: A More Efficient Sentence Vector Scheme than Sentence-BERT. Li, Li (2023), AnglE-optimized Text
    Embeddings.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import (
    InputError,
    as_matrices,
    as_number_array,
    auto_axes,
    check_number,
    check_positive,
    map_rows,
    promote_to_float32,
)
from simjax.losses._pair_loss import log_sum_exp
from simjax.similarity import cosine_similarity, unit_vectors


def cosent_loss(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n d"],
    score: Num[ArrayLike, " n"],
    *,
    scale: ArrayLike = 20.0,
    block_size: int | None = None,
) -> Num[Array, ""]:
    """CoSENT: order n pairs by cosine similarity as their scores are ordered; time n^2, memory of a strip.

    Args:
        x: [n, d].
        y: [n, d]; row i makes a pair with row i of x.
        score: how similar each pair is, in any unit, [n].
        scale: of the similarities.
        block_size: pairs compared with all others at once; None chooses.

    Returns:
        A scalar; 0 where all scores are equal.

    Raises:
        InputError: for shapes that do not fit, or a scale that is not positive.

    Example:
        The first pair should be the closer one, and is:

        >>> x, y = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(cosent_loss(x, y, jnp.array([5, 1]), scale=1.0)), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    x, y, grades = _pairs(x, y, score)
    check_positive("scale", scale)
    return _in_order(
        cosine_similarity(promote_to_float32(x), promote_to_float32(y)), grades, scale, block_size=block_size
    )


def angle_loss(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n d"],
    score: Num[ArrayLike, " n"],
    *,
    scale: ArrayLike = 20.0,
    block_size: int | None = None,
) -> Num[Array, ""]:
    """AnglE: CoSENT by the angle of vectors read as complex numbers, which does not flatten near 0 and 180 degrees.

    The first half of a vector holds the real parts, the second half the imaginary ones. Both at length 1, the
    similarity is |sum over the features of Re z + Im z| with z = x times the conjugate of y.

    Args:
        x: [n, d], d even.
        y: [n, d]; row i makes a pair with row i of x.
        score: how similar each pair is, in any unit, [n].
        scale: of the similarities.
        block_size: pairs compared with all others at once; None chooses.

    Returns:
        A scalar; 0 where all scores are equal.

    Raises:
        InputError: for shapes that do not fit, an odd d, or a scale that is not positive.
    """
    x, y, grades = _pairs(x, y, score)
    check_positive("scale", scale)
    if x.shape[1] % 2:
        raise InputError(f"x: expected an even number of features, real and imaginary parts, got {x.shape[1]}")
    return _in_order(
        _angle_similarity(promote_to_float32(x), promote_to_float32(y)), grades, scale, block_size=block_size
    )


def _pairs(x: Any, y: Any, score: Any) -> tuple[Array, Array, Array]:
    x, y = as_matrices(x, y)
    check_number("score", score)
    grades = as_number_array("score", score)
    if x.shape != y.shape or grades.shape != x.shape[:1]:
        raise InputError(
            f"x, y, score: expected shapes [n, d], [n, d] and [n], got {x.shape}, {y.shape} and {grades.shape}"
        )
    return x, y, grades


@jax.jit
def _angle_similarity(x: Array, y: Array) -> Array:
    (a, b), (c, d) = (jnp.split(unit_vectors(v), 2, axis=1) for v in (x, y))
    return jnp.abs(jnp.sum((a * c + b * d) + (b * c - a * d), axis=1))


@partial(jax.jit, static_argnames="block_size")
@auto_axes
def _in_order(s: Array, grades: Array, scale: Array, *, block_size: int | None) -> Array:
    def one(s_a: Array, g_a: Array) -> Array:
        return log_sum_exp(scale * (s[None] - s_a[:, None]), g_a[:, None] > grades[None])[:, 0]

    rows = map_rows(one, s, grades, block_size=block_size, row_bytes=4 * max(s.shape[0], 1))
    return jax.nn.softplus(log_sum_exp(rows[None], jnp.ones((1, rows.shape[0]), bool))[0, 0])
