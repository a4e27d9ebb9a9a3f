"""Build public functions of pairs of vectors, and register them as named measures.

A measure that is no matrix product has one formula(reduce, x, y, **parameters), in which `reduce` sums terms over the
features: `reduce_features` for pairs of vectors, `reduce_features_of_tile` for all pairs of rows and columns. So one
definition gives the pair form and the matrix form.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import as_number_array, check_at_least, replace_non_finite_rows
from simjax.similarity._featurewise import reduce_features_of_tile
from simjax.similarity._measure import MEASURES, Measure, pair_arguments

SIMILARITY_SUFFIXES = ("_similarity", "_product", "_kernel", "_index", "_coefficient")

Vectors = Shaped[Array, "*#b d"]
"""Argument of a measure, [..., d]; leading axes broadcast."""

Values = Num[Array, "*b"]

Reduce = Callable[..., tuple[Array, ...]]
"""reduce(terms, x, y, combine="sum", **parameters of the terms), see `_featurewise.reduce_features_of_tile`."""


def pair_function(
    *, minimum: Mapping[str, float] | None = None, propagates_nan: bool = True
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Return a decorator that makes a formula of x, y [..., d] a public function.

    The function checks its inputs, takes whatever can be converted to an array, computes in float32 or wider under
    `jax.jit`, and returns the inputs' common type. Its attribute `unchecked` only computes.

    Args:
        minimum: Smallest value of each parameter that has one; -inf only rejects NaN. Default: no parameter has one.
        propagates_nan: Give NaN for a vector with NaN or infinity. With False the formula receives such vectors.
    """
    smallest = dict(minimum or {})

    def decorate(formula: Callable[..., Array]) -> Callable[..., Array]:
        @jax.jit
        @functools.wraps(formula)
        def unchecked(x: Array, y: Array, **parameters: Any) -> Array:
            if not propagates_nan:
                return formula(x, y, **parameters)
            (x, x_nan), (y, y_nan) = replace_non_finite_rows(x), replace_non_finite_rows(y)
            return formula(x, y, **parameters) + (x_nan + y_nan)

        @functools.wraps(formula)
        def function(x: ArrayLike, y: ArrayLike, **parameters: Any) -> Array:
            x, y, dtype = pair_arguments(x, y)
            for name, minimum in smallest.items():
                check_at_least(name, parameters.get(name), minimum)
            parameters = {n: as_number_array(n, p) if isinstance(p, np.ndarray) else p for n, p in parameters.items()}
            return unchecked(x, y, **parameters).astype(dtype)

        function.__dict__.update(unchecked=unchecked, minimum=smallest, propagates_nan=propagates_nan)
        return function

    return decorate


def define(
    function: Callable[..., Array],
    name: str | None = None,
    *,
    matrix: Callable[..., Array],
    prepare: Callable[..., tuple[Any, Any]] | None = None,
    search: Callable[..., tuple[Array, Array, Any]] | None = None,
    symmetric: bool = True,
    **fields: Any,
) -> None:
    """Register a public function as a named measure, whose direction follows from the suffix of the function's name.

    The keyword arguments of the function, made by `pair_function`, are the parameters of the measure; `matrix`,
    `prepare` and `search` receive all of them. The name for `measure=` is by default the function's name without its
    suffix. The other arguments are fields of `Measure`; `precision` is "highest" where squares cancel.
    """
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in keywords}

    def bind_defaults(f: Callable[..., Any] | None) -> Any:
        # A default is a constant of the compiled code (x^3 becomes two products), a given parameter an argument of it.
        return f and functools.partial(f, **defaults)

    name = name or function.__name__.rsplit("_", 1)[0]
    MEASURES[name] = Measure(
        function,
        higher_is_closer=function.__name__.endswith(SIMILARITY_SUFFIXES),
        matrix=bind_defaults(matrix),
        prepare=bind_defaults(prepare),
        search=bind_defaults(search),
        name=name,
        minimum=tuple(function.__dict__["minimum"].items()),
        symmetric=symmetric,
        propagates_nan=function.__dict__["propagates_nan"],
        **fields,
    )


def define_featurewise(
    function: Callable[..., Array],
    formula: Callable[..., Array],
    *,
    prepare: Callable[..., tuple[Any, Any]] | None = None,
    range: tuple[float, float] = (0.0, float("inf")),
) -> None:
    """Register a measure whose `formula(reduce, x, y, **parameters)` sums terms over the features, see `define`."""
    define(function, matrix=functools.partial(formula, reduce_features_of_tile), prepare=prepare, range=range)
