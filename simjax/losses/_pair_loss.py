"""Losses of pairs: every one is a formula of a strip of the similarity matrix, and this is what they share.

A form takes a strip of closeness c [r, m], larger when closer whatever the measure, and which of its entries are
positive and negative pairs. It gives terms, by name: arrays [r, k] and which of them count. k is 1 for a loss with one
term for each row, m for one with a term for each pair.

Relations, reducers, weights, reference embeddings and measures are the same for all forms, and so is the memory: a few
strips, forward and backward, never n x m numbers. Time is that of the matrix product and of the form, n m d.
"""

import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import InputError, as_float_array, auto_axes, map_rows, promote_to_float32, replicated
from simjax.losses._checks import values_of_rows
from simjax.losses._terms import LossTerms, Reducer, Summed, as_reducer
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import all_negatives
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import softmax_of_tile

Form = Callable[..., dict[str, tuple[Array, Array] | Summed]]


def pair_loss(
    form: Form,
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "cosine",
    weights: Shaped[ArrayLike, " n"] | None = None,
    reducer: str | Reducer | None = None,
    default_reducer: str = "mean",
    row_parameters: dict[str, Any] | None = None,
    triplets: bool = False,
    by_column: bool = False,
    by_class: bool = False,
    symmetric: bool = False,
    chunk_size: int = 1,
    block_size: int | None = None,
    **parameters: Any,
) -> Any:
    """A loss made of a form.

    Args:
        form: takes closeness [r, m], positive [r, m], negative [r, m] and the parameters, and gives
            {name: (terms [r, k], which count [r, k])}. A function made anew at each call is compiled anew, too.
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`.
        weights: a factor of each row's terms, [n].
        reducer: a name or a `Reducer`; None is the default.
        default_reducer: which one that is, by name.
        row_parameters: parameters of the form that each row has its own of, arrays or pytrees of [n, ...]; the form
            gets them as [r, 1, ...].
        triplets: the form gets the positive pairs [r, m] and, instead of the negative ones, a function that says of a
            few positive columns of each row [r, few] what their negatives are [r, few, m].
        by_column: the form's parameters are arrays of the columns, so that it needs whole strips even where the
            relation has chosen a few columns of each row.
        by_class: rows of one class stand together in a strip, where the relation has classes: they share positives.
        symmetric: the form gives a pair the same terms from either side, as a distance does and a softmax does not.
        chunk_size: The largest array that the form computes is [r, chunk_size, m].
        block_size: rows computed at once; None chooses.
        **parameters: of the form; arrays may be traced and learned.

    Returns:
        A scalar; for several names the sum of their scalars; for reducer "none" `LossTerms`, those of all names added.

    Raises:
        InputError: for shapes that do not fit, an unknown measure or reducer.
        TypeError: for labels that are no integers.

    Example:
        Positive pairs at a right angle or more are pulled together, and nothing else:

        >>> def form(closeness, positive, negative):
        ...     return {"positive": (jax.nn.relu(-closeness), positive)}
        >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
        >>> print(pair_loss(form, x, jnp.array([0, 0, 1])))
        1.0
    """
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    reducing, as_scalar = as_reducer(reducer, default_reducer)
    row_weights = (
        jnp.ones(x.shape[0], jnp.float32) if weights is None else promote_to_float32(as_float_array("weights", weights))
    )
    if row_weights.shape != x.shape[:1]:
        raise InputError(f"weights: expected one for each of {x.shape[0]} rows, got shape {row_weights.shape}")
    if reducing.class_weights is not None:
        of_classes = as_float_array("class_weights", reducing.class_weights)
        if of_classes.ndim != 1 or not of_classes.size:
            raise InputError(f"class_weights: expected one for each class [c], got shape {of_classes.shape}")
        row_weights = row_weights * values_of_rows(of_classes, labels, "class weights")
    rows = (row_weights, row_parameters or {})
    m = as_measure(measure)
    itself = ref_embeddings is None and not isinstance(labels, Relation)  # a relation may differ from side to side
    alike = weights is None and reducing.class_weights is None and reducing.divide_by != "rows"
    static = form, triplets, by_column, by_class, as_scalar, chunk_size, block_size
    arguments = relation, m, rows, reducing, parameters
    return _pair_loss(static, symmetric and m.symmetric and itself and alike and as_scalar, arguments, x, y)


@partial(jax.jit, static_argnums=(0, 1))
def _pair_loss(static: tuple[Any, ...], symmetric: bool, arguments: tuple[Any, ...], x: Array, y: Array) -> Any:
    return _with_itself(static, arguments, x) if symmetric else _loss(static, arguments, x, y)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_itself(static: tuple[Any, ...], arguments: tuple[Any, ...], x: Array) -> Array:
    """The loss of x compared with itself, where rows and columns may be exchanged.

    Its two derivatives are equal, that of x as rows and that of x as columns; the first one is computed, and doubled.
    """
    return _loss(static, arguments, x, x)


@_with_itself.defjvp
def _(static: tuple[Any, ...], primals: Any, tangents: Any) -> tuple[Array, Array]:
    (arguments, x), (d_arguments, dx) = primals, tangents
    return jax.jvp(lambda a, rows: _loss(static, a, rows, x), (arguments, x), (d_arguments, 2 * dx))


def _loss(static: tuple[Any, ...], arguments: tuple[Any, ...], x: Array, y: Array) -> Any:
    form, triplets, by_column, by_class, as_scalar, chunk_size, block_size = static
    if by_class:  # a permutation of rows
        arguments, x, y = replicated((arguments, x, y))
    relation, measure, rows, reducer, parameters = arguments
    terms = Partial(partial(_terms, form, triplets), measure, reducer, parameters)
    if relation.indices is None or by_column:
        of_strip = Partial(partial(_of_strip, triplets), terms, relation)
        i = jnp.arange(len(x), dtype=jnp.int32)
        if by_class and relation.classes is not None:
            i = jnp.argsort(relation.classes[0]).astype(jnp.int32)
            x, rows = jax.tree.map(lambda a: a[i], (x, rows))
        found = reduce_rows(
            of_strip, x, y, measure=measure, rows=(i, *rows), chunk_size=chunk_size, block_size=block_size
        )
        if by_class:
            found = jax.tree.map(lambda a: jnp.zeros_like(a).at[i].set(a), found)
    else:
        found = _of_chosen_pairs(triplets, terms, measure, relation.indices, x, y, rows, block_size)
    parts = [reducer.scalar(part) for part in found.values()] if as_scalar else list(found.values())
    return reduce(operator.add, parts)


def _of_strip(
    triplets: bool, terms: Callable[..., Any], relation: Relation, s: Array, _: Array, j: Array, i: Array, *rows: Any
) -> dict[str, LossTerms]:
    i = i[:, None]  # the rows' own numbers, wherever they stand
    pairs = relation.triplets_of(i, j) if triplets else relation.masks(i, j)
    return terms(s, relation.pair_masks(i, j), pairs, *rows)


@auto_axes
def _of_chosen_pairs(
    triplets: bool,
    terms: Callable[..., Any],
    measure: Measure,
    chosen: tuple[Array, Array],
    x: Array,
    y: Array,
    rows: Any,
    block_size: int | None,
) -> dict[str, LossTerms]:
    columns = jnp.concatenate(chosen, axis=1)
    of_chosen = partial(_of_chosen, triplets, chosen[0].shape[1], terms, measure, y)
    row_bytes = columns.shape[1] * x.shape[1] * promote_to_float32(x).dtype.itemsize
    return map_rows(of_chosen, x, columns, *rows, block_size=block_size, row_bytes=row_bytes)


def _of_chosen(
    triplets: bool,
    positives: int,
    terms: Callable[..., Any],
    measure: Measure,
    y: Array,
    x: Array,
    columns: Array,
    *rows: Any,
) -> dict[str, LossTerms]:
    """The same of a narrow strip: each row with the columns that are chosen for it, the positives first."""
    s = measure(promote_to_float32(x)[:, None], promote_to_float32(y)[jnp.maximum(columns, 0)])
    first = jnp.arange(columns.shape[1])[None] < positives
    positive, negative = (columns >= 0) & first, (columns >= 0) & ~first
    pairs = (positive, all_negatives(negative)) if triplets else (positive, negative)
    return terms(s, (positive, negative), pairs, *rows)


def _terms(
    form: Form,
    triplets: bool,
    measure: Measure,
    reducer: Reducer,
    parameters: dict[str, Any],
    s: Array,
    masks: tuple[Array, Array],
    pairs: tuple[Array, Any],
    weights: Array,
    of_rows: dict[str, Any],
) -> dict[str, LossTerms]:
    own = jax.tree.map(lambda value: value[:, None], of_rows)
    c = promote_to_float32(measure.as_score(s))
    # A comparison with NaN is False, so that a term that compares would drop it, and in a masked entry of a gradient 0
    # times NaN is NaN. So forms see a number instead, and a row that uses a NaN gets NaN for its sum.
    missing = jnp.isnan(c)
    found = form(jnp.where(missing, 0, c), *pairs, **parameters, **own)
    used = missing & (masks[0] | masks[1])
    any_positive, any_negative, any_nan = (jnp.any(m, axis=1) for m in (*masks, used))

    def summed(part: Any) -> LossTerms:
        if isinstance(part, Summed):
            has_terms = any_positive & any_negative if triplets else part.count > 0
        elif part[0].shape == c.shape:  # a term for each pair, which may rest on all other pairs of its row
            return reducer.of_rows((jnp.where(used, jnp.nan, part[0]), part[1] | used), weights)
        else:
            has_terms = jnp.any(part[1], axis=1)
        terms = reducer.of_rows(part, weights)
        nan = jnp.where(any_nan & has_terms, jnp.nan, 0).astype(terms.total.dtype)
        return LossTerms(terms.total + nan, terms.count)

    return {name: summed(part) for name, part in found.items()}


def log_sum_exp(z: Array, keep: Array) -> Array:
    """log sum exp of the kept entries of each row, [r, m] to [r, 1]; the lowest number where none is kept.

    That is not minus infinity, which would turn a difference of two such rows into a NaN.
    """
    return jnp.maximum(softmax_of_tile(z, keep)[1], jnp.finfo(z.dtype).min / 4)[:, None]


def squared(z: Array) -> Array:
    """z^2; infinite with zero gradient where it does not fit the type."""
    too_large = jnp.abs(z) >= jnp.sqrt(jnp.finfo(z.dtype).max) / 2
    return jnp.where(too_large, jnp.inf, jnp.where(too_large, 0, z) ** 2)
