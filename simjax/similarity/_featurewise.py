"""Measures that reduce one term per feature by a sum or a maximum, such as |x_k - y_k| of the Manhattan distance.

They have no form as a matrix product. One definition of the term gives both forms: the pair form reduces the last axis;
the form for a tile, which is a block of rows of the similarity matrix with all columns, adds the terms of some features
at a time to an accumulator [r, m], so that no array of rows x columns x features exists, forward or backward. On a CPU
this is also the fastest form (`benchmarks/choices.py`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from simjax.core import as_carry

CHUNK = 16
"""Features whose terms are added in one step over the accumulator."""

Terms = Callable[..., tuple[Array, ...]]
"""terms(x, y, **parameters) -> a tuple of arrays, elementwise. x and y are arrays or equal pytrees of arrays."""


def first_maximum(a: Array, b: Array) -> Array:
    """Return the elementwise maximum, which passes the whole gradient to a if a and b are equal."""
    return jnp.where(b > a, b, a)


COMBINE = {"sum": jnp.add, "max": first_maximum}


def reduce_features(terms: Terms, x: Any, y: Any, combine: str = "sum", **parameters: Any) -> tuple[Array, ...]:
    """Reduce the terms of pairs over the features, to a tuple of arrays [...].

    Args:
        terms: See `Terms`.
        x: [..., d], or a pytree of such arrays.
        y: [..., d], or a pytree of such arrays.
        combine: "sum", or "max" of terms that are never negative, whose gradient goes to the first of equal terms.
        **parameters: Parameters of the terms, scalars or [...].
    """

    def reduce(term: Array) -> Array:
        if combine == "sum" or term.shape[-1] == 0:
            return jnp.sum(term, axis=-1)
        first = jnp.argmax(term, axis=-1, keepdims=True)
        return jnp.take_along_axis(term, first, axis=-1)[..., 0]

    values = terms(x, y, **{name: jnp.asarray(p)[..., None] for name, p in parameters.items()})
    return tuple(reduce(term) for term in values)


def reduce_features_of_tile(terms: Terms, x: Any, y: Any, combine: str = "sum", **parameters: Any) -> tuple[Array, ...]:
    """Reduce the terms of all rows of x and y over the features, to a tuple of arrays [r, m].

    Args:
        terms: See `Terms`.
        x: [r, d], or a pytree of such arrays.
        y: [m, d], or a pytree of such arrays; a leaf may be [1, d], shared by all columns.
        combine: "sum", or "max" of terms that are never negative.
        **parameters: Parameters of the terms, scalars or [r, m].
    """
    r = jax.tree.leaves(x)[0].shape[0]
    m, d = max(a.shape[0] for a in jax.tree.leaves(y)), jax.tree.leaves(y)[0].shape[1]
    add = COMBINE[combine]

    def add_terms(totals: tuple[Array, ...], features: Any) -> tuple[tuple[Array, ...], None]:
        a, b = features  # [c, r], [c, m]
        for k in range(jax.tree.leaves(b)[0].shape[0]):
            values = terms(_feature(a, k, axis=1), _feature(b, k, axis=0), **parameters)  # of [r, 1] and [1, m]
            totals = tuple(
                add(t, jnp.broadcast_to(f, t.shape).astype(t.dtype)) for t, f in zip(totals, values, strict=True)
            )
        return totals, None

    by_feature = jax.tree.map(jnp.transpose, (x, y))  # [d, r], [d, m]
    one = jax.tree.map(lambda v: jax.ShapeDtypeStruct((1, 1), v.dtype), (x, y))
    shapes = jax.eval_shape(lambda s: terms(*s, **parameters), one)
    dtype = jnp.result_type(jnp.float32, *(v.dtype for v in jax.tree.leaves((x, y))))
    totals = tuple(jnp.zeros((r, m), dtype) for _ in shapes)
    whole = d // CHUNK * CHUNK
    if whole:
        chunks = jax.tree.map(lambda v: v[:whole].reshape(whole // CHUNK, CHUNK, v.shape[1]), by_feature)
        totals = as_carry(lambda t: add_terms(t, jax.tree.map(lambda v: v[0], chunks))[0], totals)
        totals, _ = lax.scan(jax.checkpoint(add_terms, prevent_cse=False), totals, chunks)
    if whole < d:
        totals, _ = add_terms(totals, jax.tree.map(lambda v: v[whole:], by_feature))
    return totals


def _feature(by_feature: Any, k: int, axis: int) -> Any:
    """Return feature k of all rows, with a new axis."""
    return jax.tree.map(lambda v: jnp.expand_dims(v[k], axis), by_feature)
