"""Chebyshev and Minkowski distances: the largest absolute difference, and the p-norm of the differences.

Terms t^p overflow where their p-th root does not. So the largest term is found first and the others are divided by
it: (sum_k (t_k / s)^p)^(1/p) s is the same number for every s > 0, which is why s needs no gradient.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import absolute
from simjax.similarity._manhattan import absolute_differences


@pair_function()
def chebyshev_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """The largest |x_k - y_k|, for x, y [..., d]; all of the gradient goes to the first feature among equals.

    Example:
        >>> print(chebyshev_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, -4.0])))
        4.0
    """
    return _chebyshev(reduce_features, x, y)


@pair_function(p=1.0)
def minkowski_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, p: ArrayLike = 3) -> Num[Array, "*b"]:
    """(|x_1 - y_1|^p + ... + |x_d - y_d|^p)^(1/p).

    Args:
        x: [..., d].
        y: [..., d].
        p: at least 1; infinity gives the Chebyshev distance. May be learned.

    Returns:
        [...], at least 0; the gradient where x_k = y_k is 0.

    Raises:
        InputError: for features that do not fit, or p below 1 or NaN.

    Example:
        >>> print(minkowski_distance(jnp.array([0.0, 0.0]), jnp.array([3.0, -4.0]), p=2))
        5.0

    Differs from: SciPy's default is p = 2, which is `euclidean_distance`.
    """
    return _minkowski(reduce_features, x, y, p=p)


def _chebyshev(reduce: Reduce, x: Array, y: Array) -> Array:
    return reduce(absolute_differences, x, y, "max")[0]


def _minkowski(reduce: Reduce, x: Array, y: Array, *, p: ArrayLike) -> Array:
    x, y = x / 4, y / 4  # neither x - y nor one over it may leave the range of the type
    most = _chebyshev(reduce, x, y)
    finite = jnp.isfinite(p)
    power = jnp.where(finite, p, 1.0).astype(most.dtype)
    scale = lax.stop_gradient(jnp.where(most > 0, most, 1.0))

    def term(a: Array, b: Array, per_scale: Array) -> tuple[Array]:
        t = absolute(a - b) * per_scale
        return (t**p if isinstance(p, int) else _power(t, power),)

    total = reduce(term, x, y, per_scale=1 / scale)[0]
    return 4 * jnp.where(finite, scale * _power(total, 1 / power), most)


def _power(t: Array, p: Array) -> Array:
    """t^p for t >= 0, with gradient 0 at 0 and so near it that 1 / t^2 overflows."""
    usable = t > float(jnp.finfo(t.dtype).tiny) ** 0.5
    return jnp.where(usable, jnp.exp(p * jnp.log(jnp.where(usable, t, 1.0))), 0.0)


_form = {"range": (0.0, float("inf"))}
define_terms(chebyshev_distance, _chebyshev, **_form)
define_terms(minkowski_distance, _minkowski, **_form)
