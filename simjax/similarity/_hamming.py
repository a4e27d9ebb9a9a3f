"""Hamming distance: the fraction of features that differ."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Num, Shaped

from simjax.similarity._define import Reduce, define_terms, pair_function
from simjax.similarity._featurewise import reduce_features


@pair_function()
def hamming_distance(x: Shaped[Array, "*#b d"], y: Shaped[Array, "*#b d"]) -> Num[Array, "*b"]:
    """The fraction of features with x_k != y_k, for x, y [..., d], in [0, 1]; its gradient is 0 everywhere.

    Example:
        >>> print(hamming_distance(jnp.array([1, 0, 2, 7]), jnp.array([1, 1, 2, 7])))
        0.25

    References:
        Hamming (1950), Error detecting and error correcting codes.
    """
    return _hamming(reduce_features, x, y)


def _hamming(reduce: Reduce, x: Array, y: Array) -> Array:
    return reduce(lambda a, b: (jnp.not_equal(a, b).astype(a.dtype),), x, y)[0] / max(x.shape[-1], 1)


define_terms(hamming_distance, _hamming, range=(0.0, 1.0))
