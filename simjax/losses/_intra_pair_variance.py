"""Intra-pair variance: pairs of a kind should be equally close; those on the wrong side of their mean are moved to it.

With s the similarity of a pair, mean+ and mean- those of all positive and of all negative pairs of the batch:

    positive pair: max(0, (1 - positive_eps) mean+ - s)^2      negative pair: max(0, s - (1 + negative_eps) mean-)^2

and with a distance in place of s both the other way round. The means are part of the gradient. A first pass finds them,
a second one the loss. It says nothing of where the means should be: it is added to another loss of pairs.

References:
    Yu, Tao (2019), Deep Metric Learning with Tuplet Margin Loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least, promote_to_float32
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import square
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure, reduce_rows
from simjax.similarity import measure as as_measure


def intra_pair_variance_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    positive_eps: ArrayLike = 0.01,
    negative_eps: ArrayLike = 0.01,
    measure: str | Measure = "cosine",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    block_size: int | None = None,
    **options: Any,
) -> Any:
    """Intra-pair variance: one term for each positive and each negative pair; two passes, so twice the time n m d.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        positive_eps: how much farther than the mean a positive pair may be, as a share of the mean, at least 0.
        negative_eps: how much closer than the mean a negative pair may be, as a share of the mean, at least 0.
        measure: a name or a `Measure`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        block_size: rows computed at once; None chooses.
        **options: weights, reducer: see `pair_loss`.

    Returns:
        The mean over the positive pairs plus the mean over the negative pairs; 0 where there are none. Pairs at an
        infinite distance do not count.

    Raises:
        InputError: for shapes that do not fit, or a negative eps.

    Example:
        Three positive pairs with cosines 1, 0 and 0, whose mean is 1 / 3:

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found = intra_pair_variance_loss(x, jnp.array([0, 0, 0]), positive_eps=0.0)
        >>> print(round(float(found), 4))  # two thirds of (1 / 3)^2
        0.0741
    """
    check_at_least("positive_eps", positive_eps, 0)
    check_at_least("negative_eps", negative_eps, 0)
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    alone = ref_embeddings is None
    m = as_measure(measure)
    sums = reduce_rows(Partial(_sums_and_counts, relation, m), x, y, measure=m, block_size=block_size)
    positive_mean, negative_mean = (jnp.sum(s) / jnp.maximum(jnp.sum(n), 1) for s, n in sums)
    sign = 1 if m.higher_is_closer else -1  # the mean of a distance is turned, too, and its share with it
    return pair_loss(
        _terms,
        x,
        relation,
        ref_embeddings=None if alone else y,
        measure=m,
        block_size=block_size,
        lowest=(1 - sign * jnp.asarray(positive_eps)) * positive_mean,
        highest=(1 + sign * jnp.asarray(negative_eps)) * negative_mean,
        **options,
    )


def _sums_and_counts(relation: Relation, measure: Measure, s: Array, i: Array, j: Array) -> tuple[Any, ...]:
    """Of each row the sum of the closeness of its positive pairs and their number; and of its negative pairs."""
    c = promote_to_float32(measure.as_score(s))
    finite = (pairs & ~jnp.isinf(c) for pairs in relation.masks(i, j))
    return tuple((jnp.sum(jnp.where(keep, c, 0), axis=1), jnp.sum(keep, axis=1, dtype=c.dtype)) for keep in finite)


def _terms(c: Array, positive: Array, negative: Array, *, lowest: Array, highest: Array) -> Any:
    finite = jnp.isfinite(c)
    return {
        "positive": (square(jax.nn.relu(lowest - c)), positive & finite),
        "negative": (square(jax.nn.relu(c - highest)), negative & finite),
    }
