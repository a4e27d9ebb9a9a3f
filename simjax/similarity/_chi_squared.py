"""Chi-squared kernels, which compare histograms."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features
from simjax.similarity._finite import ratio, saturate


@pair_function()
def additive_chi2_kernel(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """-sum_k (x_k - y_k)^2 / (x_k + y_k), at most 0; a feature that is 0 in both adds 0, with zero gradient.

    Args:
        x: [..., d], at least 0.
        y: [..., d], likewise.

    Returns:
        [...].

    Example:
        >>> print(additive_chi2_kernel(jnp.array([1.0, 0.0]), jnp.array([3.0, 0.0])))
        -1.0

    References:
        Zhang, Marszalek, Lazebnik, Schmid (2007), Local features and kernels for classification of texture and object
        categories.

    Differs from: scikit-learn refuses negative numbers; here a feature whose sum is not positive adds 0.
    """
    return _additive_chi2(reduce_features, x, y)


@pair_function(gamma=0.0)
def chi2_kernel(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"], *, gamma: ArrayLike = 1.0) -> Num[Array, "*b"]:
    """exp(-gamma sum_k (x_k - y_k)^2 / (x_k + y_k)), in [0, 1].

    Args:
        x: [..., d], at least 0.
        y: [..., d], likewise.
        gamma: at least 0; may be learned.

    Returns:
        [...].

    Raises:
        InputError: for features that do not fit, or a gamma that is negative or NaN.

    Example:
        >>> print(chi2_kernel(jnp.array([1.0, 0.0]), jnp.array([3.0, 0.0]), gamma=2.0).round(4))
        0.1353

    References:
        Zhang, Marszalek, Lazebnik, Schmid (2007), Local features and kernels for classification of texture and object
        categories.

    Differs from: scikit-learn refuses negative numbers; here a feature whose sum is not positive adds 0.
    """
    return _chi2(reduce_features, x, y, gamma=gamma)


def _additive_chi2(reduce: Reduce, x: Array, y: Array) -> Array:
    def term(a: Array, b: Array) -> tuple[Array]:
        difference, total = a - b, a + b
        return (difference * ratio(difference, jnp.where(total > 0, total, 0.0)),)

    return -2 * reduce(term, x / 2, y / 2)[0]  # x + y may overflow where its half does not


def _chi2(reduce: Reduce, x: Array, y: Array, *, gamma: ArrayLike) -> Array:
    return jnp.exp(gamma * saturate(_additive_chi2(reduce, x, y)))


define_terms(additive_chi2_kernel, _additive_chi2, range=(-float("inf"), 0.0))
define_terms(chi2_kernel, _chi2, range=(0.0, 1.0))
