"""A measure: a function of two vectors, with its direction, its range, and a function that computes many pairs at once.

The similarity matrix is S_ij = measure(x_i, y_j). A tile is a block of rows of S, with all columns. A score is a value
that is larger for closer pairs: a similarity, or a negated distance (`Measure.as_score`).
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
    InputError,
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measure:
    """A similarity or a distance of two vectors.

    Args:
        pair: Function of x, y [..., d] and of the parameters, returning [...].
        higher_is_closer: True for a similarity, False for a distance.
        matrix: Function of r prepared rows, of all prepared columns and of the parameters, returning a tile [r, m]
            without an array [r, m, d]. Default: `pair`, with broadcasting.
        prepare: Function of x [n, d], y [m, d] and of the parameters, returning a pytree of arrays [n, ...] and any
            pytree for the columns. Called once, not for each block. Default: x and y.
        range: Smallest and largest value.
        name: Name in `measure=`.
        parameters: Keyword arguments of the functions; arrays may be traced or learned.
        minimum: Names and smallest values of the parameters that have one.
        search: Function like `prepare` that returns vectors [n, e] and [m, e], whose dot products have the order of the
            scores in each row, and whether they cannot overflow, which may be traced. Default: `top_k` uses `matrix`.
        exact_zero: Identical rows, found by a hash of their features, have distance exactly 0; `matrix` may round it.
        symmetric: Exchanging x and y changes nothing, whatever the parameters.
        precision: Precision of matrix products, as in `jax.default_matmul_precision`. Default: JAX's.
        propagates_nan: A tile has NaN for every pair of a row that holds NaN or infinity, as `pair` does.
            False passes such rows to `matrix`, for measures that give them a meaning.
        keeps_half: `prepare` receives float16 and bfloat16 rows as they are. Default: in float32.
    """

    pair: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    higher_is_closer: bool = dataclasses.field(metadata={"static": True})
    matrix: Callable[..., Array] | None = dataclasses.field(default=None, metadata={"static": True})
    prepare: Callable[..., tuple[Any, Any]] | None = dataclasses.field(default=None, metadata={"static": True})
    range: tuple[float, float] = dataclasses.field(default=(-float("inf"), float("inf")), metadata={"static": True})
    name: str = dataclasses.field(default="", metadata={"static": True})
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    minimum: tuple[tuple[str, float], ...] = dataclasses.field(default=(), metadata={"static": True})
    search: Callable[..., tuple[Array, Array, Any]] | None = dataclasses.field(default=None, metadata={"static": True})
    exact_zero: bool = dataclasses.field(default=False, metadata={"static": True})
    symmetric: bool = dataclasses.field(default=False, metadata={"static": True})
    precision: str | None = dataclasses.field(default=None, metadata={"static": True})
    propagates_nan: bool = dataclasses.field(default=True, metadata={"static": True})
    keeps_half: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def from_pair(cls, pair: Callable[..., Array], *, higher_is_closer: bool, **parameters: Any) -> "Measure":
        """Return a measure that computes a function of two vectors. The function receives NaN and infinity unchanged.

        Example:
            >>> m = Measure.from_pair(lambda x, y: abs(x - y).max(-1), higher_is_closer=False)
            >>> print(m(jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])))
            3.0
        """
        name = getattr(pair, "__name__", "")
        return cls(pair, higher_is_closer, name=name, parameters=parameters, propagates_nan=False)

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Compute the measure of pairs x, y [..., d], returning [...]."""
        x, y, dtype = pair_arguments(x, y)
        return self.of_pairs(x, y).astype(dtype)

    def of_pairs(self, x: Array, y: Array) -> Array:
        """Compute the measure of x, y [..., d], float32 or wider with the same number of axes, without checks."""
        return getattr(self.pair, "unchecked", self.pair)(x, y, **self.parameters)

    def tile_inputs(self, x: Array, y: Array) -> tuple[Any, Any]:
        """Prepare x [n, d] and y [m, d] for `tile`: rows, a pytree of arrays [n, ...], and columns, any pytree."""
        if not self.keeps_half:
            x, y = promote_to_float32(x), promote_to_float32(y)
        if self.propagates_nan:
            x, x_nan = replace_non_finite_rows(x, fill_with_minimum=True)
            y, y_nan = replace_non_finite_rows(y, fill_with_minimum=True)
        else:
            x_nan, y_nan = jnp.zeros(len(x), x.dtype), jnp.zeros(len(y), y.dtype)
        rows, columns = (x, y) if self.prepare is None else self.prepare(x, y, **self.parameters)
        x_fingerprints, y_fingerprints = (fingerprints(x), fingerprints(y)) if self.exact_zero else (None, None)
        return (rows, x_fingerprints, x_nan), (columns, y_fingerprints, y_nan)

    def tile(self, rows: Any, columns: Any, precision: str | None = None) -> Array:
        """Compute the values [r, m] of r rows and all columns, both from `tile_inputs`."""
        values, (*_, x_nan), (*_, y_nan) = self.finite_tile(rows, columns, precision), rows, columns
        return values + (x_nan[:, None] + y_nan[None]) if self.propagates_nan else values

    def finite_tile(self, rows: Any, columns: Any, precision: str | None = None) -> Array:
        """Compute `tile` without adding the NaN of rows and columns, the last elements of `tile_inputs`."""
        (x, x_fingerprints, _), (y, y_fingerprints, _) = rows, columns
        if self.matrix is None:
            values = self.of_pairs(x[:, None], y[None])
        else:
            with jax.default_matmul_precision(precision or self.precision or current_precision()):
                values = self.matrix(x, y, **self.parameters)
        return jnp.where(same_fingerprint(x_fingerprints, y_fingerprints), 0.0, values) if self.exact_zero else values

    def all_pairs(self, x: Array, y: Array, precision: str | None = None) -> Array:
        """Compute the values [n, m] of x [n, d] and y [m, d] in one block."""
        return self.tile(*self.tile_inputs(x, y), precision)

    def row_bytes(self, x: Array, y: Array) -> int:
        """Return the bytes of one row of a tile, [m]; [m, d] for a measure without `matrix`, which broadcasts."""
        entries = y.shape[0] * (y.shape[1] if self.matrix is None else 1)
        return entries * jnp.promote_types(jnp.result_type(x, y), jnp.float32).itemsize

    def as_score(self, values: Array) -> Array:
        """Return values as scores, which are larger for closer pairs: distances are negated."""
        return values if self.higher_is_closer else -values


def pair_arguments(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array, Any]:
    """Check vectors [..., d]; return them with the same number of axes, float32 or wider, and their common dtype."""
    x, y = as_float_array("x", x), as_float_array("y", y)
    if not x.ndim or not y.ndim or x.shape[-1] != y.shape[-1]:
        raise InputError(f"y: expected as many features as x, got shapes {x.shape} and {y.shape}")
    try:
        rank = len(jnp.broadcast_shapes(x.shape, y.shape))
    except ValueError:
        raise InputError(f"y: expected a shape that broadcasts with x, got {x.shape} and {y.shape}") from None
    x, y, dtype = promote_to_float32(x), promote_to_float32(y), jnp.result_type(x, y)
    return x.reshape((1,) * (rank - x.ndim) + x.shape), y.reshape((1,) * (rank - y.ndim) + y.shape), dtype


MEASURES: dict[str, Measure] = {}
"""Measures by name, which the modules of `simjax.similarity` register."""


def measure(name: "str | Measure", **parameters: Any) -> Measure:
    """Return the measure of a name (or a given `Measure`), with parameters: its keyword arguments, traced or learned.

    Example:
        >>> near = measure("rbf", gamma=0.5)
        >>> print(near(jnp.array([0.0, 0.0]), jnp.array([0.0, 2.0])).round(4), near.higher_is_closer)
        0.1353 True
    """
    found = name if isinstance(name, Measure) else MEASURES[check_choice("measure", name, MEASURES)]
    if not parameters:
        return found
    known = [p.name for p in inspect.signature(found.pair).parameters.values() if p.kind == p.KEYWORD_ONLY]
    for parameter in parameters:
        if parameter not in known:
            raise TypeError(f"{found.name}: unknown parameter {parameter!r}{suggestion(parameter, known)}")
    for parameter, minimum in found.minimum:
        check_at_least(parameter, parameters.get(parameter), minimum)
    # A jitted function would truncate wide integers of a NumPy array.
    arrays = {name: as_number_array(name, p) for name, p in parameters.items() if isinstance(p, np.ndarray)}
    return dataclasses.replace(found, parameters={**found.parameters, **parameters, **arrays})
