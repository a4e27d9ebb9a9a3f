"""Classification by cosine similarity with one learned vector for each class, made harder by a margin.

With c_k the cosine of an embedding and class k's vector, y the embedding's class and s a scale:

    loss = -log( exp(s f(c_y)) / (exp(s f(c_y)) + sum over k != y of exp(s c_k)) )

    normalised softmax    f(c) = c
    CosFace               f(c) = c - margin
    ArcFace               f(cos theta) = cos(theta + margin)

The class vectors are an argument, so that they are learned like any other parameter. Rows are the embeddings and
columns the classes: a loss of pairs in which a row has one positive.

References:
    Wang, Xiang, Cheng, Yuille (2017), NormFace. Wang et al. (2018), CosFace. Deng, Guo, Xue, Zafeiriou (2019), ArcFace.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import check_at_least, check_positive
from simjax.losses._class_vectors import classified, cross_entropy


def normalized_softmax_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    temperature: ArrayLike = 0.05,
    **options: Any,
) -> Any:
    """Softmax over cosine similarities with the class vectors: one term for each row, memory n c in strips.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the class vectors [c, d], of any length.
        temperature: the cosines are divided by it.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, or a temperature that is not positive.

    Example:
        >>> found = normalized_softmax_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), temperature=1.0)
        >>> print(round(float(found), 4))
        0.3133
    """
    check_positive("temperature", temperature)
    return classified(_normalized, embeddings, labels, proxies, options, scale=1 / jnp.asarray(temperature))


def cosface_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    margin: ArrayLike = 0.35,
    scale: ArrayLike = 64.0,
    **options: Any,
) -> Any:
    """CosFace: the cosine of the own class must be larger by a margin.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the class vectors [c, d], of any length.
        margin: of the cosine.
        scale: of the cosines.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, or a scale that is not positive.

    Example:
        >>> found = cosface_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), margin=0.5, scale=1.0)
        >>> print(round(float(found), 4))  # log(1 + exp(0 - 0.5))
        0.4741
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    return classified(cosface_form, embeddings, labels, proxies, options, margin=margin, scale=scale)


def arcface_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    margin: ArrayLike = 28.6,
    scale: ArrayLike = 64.0,
    **options: Any,
) -> Any:
    """ArcFace: the angle to the own class must be smaller by a margin.

    Where the angle and the margin add up to more than 180 degrees the cosine would rise again; there f is
    cos(theta) - margin sin(margin), which goes on falling.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the class vectors [c, d], of any length.
        margin: of the angle, in degrees.
        scale: of the cosines.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, or a scale that is not positive.

    Example:
        >>> found = arcface_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), margin=60.0, scale=1.0)
        >>> print(round(float(found), 4))  # log(1 + exp(0 - cos(60)))
        0.4742
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    return classified(arcface_form, embeddings, labels, proxies, options, margin=jnp.deg2rad(margin), scale=scale)


def _normalized(c: Array, positive: Array, negative: Array, *, scale: Array) -> Any:
    return cross_entropy(scale * c, scale * c, positive)


def cosface_form(c: Array, positive: Array, negative: Array, *, margin: Array, scale: Array) -> Any:
    """Cross entropy of scaled cosines [r, c], that of the own class less a margin."""
    return cross_entropy(scale * c, scale * (c - margin), positive)


def arcface_form(c: Array, positive: Array, negative: Array, *, margin: Array, scale: Array) -> Any:
    """Cross entropy of scaled cosines [r, c], that of the own class at an angle larger by a margin."""
    # cos(theta + margin), without the arc cosine, whose slope has no end at 1.
    sine = jnp.sqrt(jnp.maximum(1 - c * c, jnp.finfo(c.dtype).eps))
    turned = c * jnp.cos(margin) - sine * jnp.sin(margin)
    return cross_entropy(
        scale * c, scale * jnp.where(c > -jnp.cos(margin), turned, c - margin * jnp.sin(margin)), positive
    )
