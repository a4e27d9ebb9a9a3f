"""Curriculum: easy pairs first, harder ones as training goes on, without compiling anything anew.

References:
    Bengio, Louradour, Collobert, Weston (2009), Curriculum Learning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_fraction
from simjax.mining._mined import closeness, keep_pairs, related
from simjax.pairs import Relation
from simjax.similarity import Measure


def curriculum(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    hardness: ArrayLike,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
) -> Relation:
    """Pairs up to some hardness, on the way from each row's easiest to its hardest pair of a kind.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        hardness: from 0, the nearest positive and the farthest negative of each row alone, to 1, all pairs. May be
            traced, as by `optax.linear_schedule(0.2, 1.0, steps)(step)`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.

    Returns:
        A relation of the pairs that are kept.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.

    Example:
        Negatives at 2, 3 and 6 from the row: half of the way from 6 to 2 leaves out the two hard ones.

        >>> x = jnp.array([[0.0], [2.0], [3.0], [6.0]])
        >>> for hardness in (0.5, 0.75, 1.0):
        ...     mined = curriculum(x, jnp.array([0, 1, 1, 1]), hardness=hardness, measure="euclidean")
        ...     print(mined.masks(jnp.arange(4)[:, None], jnp.arange(4)[None])[1][0].astype(int))
        [0 0 0 1]
        [0 0 1 1]
        [0 1 1 1]
    """
    check_fraction("hardness", hardness)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    return keep_pairs(_up_to, closeness(x, y, measure), relation, hardness=hardness)


def _up_to(c: Array, i: Array, positive: Array, negative: Array, *, hardness: Array) -> tuple[Array, Array]:
    def not_harder(hard: Array, mask: Array) -> Array:
        easiest = jnp.min(jnp.where(mask, hard, jnp.inf), axis=1, keepdims=True, initial=jnp.inf)
        hardest = jnp.max(jnp.where(mask, hard, -jnp.inf), axis=1, keepdims=True, initial=-jnp.inf)
        bound = jnp.where(jnp.asarray(hardness) >= 1, hardest, easiest + hardness * (hardest - easiest))
        return mask & (hard <= bound)

    return not_harder(-c, positive), not_harder(c, negative)
