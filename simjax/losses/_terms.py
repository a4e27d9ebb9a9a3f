"""Types of arguments and results, terms of a loss, and reducers, which turn terms into one number.

A loss computes terms: the sum and the number of the active terms of each row. A reducer divides their total:

    mean           by the number of terms
    mean_active    by the number of terms above zero, so pairs that are already learned do not reduce the loss
    sum            by 1
    per_row        average within each row, then over the rows with at least one term

If no term is active, the loss is 0 with zero gradient.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from simjax.core import InputError, promote_to_float32

P = ParamSpec("P")
Embeddings = Num[ArrayLike, "n d"]
References = Num[ArrayLike, "m d"]
ClassIds = Integer[ArrayLike, " n"]
Proxies = Num[ArrayLike, "c d"]
Scalar = Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossTerms:
    """The terms of a loss before reduction.

    Attributes:
        total: Sum of the active terms of each row, [n].
        count: Number of active terms of each row, int32 [n].
    """

    total: Array
    count: Array

    def __add__(self, other: "LossTerms") -> "LossTerms":
        """Return the terms of both, for the parts of one loss."""
        return LossTerms(self.total + other.total, self.count + other.count)

    def __mul__(self, factor: ArrayLike) -> "LossTerms":
        """Return the same terms, multiplied by a factor."""
        return LossTerms(self.total * factor, self.count)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowSums:
    """Sums of terms that are never stored one by one, for each row of a tile, [r].

    Attributes:
        total: Sum of the terms.
        above_zero: Number of terms above zero, if no term is below zero; None if some are, or if it is unknown.
        count: Number of all terms.
    """

    total: Array
    above_zero: Array | None
    count: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reducer:
    """Which terms are active, how rows are weighted, and the divisor of the total.

    Attributes:
        above: A term is active if it is larger. Default: no bound.
        below: A term is active if it is smaller. Default: no bound.
        class_weights: Factor for the terms of each row by the row's class, [c], for class ids from 0 to c - 1. A known
            id outside this range is an error; a traced one gives NaN if its row has terms. Default: 1.
        divide_by: "terms": the number of active terms. "rows": average within each row, then over rows with at least
            one active term. None: the loss is the sum.
    """

    above: float | None = dataclasses.field(default=None, metadata={"static": True})
    below: float | None = dataclasses.field(default=None, metadata={"static": True})
    class_weights: ArrayLike | None = None
    divide_by: Literal["terms", "rows"] | None = dataclasses.field(default="terms", metadata={"static": True})

    def sum_rows(self, terms: RowSums | tuple[Array, Array], weights: Array) -> LossTerms:
        """Sum the active terms of each row: from terms and the mask of valid ones, [r, k] each, or from `RowSums`."""
        if isinstance(terms, RowSums):
            if self.below is not None or self.above not in (None, 0):
                raise InputError("reducer: expected no bound but above=0, because this loss only sums its terms")
            total, count = terms.total, terms.count if self.above is None else terms.above_zero
            if count is None:
                raise InputError("reducer: this loss does not know how many of its terms are above 0; use 'mean'")
        else:
            values, active = terms
            if self.above is not None:
                active = active & ~(values <= self.above)
            if self.below is not None:
                active = active & ~(values >= self.below)
            values = jnp.where(active, values, 0)
            total = jnp.sum(values, axis=1)
            # XLA on a CPU fuses the sum of signs with the sum of the terms, but not the sum of the mask.
            signs = lax.stop_gradient(jnp.sign(values)) if self.above == 0 else active
            count = jnp.nan_to_num(jnp.sum(signs, axis=1)).astype(jnp.int32)
        if self.class_weights is not None:
            weights = jnp.where(count > 0, weights, 0)  # a traced id without a weight has NaN
        return LossTerms(total * weights, count)

    @jax.jit
    def scalar(self, terms: LossTerms) -> Scalar:
        """Reduce the terms of all rows."""
        total, count = promote_to_float32(terms.total), terms.count.astype(jnp.float32)
        if self.divide_by is None:
            loss = jnp.sum(total)
        elif self.divide_by == "rows":
            loss = jnp.sum(total / jnp.maximum(count, 1)) / jnp.maximum(jnp.sum(count > 0), 1)
        else:
            loss = jnp.sum(total) / jnp.maximum(jnp.sum(count), 1)
        # A term of a NaN pair was computed from the number that replaced the NaN, so its gradient must become NaN here.
        return loss * lax.stop_gradient(jnp.where(jnp.isnan(loss), jnp.nan, 1.0))


REDUCERS = {
    "mean": Reducer(),
    "mean_active": Reducer(above=0.0),
    "sum": Reducer(divide_by=None),
    "per_row": Reducer(divide_by="rows"),
}


@dataclasses.dataclass
class TermRecorder:
    """Takes the place of a reducer in `unreduced`: saves the terms of a loss instead of reducing them."""

    terms: LossTerms | None = None

    def record(self, terms: LossTerms) -> None:
        self.terms = terms if self.terms is None else self.terms + terms


def unreduced(loss: Callable[P, Array]) -> Callable[P, LossTerms]:
    """Return a function that computes the terms of a loss instead of the loss.

    The terms are those that the default reducer of the loss would reduce. A loss with several parts adds the terms of
    all parts; a regularizer that a loss adds after the reduction is not included. The function takes the arguments of
    the loss other than `reducer`.

    Args:
        loss: A loss of this package that takes `reducer`, not yet transformed by `jax.jit` or `jax.grad`; these can
            be applied to the result.

    Example:
        >>> from simjax.losses import contrastive_loss
        >>> x, labels = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> terms = unreduced(contrastive_loss)(x, labels, margin=2.5, measure="euclidean")
        >>> print(terms.total, terms.count)  # positive pair at distance 1, one negative pair closer than the margin
        [1.  1.5 0.5] [1 2 1]
    """

    @functools.wraps(loss)
    def terms(*args: P.args, **options: P.kwargs) -> LossTerms:
        if "reducer" in options:
            raise TypeError("reducer: expected none, because the terms are not reduced; call the loss itself")
        recorder = TermRecorder()
        options["reducer"] = recorder
        loss(*args, **options)
        if recorder.terms is None:
            raise TypeError(f"loss: expected a loss that takes a reducer, got {getattr(loss, '__name__', loss)}")
        return recorder.terms

    return terms
