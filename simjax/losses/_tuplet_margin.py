"""Tuplet margin: every positive pair against all negatives of its row at once, by angles.

    loss_ip = log(1 + sum over negatives n of exp(scale (cos theta_in - cos(theta_ip - margin))))

References:
    Yu, Tao (2019), Deep Metric Learning with Tuplet Margin Loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least, check_positive
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import log_sum_exp


def tuplet_margin_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 5.73,
    scale: ArrayLike = 64.0,
    **options: Any,
) -> Any:
    """Tuplet margin: one term for each positive pair, by cosine similarity.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`; any will do.
        margin: slack of the angle, in degrees: a positive pair counts as so much nearer.
        scale: of the cosines.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the positive pairs; 0 where there are none.

    Raises:
        InputError: for shapes that do not fit, or a scale that is not positive.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> print(round(float(tuplet_margin_loss(x, jnp.array([0, 0, 1]), scale=1.0, margin=0.0)), 4))
        0.6178
    """
    check_at_least("margin", margin, 0)
    check_positive("scale", scale)
    options = {"measure": "cosine"} | options
    return pair_loss(_terms, embeddings, labels, margin=jnp.deg2rad(margin), scale=scale, **options)


def _terms(c: Array, positive: Array, negative: Array, *, margin: Array, scale: Array) -> Any:
    # cos(theta - margin), without the arc cosine, whose slope has no end at 1.
    sine = jnp.sqrt(jnp.maximum(1 - c * c, jnp.finfo(c.dtype).eps))
    slack = c * jnp.cos(margin) + sine * jnp.sin(margin)
    return {"positive": (jax.nn.softplus(log_sum_exp(scale * c, negative) - scale * slack), positive)}
