"""Classification losses: embeddings are compared with proxies, one learned vector w_k [d] for each of c classes.

With c_k = cos(x, w_k), y the class of x, and a scale s:

    loss = -log( exp(s f(c_y)) / (exp(s f(c_y)) + sum over k != y of exp(s c_k)) )

    normalized softmax      f(c) = c
    CosFace                 f(c) = c - margin
    ArcFace                 f(cos theta) = cos(theta + margin)
    SphereFace              f(cos theta) = psi(theta), and s is multiplied by |x|
    large-margin softmax    as SphereFace, and s c_k is multiplied by |w_k| as well

psi(theta) = (-1)^j cos(margin theta) - 2 j, j = floor(margin theta / pi), falls `margin` times as fast as the cosine.
P2SGrad is the mean over rows and classes of (c_k - [k = y])^2. The paper defines only the gradients: as for a softmax,
with cosines in place of probabilities, and without scale and margin.

Proxies are an argument, so they are learned like any other parameter.

A term function (`..._terms`) takes the cosines [r, c] of a tile, r rows with all proxies, the masks of the own class of
each row and of the other classes, and the parameters of the loss. It returns `Terms`, a dict from names to (terms, mask
of the valid ones), both [r, c] with a term for each class or [r, 1] with a term for each row.

References:
    Wang, Xiang, Cheng, Yuille (2017), NormFace (normalized softmax). Wang et al. (2018), CosFace. Deng, Guo, Xue,
    Zafeiriou (2019), ArcFace. Liu, Wen, Yu, Yang (2016), Large-Margin Softmax Loss for Convolutional Neural Networks.
    Liu, Wen, Yu, Li, Raj, Song (2017), SphereFace. Zhang et al. (2019), P2SGrad: Refined Gradients for Optimizing Deep
    Face Models. Wang, Yamagishi (2021), A Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic
    Speech Detection (P2SGrad as squares).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from simjax.core import (
    NO_CLASS,
    InputError,
    as_float_array,
    as_integer_array,
    as_matrices,
    check_at_least,
    check_positive,
    class_ids,
    promote_to_float32,
)
from simjax.losses._options import ClassOptions, resolve_options
from simjax.losses._pair_loss import TermFunction, Terms, compute_pair_loss, log_sum_exp
from simjax.losses._terms import ClassIds, Embeddings, Proxies, Scalar
from simjax.similarity import euclidean_distance


def normalized_softmax_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    temperature: ArrayLike = 0.05,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute the cross entropy of cosines with proxies.

    Args:
        temperature: Divisor of the cosines, above 0.

    Example:
        >>> loss = normalized_softmax_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), temperature=1.0)
        >>> print(round(float(loss), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("temperature", temperature)
    loss, scale = normalized_softmax_loss, 1 / jnp.asarray(temperature)
    return compute_proxy_loss(loss, _softmax_terms, embeddings, labels, proxies, options, scale=scale)


def cosface_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    margin: ArrayLike = 0.35,
    scale: ArrayLike = 64.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute the cross entropy of cosines with proxies, with a margin subtracted from the cosine of the own class.

    Args:
        margin: Difference of cosines, at least 0.
        scale: Factor of the cosines, above 0.

    Example:
        >>> loss = cosface_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), margin=0.5, scale=1.0)
        >>> print(round(float(loss), 4))  # log(1 + exp(0 - 0.5))
        0.4741
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    parameters = {"margin": margin, "scale": scale}
    return compute_proxy_loss(cosface_loss, cosface_terms, embeddings, labels, proxies, options, **parameters)


def arcface_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    margin: ArrayLike = 28.6,
    scale: ArrayLike = 64.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute the cross entropy of cosines with proxies, with a margin added to the angle to the correct proxy.

    If the sum of angle and margin exceeds 180 degrees, its cosine would increase again. There f(cos theta) is
    cos(theta) - margin sin(margin), which continues to decrease.

    Args:
        margin: Difference of angles in degrees, at least 0.
        scale: Factor of the cosines, above 0.

    Example:
        >>> loss = arcface_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), margin=60.0, scale=1.0)
        >>> print(round(float(loss), 4))  # log(1 + exp(0 - cos(60)))
        0.4742
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    parameters = {"margin": jnp.deg2rad(margin), "scale": scale}
    return compute_proxy_loss(arcface_loss, arcface_terms, embeddings, labels, proxies, options, **parameters)


def sphereface_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    margin: int = 4,
    scale: ArrayLike = 1.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute the cross entropy of |x| cos(theta), with the angle to the own class multiplied by an integer.

    The gradient of a zero vector is 0.

    Args:
        margin: Factor of the angle, at least 1.
        scale: Factor of the logits, above 0.

    Example:
        >>> x = jnp.array([[1.0, 1.0]])
        >>> loss = sphereface_loss(x, jnp.array([0]), proxies=7 * jnp.eye(2), margin=2)
        >>> print(round(float(loss), 4))  # log(1 + exp(1 - 0))
        1.3133
    """
    return _compute_multiplied_angle_loss(sphereface_loss, embeddings, labels, proxies, options, margin, scale)


def large_margin_softmax_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    margin: int = 4,
    scale: ArrayLike = 1.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute the cross entropy of dot products, with the angle to the own class multiplied by an integer.

    This is `sphereface_loss` with logits that are proportional to the lengths of proxies, too.

    Args:
        margin: Factor of the angle, at least 1, with which the loss is a softmax without biases.
        scale: Factor of the logits, above 0.

    Example:
        >>> loss = large_margin_softmax_loss(jnp.array([[1.0, 1.0]]), jnp.array([0]), proxies=jnp.eye(2), margin=2)
        >>> print(round(float(loss), 4))
        1.3133
    """
    loss = large_margin_softmax_loss
    return _compute_multiplied_angle_loss(loss, embeddings, labels, proxies, options, margin, scale)


def p2s_grad_loss(
    embeddings: Embeddings, labels: ClassIds, *, proxies: Proxies, **options: Unpack[ClassOptions]
) -> Scalar:
    """Compute the squared difference of each cosine from 1 for the own class and from 0 for other classes.

    By default the result is the mean over all pairs of a row and a class.

    Args:
        **options: See `ClassOptions`.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> print(p2s_grad_loss(x, jnp.array([0, 1]), proxies=jnp.eye(2)))  # (0 + 0 + 1 + 1) / 4
        0.5

    Differs from pytorch-metric-learning, which scales proxies to unit length in place before each step. Here they have
    any length, and the gradient of a proxy is orthogonal to it, so it lacks the part that such scaling would undo.
    """
    return compute_proxy_loss(p2s_grad_loss, _p2s_grad_terms, embeddings, labels, proxies, options)


def as_proxies(labels: ArrayLike, proxies: ArrayLike) -> tuple[Array, Array, Array]:
    """Return proxies as an array [c, ...], the class id of each row [n], and the ids 0 to c - 1 of the proxies.

    Negative ids, and traced ids that are not below c, become `NO_CLASS`.
    """
    w = as_float_array("proxies", proxies)
    given = as_integer_array("labels", labels)
    c = w.shape[0]
    if not isinstance(given, Tracer) and given.size and (largest := int(np.max(np.asarray(given)))) >= c:
        raise InputError(f"labels: expected class ids below {c}, the number of proxies, got {largest}")
    ids = class_ids("labels", given)
    return w, jnp.where((ids >= 0) & (ids < c), ids, NO_CLASS), jnp.arange(c, dtype=jnp.int32)


def compute_proxy_loss(
    loss: Callable[..., Any],
    term_function: TermFunction,
    embeddings: ArrayLike,
    labels: ArrayLike,
    proxies: ArrayLike,
    options: ClassOptions,
    **parameters: Any,
) -> Scalar:
    """Compute a loss from its term function of cosines with proxies [c, d] or [c, k, d], and its unchecked options.

    The columns of a tile are the classes, or with several proxies per class the proxies of the first class, then those
    of the second class, and so on. Parameters are other arguments of `compute_pair_loss`.
    """
    resolved = resolve_options(loss, options, accepted=ClassOptions)
    w, ids, classes = as_proxies(labels, proxies)
    if w.ndim == 3:
        w, classes = w.reshape(-1, w.shape[2]), jnp.repeat(classes, w.shape[1])
    resolved = dataclasses.replace(resolved, ref_embeddings=w, ref_labels=classes)
    return compute_pair_loss(term_function, embeddings, ids, resolved, **parameters)


def _cross_entropy(logits: Array, target: Array, positive: Array) -> Terms:
    """Compute one term per row, with `target` [r, c] or [r, 1] in place of the logit [r, c] of the own class."""
    logits = jnp.where(positive, target, logits)
    own_logit = jnp.sum(jnp.where(positive, logits, 0), axis=1, keepdims=True)
    has_class = jnp.any(positive, axis=1, keepdims=True)
    loss = log_sum_exp(logits, jnp.ones_like(positive)) - own_logit
    return {"row": (jnp.where(has_class, loss, 0), has_class)}


def _softmax_terms(cosines: Array, positive: Array, negative: Array, *, scale: Array) -> Terms:
    return _cross_entropy(scale * cosines, scale * cosines, positive)


def cosface_terms(cosines: Array, positive: Array, negative: Array, *, margin: Array, scale: Array) -> Terms:
    """Compute the terms of CosFace from cosines [r, c]."""
    return _cross_entropy(scale * cosines, scale * (cosines - margin), positive)


def arcface_terms(cosines: Array, positive: Array, negative: Array, *, margin: Array, scale: Array) -> Terms:
    """Compute the terms of ArcFace from cosines [r, c], with the margin in radians."""
    # cos(theta + margin) without the arc cosine, whose slope is infinite at 1.
    sines = jnp.sqrt(jnp.maximum(1 - cosines * cosines, jnp.finfo(cosines.dtype).eps))
    shifted = cosines * jnp.cos(margin) - sines * jnp.sin(margin)
    target = jnp.where(cosines > -jnp.cos(margin), shifted, cosines - margin * jnp.sin(margin))
    return _cross_entropy(scale * cosines, scale * target, positive)


def _p2s_grad_terms(cosines: Array, positive: Array, negative: Array) -> Terms:
    has_class = jnp.any(positive, axis=1, keepdims=True)
    return {"pair": (jnp.square(jnp.where(positive, 1 - cosines, cosines)), (positive | negative) & has_class)}


def _compute_multiplied_angle_loss(
    loss: Callable[..., Any],
    embeddings: ArrayLike,
    labels: ArrayLike,
    proxies: ArrayLike,
    options: ClassOptions,
    margin: int,
    scale: ArrayLike,
) -> Scalar:
    x, w = as_matrices(embeddings, proxies, ("embeddings", "proxies"))
    proxy_lengths = jnp.ones(len(w), jnp.float32) if loss is sphereface_loss else _lengths(w)
    if not isinstance(margin, int | np.integer) or margin < 1:
        raise InputError(f"margin: expected an integer of at least 1, got {margin}")
    check_positive("scale", scale)
    parameters = {
        "static": (int(margin),),
        "row_parameters": {"length": _lengths(x)},
        "column_parameters": {"proxy_lengths": proxy_lengths},
        "scale": scale,
    }
    return compute_proxy_loss(loss, _multiplied_angle_terms, x, labels, w, options, **parameters)


def _lengths(x: Array) -> Array:
    x = promote_to_float32(x)
    return euclidean_distance(x, jnp.zeros_like(x))  # its gradient at 0 is 0


def _multiplied_angle_terms(
    cosines: Array, positive: Array, negative: Array, margin: int, *, length: Array, proxy_lengths: Array, scale: Array
) -> Terms:
    # Far below the largest number, so that neither a logit nor a sum of logits overflows.
    factor = jnp.minimum(length * proxy_lengths[None], jnp.finfo(cosines.dtype).max / 2**24) * scale
    own_cosine = jnp.sum(jnp.where(positive, cosines, 0), axis=1, keepdims=True)
    return _cross_entropy(factor * cosines, factor * _psi(own_cosine, margin), positive)


def _psi(cosine: Array, margin: int) -> Array:
    """Compute psi(theta) from cos(theta), as a polynomial: the slope of the arc cosine is infinite at 1 and -1."""
    previous, multiple = jnp.ones_like(cosine), cosine  # cos(0), cos(theta)
    for _ in range(margin - 1):  # cos((a + 1) theta) = 2 cos(theta) cos(a theta) - cos((a - 1) theta)
        previous, multiple = multiple, 2 * cosine * multiple - previous
    j = sum((cosine <= math.cos(math.pi * i / margin) for i in range(1, margin)), jnp.zeros(cosine.shape, jnp.int32))
    return jnp.where(j % 2 == 1, -multiple, multiple) - 2 * j
