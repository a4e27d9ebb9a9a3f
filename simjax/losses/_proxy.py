"""Losses of embeddings and proxies: each class has a learned vector, which stands for all of its members.

A batch then needs no positive pairs, and there are n c pairs in place of n^2.

References:
    Movshovitz-Attias et al. (2017), No Fuss Distance Metric Learning using Proxies (Proxy-NCA). Kim, Kim, Cho, Kwak
    (2020), Proxy Anchor Loss for Deep Metric Learning.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import NO_CLASS, as_float_array, check_at_least, check_positive
from simjax.losses._checks import class_vectors
from simjax.losses._options import ClassOptions, resolve_options
from simjax.losses._pair_loss import compute_pair_loss, log_sum_exp
from simjax.losses._softmax import nca_loss
from simjax.pairs import by_class


def proxy_nca_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    scale: ArrayLike = 1.0,
    **options: Any,
) -> Any:
    """Proxy-NCA: neighbourhood components of embeddings among proxies; one term for each row.

    The own proxy is part of the sum below, as in most implementations; in the paper's formula it is not.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: [c, d].
        scale: of minus the squared distance.
        **options: measure, normalise, weights, reducer, block_size: see `nca_loss`.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, or a scale that is not positive.

    Example:
        >>> print(round(float(proxy_nca_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2))), 4))  # log(1 + exp(-2))
        0.1269
    """
    vectors, ids, classes = class_vectors(labels, proxies)
    return nca_loss(embeddings, ids, scale=scale, ref_embeddings=vectors, ref_labels=classes, **options)


def proxy_anchor_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    margin: ArrayLike = 0.1,
    alpha: ArrayLike = 32.0,
    reducer: Any = None,
    block_size: int | None = None,
) -> Any:
    """Proxy-Anchor: every proxy is an anchor, and the batch its positives and negatives.

        mean over proxies with positives of log(1 + sum over positives of exp(-alpha (s - margin)))
        + mean over all proxies of          log(1 + sum over negatives of exp(alpha (s + margin)))

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: [c, d].
        margin: of the cosine similarity s.
        alpha: scale of the similarity.
        reducer: a name.
        block_size: proxies computed at once; None chooses.

    Returns:
        The sum of both means.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, or an alpha that is not positive.

    Example:
        >>> found = proxy_anchor_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), alpha=1.0, margin=0.0)
        >>> print(round(float(found), 4))
        1.0064
    """
    check_at_least("margin", margin, 0)
    check_positive("alpha", alpha)
    vectors, ids, classes = class_vectors(labels, proxies)
    options = {"reducer": reducer, "block_size": block_size}
    resolved = dataclasses.replace(
        resolve_options(proxy_anchor_loss, options, accepted=ClassOptions),
        ref_embeddings=as_float_array("embeddings", embeddings),
    )
    relation = by_class(classes, ids, ignore=(NO_CLASS,))
    return compute_pair_loss(_anchors, vectors, relation, resolved, margin=margin, alpha=alpha)


def _anchors(c: Array, positive: Array, negative: Array, *, margin: Array, alpha: Array) -> Any:
    near = jax.nn.softplus(log_sum_exp(-alpha * (c - margin), positive))
    far = jax.nn.softplus(log_sum_exp(alpha * (c + margin), negative))
    found = jnp.any(positive, axis=1, keepdims=True)
    return {"positive": (near, found), "negative": (far, jnp.ones_like(found))}
