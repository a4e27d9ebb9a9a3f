"""Lifted structure: a positive pair against the negatives of both of its ends at once.

With d the distance of a positive pair (i, p):

    J_ip = log( sum over negatives n of i of exp(margin - d_in) + sum over negatives n of p of exp(margin - d_pn) )
           + d_ip - positive_margin
    loss_ip = max(0, J_ip)^2 / 2

The sums of p are needed where it is a column: a first pass finds the logarithm of each, a second one the loss. Where
rows are compared with themselves the first one has found those of i, too.

References:
    Song, Xiang, Jegelka, Savarese (2016), Deep Metric Learning via Lifted Structured Feature Embedding.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_number
from simjax.losses._legacy import pair_loss
from simjax.losses._options import resolve_options
from simjax.losses._pair_loss import compute_terms, log_sum_exp, square
from simjax.losses._terms import LossTerms
from simjax.pairs._relation import rows_and_relation
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure


def lifted_structure_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    positive_margin: ArrayLike = 0.0,
    negative_margin: ArrayLike = 1.0,
    measure: str | Measure = "normalized_euclidean",
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    block_size: int | None = None,
    **options: Any,
) -> Any:
    """Lifted structure: one term for each positive pair; two passes, so twice the time n m d.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do, with reference embeddings any but what a miner keeps.
        positive_margin: how far apart positives may be, in units of the measure.
        negative_margin: how far apart negatives should be.
        measure: a name or a `Measure`.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself. The
            negatives of a reference are then embeddings.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        block_size: rows computed at once; None chooses.
        **options: weights, reducer: see `pair_loss`.

    Returns:
        The mean over the positive pairs either end of which has a negative, each taken once from each side; 0 where
        there are none.

    Raises:
        InputError: for shapes that do not fit, or what a miner keeps of reference embeddings.

    Differs from pytorch-metric-learning, which with reference embeddings takes the negatives of the *embedding* that
    has the number of the positive reference.

    Example:
        A positive pair at distance 0; each end has one negative, at distance 2^0.5:

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found = lifted_structure_loss(x, jnp.array([0, 0, 1]), negative_margin=2.0)
        >>> print(round(float(found), 4))  # (log 2 + 2 - 2^0.5)^2 / 2
        0.8178
    """
    check_number("positive_margin", positive_margin)
    check_number("negative_margin", negative_margin)
    x, y, relation = rows_and_relation(embeddings, labels, ref_embeddings, ref_labels)
    alone = ref_embeddings is None
    m = as_measure(measure)
    margins = {
        "positive_margin": m.as_score(jnp.asarray(positive_margin)),
        "negative_margin": m.as_score(jnp.asarray(negative_margin)),
    }
    of_ends = compute_terms(
        _negatives,
        y,
        relation if alone else relation.transposed(),
        resolve_options(
            lifted_structure_loss,
            {"ref_embeddings": None if alone else x, "measure": m, "block_size": block_size},
        ),
        negative_margin=margins["negative_margin"],
    )["row"]
    return pair_loss(
        _terms,
        x,
        relation,
        ref_embeddings=None if alone else y,
        measure=m,
        block_size=block_size,
        by_column=True,
        row_parameters={"of_rows": of_ends} if alone else None,
        columns=of_ends,
        **margins,
        **options,
    )


def _negatives(c: Array, positive: Array, negative: Array, *, negative_margin: Array) -> Any:
    return {"row": (log_sum_exp(c - negative_margin, negative), jnp.any(negative, axis=1, keepdims=True))}


def _terms(
    c: Array,
    positive: Array,
    negative: Array,
    *,
    positive_margin: Array,
    negative_margin: Array,
    columns: LossTerms,
    of_rows: LossTerms | None = None,
) -> Any:
    if of_rows is None:
        total, there = _negatives(c, positive, negative, negative_margin=negative_margin)["row"]
        of_rows = LossTerms(total, there)
    lowest = jnp.finfo(c.dtype).min / 4
    both = jnp.logaddexp(*(jnp.where(ends.count > 0, ends.total, lowest) for ends in (of_rows, columns)))  # [r, m]
    there = (of_rows.count > 0) | (columns.count > 0)
    return {"positive": (square(jax.nn.relu(both + positive_margin - c)) / 2, positive & there)}
