"""Losses of two views of the same images, without negatives: what keeps all embeddings from becoming one.

    VICReg          views equal, every feature spread out, no two features alike
    Barlow Twins    the cross-correlation of the features of both views is the identity
    SimSiam         a prediction from one view equals the other, which is held fixed

The first two work on the d x d matrix of features, not on the n x n of rows.

References:
    Bardes, Ponce, LeCun (2022), VICReg. Zbontar et al. (2021), Barlow Twins. Chen, He (2021), Exploring Simple Siamese
    Representation Learning.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_matrices, auto_axes, promote_to_float32
from simjax.similarity import cosine_similarity


def vicreg_loss(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n d"],
    *,
    invariance: ArrayLike = 25.0,
    variance: ArrayLike = 25.0,
    covariance: ArrayLike = 1.0,
    epsilon: float = 1e-4,
) -> Num[Array, ""]:
    """VICReg: invariance, variance and covariance of two views; time n d^2, memory d^2.

    Args:
        x: embeddings of one view [n, d].
        y: of the other [n, d].
        invariance: weight of the mean squared difference of the views.
        variance: weight of the mean of max(0, 1 - standard deviation) of the features, averaged over the views.
        covariance: weight of the sum of the squared covariances of different features over d, added over the views.
        epsilon: added to the variances.

    Returns:
        A scalar.

    Raises:
        InputError: for shapes that do not fit.
    """
    x, y = _views(x, y)
    return _vicreg(promote_to_float32(x), promote_to_float32(y), invariance, variance, covariance, epsilon)


def barlow_twins_loss(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n d"],
    *,
    redundancy: ArrayLike = 5e-3,
) -> Num[Array, ""]:
    """Barlow Twins: of the cross-correlation C of features, sum (1 - C_ii)^2 + redundancy sum of C_ij^2, i != j.

    Args:
        x: embeddings of one view [n, d].
        y: of the other [n, d].
        redundancy: weight of the second sum.

    Returns:
        A scalar. A feature that is the same for all rows has correlation 0, with zero gradient.

    Raises:
        InputError: for shapes that do not fit.

    Example:
        >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> print(barlow_twins_loss(x, x))
        0.0
    """
    x, y = _views(x, y)
    return _barlow_twins(promote_to_float32(x), promote_to_float32(y), redundancy)


def simsiam_loss(
    prediction: Num[ArrayLike, "n d"], projection: Num[ArrayLike, "n d"], **others: ArrayLike
) -> Num[Array, ""]:
    """SimSiam: minus the mean cosine similarity of predictions with projections, through which no gradient flows.

    Args:
        prediction: what the predictor makes of one view, [n, d].
        projection: of the other view, [n, d].
        **others: other_prediction and other_projection, the same with the views exchanged; the mean of both counts.

    Returns:
        A scalar in [-1, 1].

    Raises:
        InputError: for shapes that do not fit.

    Example:
        >>> print(simsiam_loss(jnp.eye(2), jnp.eye(2)))
        -1.0
    """
    if others and set(others) != {"other_prediction", "other_projection"}:
        raise InputError(f"expected other_prediction and other_projection, got {', '.join(others)}")
    pairs: list[tuple[Any, Any]] = [(prediction, projection)]
    if others:
        pairs.append((others["other_prediction"], others["other_projection"]))
    views = [_views(*pair) for pair in pairs]
    found = [
        jnp.mean(cosine_similarity(promote_to_float32(p), lax.stop_gradient(promote_to_float32(z)))) for p, z in views
    ]
    return -jnp.mean(jnp.stack(found))


def _views(x: Any, y: Any) -> tuple[Array, Array]:
    x, y = as_matrices(x, y)
    if x.shape != y.shape:
        raise InputError(f"y: expected one row for each row of x {x.shape}, got shape {y.shape}")
    return x, y


@jax.jit
@auto_axes
def _vicreg(x: Array, y: Array, invariance: Array, variance: Array, covariance: Array, epsilon: Array) -> Array:
    n, d = x.shape
    spread, shared = jnp.zeros(()), jnp.zeros(())
    for view in (x, y):
        centred = view - jnp.mean(view, axis=0, keepdims=True)
        matrix = jnp.matmul(centred.T, centred, precision="highest") / max(n - 1, 1)
        own = jnp.diagonal(matrix)
        spread += jnp.mean(jax.nn.relu(1 - jnp.sqrt(own + epsilon))) / 2
        shared += jnp.sum(jnp.square(_different(matrix))) / d
    return invariance * jnp.mean(jnp.square(x - y)) + variance * spread + covariance * shared


@jax.jit
@auto_axes
def _barlow_twins(x: Array, y: Array, redundancy: Array) -> Array:
    def standard(view: Array) -> Array:
        centred = view - jnp.mean(view, axis=0, keepdims=True)
        square = jnp.mean(centred * centred, axis=0, keepdims=True)
        return jnp.where(square == 0, 0, centred / jnp.sqrt(jnp.where(square == 0, 1, square)))

    matrix = jnp.matmul(standard(x).T, standard(y), precision="highest") / max(x.shape[0], 1)
    own = jnp.diagonal(matrix)
    return jnp.sum(jnp.square(1 - own)) + redundancy * jnp.sum(jnp.square(_different(matrix)))


def _different(matrix: Array) -> Array:
    """A matrix [d, d] whose diagonal is set to 0."""
    return jnp.where(jnp.eye(len(matrix), dtype=bool), 0, matrix)
