"""Dropout of attention weights whose bits depend on the key and the place only, not on how rows are cut in blocks."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


def drop(weights: Array, i: Array, key: Array, rate: Array) -> Array:
    """Each weight set to 0 with probability `rate`, the others divided by 1 - rate.

    Args:
        weights: [r, s].
        i: numbers of the rows [r, 1].
        key: of this head.
        rate: in [0, 1).
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(i[:, 0])
    keep = jax.vmap(lambda row: jax.random.bernoulli(row, 1 - rate, weights.shape[1:]))(keys)
    return jnp.where(keep, weights / (1 - rate), 0.0)
