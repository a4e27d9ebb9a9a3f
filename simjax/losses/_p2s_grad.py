"""P2SGrad: squared differences of the cosines from 1 for the own class and 0 for all others.

    loss = mean over rows i and classes k of (cos(x_i, w_k) - [k is the class of i])^2

The paper defines no loss but its gradients: those of a softmax over cosines, with the cosine itself in place of each
probability, so that neither scale nor margin is left to choose. They are the gradients of this sum of squares.

References:
    Zhang et al. (2019), P2SGrad: Refined Gradients for Optimizing Deep Face Models. Wang, Yamagishi (2021), A
    Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech Detection (as squares).
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from simjax.losses._class_vectors import classified


def p2s_grad_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    *,
    proxies: Num[ArrayLike, "c d"],
    **options: Any,
) -> Any:
    """P2SGrad: one term for each pair of a row and a class; nothing to tune.

    Args:
        embeddings: [n, d].
        labels: class ids [n], from 0 to c - 1; a row with any other id counts nowhere.
        proxies: the class vectors [c, d], of any length.
        **options: weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over all pairs.

    Raises:
        InputError: for shapes that do not fit, or more classes than proxies.

    Example:
        The first row is where it should be, the second at the vector of the other class:

        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> print(p2s_grad_loss(x, jnp.array([0, 1]), proxies=jnp.eye(2)))  # (0 + 0 + 1 + 1) / 4
        0.5

    Differs from pytorch-metric-learning, which makes unit vectors of the class vectors in place before each step. Here
    they have any length, and their gradient is at right angles to them, without the part that such rescaling undoes.
    """
    return classified(_squares, embeddings, labels, proxies, options)


def _squares(c: Array, positive: Array, negative: Array) -> Any:
    found = jnp.any(positive, axis=1, keepdims=True)
    return {"pair": (jnp.square(jnp.where(positive, 1 - c, c)), (positive | negative) & found)}
