"""Multi-similarity mining: positives that some negative comes near, and negatives that come near some positive.

References:
    Wang et al. (2019), Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least
from simjax.mining._mined import closeness, keep_pairs, related
from simjax.pairs import Relation
from simjax.similarity import Measure


def multi_similarity(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    epsilon: ArrayLike = 0.1,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "cosine",
) -> Relation:
    """Positives less than epsilon closer than the row's nearest negative; negatives likewise of its farthest positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        epsilon: in units of the measure; may be traced.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`; its direction is respected.

    Returns:
        A relation of the pairs that are kept; none in a row that lacks positives or negatives.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.

    Example:
        The row's positives are at 1 and 3, its negatives at 2 and 9: the last one is no danger to either.

        >>> x = jnp.array([[0.0], [1.0], [3.0], [2.0], [9.0]])
        >>> mined = multi_similarity(x, jnp.array([0, 0, 0, 1, 2]), measure="euclidean")
        >>> positive, negative = mined.masks(jnp.arange(5)[:, None], jnp.arange(5)[None])
        >>> print(positive[0].astype(int) - negative[0].astype(int))
        [ 0  0  1 -1  0]
    """
    check_at_least("epsilon", epsilon, 0)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    return keep_pairs(_near_the_others, closeness(x, y, measure), relation, epsilon=epsilon)


def _near_the_others(c: Array, i: Array, positive: Array, negative: Array, *, epsilon: Array) -> tuple[Array, Array]:
    farthest = jnp.min(jnp.where(positive, c, jnp.inf), axis=1, keepdims=True, initial=jnp.inf)
    nearest = jnp.max(jnp.where(negative, c, -jnp.inf), axis=1, keepdims=True, initial=-jnp.inf)
    return positive & (c - epsilon < nearest), negative & (c + epsilon > farthest)
