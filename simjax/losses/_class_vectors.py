"""What losses with a vector for each class share: rows are embeddings, columns the vectors of the classes.

Each row has one positive, its own class; an id that no vector stands for counts nowhere. A class may also have several
vectors, its centres. The columns are then the centres of all classes, one class after the other, and a form of classes
becomes one of centres by first making one closeness of each class out of those of its centres.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from simjax.core import InputError
from simjax.losses._checks import class_vectors
from simjax.losses._options import ClassOptions, resolve_options
from simjax.losses._pair_loss import TermFunction, compute_pair_loss, log_sum_exp

Merge = Callable[..., Array]
"""merge(c, **parameters): the closeness of centres [r, classes, k] to that of classes [r, classes]."""


def classified(form: TermFunction, embeddings: Any, labels: Any, proxies: Any, options: Any, **parameters: Any) -> Any:
    """The loss a form makes of cosines with class vectors [c, d]."""
    vectors, ids, classes = class_vectors(labels, proxies)
    resolved = dataclasses.replace(
        resolve_options(classified, options, accepted=ClassOptions), ref_embeddings=vectors, ref_labels=classes
    )
    return compute_pair_loss(form, embeddings, ids, resolved, **parameters)


def classified_by_centers(
    form: TermFunction,
    merge: Merge,
    embeddings: Any,
    labels: Any,
    proxies: Any,
    options: Any,
    merging: Any,
    **parameters: Any,
) -> Any:
    """The same of centres [c, k, d]; `merging` are the parameters of `merge`, by name.

    Raises:
        InputError: for proxies of another shape.
    """
    vectors, ids, classes = class_vectors(labels, proxies)
    check_centers(vectors)
    c, k, d = vectors.shape
    resolved = dataclasses.replace(
        resolve_options(classified_by_centers, options, accepted=ClassOptions),
        ref_embeddings=vectors.reshape(c * k, d),
        ref_labels=jnp.repeat(classes, k),
    )
    return compute_pair_loss(_of_centers(form, merge, k), embeddings, ids, resolved, merging=merging, **parameters)


def check_centers(proxies: Array) -> None:
    """Proxies must be [c, k, d], with at least one centre for each class.

    Raises:
        InputError: with the shape.
    """
    if proxies.ndim != 3 or not proxies.shape[1]:
        raise InputError(f"proxies: expected k vectors for each class, [c, k, d], got shape {proxies.shape}")


@functools.cache  # the same function for the same arguments: a new one would be compiled anew
def _of_centers(form: TermFunction, merge: Merge, k: int) -> TermFunction:
    def of_centers(c: Array, positive: Array, negative: Array, *, merging: Any, **parameters: Any) -> Any:
        shape = (c.shape[0], c.shape[1] // k, k)
        first = (mask.reshape(shape)[:, :, 0] for mask in (positive, negative))
        return form(merge(c.reshape(shape), **merging), *first, **parameters)

    return of_centers


def cross_entropy(logits: Array, target: Array, positive: Array) -> Any:
    """Of logits [r, c] whose entry of the own class is another one, `target` [r, c] or [r, 1]: one term a row."""
    z = jnp.where(positive, target, logits)
    own = jnp.sum(jnp.where(positive, z, 0), axis=1, keepdims=True)
    found = jnp.any(positive, axis=1, keepdims=True)
    return {"row": (jnp.where(found, log_sum_exp(z, jnp.ones_like(positive)) - own, 0), found)}
