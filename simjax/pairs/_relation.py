"""Relations: who ought to be similar to whom, said once and understood by every loss of pairs and triplets.

A relation says of row i and column j of a similarity matrix that they should be close (a positive pair), that they
should be far apart (a negative one), or nothing. It says so for one strip at a time, so that no n x m array exists
unless the user gave one. Class ids are the usual case and become a relation by themselves; the others are

    by_class(labels)            one id each; ids to ignore belong to no pair
    by_shared_label(sets)       several labels each, as rows of 0 and 1: positive where one is shared
    by_function(f, a, b)        any comparison of two rows' attributes
    by_matrix(positive)         the pairs themselves, boolean
    by_grade(grades)            how similar each pair is, as numbers
    by_position(n)              row i belongs with column i alone: two views, questions and answers

Their labels are data: another batch of the same shape compiles nothing anew. A miner makes a relation of a relation: it
keeps the pairs or triplets of a batch that are worth learning from (`simjax.mining`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
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
)
from simjax.pairs._triplets import all_negatives, count_triplets
from simjax.similarity import Mask, all_of, different_label, exclude_self, same_label
from simjax.similarity._masks import as_pytree_function


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relation:
    """Which pairs of rows and columns are positive, and which are negative.

    Attributes:
        positive: a mask: of the numbers of rows i [r, 1] and columns j [1, m] a boolean [r, m].
        negative: the same; a pair that is neither counts nowhere.
        shape: (n, m), how many rows and columns there are.
        classes: ids of the rows [n] and of the columns [m] where the relation has them, for what is learned or weighted
            by class; `NO_CLASS` where an id is ignored; None otherwise.
        miner: of i, j and both masks gives the masks of what is kept; None keeps all.
        triplets: of i, j and both masks gives a function of the columns of a few positives of each row [r, few], which
            says what their negatives are [r, few, m], as a `Partial`; None makes triplets of every positive with every
            negative.
        indices: columns of the positives [n, k] and of the negatives [n, l] of each row, where these few are all that
            the relation holds, -1 where a row has fewer; int32. A loss then computes n (k + l) pairs and no strip.
    """

    positive: Mask
    negative: Mask
    shape: tuple[int, int] = dataclasses.field(metadata={"static": True})
    classes: tuple[Array, Array] | None = None
    miner: Callable[..., tuple[Array, Array]] | None = None
    triplets: Callable[..., Callable[[Array], Array]] | None = None
    indices: tuple[Array, Array] | None = None

    @auto_axes
    def masks(self, i: Array, j: Array) -> tuple[Array, Array]:
        """Positive and negative pairs of a strip: booleans [r, m], for rows i [r, 1] and columns j [1, m]."""
        positive, negative = self.pairs(i, j)
        if self.triplets is None:
            return positive, negative
        as_positive, as_negative = count_triplets(positive, self.triplets(i, j, positive, negative))
        return save_for_backward((as_positive > 0, as_negative > 0))

    def triplets_of(self, i: Array, j: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Positive pairs of a strip [r, m], and what says of a few of them in each row what their negatives are."""
        positive, negative = self.pairs(i, j)
        if self.triplets is None:
            return positive, all_negatives(negative)
        return positive, self.triplets(i, j, positive, negative)

    def pairs(self, i: Array, j: Array) -> tuple[Array, Array]:
        """Positive and negative pairs, without regard to which of them make triplets."""
        if self.indices is not None:
            positive, negative = (jnp.any(columns[i[:, 0], :, None] == j[:, None], axis=1) for columns in self.indices)
            return positive, negative
        shape = (i.shape[0], j.shape[1])
        masks = jnp.broadcast_to(self.positive(i, j), shape), jnp.broadcast_to(self.negative(i, j), shape)
        return masks if self.miner is None else self.miner(i, j, *masks)

    def without_itself(self) -> "Relation":
        """The same where rows and columns are one set: a row never meets itself."""
        return dataclasses.replace(
            self, positive=all_of(self.positive, exclude_self), negative=all_of(self.negative, exclude_self)
        )

    def where(self, keep: Mask) -> "Relation":
        """The same, of those pairs alone that a mask keeps."""
        positive, negative = (
            Partial(_kept, self, as_pytree_function(keep), Partial(side)) for side in (_first, _second)
        )
        return Relation(positive, negative, self.shape, self.classes)

    def transposed(self) -> "Relation":
        """The same of columns with rows.

        Raises:
            InputError: for what a miner keeps of each row, which needs the whole row.
        """
        if self.miner is not None or self.triplets is not None:
            raise InputError(
                "labels: expected all pairs of a relation where columns are rows, too, got what a miner keeps"
            )
        n, m = self.shape
        positive, negative = (Partial(_turned, self, Partial(side)) for side in (_first, _second))
        return Relation(positive, negative, (m, n), self.classes and (self.classes[1], self.classes[0]))


def by_class(
    labels: Integer[ArrayLike, " n"], ref_labels: Integer[ArrayLike, " m"] | None = None, *, ignore: Sequence[int] = ()
) -> Relation:
    """Positive where the class is the same, negative where it is another.

    Args:
        labels: class ids of the rows [n], integers of any width. JAX itself cuts 64-bit ids to 32 bits where they
            are arguments of a jitted function: pass those as `np.unique(ids, return_inverse=True)[1]`.
        ref_labels: of the columns [m]; None is the rows'.
        ignore: ids whose rows and columns belong to no pair, for instance that of what is unknown.

    Raises:
        TypeError: if the labels are not integers.

    Example:
        >>> relation = by_class(jnp.array([4, 7, 4, -1]), ignore=(-1,))
        >>> positive, negative = relation.masks(jnp.arange(4)[:, None], jnp.arange(4)[None])
        >>> print(positive.astype(int) - negative.astype(int))
        [[ 1 -1  1  0]
         [-1  1 -1  0]
         [ 1 -1  1  0]
         [ 0  0  0  0]]
    """
    given = {"labels": labels, "ref_labels": ref_labels, "ignore": list(ignore) or None}
    ids = comparable_ids({argument: a for argument, a in given.items() if a is not None})
    rows, columns = ids["labels"], ids.get("ref_labels", ids["labels"])
    positive, negative = same_label(rows, columns), different_label(rows, columns)
    if ignore:
        is_known = [~jnp.isin(a, ids["ignore"]) for a in (rows, columns)]
        known = Partial(_known, *is_known)
        positive, negative = all_of(positive, known), all_of(negative, known)
        rows, columns = (jnp.where(keep, a, NO_CLASS) for keep, a in zip(is_known, (rows, columns), strict=True))
    return Relation(positive, negative, (len(rows), len(columns)), (rows, columns))


def by_shared_label(sets: Shaped[ArrayLike, "n c"], ref_sets: Shaped[ArrayLike, "m c"] | None = None) -> Relation:
    """Positive where two rows share a label, negative where they share none.

    Args:
        sets: which of c labels each row has, booleans or 0 and 1 [n, c].
        ref_sets: of the columns [m, c]; None is the rows'.

    Example:
        >>> relation = by_shared_label(jnp.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        >>> print(relation.masks(jnp.arange(3)[:, None], jnp.arange(3)[None])[0].astype(int))
        [[1 1 0]
         [1 1 1]
         [0 1 1]]
    """
    rows = as_number_array("sets", sets)
    columns = rows if ref_sets is None else as_number_array("ref_sets", ref_sets)
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        raise InputError(f"sets: expected [n, c] and [m, c], got shapes {rows.shape} and {columns.shape}")
    parts = tuple((a != 0).astype(jnp.float32) for a in (rows, columns))
    return _and_its_complement(Partial(_share, *parts), (len(rows), len(columns)))


def by_function(function: Callable[[Any, Any], Array], attributes: Any, ref_attributes: Any = None) -> Relation:
    """Positive where a function of two rows' attributes is true, negative where it is false.

    Args:
        function: of attributes [r, 1, ...] and [1, m, ...], giving booleans [r, m].
        attributes: of the rows, an array [n, ...] or a pytree of such.
        ref_attributes: of the columns [m, ...]; None is the rows'.

    Raises:
        InputError: for arrays of different lengths, or integers that JAX's type does not hold.

    Example:
        Photos taken at most a minute apart:

        >>> relation = by_function(lambda a, b: abs(a - b) <= 60, jnp.array([0.0, 50.0, 100.0]))
        >>> print(relation.masks(jnp.arange(3)[:, None], jnp.arange(3)[None])[0].astype(int))
        [[1 1 0]
         [1 1 1]
         [0 1 1]]
    """
    rows, n = _attributes("attributes", attributes)
    columns, m = (rows, n) if ref_attributes is None else _attributes("ref_attributes", ref_attributes)
    return _and_its_complement(Partial(_compare, as_pytree_function(function), rows, columns), (n, m))


def by_matrix(positive: Bool[ArrayLike, "n m"], negative: Bool[ArrayLike, "n m"] | None = None) -> Relation:
    """Positive and negative pairs as matrices.

    Args:
        positive: boolean [n, m].
        negative: boolean [n, m]; None is wherever `positive` is False.

    Raises:
        InputError: if they are no matrices of one shape.
        TypeError: if they are not boolean; numbers are for `by_grade`.
    """
    matrices = [jnp.asarray(a) for a in (positive, negative) if a is not None]
    if any(a.ndim != 2 or a.shape != matrices[0].shape for a in matrices):
        raise InputError(f"positive, negative: expected shape [n, m], got {[list(a.shape) for a in matrices]}")
    if any(a.dtype != bool for a in matrices):
        raise TypeError(f"positive, negative: expected booleans, got {[str(a.dtype) for a in matrices]}; see by_grade")
    n, m = matrices[0].shape
    if negative is None:
        return _and_its_complement(Partial(_entry, matrices[0]), (n, m))
    return Relation(Partial(_entry, matrices[0]), Partial(_entry, matrices[1]), (n, m))


def by_grade(grades: Num[ArrayLike, "n m"], *, above: float = 0.5, below: float | None = None) -> Relation:
    """Positive where a grade of similarity is above a bound, negative where it is below another.

    Args:
        grades: [n, m], any numbers.
        above: a pair with a larger grade is positive.
        below: a pair with a grade up to this is negative; None is `above`, so that every pair is one of the two.

    Raises:
        InputError: if the grades are no matrix or `below` is larger than `above`.
    """
    matrix = as_number_array("grades", grades)
    if matrix.ndim != 2:
        raise InputError(f"grades: expected shape [n, m], got {matrix.shape}")
    low = above if below is None else below
    if low > above:
        raise InputError(f"below: expected at most above = {above:g}, got {below:g}")
    n, m = matrix.shape
    return Relation(Partial(_entry, matrix > above), Partial(_entry, matrix <= low), (n, m))


def by_position(n: int) -> Relation:
    """Row i belongs with column i, and with no other of n: two views of one image, a question and its answer."""
    return Relation(Partial(_here), Partial(exclude_self), (n, n))


def as_relation(labels: Any, ref_labels: Any, n: int, m: int | None) -> Relation:
    """What a loss was given, as a relation of n rows with m columns.

    Args:
        labels: class ids [n] or a `Relation`.
        ref_labels: class ids [m] or None.
        n: rows.
        m: columns; None if they are the rows, which then never meet themselves.

    Raises:
        InputError: for a wrong length or shape, or labels of only one side.
        TypeError: for labels that are no integers.
    """
    if isinstance(labels, Relation):
        if ref_labels is not None:
            raise InputError("ref_labels: a relation says already what the columns are, got class ids, too")
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
    labels: Any,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    names: tuple[str, str] = ("embeddings", "ref_embeddings"),
) -> tuple[Array, Array, Relation]:
    """Rows x [n, d], the columns y [m, d] that they are compared with, and who is similar to whom.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        ref_embeddings: [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        names: of the embeddings, for errors.

    Raises:
        InputError: for shapes that do not fit.
        TypeError: for labels that are no integers.
    """
    x, y = as_matrices(embeddings, embeddings if ref_embeddings is None else ref_embeddings, names)
    return x, y, as_relation(labels, ref_labels, x.shape[0], None if ref_embeddings is None else y.shape[0])


def _attributes(argument: str, attributes: Any) -> tuple[Any, int]:
    """Attributes as arrays of JAX, and the number of rows."""
    hint = "; subtract the smallest from all of them, or set jax_enable_x64"
    arrays = jax.tree.map(partial(as_exact_array, argument, hint=hint), attributes)
    lengths = sorted({len(a) for a in jax.tree.leaves(arrays)})
    if len(lengths) != 1:
        raise InputError(f"{argument}: expected arrays of one length, got {lengths}")
    return arrays, lengths[0]


def _and_its_complement(positive: Mask, shape: tuple[int, int]) -> Relation:
    return Relation(positive, Partial(_not, positive), shape)


def _not(mask: Mask, i: Array, j: Array) -> Array:
    return ~mask(i, j)


def _kept(relation: Relation, keep: Mask, side: Any, i: Array, j: Array) -> Array:
    return side(relation.masks(i, j)) & keep(i, j)


def _turned(relation: Relation, side: Any, i: Array, j: Array) -> Array:
    return side(relation.masks(j.T, i.T)).T


def _first(masks: tuple[Array, Array]) -> Array:
    return masks[0]


def _second(masks: tuple[Array, Array]) -> Array:
    return masks[1]


def _known(rows: Array, columns: Array, i: Array, j: Array) -> Array:
    return rows[i] & columns[j]


def _share(rows: Array, columns: Array, i: Array, j: Array) -> Array:
    return jnp.matmul(rows[i[:, 0]], columns[j[0]].T) > 0.5


def _compare(function: Any, rows: Any, columns: Any, i: Array, j: Array) -> Array:
    return function(jax.tree.map(lambda a: a[i], rows), jax.tree.map(lambda a: a[j], columns))


def _entry(matrix: Array, i: Array, j: Array) -> Array:
    return matrix[i, j]


def _here(i: Array, j: Array) -> Array:
    return i == j
