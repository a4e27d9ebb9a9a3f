"""Regularisers of embeddings: numbers to add to a loss, each with a weight of your own.

    lp                   mean over rows of |x|_p^power: embeddings ought to be short
    zero_mean            mean over rows of |sum of the features|: features ought to cancel
    global_orthogonal    M1^2 + max(0, M2 - 1 / d): embeddings ought to be spread out

M1 and M2 are the means of the cosine, and of its square, over the pairs of rows that do not belong together. Of points
that are uniform on the sphere in d dimensions they are 0 and 1 / d.

References:
    Zhang, Yu, Kumar, Chang (2017), Learning Spread-out Local Feature Descriptors.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array, check_at_least, check_positive, promote_to_float32
from simjax.pairs import Relation, as_relation, by_position
from simjax.similarity import minkowski_distance, reduce_rows


def lp_regularizer(embeddings: Num[ArrayLike, "n d"], *, p: ArrayLike = 2, power: ArrayLike = 1.0) -> Num[Array, ""]:
    """How long embeddings are.

    Args:
        embeddings: [n, d].
        p: which norm, at least 1; infinity is the largest feature.
        power: of the norm; 2 with p = 2 is the mean square.

    Returns:
        The mean over the rows; the gradient of a zero vector is 0.

    Raises:
        InputError: if they are no matrix, for p below 1, or a power that is not positive.

    Example:
        >>> print(lp_regularizer(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
        2.5

    Differs from pytorch-metric-learning, which takes a p below 1, too, where there is no norm.
    """
    check_at_least("p", p, 1)
    check_positive("power", power)
    x = _matrix(embeddings)
    lengths = minkowski_distance(x, jnp.zeros_like(x), p=p)
    return _mean_power(lengths, power)


def zero_mean_regularizer(embeddings: Num[ArrayLike, "n d"]) -> Num[Array, ""]:
    """How far the features of each embedding are from cancelling each other.

    Args:
        embeddings: [n, d].

    Returns:
        The mean over the rows of the absolute sum; where it is 0 the gradient is 0.

    Raises:
        InputError: if they are no matrix.

    Example:
        >>> print(zero_mean_regularizer(jnp.array([[1.0, -1.0], [1.0, 2.0]])))
        1.5
    """
    return _mean_absolute_sum(_matrix(embeddings))


def global_orthogonal_regularizer(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any = None,
    *,
    mean_weight: ArrayLike = 1.0,
    second_moment_weight: ArrayLike = 1.0,
    threshold: ArrayLike | None = None,
    block_size: int | None = None,
) -> Num[Array, ""]:
    """How far embeddings are from being spread out over the sphere; time n^2 d, memory of a strip.

    Args:
        embeddings: [n, d], of any length.
        labels: class ids [n] or a `Relation`, whose negative pairs count; None counts all pairs of two rows.
        mean_weight: of M1^2.
        second_moment_weight: of max(0, M2 - threshold).
        threshold: what M2 may be; None is 1 / d. EmbeddingGemma (2025) takes 0, and 0 for the weight of the mean.
        block_size: rows compared with all others at once; None chooses.

    Returns:
        A scalar; 0 where there are no such pairs.

    Raises:
        InputError: if they are no matrix or labels do not fit.
        TypeError: for labels that are no integers.

    Example:
        Two rows of three are equal, the others at right angles: M1 = M2 = 1/3, and d = 4.

        >>> x = jnp.eye(4)[jnp.array([0, 0, 1])]
        >>> print(round(float(global_orthogonal_regularizer(x)), 4))  # 1/9 + 1/3 - 1/4
        0.1944
    """
    check_at_least("mean_weight", mean_weight, 0)
    check_at_least("second_moment_weight", second_moment_weight, 0)
    x = _matrix(embeddings)
    n, d = x.shape
    relation = as_relation(by_position(n) if labels is None else labels, None, n, None)
    bound = 1 / max(d, 1) if threshold is None else threshold
    weights = jnp.asarray(mean_weight), jnp.asarray(second_moment_weight)
    return _spread(x, relation, *weights, jnp.asarray(bound), block_size=block_size)


def _matrix(embeddings: ArrayLike) -> Array:
    x = promote_to_float32(as_float_array("embeddings", embeddings))
    if x.ndim != 2:
        raise InputError(f"embeddings: expected rows [n, d], got shape {x.shape}")
    return x


@jax.jit
def _mean_power(lengths: Array, power: ArrayLike) -> Array:
    there = lengths != 0
    return _mean(jnp.where(there, jnp.where(there, lengths, 1.0) ** power, 0))


@jax.jit
def _mean_absolute_sum(x: Array) -> Array:
    total = jnp.sum(x, axis=1)
    return _mean(jnp.where(total == 0, 0.0, jnp.abs(total)))


def _mean(values: Array) -> Array:
    return jnp.sum(values) / max(len(values), 1)


@partial(jax.jit, static_argnames="block_size")
def _spread(
    x: Array, relation: Relation, of_mean: Array, of_second: Array, threshold: Array, *, block_size: int | None
) -> Array:
    cosines, squares, number = reduce_rows(Partial(_moments, relation), x, measure="cosine", block_size=block_size)
    pairs = jnp.maximum(jnp.sum(number), 1)
    first, second = jnp.sum(cosines) / pairs, jnp.sum(squares) / pairs
    return of_mean * jnp.square(first) + of_second * jax.nn.relu(second - threshold)


def _moments(relation: Relation, s: Array, i: Array, j: Array) -> tuple[Array, Array, Array]:
    apart = relation.masks(i, j)[1]
    s = jnp.where(apart, s, 0)
    return jnp.sum(s, axis=1), jnp.sum(s * s, axis=1), jnp.sum(apart, axis=1, dtype=jnp.float32)
