"""Losses of the embeddings x and y, [n, d] each, of two augmented views of the same images, without labels.

    VICReg          invariance * mean((x - y)^2) + variance * V + covariance * K
    Barlow Twins    sum over i of (1 - C_ii)^2 + redundancy * (sum over i != j of C_ij^2)
    SimSiam         -mean of cos(prediction, stop_gradient(projection))

The names of arguments are weights. V is the mean over features of max(0, 1 - standard deviation), averaged over both
views. K is the sum of the squared covariances of different features, divided by d and added over both views. C [d, d]
is the correlation of the features of x with the features of y. None of the three losses has negative pairs
or stores an n x n matrix.

`self_supervised_loss` applies any pair loss to two or more views.

References:
    Bardes, Ponce, LeCun (2022), VICReg. Zbontar et al. (2021), Barlow Twins. Chen, He (2021), Exploring Simple Siamese
    Representation Learning (SimSiam). Chen et al. (2020), A Simple Framework for Contrastive Learning of Visual
    Representations (pair losses of several views).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Shaped

from simjax.core import InputError, as_float_array, as_matrices, auto_axes, promote_to_float32
from simjax.losses._terms import Embeddings, LossTerms, Scalar
from simjax.similarity import cosine_similarity

Loss = TypeVar("Loss", Array, LossTerms)
"""A scalar, or the terms of `unreduced(loss)`."""


def vicreg_loss(
    x: Embeddings,
    y: Embeddings,
    *,
    invariance: ArrayLike = 25.0,
    variance: ArrayLike = 25.0,
    covariance: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
) -> Scalar:
    """Make views equal, the variance of each feature at least 1, and features uncorrelated.

    Takes O(n d^2) time and O(n d + d^2) memory.

    Args:
        x, y: Embeddings of the two views, [n, d] each.
        invariance: Weight of the mean squared difference of the views.
        variance: Weight of V, see above.
        covariance: Weight of K, see above.
        epsilon: Added to variances before the square root.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) * 1.5**0.5
        >>> print(vicreg_loss(x, x))  # both features have the variance 1 and are uncorrelated
        0.0
    """
    x, y = _as_views(x, y)
    weights = tuple(map(jnp.asarray, (invariance, variance, covariance)))
    return _vicreg(x, y, weights, epsilon)


def barlow_twins_loss(x: Embeddings, y: Embeddings, *, redundancy: ArrayLike = 5e-3) -> Scalar:
    """Penalize the difference between the identity and the correlations of the features of x with the features of y.

    Takes O(n d^2) time and O(n d + d^2) memory. A feature that is constant in one view has correlation 0 with all
    features of the other view, with zero gradient.

    Args:
        x, y: Embeddings of the two views, [n, d] each.
        redundancy: Weight of the squared correlations of different features, lambda in the paper.

    Example:
        >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> print(barlow_twins_loss(x, x))
        0.0
    """
    x, y = _as_views(x, y)
    return _barlow_twins(x, y, redundancy)


def simsiam_loss(
    prediction: Embeddings,
    projection: Embeddings,
    *,
    other_prediction: Embeddings | None = None,
    other_projection: Embeddings | None = None,
) -> Scalar:
    """Predict the projection of one view from the other view. The loss is in [-1, 1].

    Args:
        prediction: Output of the predictor for one view, [n, d].
        projection: Projection of the other view, [n, d]. No gradient flows through it.
        other_prediction: Output of the predictor for the other view, [n, d]; then the loss is the mean of both
            directions. Default: one direction.
        other_projection: Projection of the first view, [n, d]; together with `other_prediction`.

    Example:
        >>> print(simsiam_loss(jnp.eye(2), jnp.eye(2)))
        -1.0
    """
    loss = _negative_cosine(*_as_views(prediction, projection))
    if other_prediction is None and other_projection is None:
        return loss
    if other_prediction is None or other_projection is None:
        raise InputError("other_prediction, other_projection: expected both or neither, got one of them")
    return (loss + _negative_cosine(*_as_views(other_prediction, other_projection))) / 2


def self_supervised_loss(
    loss: Callable[..., Loss],
    x: Embeddings,
    *views: Embeddings,
    symmetric: bool = True,
    weights: Shaped[ArrayLike, " n"] | None = None,
    **options: Any,
) -> Loss:
    """Apply a pair loss to views of the same images: row i of a view is a positive of row i of every other view.

    Args:
        loss: Takes embeddings, class ids, `ref_embeddings` and `ref_labels`, as pair losses do.
        x: Embeddings of one view, [n, d].
        *views: Embeddings of at least one other view of the same rows, [n, d] each.
        symmetric: Compare all views with all views, as SimCLR does: with two views each row has one positive and
            2 n - 2 negatives. False compares x with the other views only: with two views one positive and n - 1
            negatives.
        weights: Factor for the terms of each row, in all views, [n].
        **options: Other options of the loss.

    Returns:
        The result of the loss. The rows of the terms of `unreduced(loss)` are those of all views, one view after
        another, or those of x if not `symmetric`.

    Example:
        >>> from simjax.losses import nt_xent_loss
        >>> loss = self_supervised_loss(nt_xent_loss, jnp.eye(2), jnp.eye(2), temperature=1.0)
        >>> print(round(float(loss), 4))  # log(1 + 2 exp(0 - 1))
        0.5514
    """
    if not views:
        raise InputError("views: expected at least one beside x, got none")
    first = as_float_array("x", x)
    others = [as_matrices(first, view, ("x", "views"))[1] for view in views]
    if any(view.shape != first.shape for view in others):
        raise InputError(f"views: expected the shape of x, {first.shape}, got {[view.shape for view in others]}")
    rows = jnp.arange(len(first), dtype=jnp.int32)
    if not symmetric:
        references = {"ref_embeddings": jnp.concatenate(others), "ref_labels": jnp.tile(rows, len(others))}
        return loss(first, rows, **references, **({} if weights is None else {"weights": weights}), **options)
    repeats = 1 + len(others)
    if weights is not None:
        options["weights"] = jnp.tile(as_float_array("weights", weights), repeats)
    return loss(jnp.concatenate([first, *others]), jnp.tile(rows, repeats), **options)


def _as_views(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = as_matrices(x, y)
    if x.shape != y.shape:
        raise InputError(f"y: expected the shape of x, {x.shape}, got {y.shape}")
    return promote_to_float32(x), promote_to_float32(y)


def _mean(values: Array) -> Array:
    return jnp.sum(values) / max(values.size, 1)


@jax.jit
def _negative_cosine(prediction: Array, projection: Array) -> Array:
    return -_mean(cosine_similarity(prediction, lax.stop_gradient(projection)))


@jax.jit
@auto_axes
def _vicreg(x: Array, y: Array, weights: tuple[Array, ...], epsilon: ArrayLike) -> Array:
    n, d = x.shape
    variance_loss, covariance_loss = jnp.zeros(()), jnp.zeros(())
    for view in (x, y):
        centered = _centered(view)
        matrix = jnp.matmul(centered.T, centered, precision="highest") / max(n - 1, 1)
        variance_loss += _mean(jax.nn.relu(1 - jnp.sqrt(jnp.diagonal(matrix) + epsilon))) / 2
        covariance_loss += jnp.sum(jnp.square(_without_diagonal(matrix))) / max(d, 1)
    invariance, variance, covariance = weights
    return invariance * _mean(jnp.square(x - y)) + variance * variance_loss + covariance * covariance_loss


@jax.jit
@auto_axes
def _barlow_twins(x: Array, y: Array, redundancy: ArrayLike) -> Array:
    def standardized(view: Array) -> Array:
        centered = _centered(view)
        variance = jnp.sum(centered * centered, axis=0, keepdims=True) / max(len(view), 1)
        return jnp.where(variance == 0, 0, centered / jnp.sqrt(jnp.where(variance == 0, 1, variance)))

    matrix = jnp.matmul(standardized(x).T, standardized(y), precision="highest") / max(len(x), 1)
    return jnp.sum(jnp.square(1 - jnp.diagonal(matrix))) + redundancy * jnp.sum(jnp.square(_without_diagonal(matrix)))


def _centered(view: Array) -> Array:
    return view - jnp.sum(view, axis=0, keepdims=True) / max(len(view), 1)


def _without_diagonal(matrix: Array) -> Array:
    return jnp.where(jnp.eye(len(matrix), dtype=bool), 0, matrix)
