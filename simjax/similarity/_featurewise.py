"""Measures that reduce one term per feature by a sum or a maximum, such as |x_k - y_k| of the Manhattan distance.

These measures cannot be computed by a matrix product. One definition of the term gives a function for pairs,
which reduces the last axis, and a function for a tile, which is a block of rows of the similarity matrix with all
columns. The latter adds the terms of some features at a time to an accumulator [r, m], so that no array of rows x
columns x features exists, forward or backward. On a CPU this is also the fastest way (`python -m benchmarks.choices`).
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from simjax.core import as_carry

CHUNK = 16
"""Features whose terms are added in one step over the accumulator."""

Terms = Callable[..., tuple[Array, ...]]
"""terms(x, y, **parameters) -> a tuple of arrays, elementwise. x and y are arrays or equal pytrees of arrays."""


def reduce_features(terms: Terms, x: Any, y: Any, combine: str = "sum", **parameters: Any) -> tuple[Array, ...]:
    """Reduce the terms of pairs x, y [..., d] over the features, to a tuple of arrays [...].

    The parameters are scalars or [...]. `combine` is "sum", or "max" of terms that are never negative, whose gradient
    goes to the first of equal terms.
    """

    def reduce(term: Array) -> Array:
        if combine == "sum" or term.shape[-1] == 0:
            return jnp.sum(term, axis=-1)
        first = jnp.argmax(term, axis=-1, keepdims=True)
        return jnp.take_along_axis(term, first, axis=-1)[..., 0]

    values = terms(x, y, **{name: jnp.asarray(p)[..., None] for name, p in parameters.items()})
    return tuple(reduce(term) for term in values)


def reduce_features_of_tile(terms: Terms, x: Any, y: Any, combine: str = "sum", **parameters: Any) -> tuple[Array, ...]:
    """Reduce the terms of all rows x [r, d] and y [m, d] over the features, to a tuple of arrays [r, m].

    The parameters are scalars or [r, m]. A leaf of y may be [1, d], shared by all columns. See `reduce_features`.
    """
    r = jax.tree.leaves(x)[0].shape[0]
    m, d = max(a.shape[0] for a in jax.tree.leaves(y)), jax.tree.leaves(y)[0].shape[1]

    def add(total: Array, term: Array) -> Array:
        term = jnp.broadcast_to(term, total.shape).astype(total.dtype)
        # `jnp.maximum` would share the gradient between equal terms.
        return total + term if combine == "sum" else jnp.where(term > total, term, total)

    def add_terms(totals: tuple[Array, ...], features: Any) -> tuple[tuple[Array, ...], None]:
        for k in range(jax.tree.leaves(features)[0].shape[0]):
            totals = tuple(map(add, totals, terms(*jax.tree.map(itemgetter(k), features), **parameters)))
        return totals, None

    # [d, r, 1] and [d, 1, m]
    by_feature = jax.tree.map(lambda v: v.T[:, :, None], x), jax.tree.map(lambda v: v.T[:, None], y)
    one = jax.tree.map(lambda v: jax.ShapeDtypeStruct((1, 1), v.dtype), (x, y))
    shapes = jax.eval_shape(lambda s: terms(*s, **parameters), one)
    dtype = jnp.result_type(jnp.float32, *(v.dtype for v in jax.tree.leaves((x, y))))
    totals = tuple(jnp.zeros((r, m), dtype) for _ in shapes)
    whole = d // CHUNK * CHUNK
    if whole:
        chunks = jax.tree.map(lambda v: v[:whole].reshape(whole // CHUNK, CHUNK, *v.shape[1:]), by_feature)
        totals = as_carry(lambda t: add_terms(t, jax.tree.map(itemgetter(0), chunks))[0], totals)
        totals, _ = lax.scan(jax.checkpoint(add_terms, prevent_cse=False), totals, chunks)
    if whole < d:
        totals, _ = add_terms(totals, jax.tree.map(lambda v: v[whole:], by_feature))
    return totals
