"""Generalised lifted structure: all positives and all negatives of a row against each other, softly.

    loss_i = max(0, log sum over positives of exp(d_ip - positive_margin)
                  + log sum over negatives of exp(negative_margin - d_in))

References:
    Song et al. (2016), Deep Metric Learning via Lifted Structured Feature Embedding. Hermans, Beyer, Leibe (2017), In
    Defense of the Triplet Loss for Person Re-Identification (the generalised form).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_number
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def generalized_lifted_structure_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    positive_margin: ArrayLike = 0.0,
    negative_margin: ArrayLike = 1.0,
    measure: str | Measure = "normalized_euclidean",
    **options: Any,
) -> Any:
    """Generalised lifted structure: one term for each row that has positives and negatives.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        positive_margin: how far apart positives may be, in units of the measure.
        negative_margin: how far apart negatives should be.
        measure: a name or a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have both; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit.

    Differs from pytorch-metric-learning, where a row without positives counts with its negatives alone.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found = generalized_lifted_structure_loss(x, jnp.array([0, 0, 1]), negative_margin=2.0)
        >>> print(round(float(found), 4))  # 2 - 2^0.5
        0.5858
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    m = as_measure(measure)
    margins = {"positive_margin": positive_margin, "negative_margin": negative_margin}
    margins = {name: m.as_score(jnp.asarray(margin)) for name, margin in margins.items()}
    return pair_loss(_terms, embeddings, labels, measure=m, **margins, **options)


def _terms(c: Array, positive: Array, negative: Array, *, positive_margin: Array, negative_margin: Array) -> Any:
    far = log_sum_exp(positive_margin - c, positive)
    near = log_sum_exp(c - negative_margin, negative)
    both = jnp.any(positive, axis=1, keepdims=True) & jnp.any(negative, axis=1, keepdims=True)
    return {"row": (jax.nn.relu(far + near), both)}
