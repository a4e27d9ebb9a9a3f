"""Sliced Wasserstein distance between two sets of samples: in one dimension optimal transport is a sort.

    W_p(x, y)^p = integral over q in [0, 1] of |F_x^-1(q) - F_y^-1(q)|^p,        SW_p^p = mean over directions of W_p^p

of the samples projected to a direction. The quantile function F^-1 of n samples is a step function with n equal steps.
Sets of different sizes are compared exactly, on the at most n + m - 1 pieces where both functions are constant.

References:
    Rabin, Peyré, Delon, Bernot (2011), Wasserstein Barycenter and its Application to Texture Mixing.
    Bonneel, Rabin, Peyré, Pfister (2015), Sliced and Radon Wasserstein Barycenters of Measures.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import InputError, as_matrices, auto_axes, check_at_least, map_rows, promote_to_float32
from simjax.similarity._dot_products import unit_vectors
from simjax.similarity._finite import power_of_two


def sliced_wasserstein_distance(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"],
    *,
    key: Array,
    projections: int = 128,
    p: int | float = 2,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute SW_p, the p-Wasserstein distance along random directions, averaged as (mean W_p^p)^(1/p).

    A translation by t has E[SW_2^2] = |t|^2 / d. The gradient is 0 where projections are equal.

    Args:
        x, y: Samples, [n, d] and [m, d].
        key: PRNG key; the directions are `unit_vectors(jax.random.normal(key, (projections, d)))`.
        projections: Number of directions; the error decreases with its square root.
        p: Finite power, at least 1.
        block_size: Directions per block. Default: chosen from a memory budget.

    Returns:
        A distance, at least 0 and exactly 0 for equal arrays, in the dtype of the samples.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0], [5.0]])
        >>> print(sliced_wasserstein_distance(x, y, key=jax.random.key(0), p=1).round(4))
        1.5

    Differs from `scipy.stats.wasserstein_distance`, which has p = 1 and one dimension; for these the results agree.
    """
    x, y = as_matrices(x, y)
    for name, size in (("samples of x", x.shape[0]), ("samples of y", y.shape[0]), ("projections", projections)):
        check_at_least(name, size, 1)
    if not 1 <= p < float("inf"):
        raise InputError(f"p: expected a finite number from 1, got {p}")
    distance = _sliced_wasserstein(
        promote_to_float32(x), promote_to_float32(y), key, _pieces(len(x), len(y)), projections, p, block_size
    )
    return distance.astype(jnp.result_type(x, y))


def _pieces(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the lengths of the pieces where steps of 1/n and of 1/m are constant, and the indices of both steps.

    None if n = m, where the pieces are the steps.
    """
    if n == m:
        return None
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / (n m)
    lengths = np.diff(ends, prepend=0) / (n * m)
    return lengths.astype(np.float32), ((ends - 1) // m).astype(np.int32), ((ends - 1) // n).astype(np.int32)


@partial(jax.jit, static_argnums=(4, 5, 6))
@auto_axes
def _sliced_wasserstein(x, y, key, pieces, projections: int, p: int | float, block_size: int | None) -> Array:
    dtype = jnp.result_type(x, y)
    directions = unit_vectors(jax.random.normal(key, (projections, x.shape[1]), dtype))
    # A common translation does not change the distance, but it would be rounded in the products.
    origin = lax.stop_gradient(jnp.sum(y / y.shape[0], axis=0, keepdims=True))
    x, y = x - origin, y - origin

    def distances_along(directions: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            a, b = jnp.sort(directions @ x.T, axis=1), jnp.sort(directions @ y.T, axis=1)  # [r, n], [r, m]
        if pieces is None:
            return _power_mean(jnp.abs(a - b), jnp.full(a.shape[1], 1 / a.shape[1], dtype), p)
        lengths, i, j = pieces
        return _power_mean(jnp.abs(a[:, i] - b[:, j]), lengths.astype(dtype), p)

    row_bytes = (x.shape[0] + y.shape[0]) * dtype.itemsize
    distances = map_rows(distances_along, directions, block_size=block_size, row_bytes=row_bytes)
    return _power_mean(distances[None], jnp.full(projections, 1 / projections, dtype), p)[0]


def _power_mean(values: Array, weights: Array, p: int | float) -> Array:
    """Compute (sum_k w_k v_k^p)^(1/p) of values [r, k] at least 0, [r], with gradient 0 at 0."""
    scale = power_of_two(jnp.max(values, axis=1, keepdims=True))
    zero = values == 0
    powers = jnp.where(zero, 0.0, jnp.where(zero, 1.0, values / scale) ** p)
    mean = jnp.sum(powers * weights[None], axis=1)
    return scale[:, 0] * jnp.where(mean == 0, 0.0, jnp.where(mean == 0, 1.0, mean) ** (1 / p))
