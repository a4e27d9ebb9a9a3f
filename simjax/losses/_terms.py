"""Terms and reducers: a loss computes terms, their sum and number by row; a reducer makes one number of them.

    mean            the mean of all terms
    mean_nonzero    the mean of the terms above 0: what is learned already does not dilute what is not
    sum             their sum
    per_row         the mean of each row's terms, averaged over the rows that have any
    none            no number: the terms themselves, as `LossTerms`

A `Reducer` of your own counts terms within bounds, or weighs them by the class of their row. Where nothing counts the
loss is 0 with zero gradient, and the counts say so.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from simjax.core import InputError, check_choice, promote_to_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossTerms:
    """A loss before it is reduced.

    Attributes:
        total: of each row the sum of its terms that count, [n].
        count: and how many these are, int32 [n]; all 0 where a batch holds no pair to learn from.
    """

    total: Array
    count: Array

    def __add__(self, other: "LossTerms") -> "LossTerms":
        """The terms of two parts of a loss together."""
        return LossTerms(self.total + other.total, self.count + other.count)

    def __mul__(self, factor: ArrayLike) -> "LossTerms":
        """The same terms, weighted."""
        return LossTerms(self.total * factor, self.count)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Summed:
    """Terms that are never written down one by one, as those of triplets: of each row of a strip, [r].

    Attributes:
        total: their sum.
        above_zero: how many are above 0, where none is below; None where some may be, or where it is not known.
        count: how many there are in all.
    """

    total: Array
    above_zero: Array | None
    count: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reducer:
    """Which terms count, what they weigh, and what their sum is divided by.

    Attributes:
        above: a term counts if it is larger; None counts all.
        below: and if it is smaller; None counts all.
        class_weights: [classes], a factor of each row's terms by the row's class, an id from 0 to classes - 1: any
            other known id is refused, a traced one gives NaN where its row has terms. None is 1 for all.
        divide_by: the number of terms that count; or of each row its own number, and the number of rows that have
            any; or nothing.
    """

    above: float | None = dataclasses.field(default=None, metadata={"static": True})
    below: float | None = dataclasses.field(default=None, metadata={"static": True})
    class_weights: ArrayLike | None = None
    divide_by: Literal["terms", "rows", "nothing"] = dataclasses.field(default="terms", metadata={"static": True})

    def of_rows(self, terms: Summed | tuple[Array, Array], weights: Array) -> LossTerms:
        """The terms of a strip, summed by row: terms [r, k] and which of them there are, or their sums; weights [r].

        Raises:
            InputError: for bounds of single terms where only their sums are known.
        """
        if isinstance(terms, Summed):
            if self.below is not None or self.above not in (None, 0):
                raise InputError("reducer: triplets are not known one by one, so that they have no bounds but 0")
            count = terms.count if self.above is None else terms.above_zero
            if count is None:
                raise InputError("reducer: of this loss only the sum of all terms is known, not of those above 0")
            return LossTerms(terms.total * self._row_weights(weights, count), count)
        each, counts = terms
        if self.above is not None:
            counts = counts & ~(each <= self.above)
        if self.below is not None:
            counts = counts & ~(each >= self.below)
        each = jnp.where(counts, each, 0)
        # Terms above 0 are counted by their signs, which XLA on a CPU adds up without writing anything down.
        signs = lax.stop_gradient(jnp.sign(each)) if self.above == 0 else counts
        count = jnp.nan_to_num(jnp.sum(signs, axis=1)).astype(jnp.int32)
        return LossTerms(jnp.sum(each, axis=1) * self._row_weights(weights, count), count)

    def _row_weights(self, weights: Array, count: Array) -> Array:
        """Weights of rows; NaN, the weight of a traced id that has none, does not matter in a row without terms."""
        return weights if self.class_weights is None else jnp.where(count > 0, weights, 0)

    def scalar(self, terms: LossTerms) -> Array:
        """All rows together."""
        total, count = promote_to_float32(terms.total), terms.count.astype(jnp.float32)
        if self.divide_by == "nothing":
            loss = jnp.sum(total)
        elif self.divide_by == "rows":
            loss = jnp.sum(total / jnp.maximum(count, 1)) / jnp.maximum(jnp.sum(count > 0), 1)
        else:
            loss = jnp.sum(total) / jnp.maximum(jnp.sum(count), 1)
        # Terms that took part in a NaN rest on the numbers that replaced it: their gradient is NaN as well.
        return loss * lax.stop_gradient(jnp.where(jnp.isnan(loss), jnp.nan, 1.0))


REDUCERS = {
    "mean": Reducer(),
    "mean_nonzero": Reducer(above=0.0),
    "sum": Reducer(divide_by="nothing"),
    "per_row": Reducer(divide_by="rows"),
}


def as_reducer(reducer: "str | Reducer | None", default: str) -> tuple[Reducer, bool]:
    """The reducer, and whether its scalar is wanted rather than the terms, which are then those of the default.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(reducer, Reducer):
        return reducer, True
    name = default if reducer is None else check_choice("reducer", reducer, [*REDUCERS, "none"])
    return REDUCERS[default if name == "none" else name], name != "none"
