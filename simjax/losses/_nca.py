"""Neighbourhood components analysis: the chance that a row's soft nearest neighbour is one of its positives.

    loss_i = -log( sum over positives of exp(scale s_ip) / sum over positives and negatives of exp(scale s_ia) )

where s is minus the squared distance. Unlike SupCon, one near positive is enough.

References:
    Goldberger, Roweis, Hinton, Salakhutdinov (2004), Neighbourhood Components Analysis.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_positive
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp
from simjax.similarity import Measure, unit_vectors


def nca_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    scale: ArrayLike = 1.0,
    measure: str | Measure = "squared_euclidean",
    normalise: bool = True,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    **options: Any,
) -> Any:
    """Neighbourhood components: one term for each row that has a positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        scale: of the closeness: the inverse of a temperature.
        measure: a name or a `Measure`.
        normalise: compare vectors of unit length.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        **options: ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a positive; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, or a scale that is not positive.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(nca_loss(x, jnp.array([0, 0, 1]))), 4))  # log(1 + exp(-2))
        0.1269
    """
    check_positive("scale", scale)
    x, y = embeddings, ref_embeddings
    if normalise:
        x, y = unit_vectors(x), None if y is None else unit_vectors(y)
    return pair_loss(_terms, x, labels, ref_embeddings=y, measure=measure, scale=scale, **options)


def _terms(c: Array, positive: Array, negative: Array, *, scale: Array) -> Any:
    z = scale * c
    loss = log_sum_exp(z, positive | negative) - log_sum_exp(z, positive)
    found = jnp.any(positive, axis=1, keepdims=True)
    return {"row": (jnp.where(found, loss, 0), found)}
