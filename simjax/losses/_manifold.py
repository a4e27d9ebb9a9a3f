"""Manifold loss: rows and proxies are compared along the manifold they lie on, by a random walk over all of them.

The n rows and c proxies are the nodes of a graph, with weights exp(2 max(0, cos)) between any two; S is its matrix
with degrees divided out, D^(-1/2) W D^(-1/2). A walk that goes on with probability alpha reaches node j from node i by

    F = (1 - alpha) (I - alpha S)^(-1)

Each row has a proxy y, say that of its class. Two similarities of row i and proxy k, both of which should be largest
for k = y: the walk's, f_ik = F_ik, and the context's, the cosine of rows i and k of F. Of each, over the proxies that
come within a margin,

    loss_i = log(1 + sum over k != y with f_ik + margin >= f_iy of exp(f_ik - f_iy + margin))

References:
    Aziere, Todorovic (2019), Ensemble Deep Manifold Similarity Learning using Hard Proxies.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import (
    InputError,
    as_matrices,
    auto_axes,
    check_at_least,
    check_between,
    promote_to_float32,
    vary_over_same_axes,
)
from simjax.losses._checks import class_vectors
from simjax.losses._options import ClassOptions, resolve_options
from simjax.losses._pair_loss import log_sum_exp
from simjax.losses._terms import LossTerms, Reducer
from simjax.similarity import unit_vectors


def manifold_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    alpha: ArrayLike = 0.8,
    margin: ArrayLike = 5e-4,
    context_weight: ArrayLike = 1.0,
    reducer: Any = None,
) -> Any:
    """Manifold similarity: two terms for each row, of the walk and of the context.

    The graph joins everything with everything, so that this loss alone stores its matrix: memory (n + c)^2, time
    (n + c)^3 to solve for the walk.

    Args:
        embeddings: [n, d].
        labels: which proxy each row belongs with [n], from 0 to c - 1; any other id counts nowhere. The paper draws
            them at random: see the example.
        proxies: [c, d], learned.
        alpha: how far the walk goes, between 0 and 1.
        margin: by which the own proxy's similarity should be the largest.
        context_weight: of the context, at least 0.
        reducer: a name or a `Reducer`; None is the mean.

    Returns:
        The mean of the walk's terms plus that of the context's.

    Raises:
        InputError: for shapes that do not fit, more ids than proxies, or a parameter out of its range.

    Differs from pytorch-metric-learning, which draws the ids itself, and gives infinity for an infinite weight of the
    context.

    Example:
        Rows that are equal to their proxies, at a right angle to the other pair, lose nothing. Proxies that are equal
        cannot be told apart: both terms are log(1 + exp(margin)).

        >>> print(manifold_loss(jnp.eye(2), jnp.array([0, 1]), proxies=jnp.eye(2)))
        0.0
        >>> print(round(float(manifold_loss(jnp.eye(2), jnp.array([0, 1]), proxies=jnp.ones((2, 2)), margin=0.1)), 4))
        1.4888

        Six rows that are given one of three proxies at random, each proxy to as many:

        >>> ids = jax.random.permutation(jax.random.key(0), jnp.arange(6) % 3)
    """
    check_at_least("margin", margin, 0)
    check_between("alpha", alpha, 0.0, 1.0)
    check_at_least("context_weight", context_weight, 0)
    vectors, ids, _ = class_vectors(labels, proxies)
    x, vectors = as_matrices(embeddings, vectors, ("embeddings", "proxies"))
    if len(ids) != len(x):
        raise InputError(f"labels: expected one id for each of {len(x)} rows, got {len(ids)}")
    options = resolve_options(manifold_loss, {"reducer": reducer}, accepted=ClassOptions)
    return options.reduce(*_manifold_terms(x, ids, vectors, alpha, margin, context_weight, options.reducer))


@jax.jit
@auto_axes
def _manifold_terms(
    x: Array,
    ids: Array,
    proxies: Array,
    alpha: Array,
    margin: Array,
    context_weight: Array,
    reducer: Reducer,
) -> tuple[LossTerms, LossTerms]:
    n = len(x)
    with jax.default_matmul_precision("highest"):
        walk = _random_walk(
            unit_vectors(jnp.concatenate([promote_to_float32(x), promote_to_float32(proxies)])), alpha
        )  # [n + c, n + c]
        direction = unit_vectors(walk)
        context = direction[:n] @ direction[n:].T
    own = ids[:, None] == jnp.arange(len(proxies), dtype=ids.dtype)[None]  # [n, c]
    found = jnp.any(own, axis=1, keepdims=True)
    losses = _among_proxies(walk[:n, n:], own, margin), context_weight * _among_proxies(context, own, margin)
    by_walk, by_context = (reducer.sum_rows((loss, found), jnp.ones(n, loss.dtype)) for loss in losses)
    return by_walk, by_context


def _random_walk(nodes: Array, alpha: Array) -> Array:
    """How much of a walk from each of k nodes [k, d] of length 1 is at each: (1 - alpha) (I - alpha S)^-1, [k, k]."""
    itself = jnp.eye(len(nodes), dtype=nodes.dtype)
    weight = jnp.where(itself == 1, 0, jnp.exp(2 * jax.nn.relu(nodes @ nodes.T)))
    degree = jnp.sum(weight, axis=1)
    root = jnp.sqrt(jnp.where(degree > 0, degree, 1))  # 0 of a single node
    s = weight / root[:, None] / root[None]
    # Symmetric, and its eigenvalues are 1 - alpha at least: S has none above 1.
    matrix, itself = vary_over_same_axes(
        (itself - alpha * s, itself)
    )  # or JAX cannot differentiate it inside `jax.shard_map`
    return (1 - alpha) * jax.scipy.linalg.solve(matrix, itself, assume_a="pos")


def _among_proxies(f: Array, own: Array, margin: Array) -> Array:
    """Of similarities f [n, c]: how far other proxies come near to the own one or pass it, [n, 1]."""
    ahead = f - jnp.sum(jnp.where(own, f, 0), axis=1, keepdims=True) + margin
    return jax.nn.softplus(log_sum_exp(ahead, ~own & ~(ahead < 0)))
