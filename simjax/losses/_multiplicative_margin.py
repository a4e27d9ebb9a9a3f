"""Classification where the angle to the own class vector counts several times: large-margin softmax and SphereFace.

With theta the angle between an embedding x and its class's vector w, and m a whole number, the cosine of the own class
in a softmax is replaced by one that falls m times as fast and never rises:

    psi(theta) = (-1)^j cos(m theta) - 2 j,    j = floor(m theta / pi)

    large-margin softmax    logits  scale |x| |w_k| cos(theta_k),   of the own class scale |x| |w| psi(theta)
    SphereFace (A-Softmax)  the same with class vectors of length 1

References:
    Liu, Wen, Yu, Yang (2016), Large-Margin Softmax Loss for Convolutional Neural Networks. Liu, Wen, Yu, Li, Raj, Song
    (2017), SphereFace: Deep Hypersphere Embedding for Face Recognition.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import InputError, as_matrices, check_positive, promote_to_float32
from simjax.losses._class_vectors import classified, cross_entropy
from simjax.losses._pair_loss import TermFunction
from simjax.similarity import euclidean_distance


def large_margin_softmax_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    margin: int = 4,
    scale: ArrayLike = 1.0,
    **options: Any,
) -> Any:
    """Large-margin softmax: logits are dot products, that of the own class with its angle times a whole number.

    Args:
        embeddings: [n, d]; their lengths count. At a zero vector the gradient is 0.
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the class vectors [c, d]; their lengths count.
        margin: what the angle is multiplied by, at least 1, which is an ordinary softmax without biases.
        scale: of the logits.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, a margin that is no whole number from 1, or a
            scale that is not positive.

    Example:
        A row at 45 degrees from both class vectors; twice that is a right angle:

        >>> x = jnp.array([[1.0, 1.0]])
        >>> found = large_margin_softmax_loss(x, jnp.array([0]), proxies=jnp.eye(2), margin=2)
        >>> print(round(float(found), 4))  # log(1 + exp(1 - 0))
        1.3133
    """
    x, vectors = _rows_and_vectors(embeddings, proxies, margin, scale)
    return classified(
        _multiplied(int(margin)),
        x,
        labels,
        vectors,
        options,
        row_parameters={"length": _lengths(x)},
        column_parameters={"lengths": _lengths(vectors)},
        scale=scale,
    )


def sphereface_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    margin: int = 4,
    scale: ArrayLike = 1.0,
    **options: Any,
) -> Any:
    """SphereFace: large-margin softmax with class vectors of length 1, so that only their directions count.

    Args:
        embeddings: [n, d]; their lengths count. At a zero vector the gradient is 0.
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the class vectors [c, d], of any length.
        margin: what the angle is multiplied by, a whole number from 1.
        scale: of the logits.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, a margin that is no whole number from 1, or a
            scale that is not positive.

    Example:
        >>> x = jnp.array([[1.0, 1.0]])
        >>> found = sphereface_loss(x, jnp.array([0]), proxies=7 * jnp.eye(2), margin=2)
        >>> print(round(float(found), 4))  # log(1 + exp(1 - 0))
        1.3133
    """
    x, vectors = _rows_and_vectors(embeddings, proxies, margin, scale)
    return classified(
        _multiplied(int(margin)),
        x,
        labels,
        vectors,
        options,
        row_parameters={"length": _lengths(x)},
        column_parameters={"lengths": jnp.ones(len(vectors), jnp.float32)},
        scale=scale,
    )


def _rows_and_vectors(embeddings: Any, proxies: Any, margin: Any, scale: Any) -> tuple[Array, Array]:
    if not isinstance(margin, int | np.integer) or margin < 1:
        raise InputError(f"margin: expected a whole number from 1, got {margin}")
    check_positive("scale", scale)
    return as_matrices(embeddings, proxies, ("embeddings", "proxies"))


def _lengths(x: Array) -> Array:
    return euclidean_distance(promote_to_float32(x), jnp.zeros_like(promote_to_float32(x)))  # whose gradient at 0 is 0


@functools.cache  # the same function for the same margin: a new one would be compiled anew
def _multiplied(margin: int) -> TermFunction:
    def form(c: Array, positive: Array, negative: Array, *, length: Array, lengths: Array, scale: Array) -> Any:
        # Far from the largest number, so that no logit and no sum of them overflows.
        size = jnp.minimum(length * lengths[None], jnp.finfo(c.dtype).max / 2**24) * scale
        own = jnp.sum(jnp.where(positive, c, 0), axis=1, keepdims=True)
        return cross_entropy(size * c, size * _psi(own, margin), positive)

    return form


def _psi(c: Array, margin: int) -> Array:
    """psi(theta) of c = cos(theta), as a polynomial of c: the arc cosine has no slope at 1 and -1, where psi has."""
    before, multiple = jnp.ones_like(c), c  # cos(0), cos(theta)
    for _ in range(margin - 1):  # cos((a + 1) theta) = 2 cos(theta) cos(a theta) - cos((a - 1) theta)
        before, multiple = multiple, 2 * c * multiple - before
    turns = sum((c <= math.cos(math.pi * j / margin) for j in range(1, margin)), jnp.zeros(c.shape, jnp.int32))
    return jnp.where(turns % 2 == 1, -multiple, multiple) - 2 * turns
