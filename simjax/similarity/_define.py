"""What a named measure needs: a public function of pairs, and its entry among the measures."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import MEASURES, InputError, Measure, check_at_least, floats, reduce_pairs, reduce_strip, wide

SIMILAR = ("_similarity", "_product", "_kernel", "_index", "_coefficient")
"""Ends of names of functions that are larger when closer; those of distances end in `_distance`."""


def pair_function(**minimum: float) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Make a formula of x, y [..., d] a public function: inputs checked and converted, jitted, computed in float32.

    Args:
        **minimum: the smallest value of each parameter that has one.
    """

    def public(formula: Callable[..., Array]) -> Callable[..., Array]:
        compiled = jax.jit(formula)

        @functools.wraps(formula)
        def function(x: ArrayLike, y: ArrayLike, **parameters: Any) -> Array:
            x, y = floats("x", x), floats("y", y)
            if not x.ndim or not y.ndim or x.shape[-1] != y.shape[-1]:
                raise InputError(f"y: expected as many features as x, got shapes {x.shape} and {y.shape}")
            for name, least in minimum.items():
                check_at_least(name, parameters.get(name), least)
            return compiled(wide(x), wide(y), **parameters).astype(jnp.result_type(x, y))

        function.minimum = tuple(minimum.items())
        return function

    return public


def define(function: Callable[..., Array], name: str | None = None, **form: Any) -> Measure:
    """Enter a public function among the measures; its name says its direction.

    Args:
        function: made by `pair_function`.
        name: what `measure=` calls it; None is the function's name without its suffix.
        **form: fields of `Measure`: matrix, prepare, range, copies, exact_zero.
    """
    whole = function.__name__
    higher_is_closer = whole.endswith(SIMILAR)
    name = name or whole.rsplit("_", 1)[0]
    # What a sum of squares cancels, a low precision loses; products of similarities may be left to JAX.
    precision = None if higher_is_closer else "highest"
    MEASURES[name] = Measure(
        function.__wrapped__,
        higher_is_closer,
        name=name,
        minimum=function.minimum,
        **{"precision": precision, **form},
    )
    return MEASURES[name]


def define_terms(
    function: Callable[..., Array],
    terms: Callable[..., tuple[Array, ...]],
    finish: Callable[..., Array],
    *,
    combine: str = "sum",
    **form: Any,
) -> Measure:
    """Enter a measure that reduces one term for each feature, see `from_terms`."""

    def matrix(x: Array, y: Array, **parameters: Any) -> Array:
        totals = reduce_strip(terms, x, y, combine, **parameters)
        return finish(*totals, d=x.shape[1], **parameters)

    return define(function, matrix=matrix, **{"copies": 12, **form})


def from_terms(terms: Callable[..., tuple[Array, ...]], finish: Callable[..., Array], combine: str, x, y, **parameters):
    """The pair form of what `define_terms` enters: `finish` of the terms summed (or maximised) over the features."""
    return finish(*reduce_pairs(terms, x, y, combine, **parameters), d=x.shape[-1], **parameters)
