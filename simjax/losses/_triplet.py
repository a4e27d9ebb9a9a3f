"""Triplet loss: an anchor should be closer to every positive than to every negative, by a margin.

    max(0, d(a, p) - d(a, n) + margin)

A row of the similarity matrix is an anchor. A batch of n holds up to n^3 triplets, and none is ever written down: a
loop over the positives of a row finds in how many violated triplets each pair takes part, a number that is constant
for the gradient, and the loss is a sum of distances weighted by it.

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet. Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import count_triplets, entries
from simjax.losses._pair_loss import pair_loss
from simjax.losses._terms import Summed
from simjax.similarity import Measure


def triplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 0.05,
    measure: str | Measure = "normalized_euclidean",
    **options: Any,
) -> Any:
    """Triplet loss over the triplets of a batch: any relation, memory of a strip, time of n m for each positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; a mined one says which triplets count, for instance
            `mining.semi_hard(embeddings, labels)`.
        margin: in units of the measure.
        measure: a distance or a similarity, by name or as a `Measure`; its direction is respected.
        **options: ref_embeddings, ref_labels, weights, reducer (a name), block: see `pair_loss`.

    Returns:
        The mean over the triplets with a loss above 0; 0 with zero gradient where there are none.

    Raises:
        InputError: for shapes that do not fit, an unknown measure or reducer.

    Example:
        One anchor pair at distance 1, a negative at distance 3 and 2: only margins above 1 are violated.

        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([0, 0, 1])
        >>> for margin in (1.0, 2.0):
        ...     print(triplet_margin_loss(x, y, margin=margin, measure="euclidean"))
        0.0
        1.0
    """
    return pair_loss(
        _terms,
        embeddings,
        labels,
        measure=measure,
        default_reducer="mean_nonzero",
        triplets=True,
        copies=12,
        margin=margin,
        **options,
    )


def _terms(c: Array, positive: Array, negatives_of: Callable[[Array], Array], *, margin: Array) -> Any:
    still, bound = lax.stop_gradient((c, c + margin))

    def violated(columns: Array) -> Array:
        return negatives_of(columns) & (bound[:, None] > entries(still, columns))

    as_positive, as_negative = count_triplets(positive, violated)
    number = jnp.sum(as_positive, axis=1)
    weight = (as_negative - as_positive).astype(c.dtype)
    total = jnp.sum(jnp.where(weight != 0, weight * c, 0), axis=1) + margin * number
    every, _ = count_triplets(positive, negatives_of)  # computed only where a reducer asks for it
    return {"triplet": Summed(total, number, jnp.sum(every, axis=1))}
