"""Circle loss: each pair is weighted by how far it is from its optimum.

    loss_i = softplus( log sum over negatives exp(gamma [s_in + m]_+ (s_in - m))
                     + log sum over positives exp(-gamma [1 + m - s_ip]_+ (s_ip - 1 + m)) )

The weights in brackets are constants for the gradient.

References:
    Sun et al. (2020), Circle Loss: A Unified Perspective of Pair Similarity Optimization.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, check_at_least, check_positive
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def circle_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 0.4,
    gamma: ArrayLike = 80.0,
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """Circle loss: one term for each row that has positives and negatives.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        margin: positives should exceed 1 - margin, negatives stay below it.
        gamma: scale of the closeness.
        measure: a similarity whose largest value is 1, by name or as a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows with a loss above 0; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, a distance, or a gamma that is not positive.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> print(round(float(circle_loss(x, jnp.array([0, 0, 1]), gamma=10.0)), 4))
        2.496
    """
    check_at_least("margin", margin, 0)
    check_positive("gamma", gamma)
    m = as_measure(measure)
    if not m.higher_is_closer:
        raise InputError(f"measure: expected a similarity, got {m.name}, which is smaller when closer")
    return pair_loss(
        _terms, embeddings, labels, measure=m, default_reducer="mean_active", margin=margin, gamma=gamma, **options
    )


def _terms(c: Array, positive: Array, negative: Array, *, margin: Array, gamma: Array) -> Any:
    far = jax.nn.relu(lax.stop_gradient(1 + margin - c))
    near = jax.nn.relu(lax.stop_gradient(c + margin))
    of_positives = log_sum_exp(-gamma * far * (c - 1 + margin), positive)
    of_negatives = log_sum_exp(gamma * near * (c - margin), negative)
    both = jnp.any(positive, axis=1, keepdims=True) & jnp.any(negative, axis=1, keepdims=True)
    return {"row": (jax.nn.softplus(of_positives + of_negatives), both)}
