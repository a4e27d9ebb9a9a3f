"""FastAP: the average precision of a row's ranking, from soft histograms of its distances.

The squared distances of unit vectors lie in [0, 4]; with `bins` triangular bins, h+ counts a row's positives in a bin,
h its positives and negatives, H+ and H their cumulative sums, and N+ all positives:

    loss_i = 1 - 1 / N+ sum over bins of h+ H+ / H

References:
    Cakir, He, Xia, Kulis, Sclaroff (2019), Deep Metric Learning to Rank.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least
from simjax.losses._legacy import pair_loss
from simjax.similarity import unit_vectors


def fast_ap_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    bins: int = 10,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    **options: Any,
) -> Any:
    """FastAP: one term for each row that has a positive; time n m (d + bins).

    Args:
        embeddings: [n, d]; compared at unit length.
        labels: class ids [n] or a `Relation`; any will do.
        bins: of the histogram, beside the one that starts at 0.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        **options: ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a positive; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, or less than one bin.

    Example:
        The positive comes first, then the negative: nothing is lost.

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> print(fast_ap_loss(x, jnp.array([0, 0, 1])))
        0.0
    """
    check_at_least("bins", bins, 1)
    y = None if ref_embeddings is None else unit_vectors(ref_embeddings)
    centres = 4 * jnp.arange(bins + 1, dtype=jnp.float32) / bins
    return pair_loss(
        _terms,
        unit_vectors(embeddings),
        labels,
        ref_embeddings=y,
        measure="squared_euclidean",
        centres=centres,
        **options,
    )


def _terms(c: Array, positive: Array, negative: Array, *, centres: Array) -> Any:
    width = centres[1] - centres[0]

    def counts(centre: Array) -> tuple[Array, Array]:
        share = jax.nn.relu(1 - jnp.abs(-c - centre) / width)
        return jnp.sum(jnp.where(positive, share, 0), axis=1), jnp.sum(jnp.where(positive | negative, share, 0), axis=1)

    of_positives, of_all = jax.lax.map(jax.checkpoint(counts), centres)  # [bins + 1, r]
    sums, all_sums = jnp.cumsum(of_positives, axis=0), jnp.cumsum(of_all, axis=0)
    found = all_sums > 0
    precision = jnp.where(found, of_positives * sums / jnp.where(found, all_sums, 1), 0)
    number = jnp.sum(positive, axis=1)
    loss = 1 - jnp.sum(precision, axis=0) / jnp.maximum(number, 1)
    return {"row": (loss[:, None], (number > 0)[:, None])}
