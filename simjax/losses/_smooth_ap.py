"""SmoothAP: average precision, with ranks that are counted softly.

Of a row i with positives P_i, and of every p of these with before(p) as in `_soft_ranks`:

    loss_i = 1 - mean over p of (1 + before(p) among other positives) / (1 + before(p) among all other columns)

References:
    Brown, Xie, Kalogeiton, Zisserman (2020), Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.losses._soft_ranks import before, rank_loss, with_itself
from simjax.pairs._triplets import sum_over_positives


def smooth_ap_loss(
    embeddings: Num[ArrayLike, "n d"], labels: Any, *, temperature: ArrayLike = 0.01, **options: Any
) -> Any:
    """SmoothAP: one term for each row that has a positive; memory of a strip, time of n m for each positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n], classes of any sizes in any order, or a `Relation`; any will do.
        temperature: of the sigmoid, in units of the measure; may be learned.
        **options: ref_embeddings, ref_labels, measure (cosine), weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a positive; 0 where there are none. Without reference embeddings a row is one
        of its own positives.

    Raises:
        InputError: for shapes that do not fit, or a temperature that is not positive.

    Differs from pytorch-metric-learning, which is right only where classes lie one after the other and have as many
    rows each as there are classes, and where a row without a positive counts with itself.

    Example:
        The negative is as close as the positive to the first row, and as close as itself to the second:

        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> found = smooth_ap_loss(x, jnp.array([0, 0, 1]))
        >>> print(round(float(found), 4))  # 1 less the mean of 1 / 1, 2 / 2.5, 1 / 1.5 and 2 / 3
        0.2167
    """
    return rank_loss(_terms, embeddings, labels, temperature=temperature, **options)


def _terms(c: Array, positive: Array, negative: Array, *, itself: Array, temperature: Array) -> Any:
    counts = jnp.any(positive, axis=1, keepdims=True)
    positive = with_itself(positive, itself)
    # What is neither is put so far behind all others that it comes before nothing: the sigmoid of -100 is 4e-44.
    either = positive | negative
    last = jnp.min(c, axis=1, keepdims=True, where=either, initial=0.0) - 100 * temperature
    c = jnp.where(either, c, lax.stop_gradient(last))
    start = jnp.zeros(c.shape[0], c.dtype)
    total = sum_over_positives(_precision, start, positive, (positive,), c, temperature)
    return {"row": (1 - total[:, None] / jnp.maximum(jnp.sum(positive, axis=1, keepdims=True), 1), counts)}


def _precision(columns: Array, there: Array, positive: Array, c: Array, temperature: Array) -> Array:
    """The share of positives among what comes before a positive, itself included, of a few positives added: [r]."""
    earlier = before(columns, c, temperature)
    positives = 0.5 + jnp.sum(jnp.where(positive[:, None], earlier, 0), axis=2)  # a positive comes half before itself
    precision = positives / (0.5 + jnp.sum(earlier, axis=2))
    return jnp.sum(jnp.where(there, precision, 0), axis=1)
