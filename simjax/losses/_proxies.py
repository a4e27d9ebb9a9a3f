"""Losses that compare embeddings x_i with proxies w_k, one vector for each class or for each sample of a graph.

    Proxy-NCA       -log( exp(-scale |x_i - w_y|^2) / sum over k of exp(-scale |x_i - w_k|^2) )
    Proxy-Anchor    mean over proxies with positives of log(1 + sum over positives of exp(-alpha (cos - margin)))
                    + mean over all proxies of          log(1 + sum over negatives of exp(alpha (cos + margin)))
    instance        log( sum over k of exp(gamma cos(x_i, w_k)) ) - gamma cos(x_i, w_y)
    manifold        log(1 + sum over k != y with f_ik + margin >= f_iy of exp(f_ik - f_iy + margin))

Proxies are learned, except in the instance loss, where the proxy of a class is the embedding of its first row in the
batch. A batch needs no positive pairs, and there are n c pairs instead of n^2.

The manifold loss compares rows and proxies along the manifold on which they lie. The n rows and c proxies are the nodes
of a graph with weights W = exp(2 max(0, cos)) between any two nodes; S = D^(-1/2) W D^(-1/2), where D are the row sums
of W. A random walk that continues with probability alpha reaches node j from node i with probability proportional to

    F = (1 - alpha) (I - alpha S)^(-1)

The loss has two terms for each row, with two similarities f_ik: F_ik, and the cosine of rows i and k of F ("context").

In Proxy-Anchor, the rows of the similarity matrix are the proxies. `_proxy_anchor_terms` takes a tile, a block of r
rows, and returns by name one term for each row and the mask of the valid terms, [r, 1] each.

References:
    Movshovitz-Attias et al. (2017), No Fuss Distance Metric Learning using Proxies (Proxy-NCA). Kim, Kim, Cho, Kwak
    (2020), Proxy Anchor Loss for Deep Metric Learning. Zheng, Zheng, Garrett, Yang, Xu, Shen (2020), Dual-Path
    Convolutional Image-Text Embeddings with Instance Loss. Aziere, Todorovic (2019), Ensemble Deep Manifold Similarity
    Learning using Hard Proxies.
"""

import dataclasses
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import (
    NO_CLASS,
    InputError,
    as_float_array,
    as_matrices,
    auto_axes,
    check_at_least,
    check_between,
    check_positive,
    promote_to_float32,
    vary_over_same_axes,
)
from simjax.losses._options import ClassOptions, Labels, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, log_sum_exp
from simjax.losses._softmax import earlier_positives, nca_loss, nt_xent_loss
from simjax.losses._softmax_margin import as_proxies
from simjax.losses._terms import ClassIds, Embeddings, LossTerms, Proxies, Reducer, Scalar
from simjax.pairs import Relation, by_class
from simjax.similarity import Measure, unit_vectors


class ManifoldOptions(TypedDict, total=False):
    """Options of `manifold_loss`: `weights` and `reducer` of `ClassOptions`."""

    weights: Num[ArrayLike, " n"] | None
    reducer: str | Reducer | None


def proxy_nca_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    scale: ArrayLike = 1.0,
    normalize: bool = True,
    measure: str | Measure = "squared_euclidean",
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute neighborhood components analysis of embeddings with proxies as neighbors.

    The sum in the denominator includes the proxy of the row's class, as in most implementations but not in the paper.

    Args:
        scale: Factor of the scores, the negated squared distances by default, above 0.
        normalize: Compare unit vectors.

    Example:
        >>> print(round(float(proxy_nca_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2))), 4))  # log(1 + exp(-2))
        0.1269
    """
    resolve_options(proxy_nca_loss, options, accepted=ClassOptions, measure=measure)
    w, ids, classes = as_proxies(labels, proxies)
    parameters = {"ref_embeddings": w, "ref_labels": classes, "scale": scale, "normalize": normalize}
    return nca_loss(embeddings, ids, **parameters, measure=measure, **options)


def proxy_anchor_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    margin: ArrayLike = 0.1,
    alpha: ArrayLike = 32.0,
    **options: Unpack[ClassOptions],
) -> Scalar:
    """Compute a loss with proxies as anchors and the rows of the batch as their positives and negatives.

    By default the result is the sum of two means: over the proxies with positives, and over all proxies.

    Args:
        margin: Difference of cosines, at least 0.
        alpha: Factor of the cosines, above 0.
        **options: See `ClassOptions`, with proxies as rows: `weights` has the shape [c].

    Example:
        >>> loss = proxy_anchor_loss(jnp.eye(2), jnp.arange(2), proxies=jnp.eye(2), alpha=1.0, margin=0.0)
        >>> print(round(float(loss), 4))  # log(1 + exp(-1)) + log(1 + exp(0))
        1.0064
    """
    check_at_least("margin", margin, 0)
    check_positive("alpha", alpha)
    resolved = resolve_options(proxy_anchor_loss, options, accepted=ClassOptions)
    w, ids, classes = as_proxies(labels, proxies)
    resolved = dataclasses.replace(resolved, ref_embeddings=as_float_array("embeddings", embeddings))
    relation = by_class(classes, ids, ignore=(NO_CLASS,))
    return compute_pair_loss(_proxy_anchor_terms, w, relation, resolved, margin=margin, alpha=alpha)


def instance_loss(
    embeddings: Embeddings, labels: Labels | None = None, *, gamma: ArrayLike = 64.0, **options: Unpack[ClassOptions]
) -> Scalar:
    """Compute the cross entropy of cosines with the first row of each class in the batch.

    This is NT-Xent at temperature 1 / gamma of a relation whose columns are the first rows of classes, and in which a
    first row is its own positive. Without labels each row is its own class, and rows are only pushed apart.

    Args:
        labels: Class ids [n] or a `Relation`. If the positive pairs do not form groups, the columns are the rows
            without an earlier positive, and a row has one term for each column that is a positive of the row. A row is
            its own positive if the relation says so. Default: each row is a class.
        gamma: Factor of the cosines, above 0.

    Differs from pytorch-metric-learning, which uses row k of the batch as the proxy of the k-th class, whatever the
    class of row k, and treats all further rows as negatives. Both are equal if each row is its own class and the ids
    are increasing.

    Example:
        >>> print(round(float(instance_loss(jnp.eye(2), gamma=1.0)), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("gamma", gamma)
    resolved = resolve_options(instance_loss, options, accepted=ClassOptions)
    x = as_float_array("embeddings", embeddings)
    labels = jnp.arange(len(x), dtype=jnp.int32) if labels is None else labels
    relation = labels if isinstance(labels, Relation) else by_class(labels)
    to_first_rows = relation.where(Partial(_is_first, earlier_positives(relation, block_size=resolved.block_size)))
    return nt_xent_loss(x, to_first_rows, ref_embeddings=x, temperature=1 / jnp.asarray(gamma), **options)


def manifold_loss(
    embeddings: Embeddings,
    labels: ClassIds,
    *,
    proxies: Proxies,
    alpha: ArrayLike = 0.8,
    margin: ArrayLike = 5e-4,
    context_weight: ArrayLike = 1.0,
    **options: Unpack[ManifoldOptions],
) -> Scalar:
    """Compute a loss of similarities of rows and proxies that follow from a random walk on their graph.

    The graph connects every node with every other node, so the loss stores a matrix: it takes O((n + c)^2) memory and
    O((n + c)^3) time. By default the result is the mean of the terms of the walk plus the weighted mean of the terms of
    the context.

    Args:
        labels: The proxy of each row, [n]. The paper draws the ids at random, for instance each of c proxies equally
            often by `jax.random.permutation(key, jnp.arange(n) % c)`.
        alpha: Probability that the walk continues, in (0, 1).
        margin: Difference of similarities, at least 0.
        context_weight: Weight of the terms of the context, at least 0.
        **options: See `ManifoldOptions`.

    Differs from pytorch-metric-learning, which draws the ids itself, and gives infinity for an infinite weight of the
    context.

    Example:
        >>> print(round(float(manifold_loss(jnp.eye(2), jnp.array([0, 1]), proxies=jnp.ones((2, 2)), margin=0.1)), 4))
        1.4888
    """
    check_at_least("margin", margin, 0)
    check_between("alpha", alpha, 0.0, 1.0)
    check_at_least("context_weight", context_weight, 0)
    resolved = resolve_options(manifold_loss, options, accepted=ManifoldOptions)
    w, ids, _ = as_proxies(labels, proxies)
    x, w = as_matrices(embeddings, w, ("embeddings", "proxies"))
    weights = jnp.ones(len(x), jnp.float32) if resolved.weights is None else resolved.weights
    for name, value in (("labels", ids), ("weights", weights)):
        if value.shape != x.shape[:1]:
            raise InputError(f"{name}: expected one for each of {len(x)} rows, got shape {value.shape}")
    by_walk, by_context = _manifold_terms(x, ids, w, jnp.asarray(alpha), jnp.asarray(margin), weights, resolved.reducer)
    return resolved.reduce(by_walk, by_context * context_weight)


def _proxy_anchor_terms(cosines: Array, positive: Array, negative: Array, *, margin: Array, alpha: Array) -> Terms:
    positive_terms = jax.nn.softplus(log_sum_exp(-alpha * (cosines - margin), positive))
    negative_terms = jax.nn.softplus(log_sum_exp(alpha * (cosines + margin), negative))
    has_positive = jnp.any(positive, axis=1, keepdims=True)
    return {"positive": (positive_terms, has_positive), "negative": (negative_terms, jnp.ones_like(has_positive))}


def _is_first(n_earlier: Array, i: Array, j: Array) -> Array:
    return n_earlier[j] == 0


@jax.jit
@auto_axes
def _manifold_terms(
    x: Array, ids: Array, proxies: Array, alpha: Array, margin: Array, weights: Array, reducer: Reducer
) -> tuple[LossTerms, LossTerms]:
    n = len(x)
    with jax.default_matmul_precision("highest"):
        nodes = unit_vectors(jnp.concatenate([promote_to_float32(x), promote_to_float32(proxies)]))
        walk = _random_walk(nodes, alpha)  # [n + c, n + c]
        directions = unit_vectors(walk)
        context = directions[:n] @ directions[n:].T
    is_own = ids[:, None] == jnp.arange(len(proxies), dtype=ids.dtype)[None]  # [n, c]
    has_proxy = jnp.any(is_own, axis=1, keepdims=True)

    def terms(f: Array) -> LossTerms:
        violation = f - jnp.sum(jnp.where(is_own, f, 0), axis=1, keepdims=True) + margin
        loss = jax.nn.softplus(log_sum_exp(violation, ~is_own & ~(violation < 0)))
        return reducer.sum_rows((loss, has_proxy), weights)

    return terms(walk[:n, n:]), terms(context)


def _random_walk(nodes: Array, alpha: Array) -> Array:
    """Compute F, [k, k], of the unit vectors [k, d] of the nodes."""
    identity = jnp.eye(len(nodes), dtype=nodes.dtype)
    weight = jnp.where(identity == 1, 0, jnp.exp(2 * jax.nn.relu(nodes @ nodes.T)))
    degree = jnp.sum(weight, axis=1)
    root = jnp.sqrt(jnp.where(degree > 0, degree, 1))  # a single node has the degree 0
    s = weight / root[:, None] / root[None]
    # JAX cannot differentiate `solve` inside `jax.shard_map` if its arguments vary over different axes.
    matrix, identity = vary_over_same_axes((identity - alpha * s, identity))
    # The matrix is symmetric, and its eigenvalues are at least 1 - alpha, because those of S are at most 1.
    return (1 - alpha) * jax.scipy.linalg.solve(matrix, identity, assume_a="pos")
