"""Regularizers: scalars to add to a loss, each with a weight that the caller chooses.

Of embeddings x [n, d]:

    lp                   mean over rows of |x|_p^power
    zero_mean            mean over rows of |sum of the features of x|
    global_orthogonal    mean_weight * M1^2 + second_moment_weight * max(0, M2 - threshold)

M1 and M2 are the means of the cosine and of its square over all negative pairs. For points that are uniform on the
sphere in d dimensions their expectations are 0 and 1 / d.

Of proxies w, one [c, d] or several [c, k, d] per class:

    center_invariant     mean over classes of (|w|^2 - mean of all |w|^2)^2 / 4
    regular_face         mean over classes of the cosine with the nearest proxy of another class
    sparse_centers       half the mean distance between two proxies of one class, as unit vectors

References:
    Zhang, Yu, Kumar, Chang (2017), Learning Spread-out Local Feature Descriptors (global orthogonal). Wu, Liu, Li, Fu
    (2017), Deep Face Recognition with Center Invariant Loss. Zhao, Xu, Cheng (2019), RegularFace: Deep Face Recognition
    via Exclusive Regularization. Qian et al. (2019), SoftTriple Loss: Deep Metric Learning Without Triplet Sampling
    (sparse centers).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax import similarity
from simjax.core import InputError, as_float_array, check_at_least, check_positive, promote_to_float32
from simjax.losses._terms import ClassIds, Embeddings, Proxies, Scalar
from simjax.pairs import Relation, as_relation, by_position
from simjax.similarity import euclidean_distance, minkowski_distance, pairwise, reduce_rows
from simjax.similarity._finite import absolute


def lp_regularizer(embeddings: Embeddings, *, p: ArrayLike = 2, power: ArrayLike = 1.0) -> Scalar:
    """Compute the mean p-norm of embeddings, raised to a power. The gradient of a zero vector is 0.

    Args:
        p: Order of the norm, at least 1; with infinity the norm is the largest absolute feature.
        power: Exponent of the norm, above 0. With 2 and `p=2` the result is the mean squared length.

    Example:
        >>> print(lp_regularizer(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
        2.5

    Differs from pytorch-metric-learning, which accepts a `p` below 1, where the formula is not a norm.
    """
    check_at_least("p", p, 1)
    check_positive("power", power)
    x = _as_matrix("embeddings", embeddings)
    return _mean_power(minkowski_distance(x, jnp.zeros_like(x), p=p), power)


def zero_mean_regularizer(embeddings: Embeddings) -> Scalar:
    """Compute the mean absolute sum of the features of each embedding. The gradient of a row whose sum is 0 is 0.

    Example:
        >>> print(zero_mean_regularizer(jnp.array([[1.0, -1.0], [1.0, 2.0]])))
        1.5
    """
    return _mean(absolute(jnp.sum(_as_matrix("embeddings", embeddings), axis=1)))


def global_orthogonal_regularizer(
    embeddings: Embeddings,
    labels: ClassIds | Relation | None = None,
    *,
    mean_weight: ArrayLike = 1.0,
    second_moment_weight: ArrayLike = 1.0,
    threshold: ArrayLike | None = None,
    block_size: int | None = None,
) -> Scalar:
    """Compute how far negative pairs are from uniform on the sphere, in O(n^2 d) time. Without such pairs it is 0.

    Args:
        labels: Class ids [n] or a `Relation`, whose negative pairs are averaged. Default: all pairs of two rows.
        mean_weight, second_moment_weight: Weights of M1^2 and of max(0, M2 - threshold), at least 0.
        threshold: Value of M2 below which its term is 0. Default: 1 / d. EmbeddingGemma (2025) uses 0, and a
            `mean_weight` of 0.
        block_size: Rows per block. Default: chosen from a memory budget.

    Example:
        Two rows of three are equal, the others at right angles: M1 = M2 = 1/3, and d = 4.

        >>> x = jnp.eye(4)[jnp.array([0, 0, 1])]
        >>> print(round(float(global_orthogonal_regularizer(x)), 4))  # 1/9 + 1/3 - 1/4
        0.1944
    """
    check_at_least("mean_weight", mean_weight, 0)
    check_at_least("second_moment_weight", second_moment_weight, 0)
    x = _as_matrix("embeddings", embeddings)
    n, d = x.shape
    relation = as_relation(by_position(n) if labels is None else labels, None, n, None)
    first, second = _cosine_moments(x, relation, block_size=block_size)
    excess = jax.nn.relu(second - (1 / max(d, 1) if threshold is None else jnp.asarray(threshold)))
    return jnp.asarray(mean_weight) * jnp.square(first) + jnp.asarray(second_moment_weight) * excess


def center_invariant_regularizer(proxies: Proxies) -> Scalar:
    """Compute a quarter of the variance of the squared lengths of proxies [c, d].

    Lengths above about 1e8, whose fourth power would overflow float32, are clipped.

    Example:
        >>> print(center_invariant_regularizer(jnp.array([[1.0, 0.0], [0.0, 3.0]])))  # (16 + 16) / 2 / 4
        4.0
    """
    return _center_invariant(_as_matrix("proxies", proxies))


def regular_face_regularizer(proxies: Proxies, *, block_size: int | None = None) -> Scalar:
    """Compute the mean cosine of each proxy with the nearest proxy of another class, in O(c^2 d) time.

    The mean is in [-1, 1], and 0 if there is only one class. Of several nearest proxies the first has the gradient.

    Args:
        block_size: Rows per block. Default: chosen from a memory budget.

    Example:
        >>> print(regular_face_regularizer(jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])))  # (0 + 1 + 1) / 3
        0.6666667
    """
    w = _as_matrix("proxies", proxies)
    nearest, index = similarity.max(w, measure="cosine", mask=similarity.exclude_self, block_size=block_size)
    return _mean(jnp.where(index >= 0, nearest, 0))


def sparse_centers_regularizer(proxies: Num[ArrayLike, "c k d"]) -> Scalar:
    """Compute half the mean distance between the proxies [c, k, d] of each class, in memory c k^2.

    The result is in [0, 1], and 0 with one proxy per class. Proxies of a class that are not needed become equal.

    Example:
        >>> print(sparse_centers_regularizer(jnp.array([[[1.0, 0.0], [-2.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])))
        0.5
    """
    w = promote_to_float32(as_float_array("proxies", proxies))
    check_several_proxies(w)
    return _sparse_centers(w)


def check_several_proxies(proxies: Array) -> None:
    """Check that proxies have the shape [c, k, d], with at least one proxy per class."""
    if proxies.ndim != 3 or not proxies.shape[1]:
        raise InputError(f"proxies: expected k proxies of each class, [c, k, d], got shape {proxies.shape}")


def _as_matrix(name: str, value: ArrayLike) -> Array:
    x = promote_to_float32(as_float_array(name, value))
    if x.ndim != 2:
        raise InputError(f"{name}: expected rows [{'c' if name == 'proxies' else 'n'}, d], got shape {x.shape}")
    return x


def _mean(values: Array) -> Array:
    return jnp.sum(values) / max(len(values), 1)


@jax.jit
def _mean_power(lengths: Array, power: ArrayLike) -> Array:
    nonzero = lengths != 0  # a power below 1 has an infinite slope at 0
    return _mean(jnp.where(nonzero, jnp.where(nonzero, lengths, 1.0) ** power, 0))


@partial(jax.jit, static_argnames="block_size")
def _cosine_moments(x: Array, relation: Relation, *, block_size: int | None) -> tuple[Array, Array]:
    sums = reduce_rows(Partial(_sums_of_tile, relation), x, measure="cosine", block_size=block_size)
    first, second, count = map(jnp.sum, sums)
    return first / jnp.maximum(count, 1), second / jnp.maximum(count, 1)


def _sums_of_tile(relation: Relation, cosines: Array, i: Array, j: Array) -> tuple[Array, Array, Array]:
    """Return the sum, the sum of squares and the number of the negatives of rows i [r, 1] among columns j [1, m]."""
    _, negative = relation.masks(i, j)
    cosines = jnp.where(negative, cosines, 0)
    return jnp.sum(cosines, axis=1), jnp.sum(cosines**2, axis=1), jnp.sum(negative, axis=1, dtype=jnp.float32)


@jax.jit
def _center_invariant(w: Array) -> Array:
    largest = float(jnp.finfo(w.dtype).max) ** 0.25 / 32
    squares = jnp.square(jnp.minimum(euclidean_distance(w, jnp.zeros_like(w)), largest))
    return _mean(jnp.square(squares - _mean(squares))) / 4


@jax.jit
def _sparse_centers(w: Array) -> Array:
    c, k, _ = w.shape
    distances = jax.vmap(lambda of_class: pairwise(of_class, measure="normalized_euclidean"))(w)  # [c, k, k]
    return jnp.sum(distances) / max(2 * c * k * (k - 1), 1)
