"""Triplet loss: an anchor should be closer to every positive than to every negative, by a margin.

    max(0, d(a, p) - d(a, n) + margin)

    swap        min(d(a, n), d(p, n)) takes the place of d(a, n)
    smooth      log(1 + exp(x)) takes the place of max(0, x)

A row of the similarity matrix is an anchor. A batch of n holds up to n^3 triplets, and none is ever written down: a
loop over the positives of a row finds in how many violated triplets each pair takes part, a number that is constant
for the gradient, and the loss is a sum of distances weighted by it. The two variants add their terms up, one positive
of each row after another.

References:
    Schroff, Kalenichenko, Philbin (2015), FaceNet. Hermans, Beyer, Leibe (2017), In Defense of the Triplet Loss.
    Balntas, Riba, Ponsa, Mikolajczyk (2016), Learning Local Feature Descriptors with Triplets (swap).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_float_array, check_at_least, promote_to_float32, save_for_backward
from simjax.losses._pair_loss import pair_loss
from simjax.losses._softplus import softplus
from simjax.losses._terms import Summed
from simjax.pairs._triplets import count_triplets, sum_over_positives, take_columns
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def triplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 0.05,
    swap: bool = False,
    smooth: bool = False,
    measure: str | Measure = "normalized_euclidean",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    **options: Any,
) -> Any:
    """Triplet loss over the triplets of a batch: any relation, memory of a strip, time of n m for each positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; a mined one says which triplets count, for instance
            `mining.semi_hard(embeddings, labels)`.
        margin: in units of the measure.
        swap: see above; time of n m d for each positive.
        smooth: see above.
        measure: a distance or a similarity, by name or as a `Measure`; its direction is respected.
        ref_embeddings: positives and negatives, [m, d]; None is the embeddings, a row never with itself.
        **options: ref_labels, weights, reducer (a name), block_size: see `pair_loss`.

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
    check_at_least("margin", margin, 0)
    options |= {"measure": measure, "ref_embeddings": ref_embeddings, "triplets": True}
    options |= {"default_reducer": "mean_nonzero", "margin": margin}
    if not (swap or smooth):
        return pair_loss(_counted, embeddings, labels, chunk_size=4, **options)
    if swap:
        given = embeddings if ref_embeddings is None else ref_embeddings
        options |= {"columns": as_float_array("embeddings", given), "of": as_measure(measure), "by_column": True}
    return pair_loss(_ADDED[smooth], embeddings, labels, chunk_size=2, **options)


def _counted(c: Array, positive: Array, negatives_of: Partial, *, margin: Array) -> Any:
    still, bound = lax.stop_gradient((c, c + margin))

    def violated(columns: Array) -> Array:
        return negatives_of(columns) & (bound[:, None] > take_columns(still, columns))

    as_positive, as_negative = count_triplets(positive, violated)
    number = jnp.sum(as_positive, axis=1)
    weight = save_for_backward((as_negative - as_positive).astype(c.dtype))
    total = jnp.sum(jnp.where(weight != 0, weight * c, 0), axis=1) + margin * number
    return {"triplet": Summed(total, number, _triplets(positive, negatives_of))}


def _triplets(positive: Array, negatives_of: Partial) -> Array:
    """How many triplets each row has; computed only where a reducer asks for it."""
    return jnp.sum(count_triplets(positive, negatives_of)[0], axis=1)


def _added(
    hinge: Any,
    c: Array,
    positive: Array,
    negatives_of: Partial,
    *,
    margin: Array,
    columns: Array | None = None,
    of: Measure | None = None,
) -> Any:
    start = (jnp.zeros(c.shape[0], c.dtype),) * 2
    of_positives = partial(_of_positives, hinge)
    arguments = (c, jnp.asarray(margin), columns, of)
    total, above_zero = sum_over_positives(of_positives, start, positive, (negatives_of,), *arguments)
    return {"triplet": Summed(total, above_zero.astype(jnp.int32), _triplets(positive, negatives_of))}


def _of_positives(
    hinge: Any,
    columns: Array,
    there: Array,
    negatives_of: Partial,
    c: Array,
    margin: Array,
    y: Array | None,
    measure: Measure | None,
) -> tuple[Array, ...]:
    """Of a few positives of each row the sum of their terms and how many are above 0: [r] both."""
    nearest = c[:, None]
    if y is not None and measure is not None:  # swap
        from_positive = measure.all_pairs(y[columns.reshape(-1)], y)
        from_positive = promote_to_float32(measure.as_score(from_positive)).reshape(*columns.shape, -1)
        nearest = jnp.where(nearest >= from_positive, nearest, from_positive)
    terms = jnp.where(negatives_of(columns), hinge(nearest - take_columns(c, columns) + margin), 0)
    of_each = jnp.sum(terms, axis=2), jnp.sum(terms > 0, axis=2, dtype=c.dtype)
    return tuple(jnp.sum(jnp.where(there, a, 0), axis=1) for a in of_each)


_ADDED = {smooth: partial(_added, softplus if smooth else jax.nn.relu) for smooth in (False, True)}
