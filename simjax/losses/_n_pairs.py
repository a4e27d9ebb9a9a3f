"""N-pairs: one pair of every class, each anchor told from the positives of all other pairs by a softmax.

With (a_k, p_k) the first two rows of class k in the order of the batch:

    loss_k = log( sum over pairs l of exp(s(a_k, p_l)) ) - s(a_k, p_k)

This is NT-Xent at temperature 1, of a relation that knows only first rows as anchors and only second rows as columns.

References:
    Sohn (2016), Improved Deep Metric Learning with Multi-class N-pair Loss Objective.
"""

from typing import Any

from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import as_float_array
from simjax.losses._groups import earlier_positives
from simjax.losses._nt_xent import nt_xent_loss
from simjax.losses._terms import Reducer
from simjax.pairs import as_relation
from simjax.similarity import Measure


def n_pairs_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    measure: str | Measure = "cosine",
    weights: Shaped[ArrayLike, " n"] | None = None,
    reducer: str | Reducer | None = None,
    block_size: int | None = None,
) -> Any:
    """N-pairs: one term for each class that has two rows; all other rows are left out.

    Where anchors and positives come as two arrays, this is `info_nce_loss` at temperature 1.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation` whose positive pairs fall into groups. Where they do not, an anchor is a
            row without an earlier positive, and its positives are those rows whose only earlier positive it is.
        measure: a name or a `Measure`; the paper's is "dot", with the squared lengths as a regulariser of its own.
        weights: a factor of each row's terms, [n].
        reducer: a name or a `Reducer`; None is the mean.
        block_size: rows computed at once; None chooses.

    Returns:
        The mean over the pairs; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit.

    Example:
        Two pairs; both rows of a pair are equal, and at a right angle to the other pair's. The last row is a third.

        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> print(round(float(n_pairs_loss(x, jnp.array([0, 1, 0, 1, 1]))), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    x = as_float_array("embeddings", embeddings)
    relation = as_relation(labels, None, len(x), None)
    pairs = relation.where(Partial(_first_with_second, earlier_positives(relation, block_size=block_size)))
    return nt_xent_loss(
        x, pairs, temperature=1.0, measure=measure, weights=weights, reducer=reducer, block_size=block_size
    )


def _first_with_second(earlier: Array, i: Array, j: Array) -> Array:
    return (earlier[i] == 0) & (earlier[j] == 1)
