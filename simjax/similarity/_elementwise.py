"""Distances that sum (or take the largest of) one term for each feature: Manhattan, Chebyshev, Minkowski and others.

Each formula such as `manhattan(reduce, x, y)` gives two forms of a measure. `reduce(terms, x, y, **parameters)` sums
`terms(x_k, y_k, **parameters)` over the features k, either of pairs x, y [..., d] or of a tile: r rows x [r, d] of the
similarity matrix with all m columns y [m, d]. See `_define.Reduce`.

`pair_function` checks the arguments of a measure, x and y [..., d]. `_dot_products` describes their types and errors.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from simjax.similarity._define import Reduce, Values, Vectors, define_featurewise, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import absolute, largest, power_of_two, ratio, safe_sqrt


@pair_function()
def manhattan_distance(x: Vectors, y: Vectors) -> Values:
    """Compute sum_k |x_k - y_k|. The gradient where x_k = y_k is 0.

    Example:
        >>> print(manhattan_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, -4.0])))
        7.0
    """
    return manhattan(reduce_features, x, y)


@pair_function()
def chebyshev_distance(x: Vectors, y: Vectors) -> Values:
    """Compute max_k |x_k - y_k|. The whole gradient goes to the first feature with the largest difference.

    Example:
        >>> print(chebyshev_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, -4.0])))
        4.0
    """
    return _chebyshev(reduce_features, x, y)


@pair_function(minimum={"p": 1.0})
def minkowski_distance(x: Vectors, y: Vectors, *, p: ArrayLike = 3) -> Values:
    """Compute (sum_k |x_k - y_k|^p)^(1/p). The gradient where x_k = y_k is 0.

    Args:
        p: At least 1; infinity gives the Chebyshev distance. May be learned.

    Example:
        >>> print(minkowski_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, -4.0]), p=2))
        5.0

    Differs from SciPy, whose default is p = 2, which is `euclidean_distance`.
    """
    return _minkowski(reduce_features, x, y, p=p)


@pair_function()
def canberra_distance(x: Vectors, y: Vectors) -> Values:
    """Compute sum_k |x_k - y_k| / (|x_k| + |y_k|), in [0, d].

    A feature that is 0 in both vectors adds 0, with zero gradient.

    Example:
        >>> print(canberra_distance(jnp.array([1.0, 0.0, 2.0]), jnp.array([3.0, 0.0, -2.0])))
        1.5

    References:
        Lance, Williams (1967), Mixed-data classificatory programs.
    """
    return _canberra(reduce_features, x, y)


@pair_function()
def bray_curtis_distance(x: Vectors, y: Vectors) -> Values:
    """Compute sum_k |x_k - y_k| / sum_k |x_k + y_k|, in [0, 1] for non-negative numbers.

    Example:
        >>> print(bray_curtis_distance(jnp.array([1.0, 0.0, 2.0]), jnp.array([3.0, 0.0, 2.0])))
        0.25

    References:
        Bray, Curtis (1957), An ordination of the upland forest communities of southern Wisconsin.

    Differs from SciPy, which gives NaN or infinity where the second sum is 0; here it is 0, with zero gradient.
    """
    return _bray_curtis(reduce_features, x, y)


@pair_function()
def hamming_distance(x: Vectors, y: Vectors) -> Values:
    """Compute the fraction of features with x_k != y_k, in [0, 1]. The gradient is 0 everywhere.

    Example:
        >>> print(hamming_distance(jnp.array([1, 0, 2, 7]), jnp.array([1, 1, 2, 7])))
        0.25

    References:
        Hamming (1950), Error detecting and error correcting codes.
    """
    return _hamming(reduce_features, x, y)


@pair_function(minimum={"base": 1.0})
def jensen_shannon_distance(x: Vectors, y: Vectors, *, base: ArrayLike | None = None) -> Values:
    """Compute sqrt((KL(p | m) + KL(q | m)) / 2), with p = x / sum(x), q = y / sum(y), m = (p + q) / 2.

    The gradient is 0 at p = q and, for each outcome, where one of its probabilities is 0.

    Args:
        x, y: [..., d], at least 0; a negative number is taken as 0. A vector of zeros has probabilities of 0.
        base: Base of the logarithm, larger than 1. Default: e, with which the distance is at most sqrt(log 2).

    Example:
        >>> print(jensen_shannon_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0]), base=2))
        1.0

    References:
        Endres, Schindelin (2003), A new metric for probability distributions.

    Differs from SciPy, which gives NaN for a vector of zeros, and infinity for negative numbers.
    """
    return _jensen_shannon(reduce_features, *_distributions(x, y), base=base)


def manhattan(reduce: Reduce, x: Array, y: Array) -> Array:
    """Compute the Manhattan distance, of pairs or of a tile."""
    return reduce(_absolute_difference, x, y)[0]


def _absolute_difference(a: Array, b: Array) -> tuple[Array]:
    return (absolute(a - b),)


def _chebyshev(reduce: Reduce, x: Array, y: Array) -> Array:
    return reduce(_absolute_difference, x, y, "max")[0]


def _minkowski(reduce: Reduce, x: Array, y: Array, *, p: ArrayLike) -> Array:
    """Compute the Minkowski distance from the differences t_k = |x_k - y_k| divided by the largest one.

    t_k^p may overflow where the distance does not. s * (sum_k (t_k / s)^p)^(1/p) is the same number for every scale
    s > 0, so s needs no gradient.
    """
    # So that x - y does not overflow, and the inverse of a difference in the range of the dtype is not subnormal: XLA
    # rounds subnormal numbers to 0.
    x, y = x / 8, y / 8
    largest_difference = _chebyshev(reduce, x, y)
    is_finite_p = jnp.isfinite(p)
    power = jnp.where(is_finite_p, p, 1.0).astype(largest_difference.dtype)
    scale = lax.stop_gradient(jnp.where(largest_difference > 0, largest_difference, 1.0))

    def term(a: Array, b: Array, inverse_scale: Array) -> tuple[Array]:
        scaled = absolute(a - b) * inverse_scale
        return (scaled**p if isinstance(p, int) else _power(scaled, power),)  # p = 3, the default, is two products

    # The scale is an argument of the term and not closed over: `reduce` aligns it with the pairs or the tile.
    total = reduce(term, x, y, inverse_scale=1 / scale)[0]
    return 8 * jnp.where(is_finite_p, scale * _power(total, 1 / power), largest_difference)


def _power(t: Array, p: Array) -> Array:
    """Compute t^p for t >= 0; 0, with gradient 0, for t so small that t^2, by which derivatives divide, underflows."""
    usable = t > float(jnp.finfo(t.dtype).tiny) ** 0.5
    return jnp.where(usable, jnp.exp(p * jnp.log(jnp.where(usable, t, 1.0))), 0.0)


def _canberra(reduce: Reduce, x: Array, y: Array) -> Array:
    def term(a: Array, b: Array) -> tuple[Array]:
        return (ratio(absolute(a - b), absolute(a) + absolute(b)),)

    return reduce(term, x / 2, y / 2)[0]  # the ratio is the same, and no sum overflows


def _bray_curtis(reduce: Reduce, x: Array, y: Array) -> Array:
    factor = 2.0 ** -(2 * max(x.shape[-1], 1) - 1).bit_length()  # at most 1 / (2 d): no sum overflows
    differences, sums = reduce(lambda a, b: (absolute(a - b), absolute(a + b)), x * factor, y * factor)
    return ratio(differences, sums)


def _hamming(reduce: Reduce, x: Array, y: Array) -> Array:
    return reduce(lambda a, b: (jnp.not_equal(a, b).astype(a.dtype),), x, y)[0] / max(x.shape[-1], 1)


def _jensen_shannon(reduce: Reduce, p: Array, q: Array, *, base: ArrayLike | None) -> Array:
    divergence = reduce(_divergence, p, q)[0]
    return safe_sqrt(divergence if base is None else divergence / jnp.log(jnp.asarray(base, divergence.dtype)))


def _divergence(p: Array, q: Array) -> tuple[Array]:
    """Compute (p log(p / m) + q log(q / m)) / 2, the Jensen-Shannon divergence of one outcome, with m = (p + q) / 2.

    With t = (p - q) / (p + q) it is m ((1 + t) log(1 + t) + (1 - t) log(1 - t)) / 2. The two summands cancel for a
    small t, where the series m (t^2 + t^4/6 + t^6/15 + ...) / 2 keeps every digit: below 0.1 six terms are exact in
    float64, above it the logarithms lose less than one digit.
    """
    total = p + q
    t = ratio(p - q, total)
    small = jnp.abs(t) < 0.1
    small_t, large_t = jnp.where(small, t, 0.0), jnp.where(small, 0.5, t)
    s = small_t * small_t
    series = s * (1 + s * (1 / 6 + s * (1 / 15 + s * (1 / 28 + s * (1 / 45 + s / 66)))))
    return (total / 4 * jnp.where(small, series, _x_log_x(1 + large_t) + _x_log_x(1 - large_t)),)


def _x_log_x(x: Array) -> Array:
    positive = x > 0
    return jnp.where(positive, x * jnp.log(jnp.where(positive, x, 1.0)), 0.0)


def _distributions(x: Array, y: Array, **_: ArrayLike | None) -> tuple[Array, Array]:
    """Divide x and y [..., d] by their sums; negative numbers become 0."""

    def distribution(x: Array) -> Array:
        x = jnp.where(x > 0, x, 0.0)
        x = x / power_of_two(largest(x))
        return ratio(x, jnp.sum(x, axis=-1, keepdims=True))

    return distribution(x), distribution(y)


define_featurewise(manhattan_distance, manhattan)
define_featurewise(chebyshev_distance, _chebyshev)
define_featurewise(minkowski_distance, _minkowski)
define_featurewise(canberra_distance, _canberra)
define_featurewise(bray_curtis_distance, _bray_curtis)
define_featurewise(hamming_distance, _hamming, range=(0.0, 1.0))
define_featurewise(jensen_shannon_distance, _jensen_shannon, prepare=_distributions)
