"""Responses of units by other measures than the dot product of input and weight vector.

A unit of a dense layer or a convolution compares an input x, a row or a patch of d numbers, with its weight vector w:

    dot                  x . w
    cosine               x . w / (|x| |w|)
    squared_euclidean    -|x - w|^2
    rbf                  exp(-gamma |x - w|^2)
    manhattan            -sum_k |x_k - w_k|

All but the last one are computed from dot products of x and w and from their squared norms.

References:
    Luo, Zhan, Xue, Wang, Ren, Yang (2018), Cosine Normalization: Using Cosine Similarity Instead of Dot Product in
    Neural Networks. Broomhead, Lowe (1988), Multivariable Functional Interpolation and Adaptive Networks (rbf).
    Chen et al. (2020), AdderNet: Do We Really Need Multiplications in Deep Learning? (manhattan)
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax import similarity
from simjax.core import check_choice, map_rows, promote_to_float32, rows_per_block
from simjax.nn._loss_parameters import clip_logarithm, random_directions

NETWORK_MEASURES = ("dot", "cosine", "squared_euclidean", "rbf", "manhattan")
"""Measures by which the units of a network compare inputs with weight vectors, and its attention queries with keys."""

MANHATTAN = similarity.measure("manhattan")
EPSILON = 1e-6  # of a mean square; bounds the gradient of a cosine at patches of zeros, such as those of the padding
WEIGHT_SCALE = 2.0
"""Initial root mean square of weights, for inputs of mean square 1. In |x - w|^2 = |x|^2 - 2 x.w + |w|^2 the first term
is common to all units. With 1 in place of 2 it hides the second one: the test accuracy of the default dense network on
digits falls from 0.91 to 0.76 for "manhattan" and from 0.97 to 0.84 for "rbf"."""


class Response(nnx.Module):
    """The measure of inputs x and weight vectors w, standardized and multiplied by a learned scale.

        response = scale (score - mean(w)) / deviation,    score = measure(x, w),    w = sqrt(d) kernel

    Distances are negated. The kernel of a unit starts with a random direction and the length 2, `WEIGHT_SCALE`.
    mean(w) is the mean score of standard normal x, and the deviation that of the initial scores, see `score_deviation`:
    responses to such inputs start with mean 0 and variance 1, and the same learning rate is suitable for all measures.
    A unit with a bias can learn the same functions with and without mean(w), but without it the length of w acts as a
    bias with a large learning rate: 30 epochs of `train.py --model vit --vit.measure squared_euclidean` on digits then
    reach a test accuracy of 0.76 in place of 0.88.
    The scale starts at 1, and gamma of "rbf", which is learned as well, at the inverse of the mean squared distance.
    Computed in float32 or wider, because squared distances are differences of large numbers.

    Args:
        measure: Name of a measure in `NETWORK_MEASURES` except "dot".
        features: d, the number of inputs of a unit.
    """

    def __init__(self, measure: str, features: int):
        check_choice("measure", measure, NETWORK_MEASURES)
        self.measure, self.features = measure, features
        self.log_scale = nnx.Param(jnp.zeros(()))
        self.log_gamma = nnx.Param(jnp.zeros(())) if measure == "rbf" else None  # of gamma times the mean distance

    def __call__(
        self,
        x: Array,
        kernel: Array,
        *,
        multiply: Callable[[Array, Array], Array],
        extract: Callable[[Array], Array],
    ) -> Array:
        """Compute the responses [..., k] of k units.

        Args:
            x: Rows [..., d] of a dense layer, or images [b, h, w, c] of a convolution.
            kernel: [d, k] or [kh, kw, c, k].
            multiply: Computes the dot products [..., k] of the inputs in x with the columns of a kernel.
            extract: Returns the inputs in x, [..., d].
        """
        weights = promote_to_float32(kernel) * self.features**0.5
        if self.measure == "manhattan":
            score = -_manhattan(promote_to_float32(x), weights, extract)
        else:
            score = self._score(promote_to_float32(x), weights, multiply)
        gamma = None if self.log_gamma is None else self._gamma(self.log_gamma)
        mean = mean_score(self.measure, weights.reshape(-1, weights.shape[-1]), gamma)
        mean = mean.reshape((1,) * (score.ndim - 1) + mean.shape)
        deviation = score_deviation(self.measure, self.features, WEIGHT_SCALE)
        scale = jnp.exp(clip_logarithm(self.log_scale[...])) / deviation
        return ((score - mean) * scale).astype(jnp.result_type(x, kernel))

    def _gamma(self, log_gamma: Any) -> Array:
        return jnp.exp(clip_logarithm(log_gamma[...])) / ((1 + WEIGHT_SCALE**2) * self.features)

    def _score(self, x: Array, weights: Array, multiply: Callable[[Array, Array], Array]) -> Array:
        """Compute the scores from dot products, see `__call__`."""
        products = multiply(x, weights)
        ones = jnp.ones((*weights.shape[:-2], 1, 1), weights.dtype)
        x_squares = multiply(jnp.sum(x * x, axis=-1, keepdims=True), ones)  # [..., 1]
        w_squares = jnp.sum(weights * weights, axis=tuple(range(weights.ndim - 1)))
        w_squares = w_squares.reshape((1,) * (products.ndim - 1) + w_squares.shape)
        if self.measure == "cosine":
            epsilon = EPSILON * self.features
            return products * jax.lax.rsqrt(x_squares + epsilon) * jax.lax.rsqrt(w_squares + epsilon)
        squares = jax.nn.relu(x_squares + w_squares - 2 * products)
        return -squares if self.log_gamma is None else jnp.exp(-self._gamma(self.log_gamma) * squares)


def unit_kernel(key: Array, shape: tuple[int, ...]) -> Array:
    """Return an initial kernel [d, k] or [kh, kw, c, k] whose units have random directions and the same length."""
    directions = random_directions(key, (shape[-1], math.prod(shape[:-1])))
    return WEIGHT_SCALE * directions.T.reshape(shape)


def mean_score(measure: str, weights: Array, gamma: Array | None = None) -> Array:
    """Return the means [k] of the scores of a standard normal x and the weight vectors [d, k].

    Args:
        measure: Name in `NETWORK_MEASURES` except "dot". Distances are negated.
        weights: [d, k].
        gamma: That of "rbf", scalar.
    """
    d, squares = len(weights), jnp.sum(weights * weights, axis=0)
    if measure == "squared_euclidean":
        return -(d + squares)
    if gamma is not None:  # |x - w|^2 has a noncentral chi-squared distribution
        return jnp.exp(-0.5 * d * jnp.log1p(2 * gamma) - gamma * squares / (1 + 2 * gamma))
    if measure == "manhattan":  # |x_k - w_k| has a folded normal distribution
        density = (2 / math.pi) ** 0.5 * jnp.exp(-0.5 * weights * weights)
        return -jnp.sum(density + weights * jax.lax.erf(weights / 2**0.5), axis=0)
    return jnp.zeros_like(squares)


def score_deviation(measure: str, d: int, weight_scale: float) -> float:
    """Return the standard deviation of the score of a standard normal x and a w of random direction.

    Args:
        measure: Name in `NETWORK_MEASURES` except "dot". Gamma of "rbf" is the inverse of the mean squared distance.
        d: Number of features.
        weight_scale: |w| / sqrt(d).
    """
    w_square = weight_scale**2
    square = 1 + w_square  # mean of (x_k - w_k)^2

    def kernel_mean(gamma: float) -> float:
        return (1 + 2 * gamma) ** (-d / 2) * math.exp(-gamma * w_square * d / (1 + 2 * gamma))

    # For "manhattan", of features that are normal; the second term is the variance that a fixed |w| removes.
    absolute_variance = square * (1 - 2 / math.pi) - w_square**2 / (math.pi * square)
    return {
        "cosine": d**-0.5,
        "squared_euclidean": ((2 + 4 * w_square) * d) ** 0.5,
        "rbf": (kernel_mean(2 / (square * d)) - kernel_mean(1 / (square * d)) ** 2) ** 0.5,
        "manhattan": (d * absolute_variance) ** 0.5,
    }[measure]


def _manhattan(x: Array, weights: Array, extract: Callable[[Array], Array]) -> Array:
    """Compute Manhattan distances [..., k], in blocks of rows or images whose inputs fit a memory budget."""
    *sizes, k = weights.shape
    columns = weights.reshape(-1, k).T
    n_axes = len(sizes)  # of a row or an image, whose other axes are merged
    items = x.reshape(-1, *x.shape[x.ndim - n_axes :])

    def distances(block: Any) -> Array:
        inputs = extract(block)
        values = MANHATTAN.all_pairs(inputs.reshape(-1, columns.shape[1]), columns)
        return values.reshape(*inputs.shape[:-1], k)

    inputs = jax.eval_shape(extract, items[:1])
    item_bytes = inputs.size // columns.shape[1] * max(columns.shape) * x.dtype.itemsize
    out = map_rows(distances, items, block_size=rows_per_block(len(items), item_bytes, min_rows=1))
    return out.reshape(*x.shape[: x.ndim - n_axes], *out.shape[1:])
