"""Angular mining: triplets in which the negative sees anchor and positive under a wide angle.

With c the middle of anchor and positive, as unit vectors all, the angle at the negative is

    atan( |a - p| / (2 |n - c|) )

References:
    Wang, Zhou, Wen, Liu, Lin (2017), Deep Metric Learning with Angular Loss.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import Relation, entries
from simjax.mining._mined import closeness, keep_triplets, related


def angular(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    angle: ArrayLike = 20.0,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
) -> Relation:
    """Triplets whose angle at the negative is larger than a given one; time of n m d for each positive.

    Args:
        embeddings: [n, d]; compared at unit length.
        labels: class ids [n] or a `Relation`.
        angle: in degrees; may be traced.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.

    Returns:
        A relation of triplets. A loss of pairs takes each pair that is in one of them once.

    Raises:
        InputError: for shapes that do not fit.
        TypeError: for labels that are no integers.

    Differs from pytorch-metric-learning, which takes the middle of anchor and positive before they have unit length.
    """
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    slope = 2 * jnp.tan(jnp.deg2rad(angle))
    return keep_triplets(_wide, closeness(x, y, "cosine"), relation, slope=slope, of_columns=closeness(y, y, "cosine"))


def _wide(c: Array, i: Array, negative: Array, *, slope: Array, of_columns: Callable[[Array, Array], Array]) -> Partial:
    return Partial(_seen_wide, c, negative, slope, of_columns)


def _seen_wide(
    c: Array, negative: Array, slope: Array, of_columns: Callable[[Array, Array], Array], columns: Array
) -> Array:
    everything = jnp.arange(c.shape[1], dtype=jnp.int32)[None]
    to_positive = entries(c, columns)
    of_positive = of_columns(columns.reshape(-1, 1), everything).reshape(*columns.shape, -1)
    length = jnp.sqrt(jnp.maximum(2 + 2 * to_positive, 0))  # of anchor + positive
    to_middle = (c[:, None] + of_positive) / jnp.where(length > 0, length, 1)
    distance = jnp.sqrt(jnp.maximum(1 + (length > 0) - 2 * to_middle, 0))
    return negative[:, None] & (jnp.sqrt(jnp.maximum(2 - 2 * to_positive, 0)) > slope * distance)
