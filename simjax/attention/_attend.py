"""The computation of all attention functions, in tiles, so that the scores of all queries are never stored.

The axes are b batch elements, t queries, s keys and values, h heads of the query, g heads of the keys, u = h / g
heads of the query that share one head of the keys, k features of queries and keys, e features of values. Arguments and
results of `_attend_heads` are [b, t, h, ...]; inside it arrays are [b, g, u, t, ...].

A tile is a block of the scores [b, g, u, t, s] that fits a memory budget: many batch elements of short sequences, or r
of the t queries of one head. The weights of a tile are multiplied with the values before the next tile is computed. The
residual of a query is the logsumexp of its scores over the valid keys.
"""

from collections.abc import Callable
from functools import partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jax.tree_util import Partial

from simjax.attention._masks import as_masks, broadcast_axes, evaluate
from simjax.core import (
    InputError,
    as_float_array,
    call_on_devices,
    check_at_least,
    check_choice,
    current_precision,
    map_rows,
    matrix_product,
    promote_to_float32,
    replace_non_finite_rows,
    replicated,
    rows_per_block,
)
from simjax.similarity import PRECISIONS, Measure
from simjax.similarity._masks import as_pytree_function
from simjax.similarity._row_reductions import softmax_of_tile


def attend(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    mask: Any,
    *,
    measure: Measure,
    scaling: dict[str, Any],
    dropout_rng: Array | None = None,
    dropout_rate: float | Array = 0.0,
    broadcast_dropout: bool = True,
    deterministic: bool = False,
    precision: str | lax.Precision | None = None,
    return_residual: bool = False,
    return_weights: bool = False,
    block_size: int | None = None,
    **masks: Any,
) -> Any:
    """Check arguments and compute `attention`; `scaling` is {"scale": factor} or {"temperature": divisor}."""
    query, key, value = as_float_array("query", query), as_float_array("key", key), as_float_array("value", value)
    check_shapes(query, key, value)
    check_at_least("block_size", block_size, 1)
    if isinstance(precision, lax.Precision):
        precision = precision.name.lower()
    if precision is not None:
        check_choice("precision", str(precision), PRECISIONS)
    scale_bias_masks: dict[str, Any] = {name: as_float_array(name, value) for name, value in scaling.items()}
    if bias is not None:
        scale_bias_masks["bias"] = as_pytree_function(bias) if callable(bias) else as_float_array("bias", bias)
    scale_bias_masks |= as_masks(mask, query.shape, key.shape, **masks)
    extras = ("residual",) * return_residual + ("weights",) * return_weights
    options = {"broadcast_dropout": broadcast_dropout, "precision": precision, "block_size": block_size}
    rng_and_rate = check_dropout(dropout_rng, dropout_rate, deterministic)
    out = _attend(measure, query, key, value, scale_bias_masks, rng_and_rate, extras=extras, **options)
    return out if return_residual or return_weights else out[0]


def check_shapes(query: Array, key: Array, value: Array) -> None:
    """Raise an InputError if the shapes of queries, keys and values do not match."""
    for argument, a in (("query", query), ("key", key), ("value", value)):
        if a.ndim < 3:
            raise InputError(f"{argument}: expected [*batch, length, heads, size], got shape {a.shape}")
    if key.shape[:-3] != query.shape[:-3] or key.shape[-1] != query.shape[-1]:
        raise InputError(f"key: expected batch and size of query {query.shape}, got {key.shape}")
    if not key.shape[-2] or query.shape[-2] % key.shape[-2]:
        raise InputError(f"key: expected heads that divide the {query.shape[-2]} of query, got {key.shape}")
    if value.shape[:-1] != key.shape[:-1]:
        raise InputError(f"value: expected batch, length and heads of key {key.shape}, got {value.shape}")


def check_dropout(rng: Array | None, rate: float | Array, deterministic: bool) -> tuple[Array, float | Array] | None:
    """Check the PRNG key and the rate of dropout and return them, or None if no weight is dropped."""
    is_known = not isinstance(rate, Tracer)
    if is_known and not 0 <= rate < 1:
        raise InputError(f"dropout_rate: expected 0 to less than 1, got {rate}")
    if deterministic or (is_known and rate == 0):
        return None
    if rng is None:
        raise InputError(f"dropout_rng: expected a PRNG key to drop weights at rate {rate}, got None")
    return rng, rate


@partial(jax.jit, static_argnames=("broadcast_dropout", "precision", "extras", "block_size"))
def _attend(measure, query, key, value, scale_bias_masks, dropout, *, extras, **options):
    """Compute attention of checked arguments: merge the batch axes, and call `_attend_heads` on each device."""
    *batch, t, h, _ = query.shape
    shape = (*batch, h, t, key.shape[-3])
    arrays = {name: broadcast_axes(name, a, shape) for name, a in scale_bias_masks.items() if not callable(a)}
    functions = {name: f for name, f in scale_bias_masks.items() if callable(f)}
    query, key, value = (a.reshape(prod(batch), *a.shape[-3:]) for a in (query, key, value))
    indices = jnp.arange(prod(batch)), jnp.arange(h)
    compute = partial(_attend_heads, extras=extras, **options)
    out = _on_mesh(compute, (measure, functions, dropout), query, key, value, *indices, arrays)
    if "weights" in out:
        out["weights"] = out["weights"].swapaxes(1, 2)  # [b, h, t, s]
    return tuple(out[name].reshape(*batch, *out[name].shape[1:]) for name in ("out", *extras))


def _attend_heads(
    shared: tuple[Measure, dict[str, Partial], tuple[Array, Array] | None],
    query: Array,
    key: Array,
    value: Array,
    batch: Array,
    heads: Array,
    arrays: dict[str, Array],
    *,
    broadcast_dropout: bool,
    precision: str | None,
    extras: tuple[str, ...],
    block_size: int | None,
) -> dict[str, Array]:
    """Attend on one device; returns "out", and "residual" or "weights" if they are in `extras`, [b, t, h, ...] each.

    Args:
        shared: The inputs shared by all batch elements and heads: the measure, the bias and masks that are functions,
            and the PRNG key and the rate of dropout.
        query, key, value: [b, t, h, k], [b, s, g, k] and [b, s, g, e].
        batch: Indices of the batch elements, [b].
        heads: Indices of the heads, [h].
        arrays: The scale, bias and masks that are arrays, [b or 1, h or 1, t or 1, s or 1].
        extras: Names of the results besides "out".
        broadcast_dropout, precision, block_size: See `AttentionOptions`.
    """
    measure, functions, dropout = shared
    (b, t, h, k), (s, g, e) = query.shape, value.shape[1:]
    u = h // g
    row_bytes = measure.row_bytes(query, jnp.zeros((s, k), key.dtype))

    def entries_per_block(n: int, queries: int) -> int:
        """Return the number of entries per block of an axis with n entries, each of which has `queries` queries."""
        if block_size:
            return max(1, block_size // max(queries, 1))
        return rows_per_block(n, queries * row_bytes, min_rows=1)

    def attend_batch(block: Any) -> Any:
        """Attend for a block of batch elements, in blocks of heads of the keys."""
        return _map_axis(attend_group, 1, g, block, block_size=entries_per_block(g, u * t))

    def attend_group(block: Any) -> Any:
        """Attend for a block of heads of the keys, in blocks of queries."""
        query, key, value, batch, heads, arrays = block
        b, g = query.shape[:2]  # the sizes of the block
        rows, columns = jax.vmap(jax.vmap(tile_inputs))(query, key)
        values, value_nan = replace_non_finite_rows(promote_to_float32(value))

        def attend_rows(block: Any) -> dict[str, Array]:
            """Attend for a block of queries: compute one tile."""
            rows, i, arrays = block
            i, j = i.reshape(i.shape[3], 1), jnp.arange(s)[None]  # indices of the queries and keys
            masks = arrays | {name: evaluate(name, f, i, j, heads[0], batch[:, 0]) for name, f in functions.items()}
            scale = masks.pop("scale") if "scale" in masks else 1 / masks.pop("temperature")
            bias = masks.pop("bias", None)
            valid = reduce(jnp.logical_and, masks.values(), True)
            shape = (b, g, u, len(i), s)
            # The axes b and g are merged, or dropped if both are 1, and u and r are merged: with more axes, XLA on a
            # CPU computes the gradients of a product and of a softmax 1.4 times as slowly.
            leading = (b * g,) if b * g != 1 else ()
            inputs = jax.tree.map(lambda a: a.reshape(*leading, *a.shape[2:]), (rows, columns))
            scores = (jax.vmap(tile) if leading else tile)(*inputs)
            scores = promote_to_float32(measure.as_score(scores)).reshape(shape)
            scores = scores * scale.astype(scores.dtype)
            scores = scores if bias is None else scores + bias.astype(scores.dtype)
            # NaN for a query, a key or a value that holds NaN or infinity, else 0. All scores of such a query or key
            # become NaN; masked scores have no effect.
            (*_, query_nan), (*_, key_nan) = rows, columns
            scores = scores + (query_nan[..., None] + (key_nan + value_nan)[:, :, None, None])
            flat_shape = (*leading, u * len(i), s)
            valid = valid if valid is True else jnp.broadcast_to(valid, shape).reshape(flat_shape)
            weights, residual = softmax_of_tile(scores.reshape(flat_shape), valid)
            final_weights = weights
            if dropout is not None:
                indices = () if broadcast_dropout else (batch[:, 0], heads[0])
                final_weights = drop(weights.reshape(shape), i[:, 0], *dropout, *indices).reshape(flat_shape)
            with jax.default_matmul_precision(precision or current_precision()):
                out = matrix_product(final_weights, values.reshape(*leading, s, e)).astype(value.dtype)
            results = {"out": out, "residual": residual, "weights": weights.astype(value.dtype)}
            shapes = {"out": (*shape[:-1], e), "residual": shape[:-1], "weights": shape}
            return {name: results[name].reshape(shapes[name]) for name in ("out", *extras)}

        i = jnp.arange(t)[None, None, None]
        queries = max(1, block_size // (b * g * u)) if block_size else None
        return _map_axis(attend_rows, 3, t, (rows, i, arrays), block_size=queries, row_bytes=b * g * u * row_bytes)

    def tile_inputs(query: Array, key: Array) -> tuple[Any, Any]:
        """Prepare the queries [u, t, k] and keys [s, k] of one head of the keys: u * t rows and s columns of a tile."""
        rows, columns = measure.tile_inputs(query.reshape(u * t, k), key)
        return jax.tree.map(lambda a: a.reshape(u, t, *a.shape[1:]), rows), columns

    def tile(rows: Any, columns: Any) -> Array:
        """Compute the values of the measure, [u * r, s], for one head of the keys."""
        rows = jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), rows)
        return measure.finite_tile(rows, columns, precision)

    query = query.reshape(b, t, g, u, k).transpose(0, 2, 3, 1, 4)
    key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)  # [b, g, s, ...]
    # [b or 1, g or 1, u or 1, t or 1, s or 1]
    arrays = {n: a.reshape(len(a), *((g, u) if a.shape[1] == h else (1, 1)), *a.shape[2:]) for n, a in arrays.items()}
    block = (query, key, value, batch[:, None], heads.reshape(1, g, u), arrays)
    out = _map_axis(attend_batch, 0, b, block, block_size=entries_per_block(b, h * t))
    return {name: a.reshape(b, h, *a.shape[3:]).swapaxes(1, 2) for name, a in out.items()}


def _map_axis(
    function: Callable[[Any], Any], axis: int, n: int, arrays: Any, *, block_size: int | None, row_bytes: int = 0
) -> Any:
    """Compute `function(arrays)` in blocks of an axis of size n. Arrays with size 1 on the axis are in every block."""
    leaves, tree = jax.tree.flatten(arrays)
    rows = {leaf: jnp.moveaxis(a, axis, 0) for leaf, a in enumerate(leaves) if a.shape[axis] == n}

    def on_block(rows: dict[int, Array]) -> Any:
        block = [jnp.moveaxis(rows[leaf], 0, axis) if leaf in rows else a for leaf, a in enumerate(leaves)]
        return {name: jnp.moveaxis(a, axis, 0) for name, a in function(tree.unflatten(block)).items()}

    out = map_rows(on_block, rows, block_size=block_size, row_bytes=row_bytes)
    return {name: jnp.moveaxis(a, 0, axis) for name, a in out.items()}


def drop(
    weights: Array, i: Array, rng: Array, rate: float | Array, batch: Array | None = None, heads: Array | None = None
) -> Array:
    """Set weights [b, g, u, r, s] to 0 with probability `rate`, and divide the others by 1 - rate.

    The random bits depend on the PRNG key and on the indices of the query i [r], of the batch element [b] and of the
    head [g, u], not on the sizes of blocks. By default all batch elements and heads have the same bits.
    """
    if batch is not None and heads is not None:
        rngs = jax.vmap(partial(jax.random.fold_in, rng))(batch)
        rng = jax.vmap(lambda rng: jax.vmap(jax.vmap(partial(jax.random.fold_in, rng)))(heads))(rngs)  # [b, g, u]

    def random_mask(rng: Array) -> Array:
        rngs = jax.vmap(partial(jax.random.fold_in, rng))(i)
        return jax.vmap(lambda rng: jax.random.bernoulli(rng, 1 - rate, weights.shape[-1:]))(rngs)

    is_kept = random_mask(rng)[None, None, None] if batch is None else jax.vmap(jax.vmap(jax.vmap(random_mask)))(rng)
    return jnp.where(is_kept, weights / (1 - rate), 0.0)


def _on_mesh(
    function: Callable[..., Any],
    shared: Any,
    query: Array,
    key: Array,
    value: Array,
    batch: Array,
    heads: Array,
    arrays: dict[str, Array],
) -> Any:
    """Call a function with the arguments of `_attend_heads` on each device, with its batch elements and heads.

    This needs a mesh with `AxisType.Explicit` axes over which the batch or the heads of the query are sharded.
    Otherwise arguments that are sharded over such a mesh are replicated, and every device computes everything.
    """
    arguments = (shared, query, key, value, batch, heads, arrays)
    sharding = jax.typeof(query).sharding
    # The mesh axes of [b, t, h, ...]; a specification may be shorter than the shape.
    batch_axis, _, head_axis = (*sharding.spec, None, None, None)[:3]
    if not sharding.mesh.are_all_axes_explicit or (batch_axis is None and head_axis is None):
        return function(*replicated(arguments))
    by_batch_and_head = PartitionSpec(batch_axis, None, head_axis)
    array_specs = {  # an array of size 1 on an axis is not sharded over it
        name: PartitionSpec(batch_axis if a.shape[0] > 1 else None, head_axis if a.shape[1] > 1 else None)
        for name, a in arrays.items()
    }
    inputs = (by_batch_and_head,) * 3  # query, key and value
    specs = (PartitionSpec(), *inputs, PartitionSpec(batch_axis), PartitionSpec(head_axis), array_specs)
    return call_on_devices(function, sharding.mesh, specs, by_batch_and_head, *arguments)
