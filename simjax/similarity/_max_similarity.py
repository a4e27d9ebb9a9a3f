"""Late interaction between sets of vectors: MaxSim, the similarity of ColBERT.

    maxsim(x, y) = sum over the tokens i of x of max_j measure(x_i, y_j)

Each token of a query is compared with the closest token of a document: with a distance, the smallest one is taken.
Documents of different lengths are padded to a common length, and masks mark the valid tokens. MaxSim is not symmetric.
Among equally close tokens, the first receives the whole gradient. A query or a document without valid tokens has MaxSim
0 with zero gradient, also with a distance, so exclude it from a ranking.

References:
    Khattab, Zaharia (2020), ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np  # noqa: F401 (in doctests)
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Num

from simjax.core import InputError, as_float_array, auto_axes, check_choice, map_rows, promote_to_float32
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure

REDUCTIONS = ("sum", "mean")


def maxsim_similarity(
    x: Num[ArrayLike, "*#b t d"],
    y: Num[ArrayLike, "*#b s d"],
    *,
    x_mask: Bool[ArrayLike, "*#b t"] | None = None,
    y_mask: Bool[ArrayLike, "*#b s"] | None = None,
    measure: str | Measure = "dot",
    reduce: str = "sum",
) -> Num[Array, "*b"]:
    """Compute MaxSim of pairs of sets of token vectors, [*b].

    Args:
        x: Tokens of queries, [*b, t, d].
        y: Tokens of documents, [*b, s, d].
        x_mask, y_mask: Booleans [*b, t] and [*b, s], True for valid tokens. Default: all are valid.
        measure: Measure of two tokens, a name or a `Measure`.
        reduce: "sum" over the tokens of x, or "mean" over its valid tokens.

    Example:
        The best matches of two words among three are 0.75 and 0.5:

        >>> query, document = np.eye(2), np.array([[0.75, 0.0], [0.0, 0.25], [0.5, 0.5]])
        >>> print(maxsim_similarity(query, document))
        1.25
    """
    x, y, x_mask, y_mask = _check(x, y, x_mask, y_mask, reduce)
    try:
        jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise InputError(f"y: expected as many sets as in x, got shapes {x.shape} and {y.shape}") from None
    return _paired(x, y, x_mask, y_mask, as_measure(measure), reduce=reduce)


def maxsim_matrix(
    x: Num[ArrayLike, "n t d"],
    y: Num[ArrayLike, "m s d"],
    *,
    x_mask: Bool[ArrayLike, "n t"] | None = None,
    y_mask: Bool[ArrayLike, "m s"] | None = None,
    measure: str | Measure = "dot",
    reduce: str = "sum",
    block_size: int | None = None,
) -> Num[Array, "n m"]:
    """Compute MaxSim of every query and every document in blocks, [n, m], without an array [n, m, t, s].

    Args:
        x: Tokens of n queries, [n, t, d].
        y: Tokens of m documents, [m, s, d].
        x_mask, y_mask: Booleans [n, t] and [m, s], True for valid tokens. Default: all are valid.
        measure, reduce: See `maxsim_similarity`.
        block_size: Queries per block. Default: chosen from a memory budget.

    Example:
        >>> queries, documents = np.eye(2)[:, None], np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.5, 0.0]]])
        >>> print(maxsim_matrix(queries, documents))
        [[1. 1.]
         [1. 0.]]
    """
    x, y, x_mask, y_mask = _check(x, y, x_mask, y_mask, reduce)
    for name, a in (("x", x), ("y", y)):
        if a.ndim != 3:
            raise InputError(f"{name}: expected sets of tokens [n, t, d], got shape {a.shape}")
    return _all_pairs(x, y, x_mask, y_mask, as_measure(measure), reduce=reduce, block_size=block_size)


def _check(
    x: ArrayLike, y: ArrayLike, x_mask: ArrayLike | None, y_mask: ArrayLike | None, reduce: str
) -> tuple[Array, Array, Array, Array]:
    """Return x and y as floating-point arrays, and their masks."""
    check_choice("reduce", reduce, REDUCTIONS)
    (x, x_mask), (y, y_mask) = _tokens("x", x, x_mask), _tokens("y", y, y_mask)
    if x.shape[-1] != y.shape[-1]:
        raise InputError(f"y: expected tokens of {x.shape[-1]} features as in x, got shape {y.shape}")
    return x, y, x_mask, y_mask


def _tokens(name: str, x: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array]:
    """Return tokens with 0 in the place of invalid ones, so that the values of padding are ignored, and their mask."""
    x = as_float_array(name, x)
    if x.ndim < 2:
        raise InputError(f"{name}: expected sets of tokens [..., t, d], got shape {x.shape}")
    mask = jnp.ones(x.shape[:-1], bool) if mask is None else jnp.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"{name}_mask: expected booleans, True for valid tokens, got {mask.dtype}")
    if mask.shape != x.shape[:-1]:
        raise InputError(f"{name}_mask: expected one boolean a token, {x.shape[:-1]}, got shape {mask.shape}")
    return jnp.where(mask[..., None], x, 0), mask


@partial(jax.jit, static_argnames="reduce")
@auto_axes
def _paired(x: Array, y: Array, x_mask: Array, y_mask: Array, measure: Measure, *, reduce: str) -> Array:
    def maxsim(x: Array, y: Array, x_mask: Array, y_mask: Array) -> Array:
        closest = _closest(measure.all_pairs(x, y)[:, None], y_mask[None], measure)  # [t, 1]
        return _reduce(closest[None], x_mask[None], reduce)[0, 0]

    values = jnp.vectorize(maxsim, signature="(t,d),(s,d),(t),(s)->()")(
        promote_to_float32(x), promote_to_float32(y), x_mask, y_mask
    )
    return values.astype(jnp.result_type(x, y))


@partial(jax.jit, static_argnames=("reduce", "block_size"))
@auto_axes
def _all_pairs(
    x: Array, y: Array, x_mask: Array, y_mask: Array, measure: Measure, *, reduce: str, block_size: int | None
) -> Array:
    (n, t, d), s = x.shape, y.shape[1]
    dtype = jnp.result_type(x, y)
    x, y = promote_to_float32(x), promote_to_float32(y)

    def compare_documents(y: Array, y_mask: Array) -> Array:
        """Compute MaxSim [b, n] of b documents [b, s, d]."""
        b = y.shape[0]
        rows, columns = measure.tile_inputs(x.reshape(n * t, d), y.reshape(b * s, d))

        def compare_queries(rows: Any, x_mask: Array) -> Array:
            """Compute MaxSim [r, b] of r queries."""
            r = x_mask.shape[0]
            tokens = jax.tree.map(lambda a: a.reshape(r * t, *a.shape[2:]), rows)
            values = measure.tile(tokens, columns).reshape(r * t, b, s)
            return _reduce(_closest(values, y_mask, measure).reshape(r, t, b), x_mask, reduce)

        rows = jax.tree.map(lambda a: a.reshape(n, t, *a.shape[1:]), rows)
        return map_rows(compare_queries, rows, x_mask, block_size=block_size, row_bytes=b * pair_bytes).T

    # Documents are split as well, if the token similarities of one query exceed the memory budget.
    pair_bytes = t * measure.row_bytes(x, jnp.zeros((s, d), x.dtype))
    return map_rows(compare_documents, y, y_mask, row_bytes=pair_bytes).T.astype(dtype)


def _closest(s: Array, mask: Array, measure: Measure) -> Array:
    """Return the closest valid value of each token in b sets, from values s [k, b, s] to [k, b]; 0 if none is valid."""
    if s.shape[-1] == 0:
        return jnp.zeros(s.shape[:-1], s.dtype)
    scores = jnp.where(mask[None], measure.as_score(s), -jnp.inf)  # larger is closer
    first = jnp.argmax(scores, axis=-1, keepdims=True)
    return jnp.where(mask.any(-1)[None], jnp.take_along_axis(s, first, axis=-1)[..., 0], 0.0)


def _reduce(closest: Array, mask: Array, reduce: str) -> Array:
    """Reduce values [r, t, b] over the valid tokens, to [r, b]."""
    total = jnp.sum(jnp.where(mask[..., None], closest, 0.0), axis=1)
    return total if reduce == "sum" else total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
