"""Build public functions of pairs of vectors, and register them as named measures.

Every measure has a pair form, the public function of x, y [..., d], and a matrix form that computes a tile [r, m]: r
rows of the similarity matrix with all m columns. A measure that sums a term of each feature has one
`formula(reduce, x, y, **parameters)` for both forms, in which `reduce` computes the sum: `reduce_features` in the pair
form, `reduce_features_of_tile` in the matrix form. See `Reduce`.
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
"""`reduce(terms, x, y, combine="sum", **parameters)` sums terms over the features, or takes the largest ("max").

`terms(x, y, **parameters)` computes elementwise on features and returns a tuple; each of its arrays becomes one array
of the result, [...] in the pair form and [r, m] for a tile. The parameters are scalars or have the shape of the result.
See `_featurewise`.
"""


def pair_function(
    *, minimum: Mapping[str, float] | None = None, propagates_nan: bool = True
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Return a decorator that makes a formula of x, y [..., d] a public function.

    The function converts its inputs to arrays and checks them, computes in float32 or wider under `jax.jit`, and
    returns the common dtype of the inputs. The attribute `unchecked` of the function omits checks and conversions.

    Args:
        minimum: Smallest value of each parameter that has one; -inf only rejects NaN. Default: no parameter has one.
        propagates_nan: Give NaN for a vector with NaN or infinity. With False the formula receives such vectors.
    """
    minimums = dict(minimum or {})

    def decorate(formula: Callable[..., Array]) -> Callable[..., Array]:
        @jax.jit
        @functools.wraps(formula)
        def unchecked(x: Array, y: Array, **parameters: Any) -> Array:
            if not propagates_nan:
                return formula(x, y, **parameters)
            (x, x_nan), (y, y_nan) = replace_non_finite_rows(x), replace_non_finite_rows(y)
            return formula(x, y, **parameters) + (x_nan + y_nan)  # 0, or NaN for a vector with NaN or infinity

        @functools.wraps(formula)
        def function(x: ArrayLike, y: ArrayLike, **parameters: Any) -> Array:
            x, y, dtype = pair_arguments(x, y)
            for name, smallest in minimums.items():
                check_at_least(name, parameters.get(name), smallest)
            parameters = {n: as_number_array(n, p) if isinstance(p, np.ndarray) else p for n, p in parameters.items()}
            return unchecked(x, y, **parameters).astype(dtype)

        function.__dict__.update(unchecked=unchecked, minimum=minimums, propagates_nan=propagates_nan)
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
    """Register a public function as a named measure: a similarity if its suffix is in `SIMILARITY_SUFFIXES`.

    The keyword arguments of the function, made by `pair_function`, are the parameters of the measure; `matrix`,
    `prepare` and `search` receive all of them. The name for `measure=` is by default the function's name without its
    suffix. The other arguments are fields of `Measure`; `precision` is "highest" where the matrix form subtracts nearly
    equal squares.
    """
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in keywords}

    def bind_defaults(f: Callable[..., Any] | None) -> Any:
        # Defaults become constants of the compiled code (x^3 is two products); given parameters are its arguments.
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
    """Register a measure by its `formula(reduce, x, y, **parameters)`; see `define` for the other arguments."""
    define(function, matrix=functools.partial(formula, reduce_features_of_tile), prepare=prepare, range=range)
