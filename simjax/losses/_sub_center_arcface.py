"""Sub-centre ArcFace: several vectors for each class, of which the nearest counts.

With centres w_1 ... w_k of a class, the cosine of an embedding and the class is that of its nearest centre,

    c = max over j of cos(x, w_j)

and the rest is ArcFace. Where labels are wrong or a class has several faces, one centre gathers what is clean and the
others what is not. So once trained, a row far from its class's dominant centre, to which most rows of the class are
nearest, is likely mislabelled: drop such rows, keep the dominant centres, and train again.

References:
    Deng, Guo, Liu, Gong, Zafeiriou (2020), Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web
    Faces.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import (
    InputError,
    as_float_array,
    auto_axes,
    check_at_least,
    check_positive,
    map_rows,
    promote_to_float32,
)
from simjax.losses._angular_margin import arcface_form
from simjax.losses._checks import class_vectors
from simjax.losses._class_vectors import check_centers, classified_by_centers
from simjax.similarity import unit_vectors


def sub_center_arcface_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c k d"],
    margin: ArrayLike = 28.6,
    scale: ArrayLike = 64.0,
    **options: Any,
) -> Any:
    """ArcFace with k centres for each class: one term for each row, time n c k d, memory of a strip of c k columns.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the centres [c, k, d], of any length.
        margin: of the angle, in degrees.
        scale: of the cosines.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows. Of a class's centres only the nearest has a gradient, the first among equals.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, or a scale that is not positive.

    Example:
        The second centre of its class is where the row is:

        >>> proxies = jnp.array([[[0.0, -1.0], [1.0, 0.0]], [[0.0, 1.0], [-1.0, 0.0]]])
        >>> row, label = jnp.array([[1.0, 0.0]]), jnp.array([0])
        >>> found = sub_center_arcface_loss(row, label, proxies=proxies, margin=60.0, scale=1.0)
        >>> print(round(float(found), 4))  # log(1 + exp(0 - cos(60)))
        0.4742
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    return classified_by_centers(
        arcface_form, _nearest, embeddings, labels, proxies, options, {}, margin=jnp.deg2rad(margin), scale=scale
    )


def _nearest(c: Array) -> Array:
    first = jnp.argmax(c, axis=2, keepdims=True) == jnp.arange(c.shape[2])[None, None]
    return jnp.sum(jnp.where(first, c, 0), axis=2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SubCenterOutliers:
    """What `sub_center_outliers` finds.

    Attributes:
        outlier: which rows are far from the dominant centre of their class, boolean [n].
        dominant: of each class the number of the centre to which most of its rows are nearest, the lowest among equals;
            0 for a class without rows; int32 [c].
        centers: these centres, class vectors for a training without sub-centres, [c, d].
    """

    outlier: Array
    dominant: Array
    centers: Array


def sub_center_outliers(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c k d"],
    threshold: ArrayLike = 75.0,
    block_size: int | None = None,
) -> SubCenterOutliers:
    """Find the rows that are far from where most of their class is: time n k d.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; a row with any other id is no outlier.
        proxies: the centres [c, k, d], of any length.
        threshold: the largest angle between a row and its class's dominant centre, in degrees.
        block_size: rows computed at once; None chooses.

    Returns:
        The outliers and each class's dominant centre.

    Raises:
        InputError: for shapes that do not fit, or more classes than proxies.

    Example:
        Two of three rows are nearest to the first centre; the third is at a right angle to it.

        >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> found = sub_center_outliers(x, jnp.zeros(3, int), proxies=jnp.eye(2)[None])
        >>> print(found.dominant, found.centers, found.outlier)
        [0] [[1. 0.]] [False False  True]
    """
    check_at_least("threshold", threshold, 0)
    x, (centers, ids, _) = as_float_array("embeddings", embeddings), class_vectors(labels, proxies)
    check_centers(centers)
    if x.ndim != 2 or x.shape[1] != centers.shape[2]:
        raise InputError(f"embeddings: expected rows of {centers.shape[2]} features as in proxies, got {x.shape}")
    if ids.shape != x.shape[:1]:
        raise InputError(f"labels: expected one for each of {x.shape[0]} rows, got shape {ids.shape}")
    return _outliers(x, ids, centers, jnp.cos(jnp.deg2rad(threshold)), block_size=block_size)


@partial(jax.jit, static_argnames="block_size")
@auto_axes
def _outliers(x: Array, labels: Array, centers: Array, least: Array, *, block_size: int | None) -> SubCenterOutliers:
    classes, k, d = centers.shape
    units = unit_vectors(promote_to_float32(centers))
    known = (labels >= 0) & (labels < classes)
    own = jnp.where(known, labels, 0)

    def cosines(x: Array, own: Array) -> Array:
        return jnp.sum(unit_vectors(promote_to_float32(x))[:, None] * units[own], axis=2)

    to_own = map_rows(cosines, x, own, block_size=block_size, row_bytes=4 * k * d)  # [n, k]
    votes = jnp.zeros((classes, k), jnp.int32).at[own, jnp.argmax(to_own, axis=1)].add(known)
    dominant = jnp.argmax(votes, axis=1).astype(jnp.int32)
    to_dominant = jnp.take_along_axis(to_own, dominant[own][:, None], axis=1)[:, 0]
    chosen = jnp.take_along_axis(centers, dominant[:, None, None], axis=1)[:, 0]
    return SubCenterOutliers(known & ~(to_dominant >= least), dominant, chosen)
