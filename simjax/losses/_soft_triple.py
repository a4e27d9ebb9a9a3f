"""SoftTriple: several centres for each class, softly the nearest, and a softmax over the classes.

With c_kj the cosine of an embedding x and centre j of class k, S_k its similarity to the class:

    S_k  = sum over j of softmax_j(c_kj / gamma) c_kj
    loss = -log( exp(scale (S_y - margin)) / (exp(scale (S_y - margin)) + sum over k != y of exp(scale S_k)) )
           + tau sparse_centers_regularizer(centres)

It is a smoothed triplet loss with centres in place of a batch's members. The last part, which draws the centres of one
class together, lets a class have as many different ones as it needs.

References:
    Qian, Shang, Sun, Hu, Li, Jin (2019), SoftTriple Loss: Deep Metric Learning Without Triplet Sampling.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.core import InputError, check_at_least, check_positive
from simjax.losses._angular_margin import cosface_form
from simjax.losses._class_vectors import classified_by_centers
from simjax.losses._regularizers import sparse_centers_regularizer


def soft_triple_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c k d"],
    scale: ArrayLike = 20.0,
    gamma: ArrayLike = 0.1,
    margin: ArrayLike = 0.01,
    tau: ArrayLike = 0.0,
    reducer: Any = None,
    **options: Any,
) -> Any:
    """SoftTriple: one term for each row, time n c k d, memory of a strip of c k columns.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; any other id counts nowhere.
        proxies: the centres [c, k, d], of any length; the paper has k = 10.
        scale: of the similarities; lambda in the paper, `la` in pytorch-metric-learning.
        gamma: temperature of the choice among a class's centres.
        margin: by which the similarity to the own class must be larger; delta in the paper.
        tau: weight of the regulariser, which is added to the reduced loss; the paper has 0.2.
        reducer: see `pair_loss`; "none" goes with tau = 0, since the regulariser is no term of a row.
        **options: weights, block_size: see `pair_loss`.

    Returns:
        The mean over the rows, and tau times the regulariser.

    Raises:
        InputError: for shapes that do not fit, more classes than proxies, a scale or gamma that is not positive, or a
            tau where the terms themselves are wanted.

    Example:
        Both centres of a class are alike, so that the loss is that of one; the other class is at a right angle.

        >>> proxies = jnp.repeat(jnp.eye(2)[:, None], 2, axis=1)
        >>> found = soft_triple_loss(jnp.eye(2), jnp.arange(2), proxies=proxies, scale=1.0, margin=0.5, tau=0.2)
        >>> print(round(float(found), 4))  # log(1 + exp(0 - 0.5))
        0.4741
    """
    check_at_least("margin", margin, 0)
    check_at_least("tau", tau, 0)
    check_positive("scale", scale)
    check_positive("gamma", gamma)
    regularised = not (isinstance(tau, int | float) and tau == 0)
    if regularised and reducer == "none":
        raise InputError(f"tau: expected 0 with reducer 'none', which has no place for the regulariser, got {tau}")
    parameters = {"margin": margin, "scale": scale, "reducer": reducer}
    loss = classified_by_centers(
        cosface_form, _soft_nearest, embeddings, labels, proxies, options, {"gamma": gamma}, **parameters
    )
    return loss + tau * sparse_centers_regularizer(proxies) if regularised else loss


def _soft_nearest(c: Array, gamma: Array) -> Array:
    return jnp.sum(jax.nn.softmax(c / gamma, axis=2) * c, axis=2)
