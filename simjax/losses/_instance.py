"""Instance loss: every image, or every class, is told from all others by a softmax, without a learned classifier.

The vector of a class is the embedding of its first row in the batch, v_k. Of a row i of class y:

    loss_i = log( sum over classes k of exp(gamma cos(x_i, v_k)) ) - gamma cos(x_i, v_y)

Without labels each row is a class of its own, and rows are only pushed apart. This is NT-Xent at temperature 1 / gamma,
of a relation that knows only first rows as columns, and a row as its own positive.

References:
    Zheng, Zheng, Garrett, Yang, Xu, Shen (2020), Dual-Path Convolutional Image-Text Embeddings with Instance Loss.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import as_float_array, check_positive
from simjax.losses._softmax import earlier_positives, nt_xent_loss
from simjax.pairs import Relation, by_class


def instance_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any = None,
    *,
    gamma: ArrayLike = 64.0,
    weights: Shaped[ArrayLike, " n"] | None = None,
    reducer: Any = None,
    block_size: int | None = None,
) -> Any:
    """Instance loss: one term for each row.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation` whose positive pairs fall into groups; None makes each row a class. Where
            they do not fall into groups, columns are the rows without an earlier positive, and a row has a term for
            each of these that is its positive. A row is its own positive where the relation says so.
        gamma: scale of the cosines.
        weights: a factor of each row's terms, [n].
        reducer: a name or a `Reducer`; None is the mean.
        block_size: rows computed at once; None chooses.

    Returns:
        The mean over the rows.

    Raises:
        InputError: for shapes that do not fit, or a gamma that is not positive.

    Differs from pytorch-metric-learning, which takes the k-th row of the batch as the vector of the k-th class, of
    whatever class that row is, and all further rows as classes of nobody. Both are the same where each row is a class
    of its own and their ids rise.

    Example:
        >>> print(round(float(instance_loss(jnp.eye(2), gamma=1.0)), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("gamma", gamma)
    x = as_float_array("embeddings", embeddings)
    ids = jnp.arange(len(x), dtype=jnp.int32) if labels is None else labels
    relation = ids if isinstance(ids, Relation) else by_class(ids)
    to_first_rows = relation.where(Partial(_first, earlier_positives(relation, block_size=block_size)))
    return nt_xent_loss(
        x,
        to_first_rows,
        ref_embeddings=x,
        temperature=1 / jnp.asarray(gamma),
        weights=weights,
        reducer=reducer,
        block_size=block_size,
    )


def _first(earlier: Array, i: Array, j: Array) -> Array:
    return earlier[j] == 0
