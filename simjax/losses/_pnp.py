"""PNP: penalise the negatives before the positives, and no positive for being behind another.

With R the number of negatives before a positive, counted softly (`_soft_ranks`), the loss of a row is the mean over its
positives of a penalty:

    O     R                                       all negatives weigh the same
    Iu    (1 + R) log(1 + R)                      many negatives weigh more, without bound
    Ib    (b R - log(1 + b R)) / b^2              many negatives weigh more, up to a bound
    Ds    log(1 + R)                              few negatives weigh more
    Dq    1 - (1 + R)^-alpha                      few negatives weigh more; positives far behind are given up

References:
    Li, Min, Song, Zheng, Wang (2021), Rethinking the Optimization of Average Precision: Only Penalizing Negative
    Instances before Positive Ones is Enough.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_float_array, check_choice, check_positive
from simjax.losses._soft_ranks import before, rank_loss, with_itself
from simjax.pairs._triplets import sum_over_positives


def pnp_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    variant: str = "O",
    temperature: ArrayLike = 0.01,
    alpha: ArrayLike = 1.0,
    b: ArrayLike = 2.0,
    **options: Any,
) -> Any:
    """PNP: one term for each row that has a positive; memory of a strip, time of n m for each positive.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        variant: the penalty, one of O, Iu, Ib, Ds, Dq, see above.
        temperature: of the sigmoid, in units of the measure; may be learned.
        alpha: of the variant Dq.
        b: of the variant Ib.
        **options: ref_embeddings, ref_labels, measure (cosine), weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a positive; 0 where there are none. Without reference embeddings a row is one
        of its own positives.

    Raises:
        InputError: for shapes that do not fit, an unknown variant, or a temperature, alpha or b that is not positive.

    Example:
        Of the first row the negative is as close as the positive, and behind the row itself:

        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> print(pnp_loss(x, jnp.array([0, 0, 1]), reducer="none").total)  # 0.5 / 2, (0.5 + 1) / 2
        [0.25 0.75 0.  ]
    """
    check_choice("variant", variant, FORMS)
    for name, value in (("alpha", alpha), ("b", b)):
        check_positive(name, value)
    parameters = {"alpha": as_float_array("alpha", alpha), "b": as_float_array("b", b)}
    return rank_loss(FORMS[variant], embeddings, labels, temperature=temperature, **parameters, **options)


Penalty = Callable[[Array, Array, Array], Array]

PENALTIES: dict[str, Penalty] = {  # of the number of negatives, alpha and b
    "O": lambda r, alpha, b: r,
    "Iu": lambda r, alpha, b: (1 + r) * jnp.log1p(r),
    "Ib": lambda r, alpha, b: (b * r - jnp.log1p(b * r)) / (b * b),
    "Ds": lambda r, alpha, b: jnp.log1p(r),
    "Dq": lambda r, alpha, b: -jnp.expm1(-alpha * jnp.log1p(r)),
}


def _terms(
    penalty: Penalty,
    c: Array,
    positive: Array,
    negative: Array,
    *,
    itself: Array,
    temperature: Array,
    alpha: Array,
    b: Array,
) -> Any:
    counts = jnp.any(positive, axis=1, keepdims=True)
    positive = with_itself(positive, itself)
    start = jnp.zeros(c.shape[0], c.dtype)
    total = sum_over_positives(partial(_penalty, penalty), start, positive, (negative,), c, temperature, alpha, b)
    return {"row": (total[:, None] / jnp.maximum(jnp.sum(positive, axis=1, keepdims=True), 1), counts)}


def _penalty(
    penalty: Penalty,
    columns: Array,
    there: Array,
    negative: Array,
    c: Array,
    temperature: Array,
    alpha: Array,
    b: Array,
) -> Array:
    number = jnp.sum(jnp.where(negative[:, None], before(columns, c, temperature), 0), axis=2)
    return jnp.sum(jnp.where(there, penalty(number, alpha, b), 0), axis=1)


FORMS = {name: partial(_terms, penalty) for name, penalty in PENALTIES.items()}
