"""Masks as functions of row and column: True keeps. No mask of all rows and columns exists.

A mask takes the numbers of a strip's rows i [r, 1] and of its columns j [1, m] and gives a boolean [r, m]. Any function
will do; one that carries arrays is best a `jax.tree_util.Partial`, as these are: it then passes through `jax.jit` as
data, so that other labels of the same shape compile nothing anew.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial, all_leaves
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_host_array, as_number_array, comparable_ids

Mask = Callable[[Array, Array], Array]


def as_pytree_function(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A function as a pytree that can be an argument of a jitted function."""
    return Partial(function) if function is not None and all_leaves([function]) else function


def same_label(rows: Num[ArrayLike, " n"], columns: Num[ArrayLike, " m"] | None = None) -> Mask:
    """Keep pairs of one class.

    Args:
        rows: labels of the rows [n].
        columns: labels of the columns [m]; None is the same as the rows'.

    Example:
        >>> keep = all_of(same_label(jnp.array([4, 7, 4])), others)
        >>> print(keep(jnp.arange(3)[:, None], jnp.arange(3)[None]).astype(int))
        [[0 0 1]
         [0 0 0]
         [1 0 0]]
    """
    return Partial(_same, *_labels(rows, columns))


def different_label(rows: Num[ArrayLike, " n"], columns: Num[ArrayLike, " m"] | None = None) -> Mask:
    """Keep pairs of two classes: labels of the rows [n] and of the columns [m], by default the same."""
    return Partial(_different, *_labels(rows, columns))


def exclude_self(i: Array, j: Array) -> Array:
    """Keep all but a row with itself."""
    return i != j


def causal(i: Array, j: Array) -> Array:
    """Keep the columns up to the row's own number."""
    return j <= i


def all_of(*masks: Mask) -> Mask:
    """Keep what all of the masks keep."""
    return Partial(_all, tuple(as_pytree_function(mask) for mask in masks))


def _labels(rows: ArrayLike, columns: ArrayLike | None) -> tuple[Array, Array]:
    given = {"rows": _whole(rows)} | ({} if columns is None else {"columns": _whole(columns)})
    if any(jnp.issubdtype(a.dtype, jnp.floating) or a.dtype == bool for a in given.values()):
        labels = {argument: as_number_array(argument, a) for argument, a in given.items()}
    else:
        labels = comparable_ids(given)
    return labels["rows"], labels.get("columns", labels["rows"])


def _whole(labels: ArrayLike) -> Any:
    """Labels, as integers where NumPy holds whole numbers as floats, more of which are different as integers."""
    found = as_host_array(labels)
    if isinstance(found, np.ndarray) and found.dtype.kind == "f" and np.all(np.abs(found) < 2**63):
        return found.astype(np.int64) if np.all(found == np.trunc(found)) else found
    return found


def _same(rows: Array, columns: Array, i: Array, j: Array) -> Array:
    return rows[i] == columns[j]


def _different(rows: Array, columns: Array, i: Array, j: Array) -> Array:
    return rows[i] != columns[j]


def _all(masks: tuple[Mask, ...], i: Array, j: Array) -> Array:
    keep = jnp.ones((), bool)[None, None]
    for mask in masks:
        keep = keep & mask(i, j)
    return keep
