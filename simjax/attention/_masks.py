"""Masks and biases of attention scores: arrays, or functions of the indices of queries and keys.

The scores are [*batch, h, t, s], for h heads, t queries and s keys. Arrays broadcast to this shape. A function takes
the indices i [r, 1] of a block of r queries and j [1, s] of all keys, and optionally the index of the head and that of
the batch element. It is called for one block of queries at a time, so that no [t, s] array is stored.
"""

import inspect
from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from simjax.core import InputError, as_exact_array, as_float_array, as_number_array, check_at_least, promote_to_float32
from simjax.similarity import causal
from simjax.similarity._masks import as_pytree_function


def as_masks(
    mask: ArrayLike | Callable[..., Any] | None,
    query_shape: tuple[int, ...],
    key_shape: tuple[int, ...],
    *,
    is_causal: bool = False,
    local_window_size: int | tuple[int, int] | None = None,
    query_seq_lengths: ArrayLike | None = None,
    key_value_seq_lengths: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return masks by argument name, boolean arrays and functions: a query attends to a key if all masks are True.

    Args:
        query_shape: [*batch, t, h, k], for queries of k features.
        key_shape: [*batch, s, g, k], for g heads of the keys.
        mask, is_causal and the others: See `attention` and `AttentionOptions`.
    """
    masks: dict[str, Any] = {}  # pytrees, because a jitted function takes them as arguments
    if mask is not None:
        masks["mask"] = as_pytree_function(mask) if callable(mask) else _as_boolean_array(mask)
    if is_causal:
        masks["is_causal"] = Partial(causal)
    if local_window_size is not None:
        sizes = (local_window_size,) * 2 if isinstance(local_window_size, int) else tuple(local_window_size)
        if len(sizes) != 2 or min(sizes) < 0:
            raise InputError(f"local_window_size: expected (left, right), at least 0, got {local_window_size}")
        masks["local_window_size"] = Partial(_in_window, *sizes)
    batch, t, s = query_shape[:-3], query_shape[-3], key_shape[-3]
    if query_seq_lengths is not None:
        lengths = _lengths("query_seq_lengths", query_seq_lengths, batch)
        masks["query_seq_lengths"] = jnp.arange(t)[:, None] < lengths
    if key_value_seq_lengths is not None:
        lengths = _lengths("key_value_seq_lengths", key_value_seq_lengths, batch)
        masks["key_value_seq_lengths"] = jnp.arange(s) < lengths
    return masks


def _in_window(left: Array, right: Array, i: Array, j: Array) -> Array:
    """Return whether key j is at most `left` keys before and `right` keys after query i, booleans [r, s]."""
    return (i - left <= j) & (j <= i + right)


def _as_boolean_array(mask: ArrayLike) -> Array:
    """Return whether the entries of a mask are not 0. Negative and complex numbers raise an error."""
    array = as_number_array("mask", mask)
    if array.dtype != bool:
        as_float_array("mask", mask)  # raises a TypeError for complex numbers
        check_at_least("mask", mask, 0)  # -inf for excluded keys would select them; it must be passed as a bias
    return array != 0


def _lengths(argument: str, lengths: ArrayLike, batch: tuple[int, ...]) -> Array:
    """Return integer lengths [*batch] as an array [*batch, 1, 1, 1]; other types and shapes raise an error."""
    array = as_exact_array(argument, lengths)  # an error for integers that JAX would truncate
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{argument}: expected integers, got {array.dtype}")
    if array.size != prod(batch):
        raise InputError(f"{argument}: expected {prod(batch)} lengths, one per batch element, got {array.shape}")
    return array.reshape(*batch, 1, 1, 1)


def broadcast_axes(argument: str, a: Array, shape: tuple[int, ...]) -> Array:
    """Reshape an array that broadcasts to `shape` [*batch, h, t, s] to [b or 1, h or 1, t or 1, s or 1]."""
    own_shape = (1,) * (len(shape) - a.ndim) + a.shape
    if len(own_shape) != len(shape) or any(n not in (1, size) for n, size in zip(own_shape, shape, strict=True)):
        raise InputError(f"{argument}: expected a shape that broadcasts to {shape}, got {a.shape}")
    if prod(own_shape[:-3]) != 1:
        own_shape = (*shape[:-3], *own_shape[-3:])
    return jnp.broadcast_to(a, own_shape).reshape(prod(own_shape[:-3]), *own_shape[-3:])


def evaluate(argument: str, function: Partial, i: Array, j: Array, heads: Array, batch: Array) -> Array:
    """Return the values of a bias or mask function for a block of queries, [b or 1, g or 1, u or 1, r or 1, s or 1].

    The indices are i [r, 1] of the queries, j [1, s] of the keys, [g, u] of the heads (u heads of the queries share one
    of g heads of the keys), and [b] of the batch elements. The function takes (i, j), and optionally head and batch.
    """
    block_shape = (i.shape[0], j.shape[1])

    def values(*head_and_batch: Array) -> Array:
        a = jnp.asarray(function(i, j, *head_and_batch))
        shape = (1,) * (2 - a.ndim) + a.shape
        if len(shape) != 2 or any(n not in (1, size) for n, size in zip(shape, block_shape, strict=True)):
            raise InputError(f"{argument}: expected a function of (i, j) that gives {block_shape}, got shape {a.shape}")
        if argument == "bias":
            a = promote_to_float32(as_float_array(argument, a))
        elif a.dtype != bool:
            raise TypeError(f"{argument}: expected a function that gives booleans, got {a.dtype}")
        return a.reshape(shape)

    # The number of parameters without a default says which of (i, j, head, batch) the function takes.
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    n = sum(p.kind in kinds and p.default is p.empty for p in parameters)
    if n <= 2:
        return values()[None, None, None]
    if n == 3:
        return jax.vmap(jax.vmap(values))(heads)[None]
    return jax.vmap(lambda element: jax.vmap(jax.vmap(lambda head: values(head, element)))(heads))(batch)
