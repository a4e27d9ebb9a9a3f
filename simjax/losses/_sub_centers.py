"""Classification losses with k proxies per class, for wrong labels and classes with several modes.

With c_kj the cosine of an embedding with proxy j of class k, a class has the similarity

    sub-center ArcFace    S_k = max over j of c_kj
    SoftTriple            S_k = sum over j of softmax_j(c_kj / gamma) c_kj

and the loss is that of ArcFace or CosFace with S_k in place of the cosine. SoftTriple adds
tau * sparse_centers_regularizer(proxies), which merges proxies that a class does not need: it makes them equal.

If labels are wrong, one proxy of a class becomes the center of the correct rows, and others of the wrong ones. After
training, `sub_center_outliers` finds the rows that are far from the dominant proxy of their class, that is the nearest
proxy of most rows of the class: drop these rows, keep the dominant proxies, and train again.

A tile is a block of r rows with all proxies. A term function (`_..._terms`) takes its cosines [r, c k] and returns
`Terms`, one term for each row and the mask of the valid ones, [r, 1] each.

References:
    Deng, Guo, Liu, Gong, Zafeiriou (2020), Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web
    Faces. Qian, Shang, Sun, Hu, Li, Jin (2019), SoftTriple Loss: Deep Metric Learning Without Triplet Sampling.
"""

import dataclasses
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Num

from simjax.core import (
    InputError,
    as_float_array,
    auto_axes,
    check_at_least,
    check_positive,
    map_rows,
    promote_to_float32,
)
from simjax.losses._options import ClassOptions
from simjax.losses._pair_loss import Terms
from simjax.losses._regularizers import check_several_proxies, sparse_centers_regularizer
from simjax.losses._softmax_margin import arcface_terms, as_proxies, compute_proxy_loss, cosface_terms
from simjax.losses._terms import ClassIds, Embeddings, Scalar
from simjax.similarity import unit_vectors


def sub_center_arcface_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Num[ArrayLike, "c k d"],
    margin: ArrayLike = 28.6,
    scale: ArrayLike = 64.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute ArcFace with the nearest proxy of each class.

    Takes O(n c k d) time. Of the proxies of a class only the nearest has a gradient, the first one if several are
    equally near. Other arguments are those of `arcface_loss`.

    Args:
        proxies: [c, k, d], of any length.

    Example:
        >>> proxies = jnp.array([[[0.0, -1.0], [1.0, 0.0]], [[0.0, 1.0], [-1.0, 0.0]]])
        >>> x, label = jnp.array([[1.0, 0.0]]), jnp.array([0])
        >>> loss = sub_center_arcface_loss(x, label, proxies=proxies, margin=60.0, scale=1.0)
        >>> print(round(float(loss), 4))  # log(1 + exp(0 - cos(60)))
        0.4742
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    w = as_float_array("proxies", proxies)
    check_several_proxies(w)
    parameters = {"static": w.shape[1:2], "margin": jnp.deg2rad(margin), "scale": scale}
    return compute_proxy_loss(sub_center_arcface_loss, _sub_center_terms, embeddings, labels, w, options, **parameters)


def soft_triple_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Num[ArrayLike, "c k d"],
    scale: ArrayLike = 20.0,
    gamma: ArrayLike = 0.1,
    margin: ArrayLike = 0.01,
    tau: ArrayLike = 0.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute CosFace with a softmax over the proxies of each class.

    Takes O(n c k d) time.

    Args:
        proxies: [c, k, d], of any length. The paper uses k = 10.
        scale: Factor of the similarities, above 0; lambda in the paper, `la` in pytorch-metric-learning.
        gamma: Temperature of the softmax over the proxies of a class, above 0.
        margin: Difference of similarities, at least 0; delta in the paper.
        tau: Weight of the regularizer, which is added to the reduced loss. The paper uses 0.2.

    Example:
        >>> proxies = jnp.repeat(jnp.eye(2)[:, None], 2, axis=1)
        >>> loss = soft_triple_loss(jnp.eye(2), jnp.arange(2), proxies=proxies, scale=1.0, margin=0.5, tau=0.2)
        >>> print(round(float(loss), 4))  # log(1 + exp(0 - 0.5))
        0.4741
    """
    for name, value in (("margin", margin), ("tau", tau)):
        check_at_least(name, value, 0)
    for name, value in (("scale", scale), ("gamma", gamma)):
        check_positive(name, value)
    w = as_float_array("proxies", proxies)
    check_several_proxies(w)
    parameters = {"static": w.shape[1:2], "gamma": gamma, "margin": margin, "scale": scale}
    loss = compute_proxy_loss(soft_triple_loss, _soft_triple_terms, embeddings, labels, w, options, **parameters)
    is_regularized = not (isinstance(tau, int | float) and tau == 0)
    return loss + jnp.asarray(tau) * sparse_centers_regularizer(w) if is_regularized else loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SubCenterOutliers:
    """Result of `sub_center_outliers`.

    Attributes:
        outlier: Whether a row is far from the dominant proxy of its class, [n].
        dominant: Index of the dominant proxy of each class, [c]; the lowest one if several are nearest to equally many
            rows, and 0 for a class without rows.
        proxies: The dominant proxies, for a training with one proxy per class, [c, d].
    """

    outlier: Bool[Array, " n"]
    dominant: Int[Array, " c"]
    proxies: Float[Array, "c d"]


def sub_center_outliers(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Num[ArrayLike, "c k d"],
    threshold: ArrayLike = 75.0,
    block_size: int | None = None,
) -> SubCenterOutliers:
    """Find the rows that are far from the dominant proxy of their class, in O(n k d) time.

    Args:
        labels: Class ids [n]. A row with a negative id is not an outlier.
        proxies: [c, k, d], of any length.
        threshold: Largest angle between a row and the dominant proxy of its class, in degrees, at least 0.
        block_size: Rows per block. Default: chosen from a memory budget.

    Example:
        Two of three rows are nearest to the first proxy, and the third row is orthogonal to it:

        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> found = sub_center_outliers(x, jnp.zeros(3, int), proxies=jnp.eye(2)[None])
        >>> print(found.dominant, found.proxies, found.outlier)
        [0] [[1. 0.]] [False False  True]
    """
    check_at_least("threshold", threshold, 0)
    x, (w, ids, _) = as_float_array("embeddings", embeddings), as_proxies(labels, proxies)
    check_several_proxies(w)
    if x.ndim != 2 or x.shape[1] != w.shape[2]:
        raise InputError(f"embeddings: expected rows of {w.shape[2]} features as in proxies, got shape {x.shape}")
    if ids.shape != x.shape[:1]:
        raise InputError(f"labels: expected one for each of {x.shape[0]} rows, got shape {ids.shape}")
    return _outliers(x, ids, w, jnp.cos(jnp.deg2rad(threshold)), block_size=block_size)


def _sub_center_terms(
    cosines: Array, positive: Array, negative: Array, k: int, *, margin: Array, scale: Array
) -> Terms:
    cosines = _by_class(cosines, k)
    is_first_nearest = jnp.argmax(cosines, axis=2, keepdims=True) == jnp.arange(k)[None, None]
    nearest = jnp.sum(jnp.where(is_first_nearest, cosines, 0), axis=2)
    masks = _by_class(positive, k)[:, :, 0], _by_class(negative, k)[:, :, 0]
    return arcface_terms(nearest, *masks, margin=margin, scale=scale)


def _soft_triple_terms(
    cosines: Array, positive: Array, negative: Array, k: int, *, gamma: Array, margin: Array, scale: Array
) -> Terms:
    cosines = _by_class(cosines, k)
    similarity = jnp.sum(jax.nn.softmax(cosines / gamma, axis=2) * cosines, axis=2)
    masks = _by_class(positive, k)[:, :, 0], _by_class(negative, k)[:, :, 0]
    return cosface_terms(similarity, *masks, margin=margin, scale=scale)


def _by_class(a: Array, k: int) -> Array:
    """Reshape an array [r, c k] to [r, c, k]."""
    return a.reshape(a.shape[0], a.shape[1] // k, k)


@partial(jax.jit, static_argnames="block_size")
@auto_axes
def _outliers(
    x: Array, labels: Array, proxies: Array, minimum_cosine: Array, *, block_size: int | None
) -> SubCenterOutliers:
    c, k, d = proxies.shape
    units = unit_vectors(promote_to_float32(proxies))
    has_class = (labels >= 0) & (labels < c)
    classes = jnp.where(has_class, labels, 0)

    def cosines_with_own_class(x: Array, classes: Array) -> Array:
        return jnp.sum(unit_vectors(promote_to_float32(x))[:, None] * units[classes], axis=2)

    cosines = map_rows(cosines_with_own_class, x, classes, block_size=block_size, row_bytes=4 * k * d)  # [n, k]
    votes = jnp.zeros((c, k), jnp.int32).at[classes, jnp.argmax(cosines, axis=1)].add(has_class)
    dominant = jnp.argmax(votes, axis=1).astype(jnp.int32)
    dominant_cosines = jnp.take_along_axis(cosines, dominant[classes][:, None], axis=1)[:, 0]
    dominant_proxies = jnp.take_along_axis(proxies, dominant[:, None, None], axis=1)[:, 0]
    return SubCenterOutliers(has_class & ~(dominant_cosines >= minimum_cosine), dominant, dominant_proxies)
