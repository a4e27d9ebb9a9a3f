"""The engine of every attention: checks, then strips of scores that are reduced as soon as they are made."""

from functools import partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jax.tree_util import Partial

from simjax.attention._dropout import drop
from simjax.attention._heads import map_shared, over_heads
from simjax.attention._masks import as_bias, as_masks, at, four_axes
from simjax.core import (
    InputError,
    as_float_array,
    call_on_devices,
    check_at_least,
    check_choice,
    current_precision,
    matrix_product,
    promote_to_float32,
    replace_non_finite_rows,
    replicated,
)
from simjax.similarity import PRECISIONS, Measure
from simjax.similarity._row_reductions import softmax_of_tile


def attend(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    mask: Any,
    *,
    measure: Measure,
    scale: dict[str, Any],
    dropout_rng: Array | None,
    dropout_rate: Any,
    deterministic: bool,
    broadcast_dropout: bool,
    precision: Any,
    return_residual: bool,
    return_weights: bool,
    block_size: int | None,
    **masks: Any,
) -> Any:
    """`attention` whose scores are closeness times `scale`: {"scale": number} or {"temperature": 1 / number}."""
    query, key, value = as_float_array("query", query), as_float_array("key", key), as_float_array("value", value)
    check_shapes(query, key, value)
    check_at_least("block_size", block_size, 1)
    if isinstance(precision, lax.Precision):
        precision = precision.name.lower()
    if precision is not None:
        check_choice("precision", str(precision), PRECISIONS)
    terms = {name: as_float_array(name, number) for name, number in scale.items()}
    if bias is not None:
        terms["bias"] = as_bias(bias)
    out = _attend(
        measure,
        query,
        key,
        value,
        terms,
        as_masks(mask, batch=query.shape[:-3], **masks),
        dropout(dropout_rng, dropout_rate, deterministic),
        broadcast_dropout=broadcast_dropout,
        precision=precision,
        also=("residual",) * return_residual + ("weights",) * return_weights,
        block_size=block_size,
    )
    return out if return_residual or return_weights else out[0]


def check_shapes(query: Array, key: Array, value: Array) -> None:
    """Queries, keys and values must fit each other.

    Raises:
        InputError: with the argument, what was expected and what was got.
    """
    for argument, a in (("query", query), ("key", key), ("value", value)):
        if a.ndim < 3:
            raise InputError(f"{argument}: expected [*batch, length, heads, size], got shape {a.shape}")
    if key.shape[:-3] != query.shape[:-3] or key.shape[-1] != query.shape[-1]:
        raise InputError(f"key: expected batch and size of query {query.shape}, got {key.shape}")
    if not key.shape[-2] or query.shape[-2] % key.shape[-2]:
        raise InputError(f"key: expected heads that divide the {query.shape[-2]} of query, got {key.shape}")
    if value.shape[:-1] != key.shape[:-1]:
        raise InputError(f"value: expected batch, length and heads of key {key.shape}, got {value.shape}")


def dropout(key: Array | None, rate: Any, deterministic: bool) -> tuple[Array, Any] | None:
    """The key and the rate, or None where nothing is dropped."""
    known = not isinstance(rate, Tracer)
    if known and not 0 <= rate < 1:
        raise InputError(f"dropout_rate: expected 0 to less than 1, got {rate}")
    if deterministic or (known and rate == 0):
        return None
    if key is None:
        raise InputError(f"dropout_rng: expected a key to drop weights at rate {rate}, got None")
    return key, rate


@partial(jax.jit, static_argnames=("broadcast_dropout", "precision", "also", "block_size"))
def _attend(measure, query, key, value, terms, masks, dropout, *, also, block_size, **options):
    *batch, t, h, _ = query.shape
    s = key.shape[-3]
    arrays = {n: a for n, a in (terms | masks).items() if not callable(a)}
    arrays = {n: four_axes(n, a, (*batch, h, t, s)) for n, a in arrays.items()}
    functions = {n: f for n, f in (terms | masks).items() if callable(f)}
    query, key, value = (a.reshape(prod(batch), *a.shape[-3:]) for a in (query, key, value))

    def local(whole: Any, query: Array, key: Array, value: Array, *rest: Any) -> Any:
        measure, functions, dropout = whole
        on_head = partial(_on_head, measure, functions, dropout, also=also, block_size=block_size, **options)
        row_bytes = measure.row_bytes(query, jnp.zeros(key.shape[1::2], key.dtype))
        return over_heads(on_head, query, key, value, *rest, block_size=block_size, row_bytes=row_bytes)

    places = jnp.arange(query.shape[0])[:, None], jnp.arange(h)[None]  # [b, 1], [1, h]
    found = _on_mesh(local, (measure, functions, dropout), query, key, value, places, arrays)
    out = found["out"].swapaxes(1, 2)  # [b, t, h, e]
    extras = {"residual": lambda a: a.swapaxes(1, 2), "weights": lambda a: a}
    return tuple(a.reshape(*batch, *a.shape[1:]) for a in (out, *(extras[name](found[name]) for name in also)))


def _on_head(
    measure: Measure,
    functions: dict[str, Partial],
    dropout: Any,
    query: Array,
    key: Array,
    value: Array,
    place: tuple[Array, Array],
    arrays: dict[str, Array],
    *,
    broadcast_dropout: bool,
    precision: str | None,
    also: tuple[str, ...],
    block_size: int | None,
) -> dict[str, Array]:
    """One head: query [t, k], key [s, k], value [s, e], arrays [t, s] whose axes may be 1."""
    batch, head = place
    rows, columns = measure.tile_inputs(query, key)
    j = jnp.arange(key.shape[0])[None]
    values, value_nan = replace_non_finite_rows(promote_to_float32(value))
    if dropout is not None and not broadcast_dropout:
        dropout = (jax.random.fold_in(jax.random.fold_in(dropout[0], batch), head), dropout[1])

    nan_of_columns = columns[2] + value_nan

    def on_rows(rows: Any, i: Array, arrays: dict[str, Array]) -> dict[str, Array]:
        terms = arrays | {name: at(name, f, i, j, head, batch) for name, f in functions.items()}
        scale = terms.pop("scale") if "scale" in terms else 1 / terms.pop("temperature")
        bias = terms.pop("bias", None)
        keep = reduce(jnp.logical_and, terms.values(), True)  # the terms that are left are masks
        s = promote_to_float32(measure.as_score(measure.finite_tile(rows, columns, precision)))  # [r, s]
        s = s * scale.astype(s.dtype)
        s = s if bias is None else s + bias.astype(s.dtype)
        # A NaN in a query, a key or a value is one in their scores, so that a mask removes it.
        s = s + (rows[2][:, None] + nan_of_columns[None])
        weights, residual = softmax_of_tile(s, keep)
        kept = weights if dropout is None else drop(weights, i, *dropout)
        with jax.default_matmul_precision(precision or current_precision()):
            out = matrix_product(kept, values).astype(value.dtype)
        extras = {"residual": residual, "weights": weights.astype(value.dtype)}
        return {"out": out} | {name: extras[name] for name in also}

    i = jnp.arange(query.shape[0])[:, None]
    return map_shared(on_rows, rows, i, arrays, block_size=block_size, row_bytes=measure.row_bytes(query, key))


def _on_mesh(local: Any, whole: Any, query: Array, key: Array, value: Array, places: Any, arrays: Any) -> Any:
    """`local` where the batch and the heads are, if they are sharded over an Explicit mesh."""
    sharding = jax.typeof(query).sharding
    b, h = (*sharding.spec, None, None, None)[0:3:2]
    if not sharding.mesh.are_all_axes_explicit or (b is None and h is None):
        return local(*replicated((whole, query, key, value, places, arrays)))

    def spec(a: Array) -> PartitionSpec:
        """Of [b, h, ...], where an axis of 1 is everyone's."""
        return PartitionSpec(b if a.shape[0] > 1 else None, h if a.shape[1] > 1 else None)

    specs = jax.tree.map(spec, (places, arrays))
    heads = PartitionSpec(b, None, h)
    specs = (PartitionSpec(), heads, heads, heads, *specs)
    return call_on_devices(local, sharding.mesh, specs, PartitionSpec(b, h), whole, query, key, value, places, arrays)
