"""Ranked list loss: positives within a ball around each row, negatives outside of a larger one.

With a boundary alpha and v the number by which a pair violates its side,

    v_p = [d_ip - (alpha - margin)]_+        v_n = [alpha - d_in]_+

    loss_i = (1 - imbalance) * mean of v_p, weighted by exp(Tp v_p)
           +      imbalance  * mean of v_n, weighted by exp(Tn v_n)

The means are over the violating pairs of row i; to each sum of weights 1e-5 is added for each of the m columns.

References:
    Wang, Hua, Kodirov, Hu, Garnier, Robertson (2019), Ranked List Loss for Deep Metric Learning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least, check_fraction
from simjax.losses._legacy import pair_loss
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure

LEAST_WEIGHT = 1e-5


def ranked_list_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 0.4,
    alpha: ArrayLike | None = None,
    imbalance: ArrayLike = 0.5,
    positive_temperature: ArrayLike = 0.0,
    negative_temperature: ArrayLike = 10.0,
    measure: str | Measure = "normalized_euclidean",
    **options: Any,
) -> Any:
    """Ranked list: one term for each row that has a positive or a negative.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        margin: between the boundary of negatives and that of positives, in units of the measure.
        alpha: the boundary of negatives; None is 1 + margin / 2.
        imbalance: the share of the negatives in the loss, from 0 to 1.
        positive_temperature: Tp above; at 0 all violating positives weigh the same.
        negative_temperature: Tn above; the larger, the more the worst negatives weigh.
        measure: a distance or a similarity, by name or as a `Measure`; its direction is respected.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a pair.

    Raises:
        InputError: for shapes that do not fit, a temperature below 0, or an imbalance that is not in [0, 1].

    Differs from pytorch-metric-learning, where margin and Tn have no defaults (these are the paper's), where a negative
    at distance 0 does not count, and where large temperatures overflow.

    Example:
        The first row has a positive at distance 1.5 and a negative at 0.5; the boundaries are at 0.8 and 1.2:

        >>> x, y = jnp.array([[0.0], [1.5], [-0.5]]), jnp.array([0, 0, 1])
        >>> found = ranked_list_loss(x, y, measure="euclidean")
        >>> print(round(float(found), 3))  # the mean of (0.7 + 0.7) / 2, and of 0.7 / 2 for both others
        0.467
    """
    check_at_least("margin", margin, 0)
    check_fraction("imbalance", imbalance)
    for name, value in (
        ("positive_temperature", positive_temperature),
        ("negative_temperature", negative_temperature),
    ):
        check_at_least(name, value, 0)
    m = as_measure(measure)
    boundary = m.as_score(1 + jnp.asarray(margin) / 2 if alpha is None else jnp.asarray(alpha))
    return pair_loss(
        _terms,
        embeddings,
        labels,
        measure=m,
        margin=margin,
        boundary=boundary,
        imbalance=imbalance,
        temperatures=(positive_temperature, negative_temperature),
        **options,
    )


def _terms(
    c: Array,
    positive: Array,
    negative: Array,
    *,
    margin: Array,
    boundary: Array,
    imbalance: Array,
    temperatures: tuple[Array, Array],
) -> Any:
    far = _violation(boundary + margin - c, positive, temperatures[0])
    near = _violation(c - boundary, negative, temperatures[1])
    loss = (1 - imbalance) * far + imbalance * near
    return {"row": (loss, jnp.any(positive | negative, axis=1, keepdims=True))}


def _violation(v: Array, pairs: Array, temperature: Array) -> Array:
    """The weighted mean of what is above 0 of v [r, m]: [r, 1]."""
    violating = pairs & (v > 0)
    v = jnp.where(violating, v, 0)
    # Numerator and denominator over the largest weight, which alone may be too large for the type.
    worst = lax.stop_gradient(temperature * jnp.max(v, axis=1, keepdims=True, initial=0))
    weight = jnp.where(violating, jnp.exp(temperature * v - worst), 0)
    total = jnp.sum(weight, axis=1, keepdims=True) + LEAST_WEIGHT * v.shape[1] * jnp.exp(-worst)
    found = total > 0
    return jnp.where(found, jnp.sum(weight * v, axis=1, keepdims=True) / jnp.where(found, total, 1), 0)
