"""A measure: a function of two vectors that knows its direction, its range and its form for whole matrices.

Losses, miners and search read `higher_is_closer` and never flip a sign by hand. `simjax.similarity` defines the
measures that have names; it loads when a name is first asked for.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from simjax.core import (
    as_float_array,
    as_number_array,
    check_at_least,
    check_choice,
    current_precision,
    fingerprints,
    promote_to_float32,
    replace_non_finite_rows,
    same_fingerprint,
    suggestion,
)


def _wide_rows(x: Array, y: Array, **_: Any) -> tuple[Any, Any]:
    return promote_to_float32(x), promote_to_float32(y)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measure:
    """How similar, or how far apart, two vectors are.

    Args:
        pair: function of x, y [..., d] and of the parameters giving [...].
        higher_is_closer: True for a similarity, False for a distance.
        matrix: function of what `prepare` made of r rows and of all columns, and of the parameters, giving [r, m]
            without an array of [r, m, d]; None broadcasts `pair`.
        prepare: function of x [n, d], y [m, d] and of the parameters giving (rows, columns), a pytree of [n, ...] and
            any pytree: what is done once and not for each block.
        range: smallest and largest value.
        name: what `measure=` calls it.
        parameters: keyword arguments of the functions; arrays may be traced or learned.
        minimum: of each parameter that has one.
        search: function like `prepare` that gives vectors [n, e] and [m, e] whose dot products grow with closeness in
            each row, and whether they do so without overflow for these rows; None searches by the measure itself.
        exact_zero: the matrix form rounds; identical rows are found by their fingerprints and get exactly 0.
        symmetric: x and y may be exchanged, whatever the parameters.
        precision: of matrix products, as in `jax.default_matmul_precision`; None leaves it to JAX.
        propagates_nan: The matrix form gives NaN for every pair of a row that holds NaN or infinity, as `pair` does.
            False leaves such rows to `matrix`, for measures that give them a meaning.
    """

    pair: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    higher_is_closer: bool = dataclasses.field(metadata={"static": True})
    matrix: Callable[..., Array] | None = dataclasses.field(default=None, metadata={"static": True})
    prepare: Callable[..., tuple[Any, Any]] = dataclasses.field(default=_wide_rows, metadata={"static": True})
    range: tuple[float, float] = dataclasses.field(default=(-float("inf"), float("inf")), metadata={"static": True})
    name: str = dataclasses.field(default="", metadata={"static": True})
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    minimum: tuple[tuple[str, float], ...] = dataclasses.field(default=(), metadata={"static": True})
    search: Callable[..., tuple[Array, Array, Any]] | None = dataclasses.field(default=None, metadata={"static": True})
    exact_zero: bool = dataclasses.field(default=False, metadata={"static": True})
    symmetric: bool = dataclasses.field(default=False, metadata={"static": True})
    precision: str | None = dataclasses.field(default=None, metadata={"static": True})
    propagates_nan: bool = dataclasses.field(default=True, metadata={"static": True})

    @classmethod
    def from_pair(cls, pair: Callable[..., Array], *, higher_is_closer: bool, **parameters: Any) -> "Measure":
        """A user's own function of two vectors as a measure; it receives NaN and infinity as they are.

        Example:
            >>> m = Measure.from_pair(lambda x, y: abs(x - y).max(-1), higher_is_closer=False)
            >>> print(m(jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])))
            3.0
        """
        name = getattr(pair, "__name__", "")
        return cls(pair, higher_is_closer, name=name, parameters=parameters, propagates_nan=False)

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        """The pair form: x, y [..., d] to [...]."""
        x, y = as_float_array("x", x), as_float_array("y", y)
        return self.pair(promote_to_float32(x), promote_to_float32(y), **self.parameters).astype(jnp.result_type(x, y))

    def tile_inputs(self, x: Array, y: Array) -> tuple[Any, Any]:
        """x [n, d] and y [m, d] made ready for `strip`: a pytree of [n, ...] to cut into blocks, and the columns."""
        (x, x_nan), (y, y_nan) = self._finite_rows(x), self._finite_rows(y)
        if self.matrix is None:
            rows, columns = _wide_rows(x, y)
        else:
            rows, columns = self.prepare(x, y, **self.parameters)
        marks = (fingerprints(x), fingerprints(y)) if self.exact_zero else (None, None)
        return (rows, marks[0], x_nan), (columns, marks[1], y_nan)

    def tile(self, rows: Any, columns: Any, precision: str | None = None) -> Array:
        """Every one of r rows against every column, as `tile_inputs` made them: [r, m]."""
        s = self.finite_tile(rows, columns, precision)
        return s + (rows[2][:, None] + columns[2][None]) if self.propagates_nan else s

    def finite_tile(self, rows: Any, columns: Any, precision: str | None = None) -> Array:
        """The scores [r, m] without the NaN of rows and columns, which is the last part of both, 0 or NaN."""
        (r, r_marks, _), (c, c_marks, _) = rows, columns
        if self.matrix is None:
            s = self.pair(r[:, None], c[None], **self.parameters)
        else:
            with jax.default_matmul_precision(precision or self.precision or current_precision()):
                s = self.matrix(r, c, **self.parameters)
        return jnp.where(same_fingerprint(r_marks, c_marks), 0.0, s) if self.exact_zero else s

    def _finite_rows(self, x: Array) -> tuple[Array, Array]:
        return (
            replace_non_finite_rows(x, fill_with_minimum=True)
            if self.propagates_nan
            else (x, jnp.zeros(len(x), x.dtype))
        )

    def all_pairs(self, x: Array, y: Array, precision: str | None = None) -> Array:
        """Every row of x [n, d] against every row of y [m, d], in one block: [n, m]."""
        return self.tile(*self.tile_inputs(x, y), precision)

    def row_bytes(self, x: Array, y: Array) -> int:
        """Return the size of one row of a tile; [m, d] for a measure without a matrix form, which broadcasts."""
        entries = y.shape[0] * (y.shape[1] if self.matrix is None else 1)
        return entries * jnp.promote_types(jnp.result_type(x, y), jnp.float32).itemsize

    def as_score(self, values: Array) -> Array:
        """Values turned so that larger is closer."""
        return values if self.higher_is_closer else -values


MEASURES: dict[str, Measure] = {}
"""The measures that have names; `simjax.similarity` fills it."""


def measure(name: "str | Measure", **parameters: Any) -> Measure:
    """The measure of that name, with parameters where it takes them.

    Args:
        name: as `simjax.similarity` calls it; a `Measure` is returned as it is.
        **parameters: keyword arguments of the measure; arrays may be traced or learned.

    Raises:
        InputError: for an unknown name, with the nearest one, or a parameter out of its range.
        TypeError: for a parameter that the measure does not take.

    Example:
        >>> near = measure("rbf", gamma=0.5)
        >>> print(near(jnp.array([0.0, 0.0]), jnp.array([0.0, 2.0])).round(4), near.higher_is_closer)
        0.1353 True
    """
    found = name if isinstance(name, Measure) else MEASURES[check_choice("measure", name, MEASURES)]
    if not parameters:
        return found
    known = [p for p in inspect.signature(found.pair).parameters.values() if p.kind == p.KEYWORD_ONLY]
    for parameter in parameters:
        if parameter not in [p.name for p in known]:
            raise TypeError(
                f"{found.name}: unknown parameter {parameter!r}{suggestion(parameter, [p.name for p in known])}"
            )
    for parameter, least in found.minimum:
        check_at_least(parameter, parameters.get(parameter), least)
    # A jitted function would cut the wide integers of a NumPy array.
    arrays = {name: as_number_array(name, p) for name, p in parameters.items() if isinstance(p, np.ndarray)}
    return dataclasses.replace(found, parameters={**found.parameters, **parameters, **arrays})
