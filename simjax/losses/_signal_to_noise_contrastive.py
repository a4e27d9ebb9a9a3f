"""Contrastive loss by signal-to-noise ratio: a pair is as far apart as the difference is loud beside the anchor.

    d(x, y) = var(x - y) / var(x)      positive pair: max(0, d - positive_margin)      negative: max(0, margin - d)

where the variance is over the features of one row. A constant added to a row changes nothing, so the paper adds a
regulariser that keeps the features of each row at a mean of zero:

    zero_mean * mean over rows of |sum over features of x|

References:
    Yuan, Deng, Tang, Tang, Chen (2019), Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_float_array, check_at_least, promote_to_float32
from simjax.losses._contrastive import contrastive_terms
from simjax.losses._legacy import pair_loss
from simjax.losses._terms import RowSums
from simjax.similarity import unit_vectors


def signal_to_noise_contrastive_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
    zero_mean: ArrayLike | None = None,
    normalise: bool = True,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    **options: Any,
) -> Any:
    """Contrastive loss by the signal-to-noise distance, with the row as the signal: not symmetric.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        margin: how far apart different pairs should be.
        positive_margin: how far apart similar pairs may be.
        zero_mean: weight of the regulariser, of the embeddings as they are given; None is without.
        normalise: compare vectors of unit length.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        **options: ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the similar pairs with a loss above 0 plus the mean over the different pairs with a loss above 0
        (plus the regulariser); 0 with zero gradient where there are none.

    Raises:
        InputError: for shapes that do not fit, or a negative weight.

    Differs from pytorch-metric-learning: a row whose features are all equal has no signal, so that its distances are
    infinite; there the loss is infinite or NaN, here such pairs do not count.

    Example:
        A positive pair, at distance 1 / 4 from the first row and 1 / 9 from the second, which is the louder signal:

        >>> x = jnp.array([[-1.0, 1.0], [-1.0, 2.0]])
        >>> found = signal_to_noise_contrastive_loss(x, jnp.array([0, 0]), normalise=False)
        >>> print(round(float(found), 4))  # (1 / 4 + 1 / 9) / 2
        0.1806
        >>> more = signal_to_noise_contrastive_loss(x, jnp.array([0, 0]), normalise=False, zero_mean=1.0)
        >>> print(round(float(more - found), 4))  # (0 + 1) / 2
        0.5
    """
    check_at_least("margin", margin, 0)
    check_at_least("positive_margin", positive_margin, 0)
    x, y = as_float_array("embeddings", embeddings), ref_embeddings
    if zero_mean is not None:
        check_at_least("zero_mean", zero_mean, 0)
        options["row_parameters"] = {"off_zero": zero_mean * jnp.abs(jnp.sum(promote_to_float32(x), axis=-1))}
    if normalise:
        x, y = unit_vectors(x), None if y is None else unit_vectors(y)
    return pair_loss(
        _terms,
        x,
        labels,
        ref_embeddings=y,
        measure="signal_to_noise",
        default_reducer="mean_active",
        margin=margin,
        positive_margin=positive_margin,
        **options,
    )


def _terms(
    c: Array, positive: Array, negative: Array, *, margin: Array, positive_margin: Array, off_zero: Array | None = None
) -> Any:
    loss = contrastive_terms(-c, positive, margin=margin, positive_margin=positive_margin, form="linear")
    finite = c > -jnp.inf
    found: dict[str, Any] = {"positive": (loss, positive & finite), "negative": (loss, negative & finite)}
    if off_zero is not None:
        one = jnp.ones(c.shape[0], jnp.int32)
        found["zero mean"] = RowSums(off_zero[:, 0], one, one)
    return found
