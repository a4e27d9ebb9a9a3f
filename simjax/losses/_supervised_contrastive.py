"""SupCon: every positive of a row is told from everything else, on average over the positives.

    loss_i = -1 / |P_i| sum over positives p of log( exp(s_ip / t) / sum over all pairs a of exp(s_ia / t) )

References:
    Khosla et al. (2020), Supervised Contrastive Learning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_positive
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp
from simjax.similarity import Measure


def supervised_contrastive_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    temperature: ArrayLike = 0.1,
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """SupCon: one term for each row that has a positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        temperature: closeness is divided by it; may be learned.
        measure: a name or a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a positive and a loss above 0; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, or a temperature that is not positive.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found = supervised_contrastive_loss(x, jnp.array([0, 0, 1]), temperature=1.0)
        >>> print(round(float(found), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("temperature", temperature)
    return pair_loss(
        _terms,
        embeddings,
        labels,
        measure=measure,
        default_reducer="mean_active",
        temperature=temperature,
        **options,
    )


def _terms(c: Array, positive: Array, negative: Array, *, temperature: Array) -> Any:
    z = c / temperature
    number = jnp.sum(positive, axis=1, keepdims=True)
    mean = jnp.sum(jnp.where(positive, z, 0), axis=1, keepdims=True) / jnp.maximum(number, 1)
    return {"row": (log_sum_exp(z, positive | negative) - mean, number > 0)}
