"""Checks of the arguments of losses, and values looked up by class."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from simjax.core import NO_CLASS, InputError, as_integer_array, take_rows
from simjax.pairs import Relation, by_class


def values_of_rows(values: Array, labels: Any, of_what: str) -> Array:
    """The value of the class of each row: values [c] to [n].

    Args:
        values: one for each class [c], at least one.
        labels: class ids [n] or a `Relation`.
        of_what: name of the values in errors.

    Returns:
        [n]; NaN where a traced id is not from 0 to c - 1.

    Raises:
        InputError: for a relation without class ids, or a known id that is not from 0 to c - 1.
        TypeError: for labels that are not integers.
    """
    relation, c = labels if isinstance(labels, Relation) else by_class(labels), len(values)
    if relation.classes is None:
        raise InputError(f"labels: {of_what} need class ids, got a relation without")
    ids = relation.classes[0]
    given = ids if isinstance(labels, Relation) else as_integer_array("labels", labels)
    if not isinstance(given, Tracer):
        known = np.asarray(given)
        known = known[known != NO_CLASS]
        if known.size and (largest := int(known.max())) >= c:
            raise InputError(f"labels: expected class ids below {c}, the number of {of_what}, got {largest}")
        if known.size and (smallest := int(known.min())) < 0:
            raise InputError(f"labels: expected class ids from 0 on, which {of_what} are looked up by, got {smallest}")
    in_range = (ids >= 0) & (ids < c)
    return jnp.where(in_range | (ids == NO_CLASS), take_rows(values, jnp.where(in_range, ids, 0)), jnp.nan)
