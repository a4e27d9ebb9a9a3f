"""Which keys a query may look at, and biases of its scores: arrays, or functions of position.

A function of (i, j), the numbers of some queries [r, 1] and of all keys [1, s], is asked for one strip [r, s] at a
time, so that nothing of queries x keys is stored. It may take the number of the head and of the batch too.
"""

import inspect
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from simjax.core import InputError, as_exact_array, as_float_array, as_number_array, check_at_least, promote_to_float32
from simjax.similarity import causal
from simjax.similarity._masks import as_pytree_function


def window(left: Any, right: Any, i: Array, j: Array) -> Array:
    """Position i looks at positions i - left to i + right."""
    return (i - left <= j) & (j <= i + right)


def queries_within(lengths: Array, i: Array, j: Array, head: Array, batch: Array) -> Array:
    """Queries before the length of theirs look at anything."""
    return i < lengths[batch]


def keys_within(lengths: Array, i: Array, j: Array, head: Array, batch: Array) -> Array:
    """Keys before the length of theirs are looked at."""
    return j < lengths[batch]


def as_bias(bias: Any) -> Any:
    """A bias as an array of floating point, or as a function."""
    return as_pytree_function(bias) if callable(bias) else as_float_array("bias", bias)


def as_masks(
    mask: Any,
    *,
    is_causal: bool = False,
    local_window_size: int | tuple[int, int] | None = None,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    batch: tuple[int, ...] = (),
) -> dict[str, Any]:
    """What a query looks at must be kept by all of these, boolean arrays or functions by the names of arguments."""
    masks: dict[str, Any] = {}
    if mask is not None:
        masks["mask"] = as_pytree_function(mask) if callable(mask) else _booleans(mask)
    if is_causal:
        masks["is_causal"] = Partial(causal)
    if local_window_size is not None:
        both = (local_window_size,) * 2 if isinstance(local_window_size, int) else tuple(local_window_size)
        if len(both) != 2 or min(both) < 0:
            raise InputError(f"local_window_size: expected (left, right), at least 0, got {local_window_size}")
        masks["local_window_size"] = Partial(window, *both)
    if query_seq_lengths is not None:
        masks["query_seq_lengths"] = Partial(queries_within, _lengths("query_seq_lengths", query_seq_lengths, batch))
    if key_value_seq_lengths is not None:
        lengths = _lengths("key_value_seq_lengths", key_value_seq_lengths, batch)
        masks["key_value_seq_lengths"] = Partial(keys_within, lengths)
    return masks


def _booleans(mask: Any) -> Array:
    found = as_number_array("mask", mask)
    if found.dtype != bool:
        as_float_array("mask", mask)
        check_at_least("mask", mask, 0)  # one that is added to scores, 0 and -inf, is a bias
    return found != 0


def _lengths(argument: str, lengths: Any, batch: tuple[int, ...]) -> Array:
    lengths = as_exact_array(argument, lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"{argument}: expected integers, got {lengths.dtype}")
    if lengths.size != prod(batch):
        raise InputError(f"{argument}: expected {prod(batch)} of them, one for each of the batch, got {lengths.shape}")
    return lengths.reshape(-1)


def four_axes(argument: str, a: Array, shape: tuple[int, ...]) -> Array:
    """An array that broadcasts to [*batch, h, t, s] with the batch as one axis; each axis is whole or 1.

    Raises:
        InputError: if it does not broadcast.
    """
    own = (1,) * (len(shape) - a.ndim) + a.shape
    if len(own) != len(shape) or any(n not in (1, whole) for n, whole in zip(own, shape, strict=True)):
        raise InputError(f"{argument}: expected a shape that broadcasts to {shape}, got {a.shape}")
    if prod(own[:-3]) != 1:
        own = (*shape[:-3], *own[-3:])
    return jnp.broadcast_to(a, own).reshape(prod(own[:-3]), *own[-3:])


def at(argument: str, function: Partial, i: Array, j: Array, head: Array, batch: Array) -> Array:
    """What a function gives for the queries i [r, 1] and the keys j [1, s]: an array that broadcasts to [r, s].

    Raises:
        InputError: for another shape.
        TypeError: for a mask that is not boolean.
    """
    found = jnp.asarray(function(*(i, j, head, batch)[: _positions(function)]))
    strip = (i.shape[0], j.shape[1])
    shape = (1,) * (2 - found.ndim) + found.shape
    if len(shape) != 2 or any(n not in (1, whole) for n, whole in zip(shape, strip, strict=True)):
        raise InputError(f"{argument}: expected a function of (i, j) that gives {strip}, got shape {found.shape}")
    if argument == "bias":
        return promote_to_float32(as_float_array(argument, found)).reshape(shape)
    if found.dtype != bool:
        raise TypeError(f"{argument}: expected a function that gives booleans, got {found.dtype}")
    return found.reshape(shape)


def _positions(function: Partial) -> int:
    """How many of (i, j, head, batch) a function takes, 2 at least; an argument with a default is its own."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return min(max(2, sum(p.kind in kinds and p.default is p.empty for p in parameters)), 4)
