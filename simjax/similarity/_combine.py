"""Several embeddings of each thing as one: how the encoders of an ensemble are used together."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array, check_choice
from simjax.similarity._dot_products import unit_vectors

WAYS = ("average", "concatenate")


def combine_embeddings(embeddings: Sequence[Num[ArrayLike, "n _"]], how: str = "average") -> Array:
    """Embeddings of the same n things by several encoders, as one embedding of each thing.

    Args:
        embeddings: of each encoder [n, e], where e may differ.
        how: "average", so that the cosine similarity of two things is the mean of the encoders' cosine similarities,
            each of which counts alike; "concatenate", so that an encoder counts more where its vectors are long.

    Returns:
        [n, the sum of all e].

    Raises:
        InputError: if there are none, or they are not of equally many things.

    Example:
        One encoder holds two things for equal, another for unrelated:

        >>> a, b = jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([[3.0, 0.0], [0.0, 5.0]])
        >>> x, y = combine_embeddings([a, b])
        >>> print(f"{jnp.dot(x, y):.3f}")
        0.500
    """
    check_choice("how", how, WAYS)
    arrays = [as_float_array("embeddings", a) for a in embeddings]
    if not arrays or any(a.ndim != 2 or a.shape[0] != arrays[0].shape[0] for a in arrays):
        raise InputError(f"embeddings: expected one or more of shape [n, e], got shapes {[a.shape for a in arrays]}")
    if how == "average":
        arrays = [unit_vectors(a) / len(arrays) ** 0.5 for a in arrays]
    return jnp.concatenate(arrays, axis=1)
