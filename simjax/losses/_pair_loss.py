"""Computation of pair losses from term functions.

A pair loss is a formula on a tile, a block of rows of the similarity matrix with all columns: a term function takes the
scores [r, m] of the tile (larger for closer pairs: a distance is negated) and two masks, for the positive and for the
negative pairs, and returns terms. `pair_loss` maps the term function over tiles, so that no n x m array is stored,
forward or backward, and handles relations, weights, reference embeddings, measures, reducers and NaN for all losses.
"""

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from simjax.core import InputError, as_float_array, auto_axes, map_rows, promote_to_float32
from simjax.losses._options import Labels, PairOptions, ResolvedOptions, resolve_options, values_of_rows
from simjax.losses._terms import Embeddings, LossTerms, RowSums, Scalar
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import all_negatives
from simjax.similarity._reduce_rows import reduce_rows_of_arrays
from simjax.similarity._row_reductions import softmax_of_tile

Terms = Mapping[str, tuple[Array, Array] | RowSums]
"""Terms of a tile, a dict from any names to (terms, mask of the valid ones), both [r, m] with a term for each pair or
[r, 1] with a term for each row, or to `RowSums`, the sum of the terms of each row. The terms of each name are reduced
separately, and the results are added.
"""

TermFunction = Callable[..., Terms]
"""term_function(scores, positive, negative, *static, **parameters), with scores and masks [r, m]. Parameters of rows
come as [r, 1, ...], parameters of columns as [m, ...].
"""


def pair_loss(
    term_function: TermFunction,
    embeddings: Embeddings,
    labels: Labels,
    *,
    parameters: Mapping[str, Any] | None = None,
    row_parameters: Mapping[str, Any] | None = None,
    column_parameters: Mapping[str, Any] | None = None,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Compute a loss from its term function.

    Args:
        term_function: See `TermFunction`. Compiled once for each function object: define it at module level.
        parameters: Keyword arguments of the term function; arrays may be traced and learned.
        row_parameters: Parameters with a value for each row, [n, ...]; the term function gets them as [r, 1, ...].
        column_parameters: Parameters with a value for each column, [m, ...]; the term function gets them whole.

    Example:
        Pull positive pairs together that are at a right angle or more:

        >>> def terms(scores, positive, negative):
        ...     return {"positive": (jax.nn.relu(-scores), positive)}
        >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
        >>> print(pair_loss(terms, x, jnp.array([0, 0, 1])))
        1.0
    """
    resolved = resolve_options(pair_loss, options)
    arguments = {"row_parameters": row_parameters, "column_parameters": column_parameters, **(parameters or {})}
    return compute_pair_loss(term_function, embeddings, labels, resolved, **arguments)


def compute_pair_loss(
    term_function: TermFunction, embeddings: Embeddings, labels: Labels, options: ResolvedOptions, **arguments: Any
) -> Scalar:
    """Compute a loss from its term function and resolved options. The arguments are those of `compute_terms`."""
    return options.reduce(*compute_terms(term_function, embeddings, labels, options, **arguments).values())


def compute_terms(
    term_function: TermFunction,
    embeddings: Embeddings,
    labels: Labels,
    options: ResolvedOptions,
    *,
    static: tuple[Hashable, ...] = (),
    row_parameters: Mapping[str, Any] | None = None,
    column_parameters: Mapping[str, Any] | None = None,
    triplets: bool = False,
    chunk_size: int = 1,
    **parameters: Any,
) -> dict[str, LossTerms]:
    """Compute the terms of a loss by name; the arguments are those of `pair_loss`, and

    Args:
        static: Positional arguments of the term function after the masks, constants of the compiled program.
        triplets: The term function gets, in place of the negative mask, a function of the columns of some positives
            of each row [r, k] that returns the mask of their negatives [r, k, m].
        chunk_size: The largest array that the term function computes is [r, chunk_size, m].
        **parameters: Keyword arguments of the term function.
    """
    x, y, relation = rows_and_relation(embeddings, labels, options.ref_embeddings, options.ref_labels)
    weights = jnp.ones(x.shape[0], jnp.float32) if options.weights is None else options.weights
    check_weights(weights, x.shape[0])
    if options.reducer.class_weights is not None:
        class_weights = as_float_array("class_weights", options.reducer.class_weights)
        if class_weights.ndim != 1 or not class_weights.size:
            raise InputError(f"class_weights: expected one for each class [c], got shape {class_weights.shape}")
        weights = weights * values_of_rows(class_weights, labels, "class weights")
    return _pair_terms(
        (term_function, static, triplets, chunk_size, options.block_size),
        (options.measure, options.reducer, relation, {**(column_parameters or {}), **parameters}),
        x,
        y,
        (weights, dict(row_parameters or {})),
        needs_all_columns=bool(column_parameters),
    )


def check_weights(weights: Array, n: int) -> None:
    """Raise an InputError unless there is one weight for each of n rows."""
    if weights.shape != (n,):
        raise InputError(f"weights: expected one for each of {n} rows, got shape {weights.shape}")


@partial(jax.jit, static_argnums=0, static_argnames="needs_all_columns")
def _pair_terms(
    constants: tuple[Any, ...], arguments: tuple[Any, ...], x: Array, y: Array, rows: Any, *, needs_all_columns: bool
) -> dict[str, LossTerms]:
    """Compute terms from hashable `constants` and pytrees `arguments`, both in the order given by `compute_terms`."""
    *_, chunk_size, block_size = constants
    measure, _, relation, _ = arguments
    if relation.indices is not None and not needs_all_columns:
        return _terms_of_indices(constants, arguments, x, y, rows)
    function = Partial(partial(_terms_of_tile, constants), arguments)
    return reduce_rows_of_arrays(function, measure, x, y, rows, chunk_size=chunk_size, block_size=block_size)


def _terms_of_tile(
    constants: tuple[Any, ...],
    arguments: tuple[Any, ...],
    tile: Array,
    i: Array,
    j: Array,
    weights: Array,
    row_parameters: dict[str, Any],
) -> dict[str, LossTerms]:
    """Sum the terms of a tile [r, m] with the row indices i [r, 1] and the column indices j [1, m]."""
    _, _, triplets, *_ = constants
    _, _, relation, _ = arguments
    masks = pairs = positive, negative = relation.pair_masks(i, j)
    if triplets:
        is_mined = relation.triplets is not None
        pairs = positive, relation.triplets(i, j, *masks) if is_mined else all_negatives(negative)
    elif relation.triplets is not None:
        pairs = relation.masks(i, j)
    return _sum_terms(constants, arguments, tile, masks, pairs, weights, row_parameters)


@auto_axes
def _terms_of_indices(
    constants: tuple[Any, ...], arguments: tuple[Any, ...], x: Array, y: Array, rows: Any
) -> dict[str, LossTerms]:
    """Compute the pairs of a relation that lists a few columns for each row, instead of whole rows."""
    _, _, triplets, _, block_size = constants
    measure, _, relation, _ = arguments
    positives, _ = relation.indices
    columns = jnp.concatenate(relation.indices, axis=1)
    is_positive = jnp.arange(columns.shape[1])[None] < positives.shape[1]
    y = promote_to_float32(y)

    def terms(x: Array, columns: Array, weights: Array, row_parameters: dict[str, Any]) -> dict[str, LossTerms]:
        tile = measure(promote_to_float32(x)[:, None], y[jnp.maximum(columns, 0)])
        masks = positive, negative = (columns >= 0) & is_positive, (columns >= 0) & ~is_positive
        pairs = (positive, all_negatives(negative)) if triplets else masks
        return _sum_terms(constants, arguments, tile, masks, pairs, weights, row_parameters)

    row_bytes = columns.shape[1] * x.shape[1] * y.dtype.itemsize
    return map_rows(terms, x, columns, *rows, block_size=block_size, row_bytes=row_bytes)


def _sum_terms(
    constants: tuple[Any, ...],
    arguments: tuple[Any, ...],
    tile: Array,
    masks: tuple[Array, Array],
    pairs: tuple[Array, Any],
    weights: Array,
    row_parameters: dict[str, Any],
) -> dict[str, LossTerms]:
    """Call the term function for a tile, and sum its terms; `pairs` are the masks, or triplets, that it takes."""
    term_function, static, triplets, *_ = constants
    measure, reducer, _, parameters = arguments
    rows = jax.tree.map(lambda value: value[:, None], row_parameters)
    scores = promote_to_float32(measure.as_score(tile))
    # A comparison with NaN is False, so a term function would ignore the pair; and in the gradient of an excluded
    # entry, 0 * NaN is NaN. Term functions therefore get 0 instead, and the total of a row with a NaN in a mask is NaN.
    is_nan = jnp.isnan(scores)
    terms_by_name = term_function(jnp.where(is_nan, 0, scores), *pairs, *static, **parameters, **rows)
    positive, negative = masks
    used_nan = is_nan & (positive | negative)
    any_positive, any_negative, any_nan = (jnp.any(mask, axis=1) for mask in (positive, negative, used_nan))
    sums = {}
    for name, terms in terms_by_name.items():
        if isinstance(terms, RowSums):
            has_terms = any_positive & any_negative if triplets else terms.count > 0
        elif terms[0].shape == scores.shape:  # one term for each pair, which may depend on all pairs of its row
            values, valid = terms
            sums[name] = reducer.sum_rows((jnp.where(used_nan, jnp.nan, values), valid | used_nan), weights)
            continue
        else:
            _, valid = terms
            has_terms = jnp.any(valid, axis=1)
        part = reducer.sum_rows(terms, weights)
        nan = jnp.where(any_nan & has_terms, jnp.nan, 0).astype(part.total.dtype)
        sums[name] = LossTerms(part.total + nan, part.count)
    return sums


def log_sum_exp(z: Array, mask: Array) -> Array:
    """Return the logarithm of the sum of the exponentials of the entries in the mask, [r, m] to [r, 1].

    The result of a row without entries in the mask is the lowest number / 4, not minus infinity: the difference of two
    infinities would be NaN.
    """
    return jnp.maximum(softmax_of_tile(z, mask)[1], jnp.finfo(z.dtype).min / 4)[:, None]


def square(z: Array) -> Array:
    """Return z^2, or infinity with zero gradient if z^2 overflows."""
    too_large = jnp.abs(z) >= jnp.sqrt(jnp.finfo(z.dtype).max) / 2
    return jnp.where(too_large, jnp.inf, jnp.where(too_large, 0, z) ** 2)


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) of every entry of a tile.

    With e = exp(-|x|) and s = e / (2 + e) <= 1/3 it is max(0, x) + 2 artanh(s), whose series needs no logarithm. On a
    CPU, value and gradient take half the time of those of `jax.nn.softplus` (`python -m benchmarks.choices`).
    """
    e = jnp.exp(-jnp.abs(x))
    s = e / (2 + e)
    odd = range(1, 2 * -(-jnp.finfo(x.dtype).nmant // 3), 2)  # each term adds three bits
    series = jnp.polyval(jnp.asarray([1 / k for k in reversed(odd)], x.dtype), s * s, unroll=len(odd))
    return jnp.maximum(x, 0) + 2 * s * series


softplus.defjvps(lambda dx, _, x: dx * jax.nn.sigmoid(x))
