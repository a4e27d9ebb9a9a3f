"""Distance-weighted sampling: negatives at every distance alike, rather than at the one where almost all of them are.

Unit vectors drawn at random in d dimensions are at distance D with a density q(D) that is very high near sqrt(2):

    q(D) proportional to D^(d - 2) (1 - D^2 / 4)^((d - 3) / 2)

A negative is drawn with a probability proportional to 1 / q of its distance.

References:
    Wu, Manmatha, Smola, Krähenbühl (2017), Sampling Matters in Deep Embedding Learning.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError
from simjax.mining._mined import closeness, keep_triplets, related
from simjax.pairs import Relation


def distance_weighted(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    key: Array,
    cutoff: float = 0.5,
    nonzero_loss_cutoff: float = 1.4,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
) -> Relation:
    """Each positive pair with one negative, drawn by its distance.

    Args:
        embeddings: [n, d]; compared at unit length.
        labels: class ids [n] or a `Relation`.
        key: of the draw.
        cutoff: smaller distances count as this one, so that the weight of a very near negative is bounded.
        nonzero_loss_cutoff: negatives from this distance on are never drawn.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.

    Returns:
        A relation of triplets, none for the positives of a row whose negatives all have weight 0.

    Raises:
        InputError: for shapes that do not fit, or cutoffs that are not 0 < cutoff < nonzero_loss_cutoff.
        TypeError: for labels that are no integers.

    Differs from pytorch-metric-learning: a row's largest weight is 1, so that a row of far negatives does not
    underflow; probabilities are the same.
    """
    if not 0 < cutoff < nonzero_loss_cutoff:
        raise InputError(f"cutoff: expected above 0 and below nonzero_loss_cutoff {nonzero_loss_cutoff}, got {cutoff}")
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    settings = {"cutoff": cutoff, "limit": nonzero_loss_cutoff, "features": x.shape[1]}
    return keep_triplets(_by_distance, closeness(x, y, "normalized_euclidean"), relation, key=key, **settings)


def _by_distance(
    c: Array, i: Array, negative: Array, *, key: Array, cutoff: Array, limit: Array, features: Array
) -> Partial:
    return Partial(_drawn, jnp.cumsum(_weights(-c, negative, cutoff, limit, features), axis=1), i[:, 0], key)


def _drawn(cumulative: Array, rows: Array, key: Array, columns: Array) -> Array:
    """One column of each row for each positive, by the row's cumulative weights [r, m]."""

    def uniform(row: Array, column: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), column))

    total = cumulative[:, -1:]
    at = jax.vmap(jax.vmap(uniform, (None, 0)))(rows, columns) * total  # [r, few], below the total
    place = jnp.sum(cumulative[:, None] <= at[:, :, None], axis=2, keepdims=True)
    numbers = jnp.arange(cumulative.shape[1], dtype=jnp.int32)[None, None]
    return (numbers == place) & (total > 0)[:, None]


def _weights(distance: Array, negative: Array, cutoff: Array, limit: Array, features: Array) -> Array:
    d = jnp.maximum(distance, cutoff)
    keep = negative & (d < limit) & (d < 2)
    d = jnp.where(keep, d, 1.0)
    logarithm = (2.0 - features) * jnp.log(d) - (features - 3) / 2 * jnp.log(1 - d * d / 4)
    logarithm = jnp.where(keep, logarithm, -jnp.inf)
    most = jnp.max(logarithm, axis=1, keepdims=True, initial=-jnp.inf)
    return jnp.where(keep, jnp.exp(logarithm - jnp.where(most > -jnp.inf, most, 0)), 0)
