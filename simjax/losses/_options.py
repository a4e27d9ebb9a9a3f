"""Options that losses share, documented and checked once.

A score is a value of the measure that is larger for closer pairs: a similarity, or a negated distance.
"""

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, TypedDict

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import (
    NO_CLASS,
    InputError,
    as_float_array,
    as_integer_array,
    check_choice,
    promote_to_float32,
    suggestion,
    take_rows,
)
from simjax.losses._terms import REDUCERS, LossTerms, Reducer, Scalar, TermRecorder
from simjax.pairs import Relation, by_class
from simjax.pairs._relation import Labels
from simjax.similarity import Measure, unit_vectors
from simjax.similarity import measure as as_measure


class ClassOptions(TypedDict, total=False):
    """Options of every loss.

    weights: Factor for the terms of each row, [n]. Default: 1.
    reducer: "mean", "mean_active", "sum", "per_row" or a `Reducer`. Default: the one of the paper.
    block_size: Rows per block. With an explicit value every block is recomputed in the backward pass. Default: chosen
        from a memory budget.
    """

    weights: Num[ArrayLike, " n"] | None
    reducer: str | Reducer | None
    block_size: int | None


class ReferenceOptions(ClassOptions, total=False):
    """Options of a pair loss that prescribes its measure: those of `ClassOptions`, and

    ref_embeddings: Rows to compare with, [m, d]. Default: the embeddings; a row is not paired with itself.
    ref_labels: Class ids of the reference rows, [m], if `labels` are class ids and there are reference rows.
    """

    ref_embeddings: Num[ArrayLike, "m d"] | None
    ref_labels: Integer[ArrayLike, " m"] | None


class PairOptions(ReferenceOptions, total=False):
    """Options of a pair loss: those of `ClassOptions` and `ReferenceOptions`, and

    measure: Name of a measure or a `Measure`, a similarity or a distance. Default: see the loss.
    """

    measure: str | Measure | None


@dataclasses.dataclass(frozen=True)
class ResolvedOptions:
    """Checked options, with the defaults of a loss filled in."""

    measure: Measure
    reducer: Reducer
    recorder: TermRecorder | None = None
    ref_embeddings: Array | None = None
    ref_labels: Array | np.ndarray | None = None
    weights: Array | None = None
    block_size: int | None = None

    def as_score(self, value: ArrayLike) -> Array:
        """Return a value in units of the measure as a score: a distance is negated."""
        return self.measure.as_score(jnp.asarray(value))

    def with_unit_vectors(self) -> "ResolvedOptions":
        """Return the options with the reference rows scaled to unit length."""
        y = self.ref_embeddings
        return self if y is None else dataclasses.replace(self, ref_embeddings=unit_vectors(y))

    def reduce(self, *parts: LossTerms) -> Scalar:
        """Reduce each part of a loss separately, and return the sum."""
        if self.recorder is not None:
            for part in parts:
                self.recorder.record(part)
        return functools.reduce(operator.add, [self.reducer.scalar(part) for part in parts])


def resolve_options(
    loss: Callable[..., Any],
    options: Any,
    *,
    accepted: type = PairOptions,
    measure: str | Measure = "cosine",
    reducer: str = "mean",
) -> ResolvedOptions:
    """Check the names, types and shapes of options, before anything is computed, and fill in the defaults of a loss.

    Args:
        loss: The loss, whose own arguments an error message suggests as well.
        options: The keyword arguments that the loss collected.
        accepted: The `TypedDict` with the names of valid options.
        measure, reducer: Defaults of the loss.
    """
    for name in options:
        if name not in accepted.__annotations__:
            own = [p.name for p in inspect.signature(loss).parameters.values() if p.kind == p.KEYWORD_ONLY]
            raise TypeError(
                f"{loss.__name__}: unknown option {name!r}{suggestion(name, [*own, *accepted.__annotations__])}"
            )
    given = {name: value for name, value in options.items() if value is not None}
    given_measure, given_reducer = given.get("measure", measure), given.get("reducer", reducer)
    if not isinstance(given_measure, str | Measure):
        raise TypeError(f"measure: expected a name or a Measure, got {type(given_measure).__name__}")
    recorder = given_reducer if isinstance(given_reducer, TermRecorder) else None
    given_reducer = reducer if recorder is not None else given_reducer
    if not isinstance(given_reducer, str | Reducer):
        raise TypeError(f"reducer: expected a name or a Reducer, got {type(given_reducer).__name__}")
    if isinstance(given_reducer, str):
        given_reducer = REDUCERS[check_choice("reducer", given_reducer, REDUCERS)]
    arrays: dict[str, Any] = {}
    for name, ndim in (("ref_embeddings", 2), ("weights", 1), ("ref_labels", 1)):
        if name in given:
            array = (as_integer_array if name == "ref_labels" else as_float_array)(name, given[name])
            if array.ndim != ndim:
                raise InputError(f"{name}: expected shape {'[m, d]' if ndim == 2 else '[n]'}, got {array.shape}")
            arrays[name] = array
    block_size = given.get("block_size")
    if block_size is not None:
        if isinstance(block_size, bool) or not hasattr(block_size, "__index__"):
            raise TypeError(f"block_size: expected an integer, got {type(block_size).__name__}")
        if block_size < 1:
            raise InputError(f"block_size: expected at least 1, got {block_size}")
    if "weights" in arrays:
        arrays["weights"] = promote_to_float32(arrays["weights"])
    return ResolvedOptions(as_measure(given_measure), given_reducer, recorder, block_size=block_size, **arrays)


def values_of_rows(values: Array, labels: Labels, name: str) -> Array:
    """Return the value of the class of each row: values [c] to [n]. In errors `name`, a plural, stands for the values.

    A known class id that is not from 0 to c - 1 raises an InputError, a traced one gives NaN.
    """
    relation, c = labels if isinstance(labels, Relation) else by_class(labels), len(values)
    if relation.classes is None:
        raise InputError(f"labels: {name} need class ids, got a relation without them")
    ids = relation.classes[0]
    given = ids if isinstance(labels, Relation) else as_integer_array("labels", labels)
    if not isinstance(given, Tracer):
        known = np.asarray(given)
        known = known[known != NO_CLASS]
        if known.size and (largest := int(known.max())) >= c:
            raise InputError(f"labels: expected class ids below {c}, the number of {name}, got {largest}")
        if known.size and (smallest := int(known.min())) < 0:
            raise InputError(f"labels: expected class ids from 0 on, the indices of {name}, got {smallest}")
    in_range = (ids >= 0) & (ids < c)
    return jnp.where(in_range | (ids == NO_CLASS), take_rows(values, jnp.where(in_range, ids, 0)), jnp.nan)
