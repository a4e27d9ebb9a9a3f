"""Manhattan distance: the sum of the absolute differences."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.similarity._define import define_terms, from_terms, pair_function


def _terms(x: Array, y: Array) -> tuple[Array]:
    return (jnp.abs(x - y),)


def _total(total: Array, *, d: int) -> Array:
    return total


@pair_function()
def manhattan_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """|x_1 - y_1| + ... + |x_d - y_d|, for x, y [..., d]; the gradient where x_k = y_k is 0."""
    return from_terms(_terms, _total, "sum", x, y)


define_terms(manhattan_distance, _terms, _total, range=(0.0, float("inf")))
