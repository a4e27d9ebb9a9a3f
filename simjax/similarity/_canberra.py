"""Canberra and Bray-Curtis distances: absolute differences relative to the size of what is compared."""

from jax import Array
from jaxtyping import Num, Shaped

from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import absolute, ratio


@pair_function()
def canberra_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """The sum of |x_k - y_k| / (|x_k| + |y_k|), in [0, d]; a feature that is 0 in both adds 0, with zero gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> print(canberra_distance(jnp.array([1.0, 0.0, 2.0]), jnp.array([3.0, 0.0, -2.0])))
        1.5

    References:
        Lance, Williams (1967), Mixed-data classificatory programs.
    """
    return _canberra(reduce_features, x, y)


@pair_function()
def bray_curtis_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """The sum of |x_k - y_k| over the sum of |x_k + y_k|, in [0, 1] for numbers that are not negative.

    Example:
        >>> import jax.numpy as jnp
        >>> print(bray_curtis_distance(jnp.array([1.0, 0.0, 2.0]), jnp.array([3.0, 0.0, 2.0])))
        0.25

    References:
        Bray, Curtis (1957), An ordination of the upland forest communities of southern Wisconsin.

    Differs from: SciPy gives NaN or infinity where the second sum is 0; here it is 0, with zero gradient.
    """
    return _bray_curtis(reduce_features, x, y)


def _canberra(reduce: Reduce, x: Array, y: Array) -> Array:
    def term(a: Array, b: Array) -> tuple[Array]:
        return (ratio(absolute(a - b), absolute(a) + absolute(b)),)

    return reduce(term, x / 2, y / 2)[0]  # the ratio is the same, and no sum overflows


def _bray_curtis(reduce: Reduce, x: Array, y: Array) -> Array:
    smaller = 2.0 ** -(2 * max(x.shape[-1], 1) - 1).bit_length()  # at most 1 / (2 d): no sum overflows
    apart, together = reduce(lambda a, b: (absolute(a - b), absolute(a + b)), x * smaller, y * smaller)
    return ratio(apart, together)


define_terms(canberra_distance, _canberra, range=(0.0, float("inf")))
define_terms(bray_curtis_distance, _bray_curtis, range=(0.0, float("inf")))
