"""Masks of pairs as functions of row and column, so that no [n, m] array is stored.

A tile is a block of r rows of the similarity matrix, with all m columns. A mask takes the row indices i [r, 1] and the
column indices j [1, m] of a tile and returns booleans [r, m], True for pairs that are included. Any such function is a
mask. Masks with arrays are `jax.tree_util.Partial` objects here: `jax.jit` treats the arrays as data, so new labels of
the same shape do not trigger recompilation.
"""

from collections.abc import Callable
from typing import Any

import jax  # noqa: F401 (in doctests)
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial, all_leaves
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_host_array, as_number_array, comparable_ids

Mask = Callable[[Array, Array], Array]


def as_pytree_function(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Return a function as a pytree, which a jitted function can take as an argument."""
    return Partial(function) if function is not None and all_leaves([function]) else function


def same_label(rows: Num[ArrayLike, " n"], columns: Num[ArrayLike, " m"] | None = None) -> Mask:
    """Return a mask of pairs with equal labels, `rows` [n] and `columns` [m]; the default of `columns` is `rows`.

    Example:
        >>> mask = all_of(same_label(np.array([4, 7, 4])), exclude_self)
        >>> print(jax.jit(mask)(*np.ogrid[:3, :3]))
        [[False False  True]
         [False False False]
         [ True False False]]
    """
    return Partial(_same, *_comparable_labels(rows, columns))


def different_label(rows: Num[ArrayLike, " n"], columns: Num[ArrayLike, " m"] | None = None) -> Mask:
    """Return a mask of pairs with different labels, see `same_label`."""
    return Partial(_different, *_comparable_labels(rows, columns))


def exclude_self(i: Array, j: Array) -> Array:
    """Exclude the pair of each row with itself."""
    return i != j


def causal(i: Array, j: Array) -> Array:
    """Exclude later columns: a row is compared with the columns up to its own index."""
    return j <= i


def all_of(*masks: Mask) -> Mask:
    """Return the mask of the pairs that all given masks include."""
    return Partial(_all, tuple(as_pytree_function(mask) for mask in masks))


def _comparable_labels(rows: ArrayLike, columns: ArrayLike | None) -> tuple[Array, Array]:
    """Return the labels of rows and columns as JAX arrays; integers are equal exactly where the given labels are."""
    labels: dict[str, Any] = {"rows": as_host_array(rows)}  # the keys are the argument names in errors
    if columns is not None:
        labels["columns"] = as_host_array(columns)
    for argument, a in labels.items():
        # Integers in NumPy floats become int64, because JAX's float32 rounds different ones above 2^24 to one number.
        if isinstance(a, np.ndarray) and a.dtype.kind == "f" and np.all((np.abs(a) < 2**63) & (a == np.trunc(a))):
            labels[argument] = a.astype(np.int64)
    if any(jnp.issubdtype(a.dtype, jnp.floating) or a.dtype == bool for a in labels.values()):
        # `comparable_ids` takes only integers; other labels are compared as numbers of JAX's types.
        labels = {argument: as_number_array(argument, a) for argument, a in labels.items()}
    else:
        labels = comparable_ids(labels)
    return labels["rows"], labels.get("columns", labels["rows"])


def _same(row_labels: Array, column_labels: Array, i: Array, j: Array) -> Array:
    return row_labels[i] == column_labels[j]


def _different(row_labels: Array, column_labels: Array, i: Array, j: Array) -> Array:
    return row_labels[i] != column_labels[j]


def _all(masks: tuple[Mask, ...], i: Array, j: Array) -> Array:
    included = jnp.ones((1, 1), bool)
    for mask in masks:
        included = included & mask(i, j)
    return included
