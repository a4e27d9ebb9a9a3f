"""Threshold-consistent margin: one threshold should tell similar from different for every class.

Positive pairs that are not as close as one bound, and negative pairs that are closer than another, are pulled to it:

    positive_weight * mean over positive pairs with s <= positive_margin of (positive_margin - s)
    + negative_weight * mean over negative pairs with s >= negative_margin of (s - negative_margin)

The other pairs count nowhere. It regularises another loss, to which it is added: that one ranks, this one calibrates.

References:
    Zhang, Xu, Tang, Fang, Wu, Tighe, Xing (2024), Threshold-Consistent Margin Loss for Open-World Deep Metric Learning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least, check_number
from simjax.losses._legacy import pair_loss
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def threshold_consistent_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    positive_margin: ArrayLike = 0.9,
    negative_margin: ArrayLike = 0.5,
    positive_weight: ArrayLike = 1.0,
    negative_weight: ArrayLike = 1.0,
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """Threshold-consistent margin: one term for each pair on the wrong side of its bound.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        positive_margin: how close positive pairs should be, in units of the measure.
        negative_margin: how close negative pairs may be.
        positive_weight: of the positive pairs, at least 0.
        negative_weight: of the negative pairs, at least 0.
        measure: a name or a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The weighted sum of both means; 0 where no pair is on the wrong side.

    Raises:
        InputError: for shapes that do not fit, or a negative weight.

    Differs from pytorch-metric-learning, which looks up the rows of reference embeddings among the embeddings.

    Example:
        A positive pair at a cosine of 0.6, negative pairs at 0 and 0.8:

        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> print(round(float(threshold_consistent_margin_loss(x, jnp.array([0, 0, 1]))), 4))  # 0.3 + 0.3
        0.6
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    check_at_least("positive_weight", positive_weight, 0)
    check_at_least("negative_weight", negative_weight, 0)
    m = as_measure(measure)
    return pair_loss(
        _terms,
        embeddings,
        labels,
        measure=m,
        symmetric=True,
        positive_margin=m.as_score(jnp.asarray(positive_margin)),
        negative_margin=m.as_score(jnp.asarray(negative_margin)),
        positive_weight=positive_weight,
        negative_weight=negative_weight,
        **options,
    )


def _terms(
    c: Array,
    positive: Array,
    negative: Array,
    *,
    positive_margin: Array,
    negative_margin: Array,
    positive_weight: Array,
    negative_weight: Array,
) -> Any:
    too_far, too_close = positive_margin - c, c - negative_margin
    return {
        "positive": (positive_weight * too_far, positive & (too_far >= 0)),
        "negative": (negative_weight * too_close, negative & (too_close >= 0)),
    }
