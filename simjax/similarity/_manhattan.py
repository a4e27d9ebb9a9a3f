"""Manhattan distance: the sum of the absolute differences."""

from jax import Array
from jaxtyping import Num, Shaped

from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import absolute


@pair_function()
def manhattan_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """|x_1 - y_1| + ... + |x_d - y_d|, for x, y [..., d]; the gradient where x_k = y_k is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(manhattan_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, -4.0])))
        7.0
    """
    return manhattan(reduce_features, x, y)


def manhattan(reduce: Reduce, x: Array, y: Array) -> Array:
    """The formula, of pairs or of every row with every column."""
    return reduce(absolute_differences, x, y)[0]


def absolute_differences(a: Array, b: Array) -> tuple[Array]:
    """|a - b|, the term of each feature."""
    return (absolute(a - b),)


define_terms(manhattan_distance, manhattan, range=(0.0, float("inf")))
