"""Regularisers of class vectors: numbers to add to a loss, each with a weight of your own.

    center_invariant    mean over classes of (|w|^2 - mean of all |w|^2)^2 / 4: lengths ought to be equal
    regular_face        mean over classes of the cosine with the nearest other class: classes ought to be apart
    sparse_centers      half the mean distance of two centres of one class, at unit length: centres ought to be few

References:
    Wu, Liu, Li, Fu (2017), Deep Face Recognition with Center Invariant Loss. Zhao, Xu, Cheng (2019), RegularFace: Deep
    Face Recognition via Exclusive Regularization. Qian et al. (2019), SoftTriple Loss: Deep Metric Learning Without
    Triplet Sampling.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax import similarity
from simjax.core import InputError, as_float_array, promote_to_float32
from simjax.losses._class_vectors import check_centers
from simjax.similarity import euclidean_distance, pairwise


def center_invariant_regularizer(proxies: Num[ArrayLike, "c d"]) -> Num[Array, ""]:
    """How much the lengths of class vectors differ: the variance of their squares, over 4.

    Args:
        proxies: class vectors [c, d]. A length above 1e8 or so, whose fourth power hardly fits float32, counts as that.

    Returns:
        A scalar, at least 0.

    Raises:
        InputError: if they are no matrix.

    Example:
        >>> print(center_invariant_regularizer(jnp.array([[1.0, 0.0], [0.0, 3.0]])))  # (16 + 16) / 2 / 4
        4.0
    """
    return _center_invariant(_matrix(proxies))


def regular_face_regularizer(proxies: Num[ArrayLike, "c d"], *, block_size: int | None = None) -> Num[Array, ""]:
    """How close class vectors are to the nearest other one; time c^2 d, memory of a strip.

    Args:
        proxies: class vectors [c, d], of any length.
        block_size: classes compared with all others at once; None chooses.

    Returns:
        The mean cosine, from -1 to 1; 0 where there is one class. The gradient goes to the first of the nearest.

    Raises:
        InputError: if they are no matrix.

    Example:
        >>> print(regular_face_regularizer(jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])))  # (0 + 1 + 1) / 3
        0.6666667
    """
    vectors = _matrix(proxies)
    nearest, found = similarity.max(vectors, measure="cosine", mask=similarity.exclude_self, block_size=block_size)
    return jnp.sum(jnp.where(found >= 0, nearest, 0)) / max(len(vectors), 1)


def sparse_centers_regularizer(proxies: Num[ArrayLike, "c k d"]) -> Num[Array, ""]:
    """How far apart the centres of each class are, so that those which are not needed become one; memory c k^2.

    Args:
        proxies: centres [c, k, d], of any length.

    Returns:
        Half the mean distance, from 0 to 1; 0 with one centre for each class.

    Raises:
        InputError: if they have another shape.

    Example:
        >>> print(sparse_centers_regularizer(jnp.array([[[1.0, 0.0], [-2.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])))
        0.5
    """
    centers = promote_to_float32(as_float_array("proxies", proxies))
    check_centers(centers)
    return _sparse_centers(centers)


def _matrix(proxies: ArrayLike) -> Array:
    vectors = promote_to_float32(as_float_array("proxies", proxies))
    if vectors.ndim != 2:
        raise InputError(f"proxies: expected class vectors [c, d], got shape {vectors.shape}")
    return vectors


@jax.jit
def _center_invariant(vectors: Array) -> Array:
    most = float(jnp.finfo(vectors.dtype).max) ** 0.25 / 32
    squares = jnp.square(jnp.minimum(euclidean_distance(vectors, jnp.zeros_like(vectors)), most))
    classes = max(len(vectors), 1)
    return jnp.sum(jnp.square(squares - jnp.sum(squares) / classes)) / (4 * classes)


@jax.jit
def _sparse_centers(centers: Array) -> Array:
    c, k, _ = centers.shape
    distances = jax.vmap(lambda own: pairwise(own, measure="normalized_euclidean"))(centers)  # [c, k, k]
    return jnp.sum(distances) / max(2 * c * k * (k - 1), 1)
