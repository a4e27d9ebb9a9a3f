"""What a named measure needs: a public function of pairs, and its entry among the measures.

A measure without a form as a matrix product is one formula of (reduce, x, y, **parameters). `reduce` sums terms over
the features: `reduce_features` for pairs of vectors, `reduce_features_of_tile` for all pairs of rows and columns. So
one definition gives both forms.
"""

import functools
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
    promote_to_float32,
    replace_non_finite_rows,
)
from simjax.similarity._featurewise import reduce_features_of_tile
from simjax.similarity._measure import MEASURES, Measure

SIMILAR = ("_similarity", "_product", "_kernel", "_index", "_coefficient")
"""Ends of names of functions that are larger when closer; those of distances end in `_distance`."""

Reduce = Callable[..., tuple[Array, ...]]
"""reduce(terms, x, y, combine="sum", **parameters of the terms), see `_featurewise.reduce_features_of_tile`."""


def pair_function(
    *, propagates_nan: bool = True, **minimum: float
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Make a formula of x, y [..., d] a public function: inputs checked and converted, jitted, computed in float32.

    The formula sees arrays; the function takes whatever becomes one, integers and booleans included.

    Args:
        propagates_nan: A vector that holds NaN or infinity gives NaN; False leaves it to the formula.
        **minimum: the smallest value of each parameter that has one; minus infinity only keeps NaN out.
    """

    def public(formula: Callable[..., Array]) -> Callable[..., Array]:
        @jax.jit
        @functools.wraps(formula)
        def compiled(x: Array, y: Array, **parameters: Any) -> Array:
            if not propagates_nan:
                return formula(x, y, **parameters)
            (x, x_nan), (y, y_nan) = replace_non_finite_rows(x), replace_non_finite_rows(y)
            return formula(x, y, **parameters) + (x_nan + y_nan)

        @functools.wraps(formula)
        def function(x: ArrayLike, y: ArrayLike, **parameters: Any) -> Array:
            x, y = as_float_array("x", x), as_float_array("y", y)
            if not x.ndim or not y.ndim or x.shape[-1] != y.shape[-1]:
                raise InputError(f"y: expected as many features as x, got shapes {x.shape} and {y.shape}")
            try:
                rank = len(jnp.broadcast_shapes(x.shape, y.shape))
            except ValueError:
                raise InputError(f"y: expected a shape that goes with x, got {x.shape} and {y.shape}") from None
            for name, least in minimum.items():
                check_at_least(name, parameters.get(name), least)
            parameters = {n: as_number_array(n, p) if isinstance(p, np.ndarray) else p for n, p in parameters.items()}
            wide_x, wide_y = (promote_to_float32(a).reshape((1,) * (rank - a.ndim) + a.shape) for a in (x, y))
            return compiled(wide_x, wide_y, **parameters).astype(jnp.result_type(x, y))

        function.__dict__["form"] = {"minimum": tuple(minimum.items()), "propagates_nan": propagates_nan}
        return function

    return public


def define(function: Callable[..., Array], name: str | None = None, *, symmetric: bool = True, **form: Any) -> Measure:
    """Enter a public function among the measures; its name says its direction.

    Args:
        function: made by `pair_function`; its keywords are the measure's parameters.
        name: what `measure=` calls it; None is the function's name without its suffix.
        symmetric: whether x and y may be exchanged, whatever the parameters.
        **form: fields of `Measure`: matrix, prepare, search (all three take all parameters), range, exact_zero,
            precision.
    """
    whole = function.__name__
    higher_is_closer = whole.endswith(SIMILAR)
    name = name or whole.rsplit("_", 1)[0]
    # What a sum of squares cancels, a low precision loses; products of similarities may be left to JAX.
    precision = None if higher_is_closer else "highest"
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
    # A default is a constant of the compiled code (x^3 is two products), a parameter that is given is an argument.
    defaults = {p.name: p.default for p in keywords}
    if defaults:
        form |= {
            key: functools.partial(form[key], **defaults) for key in ("matrix", "prepare", "search") if key in form
        }
    form = {"symmetric": symmetric, "precision": precision, **function.__dict__["form"], **form}
    MEASURES[name] = Measure(function, higher_is_closer, name=name, **form)
    return MEASURES[name]


def define_terms(function: Callable[..., Array], formula: Callable[..., Array], **form: Any) -> Measure:
    """Enter a measure whose `formula(reduce, x, y, **parameters)` goes through the features."""
    return define(function, matrix=functools.partial(formula, reduce_features_of_tile), **form)
