"""NT-Xent and InfoNCE: tell a row's positive from its negatives by a softmax.

Of a row i with a positive p, at temperature t:

    loss = -log( exp(s_ip / t) / (exp(s_ip / t) + sum over negatives n of exp(s_in / t)) )

References:
    Sohn (2016), Improved Deep Metric Learning with Multi-class N-pair Loss Objective. van den Oord, Li, Vinyals
    (2018), Representation Learning with Contrastive Predictive Coding (InfoNCE). Chen et al. (2020), A Simple Framework
    for Contrastive Learning of Visual Representations (NT-Xent).
"""

import operator
from functools import reduce
from typing import Any

from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array, check_choice, check_positive
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp
from simjax.losses._softplus import softplus
from simjax.pairs import by_position
from simjax.similarity import Measure

DIRECTIONS = ("rows", "both")


def nt_xent_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    temperature: ArrayLike = 0.07,
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """Normalised temperature-scaled cross entropy: one term for each positive pair, over it and all negatives.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        temperature: closeness is divided by it; may be learned.
        measure: a name or a `Measure`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the positive pairs, each taken once from each side; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, or a temperature that is not positive.

    Example:
        Two rows of one class that are equal, and a third at a right angle to both:

        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(nt_xent_loss(x, jnp.array([0, 0, 1]), temperature=1.0)), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    check_positive("temperature", temperature)
    return pair_loss(_terms, embeddings, labels, measure=measure, temperature=temperature, **options)


def info_nce_loss(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n d"],
    *,
    temperature: ArrayLike = 0.07,
    directions: str = "rows",
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """InfoNCE of pairs: row i of x belongs with row i of y, and all other rows of y are its negatives.

    Args:
        x: queries, [n, d].
        y: keys, [n, d].
        temperature: closeness is divided by it; may be learned.
        directions: "rows" lets x choose among y; "both" averages that and y choosing among x (as CLIP does).
        measure: a name or a `Measure`.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows (and over both directions).

    Raises:
        InputError: for shapes that do not fit, an unknown direction, or a temperature that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> print(round(float(info_nce_loss(jnp.eye(2), jnp.eye(2), temperature=1.0, directions="both")), 4))
        0.3133
    """
    check_positive("temperature", temperature)
    check_choice("directions", directions, DIRECTIONS)
    x, y = as_float_array("x", x), as_float_array("y", y)
    if x.shape != y.shape:
        raise InputError(f"y: expected one row for each row of x {x.shape}, got shape {y.shape}")
    pairs = [(x, y), (y, x)][: 1 + (directions == "both")]
    found = [
        pair_loss(_terms, a, by_position(len(a)), ref_embeddings=b, measure=measure, temperature=temperature, **options)
        for a, b in pairs
    ]
    return reduce(operator.add, found) / len(found)


def _terms(c: Array, positive: Array, negative: Array, *, temperature: Array) -> Any:
    z = c / temperature
    return {"positive": (softplus(log_sum_exp(z, negative) - z), positive)}
