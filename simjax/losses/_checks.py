"""Checks of proxies."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from simjax.core import NO_CLASS, InputError, as_float_array, as_integer_array, class_ids


def class_vectors(labels: ArrayLike, proxies: ArrayLike) -> tuple[Array, Array, Array]:
    """Proxies [c, ...] as an array, the class id of each row [n], and the ids 0 to c - 1 of the proxies.

    A known id that is too large is refused; a negative or a traced one out of range becomes `NO_CLASS`.

    Raises:
        InputError: with the largest id and the number of proxies.
        TypeError: for labels that are not integers.
    """
    vectors = as_float_array("proxies", proxies)
    given = as_integer_array("labels", labels)
    c = vectors.shape[0]
    if not isinstance(given, Tracer) and given.size and (largest := int(np.max(np.asarray(given)))) >= c:
        raise InputError(f"labels: expected class ids below {c}, the number of proxies, got {largest}")
    ids = class_ids("labels", given)
    return vectors, jnp.where((ids >= 0) & (ids < c), ids, NO_CLASS), jnp.arange(c, dtype=jnp.int32)
