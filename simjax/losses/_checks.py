"""Checks of what losses are given."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from simjax.core import InputError, Relation, by_class


def check_class_ids(labels: ArrayLike, classes: int, of_what: str) -> None:
    """Known class ids must be below the number of what is learned for each class; traced ones are taken as they are.

    Raises:
        InputError: with the largest id and that number.
    """
    if not isinstance(labels, Tracer) and np.size(labels) and (largest := int(np.max(np.asarray(labels)))) >= classes:
        raise InputError(f"labels: expected class ids below {classes}, the number of {of_what}, got {largest}")


def class_vectors(labels: ArrayLike, proxies: ArrayLike) -> tuple[Array, Array]:
    """Proxies [c, d] as an array, and the classes 0 to c - 1 that they stand for.

    Known class ids must have a proxy; traced ones are taken as they are.

    Raises:
        InputError: with the largest id and the number of proxies.
    """
    vectors = jnp.asarray(proxies)
    check_class_ids(labels, len(vectors), "proxies")
    return vectors, jnp.arange(len(vectors), dtype=jnp.int32)


def ids_of_rows(labels: Any, what_for: str) -> Array:
    """The class id of each row [n], of class ids or a `Relation`.

    Raises:
        InputError: for a relation without class ids, with what they are needed for.
        TypeError: for labels that are no integers.
    """
    relation = labels if isinstance(labels, Relation) else by_class(labels)
    if relation.classes is None:
        raise InputError(f"labels: {what_for} needs class ids, got a relation without")
    return relation.classes[0]
