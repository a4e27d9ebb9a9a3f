"""Relations: which pairs of rows and columns of a similarity matrix are positive or negative.

A positive pair should be close, a negative pair should be far apart; a pair may also be neither. A relation computes
the masks of one tile at a time, which is a block of rows of the matrix with some or all columns, so no n x m array
exists unless the user gave one. Relations are made by

    by_class(labels)            one class id per row; pairs of ignored ids are neither positive nor negative
    by_shared_label(sets)       several labels per row, as 0s and 1s [n, c]; positive if two rows share a label
    by_function(f, a, b)        any comparison of attributes of two rows
    by_matrix(positive)         boolean matrices
    by_grade(grades)            a matrix of similarity grades
    by_position(n)              positive only for row i with column i: two augmented views, questions and answers

These functions raise InputError for shapes that do not match and TypeError for labels that are not integers. Losses and
miners call `by_class` themselves. Without reference embeddings, they leave out the pairs of a row with itself. Labels
are arrays of the relation, a pytree, so a jitted function is not compiled again for a batch of the same shape. A miner
selects pairs or triplets of a relation and returns another relation (`simjax.mining`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np  # noqa: F401 (in doctests)
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Bool, Integer, Num, Shaped

from simjax.core import (
    NO_CLASS,
    InputError,
    as_exact_array,
    as_matrices,
    as_number_array,
    auto_axes,
    comparable_ids,
    save_for_backward,
    take_rows,
)
from simjax.pairs._triplets import NegativesOf, all_negatives, count_triplets
from simjax.similarity import Mask, exclude_self
from simjax.similarity._masks import as_pytree_function

Masks = tuple[Array, Array]
"""Masks of the positive and of the negative pairs."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relation:
    """Which pairs of rows and columns are positive, and which are negative.

    Attributes:
        pair_masks: Function of row indices i [r, 1] and column indices j [1, m] that returns the masks of the positive
            and of the negative pairs, boolean [r, m]. A pytree, for example a `Partial`.
        shape: (n, m), the numbers of rows and columns.
        classes: Class ids of the rows [n] and of the columns [m], for losses that weight by class; `NO_CLASS` for an
            ignored id. Default: the relation has no classes.
        triplets: Function of i, j and both masks that returns another function, `negatives_of`: from the columns [r, k]
            of k positives of each row to the mask [r, k or 1, m] of the negatives that form a triplet with each.
            Default: every positive forms a triplet with every negative of its row.
        indices: Columns of all positives [n, k] and of all negatives [n, l] of each row, int32, padded with -1. A loss
            then computes n (k + l) pairs instead of n m. Default: a loss computes all n m pairs.
        needs_all_columns: Whether `pair_masks` must be given all columns in order, because a miner compares the scores
            of a whole row.
    """

    pair_masks: Callable[[Array, Array], Masks]
    shape: tuple[int, int] = dataclasses.field(metadata={"static": True})
    classes: tuple[Array, Array] | None = None
    triplets: Callable[[Array, Array, Array, Array], NegativesOf] | None = None
    indices: tuple[Array, Array] | None = None
    needs_all_columns: bool = dataclasses.field(default=False, metadata={"static": True})

    @auto_axes
    def masks(self, i: Array, j: Array) -> Masks:
        """Return the masks of positive and negative pairs, boolean [r, m], for rows i [r, 1] and columns j [1, m].

        If the relation has triplets, a pair must be part of a triplet.
        """
        if self.triplets is None:
            return self.pair_masks(i, j)
        as_positive, as_negative = count_triplets(*self.triplets_of(i, j))
        return save_for_backward((as_positive > 0, as_negative > 0))

    def triplets_of(self, i: Array, j: Array) -> tuple[Array, NegativesOf]:
        """Return the mask of positive pairs [r, m] and the `negatives_of` of the attribute `triplets`."""
        positive, negative = self.pair_masks(i, j)
        if self.triplets is None:
            return positive, all_negatives(negative)
        return positive, self.triplets(i, j, positive, negative)

    def without_itself(self) -> "Relation":
        """Return the relation without the pairs of a row with itself, for rows and columns that are the same set."""
        indices = self.indices
        if indices is not None:
            own = jnp.arange(self.shape[0], dtype=jnp.int32)[:, None]
            indices = jnp.where(indices[0] == own, -1, indices[0]), jnp.where(indices[1] == own, -1, indices[1])
        masks = Partial(_restrict, self.pair_masks, Partial(exclude_self))
        return dataclasses.replace(self, pair_masks=masks, indices=indices)

    def where(self, keep: Mask) -> "Relation":
        """Return the relation with the pairs that a mask includes."""
        masks = Partial(_restrict, Partial(Relation.masks, self), as_pytree_function(keep))
        return Relation(masks, self.shape, self.classes, needs_all_columns=self.needs_all_columns)

    def take_rows(self, indices: Array) -> "Relation":
        """Return the relation of the rows at given indices [n] with all columns, without `indices`."""
        classes = None if self.classes is None else (take_rows(self.classes[0], indices), self.classes[1])
        masks = Partial(_masks_of_rows, self, indices)
        return Relation(masks, self.shape, classes, needs_all_columns=self.needs_all_columns)

    def transposed(self) -> "Relation":
        """Return the relation of columns with rows; InputError for a mined relation, because miners need whole rows."""
        if self.needs_all_columns or self.triplets is not None:
            raise InputError(
                "labels: expected class ids or an unmined relation, because this loss also compares columns with rows; "
                "got a relation that a miner returned"
            )
        (n, m), classes = self.shape, self.classes and (self.classes[1], self.classes[0])
        return Relation(Partial(_transpose, Partial(Relation.masks, self)), (m, n), classes)


def _masks_of_rows(relation: Relation, indices: Array, i: Array, j: Array) -> Masks:
    return relation.masks(indices[i], j)


Labels = Shaped[ArrayLike, " n"] | Relation
"""Class ids [n], integers of any width, or a `Relation` of n rows."""

RefLabels = Integer[ArrayLike, " m"] | None


def by_class(
    labels: Integer[ArrayLike, " n"], ref_labels: Integer[ArrayLike, " m"] | None = None, *, ignore: Sequence[int] = ()
) -> Relation:
    """Return a relation whose pairs are positive if their classes are equal, and negative otherwise.

    Args:
        labels: Class ids of the rows [n], integers of any width. Without `jax_enable_x64`, JAX truncates 64-bit
            arguments of a jitted function; replace them before the call, all ids together, by
            `np.unique(all_ids, return_inverse=True)[1]`.
        ref_labels: Class ids of the columns [m]. Default: those of the rows.
        ignore: Ids whose rows and columns have neither positive nor negative pairs, for example an id for unknown
            classes.

    Example:
        >>> relation = by_class(np.array([4, 7, 4, -1]), ignore=(-1,))
        >>> positive, negative = jax.jit(relation.masks)(*np.ogrid[:4, :4])
        >>> print(np.int32(positive) - np.int32(negative))
        [[ 1 -1  1  0]
         [-1  1 -1  0]
         [ 1 -1  1  0]
         [ 0  0  0  0]]
    """
    given = {"labels": labels, "ref_labels": ref_labels, "ignore": list(ignore) or None}
    ids = comparable_ids({argument: a for argument, a in given.items() if a is not None})
    row_ids, column_ids = ids["labels"], ids.get("ref_labels", ids["labels"])
    masks = Partial(_with_complement, Partial(_same_class, row_ids, column_ids))
    if ignore:
        row_ids, row_is_kept = _mark_ignored(row_ids, ids["ignore"])
        column_ids, column_is_kept = _mark_ignored(column_ids, ids["ignore"])
        masks = Partial(_restrict, masks, Partial(_are_both_kept, row_is_kept, column_is_kept))
    return Relation(masks, (len(row_ids), len(column_ids)), (row_ids, column_ids))


@jax.jit
def _mark_ignored(ids: Array, ignore: Array) -> tuple[Array, Array]:
    """Return the ids with `NO_CLASS` in the place of ignored ones, and the mask of those that are not ignored."""
    is_kept = ~jnp.isin(ids, ignore)
    return jnp.where(is_kept, ids, NO_CLASS), is_kept


def by_shared_label(sets: Shaped[ArrayLike, "n c"], ref_sets: Shaped[ArrayLike, "m c"] | None = None) -> Relation:
    """Return a relation whose pairs are positive if the rows share a label, and negative otherwise.

    Args:
        sets: Labels of the rows, as booleans or 0 and 1, with one column for each of c labels, [n, c].
        ref_sets: The same for the columns, [m, c]. Default: `sets`.

    Example:
        >>> relation = by_shared_label(np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        >>> print(np.int32(jax.jit(relation.masks)(*np.ogrid[:3, :3])[0]))
        [[1 1 0]
         [1 1 1]
         [0 1 1]]
    """
    rows = as_number_array("sets", sets)
    columns = rows if ref_sets is None else as_number_array("ref_sets", ref_sets)
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        raise InputError(f"sets: expected [n, c] and [m, c], got shapes {rows.shape} and {columns.shape}")
    parts = ((a != 0).astype(jnp.float32) for a in (rows, columns))
    return Relation(Partial(_with_complement, Partial(_shares_label, *parts)), (len(rows), len(columns)))


def by_function(function: Callable[[Any, Any], Array], attributes: Any, ref_attributes: Any = None) -> Relation:
    """Return a relation whose pairs are positive if a function of two attributes is true, and negative otherwise.

    Args:
        function: Takes attributes of rows [r, 1, ...] and of columns [1, m, ...], returns booleans [r, m].
        attributes: Attributes of the rows, an array [n, ...] or a pytree of such arrays.
        ref_attributes: The same for the columns, [m, ...]. Default: `attributes`.

    Example:
        Photos taken at most a minute apart:

        >>> relation = by_function(lambda a, b: abs(a - b) <= 60, np.array([0.0, 50.0, 100.0]))
        >>> print(np.int32(jax.jit(relation.masks)(*np.ogrid[:3, :3])[0]))
        [[1 1 0]
         [1 1 1]
         [0 1 1]]
    """
    rows, n = _attributes("attributes", attributes)
    columns, m = (rows, n) if ref_attributes is None else _attributes("ref_attributes", ref_attributes)
    compare = Partial(_compare, as_pytree_function(function), rows, columns)
    return Relation(Partial(_with_complement, compare), (n, m))


def by_matrix(positive: Bool[ArrayLike, "n m"], negative: Bool[ArrayLike, "n m"] | None = None) -> Relation:
    """Return a relation of boolean matrices [n, m] of the positive and the negative pairs, by default `~positive`."""
    matrices = [jnp.asarray(a) for a in (positive, negative) if a is not None]
    if any(a.ndim != 2 or a.shape != matrices[0].shape for a in matrices):
        raise InputError(f"positive, negative: expected shape [n, m], got {[list(a.shape) for a in matrices]}")
    if any(a.dtype != bool for a in matrices):
        raise TypeError(f"positive, negative: expected booleans, got {[str(a.dtype) for a in matrices]}; see by_grade")
    n, m = matrices[0].shape
    return Relation(Partial(_entries, matrices[0], ~matrices[0] if negative is None else matrices[1]), (n, m))


def by_grade(grades: Num[ArrayLike, "n m"], *, above: float = 0.5, below: float | None = None) -> Relation:
    """Return a relation whose pairs are positive above one grade of similarity, and negative up to another.

    Args:
        grades: Any numbers, [n, m].
        above: Pairs with a larger grade are positive.
        below: Pairs with at most this grade are negative. Default: `above`, so that every pair is one of the two.
    """
    matrix = as_number_array("grades", grades)
    if matrix.ndim != 2:
        raise InputError(f"grades: expected shape [n, m], got {matrix.shape}")
    low = above if below is None else below
    if low > above:
        raise InputError(f"below: expected at most above = {above:g}, got {below:g}")
    n, m = matrix.shape
    return Relation(Partial(_entries, matrix > above, matrix <= low), (n, m))


def by_position(n: int) -> Relation:
    """Return a relation whose only positives are row i with column i: two augmented views, questions and answers."""
    return Relation(Partial(_with_complement, Partial(_is_diagonal)), (n, n))


def as_relation(labels: Labels, ref_labels: RefLabels, n: int, m: int | None) -> Relation:
    """Return the relation of n rows with m columns that the arguments of a loss or a miner describe.

    Args:
        labels: Class ids [n] or a `Relation`.
        ref_labels: Class ids [m] or None.
        n: Number of rows.
        m: Number of columns. None if the columns are the rows; a row is then not paired with itself.
    """
    if isinstance(labels, Relation):
        if ref_labels is not None:
            raise InputError("ref_labels: expected None, because a relation includes its columns; got class ids")
        relation = labels
    else:
        if (ref_labels is None) != (m is None):
            raise InputError("ref_labels: expected together with ref_embeddings, got one without the other")
        relation = by_class(labels, ref_labels)
    expected = (n, n if m is None else m)
    if relation.shape != expected:
        raise InputError(f"labels: expected a relation of {expected} rows and columns, got {relation.shape}")
    return relation.without_itself() if m is None else relation


def rows_and_relation(
    embeddings: Num[ArrayLike, "n d"],
    labels: Labels,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: RefLabels = None,
    names: tuple[str, str] = ("embeddings", "ref_embeddings"),
) -> tuple[Array, Array, Relation]:
    """Return rows x [n, d], columns y [m, d] and their relation (`as_relation`); errors call the arguments `names`."""
    x, y = as_matrices(embeddings, embeddings if ref_embeddings is None else ref_embeddings, names)
    return x, y, as_relation(labels, ref_labels, x.shape[0], None if ref_embeddings is None else y.shape[0])


def _attributes(argument: str, attributes: Any) -> tuple[Any, int]:
    """Return attributes as JAX arrays, and the number of rows."""
    hint = "; subtract the smallest from all of them, or set jax_enable_x64"
    arrays = jax.tree.map(partial(as_exact_array, argument, hint=hint), attributes)
    lengths = sorted({len(a) for a in jax.tree.leaves(arrays)})
    if len(lengths) != 1:
        raise InputError(f"{argument}: expected arrays of one length, got {lengths}")
    return arrays, lengths[0]


# Functions of row indices i [r, 1] and column indices j [1, m]; a `Partial` supplies the arguments before i. They are
# at module level, because a new function object would be compiled again.


def _with_complement(positive: Mask, i: Array, j: Array) -> Masks:
    mask = positive(i, j)
    return mask, ~mask


def _restrict(masks: Callable[[Array, Array], Masks], keep: Mask, i: Array, j: Array) -> Masks:
    (positive, negative), kept = masks(i, j), keep(i, j)
    return positive & kept, negative & kept


def _transpose(masks: Callable[[Array, Array], Masks], i: Array, j: Array) -> Masks:
    positive, negative = masks(j.T, i.T)
    return positive.T, negative.T


def _same_class(row_ids: Array, column_ids: Array, i: Array, j: Array) -> Array:
    return row_ids[i] == column_ids[j]


def _are_both_kept(row_is_kept: Array, column_is_kept: Array, i: Array, j: Array) -> Array:
    return row_is_kept[i] & column_is_kept[j]


def _shares_label(row_sets: Array, column_sets: Array, i: Array, j: Array) -> Array:
    return jnp.matmul(row_sets[i[:, 0]], column_sets[j[0]].T) > 0.5


def _compare(function: Callable[[Any, Any], Array], rows: Any, columns: Any, i: Array, j: Array) -> Array:
    found = function(jax.tree.map(lambda a: a[i], rows), jax.tree.map(lambda a: a[j], columns))
    return jnp.broadcast_to(found, (i.shape[0], j.shape[1]))


def _entries(positive: Array, negative: Array, i: Array, j: Array) -> Masks:
    return positive[i, j], negative[i, j]


def _is_diagonal(i: Array, j: Array) -> Array:
    return i == j
