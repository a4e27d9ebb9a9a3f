"""Multi-similarity loss: hard positives and hard negatives of a row weigh exponentially more.

    loss_i = 1 / alpha log(1 + sum over positives of exp(alpha (base - s_ip)))
           + 1 / beta  log(1 + sum over negatives of exp(beta (s_in - base)))

References:
    Wang et al. (2019), Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_number, check_positive
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def multi_similarity_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    alpha: ArrayLike = 2.0,
    beta: ArrayLike = 50.0,
    base: ArrayLike = 0.5,
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """Multi-similarity: one term for each row.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        alpha: how much more hard positives weigh than easy ones.
        beta: the same of negatives.
        base: the closeness that positives should exceed and negatives stay below, in units of the measure.
        measure: a name or a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over all rows.

    Raises:
        InputError: for shapes that do not fit, or an alpha or beta that is not positive.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(multi_similarity_loss(x, jnp.array([0, 0, 1]))), 4))  # 2/3 of log(1 + exp(-1)) / 2
        0.1044
    """
    check_number("base", base)
    check_positive("alpha", alpha)
    check_positive("beta", beta)
    m = as_measure(measure)
    base = m.as_score(jnp.asarray(base))
    return pair_loss(_terms, embeddings, labels, measure=m, alpha=alpha, beta=beta, base=base, **options)


def _terms(c: Array, positive: Array, negative: Array, *, alpha: Array, beta: Array, base: Array) -> Any:
    near = jax.nn.softplus(log_sum_exp(alpha * (base - c), positive)) / alpha
    far = jax.nn.softplus(log_sum_exp(beta * (c - base), negative)) / beta
    loss = near + far
    return {"row": (loss, jnp.ones_like(loss, bool))}
