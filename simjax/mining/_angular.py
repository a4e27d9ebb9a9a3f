"""Angular mining: triplets in which the negative sees anchor and positive under a wide angle.

With c = (a + p) / 2 the middle of anchor and positive, unit vectors as the negative is, the angle at the negative is

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

from simjax.core import check_at_least
from simjax.mining._mined import closeness, keep_triplets, related
from simjax.pairs import Relation
from simjax.pairs._fold_positives import take_columns


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

    Differs from pytorch-metric-learning, which takes embeddings as they are; of unit vectors both
    keep the same triplets.
    """
    check_at_least("angle", angle, 0)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    slope = 2 * jnp.tan(jnp.deg2rad(angle))
    return keep_triplets(_wide, closeness(x, y, "cosine"), relation, slope=slope, of_columns=closeness(y, y, "cosine"))


def _wide(c: Array, i: Array, negative: Array, *, slope: Array, of_columns: Callable[[Array, Array], Array]) -> Partial:
    return Partial(_seen_wide, c, negative, slope, of_columns)


def _seen_wide(
    c: Array, negative: Array, slope: Array, of_columns: Callable[[Array, Array], Array], columns: Array
) -> Array:
    everything = jnp.arange(c.shape[1], dtype=jnp.int32)[None]
    to_positive = take_columns(c, columns)
    of_positive = of_columns(columns.reshape(-1, 1), everything).reshape(*columns.shape, -1)
    # |n - c|^2 and |a - p|^2 of unit vectors, from their products
    to_middle = 1 + (1 + to_positive) / 2 - (c[:, None] + of_positive)
    distance, side = jnp.sqrt(jnp.maximum(to_middle, 0)), jnp.sqrt(jnp.maximum(2 - 2 * to_positive, 0))
    return negative[:, None] & (side > slope * distance)
