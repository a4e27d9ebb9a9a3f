"""SigLIP: every pair is a yes-or-no question of its own, so that no row needs to know the others.

    loss = -1 / n sum over all pairs of log sigmoid( y_ij (exp(log_scale) s_ij + bias) ),  y = 1 if positive, else -1

References:
    Zhai, Mustafa, Kolesnikov, Beyer (2023), Sigmoid Loss for Language Image Pre-Training.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array
from simjax.losses._legacy import pair_loss
from simjax.pairs import by_position
from simjax.similarity import Measure

LOG_TEN = 2.302585092994046


def siglip_loss(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"],
    relation: Any = None,
    *,
    log_scale: ArrayLike = LOG_TEN,
    bias: ArrayLike = -10.0,
    measure: str | Measure = "cosine",
    **options: Any,
) -> Any:
    """The sigmoid loss of two sets: one term for each row, the sum over its pairs.

    Args:
        x: [n, d].
        y: [m, d].
        relation: a `Relation` of n rows and m columns; None is that row i belongs with row i.
        log_scale: the logarithm of the scale of the closeness, to be learned; the paper begins with log 10.
            `nn.ScaleAndBias` learns it and keeps the scale at 100 or less.
        bias: to be learned; the paper begins with -10.
        measure: a name or a `Measure`.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows of x.

    Raises:
        InputError: for shapes that do not fit.

    Example:
        >>> print(round(float(siglip_loss(jnp.eye(2), jnp.eye(2))), 4))  # log(1 + exp(10 - 10)) + log(1 + exp(-10))
        0.6932
    """
    x, y = as_float_array("x", x), as_float_array("y", y)
    if relation is None:
        if x.shape != y.shape:
            raise InputError(f"y: expected one row for each row of x {x.shape}, got shape {y.shape}")
        relation = by_position(len(x))
    return pair_loss(_terms, x, relation, ref_embeddings=y, measure=measure, log_scale=log_scale, bias=bias, **options)


def _terms(c: Array, positive: Array, negative: Array, *, log_scale: Array, bias: Array) -> Any:
    # Half of the exponent at a time: a closeness of 0 stays 0 where the scale overflows.
    half = jnp.exp(jnp.minimum(log_scale / 2, math.log(float(jnp.finfo(c.dtype).max)) - 1))
    z = half * (half * c) + bias
    z = jnp.where(jnp.isinf(z), lax.stop_gradient(z), z)
    loss = jnp.sum(
        jnp.where(positive | negative, jax.nn.softplus(jnp.where(positive, -z, z)), 0), axis=1, keepdims=True
    )
    return {"row": (loss, jnp.ones_like(loss, bool))}
