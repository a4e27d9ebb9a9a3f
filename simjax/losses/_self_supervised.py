"""Self-supervision: any loss of pairs over views of the same images, whose row numbers take the place of labels.

References:
    Chen et al. (2020), A Simple Framework for Contrastive Learning of Visual Representations.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import InputError, as_float_array, as_matrices


def self_supervised_loss(
    loss: Callable[..., Any],
    x: Num[ArrayLike, "n d"],
    *views: Num[ArrayLike, "n d"],
    symmetric: bool = True,
    weights: Shaped[ArrayLike, " n"] | None = None,
    **options: Any,
) -> Any:
    """A loss of pairs over two or more views: row i belongs with row i of each, and with no other.

    Args:
        loss: takes embeddings, class ids, ref_embeddings and ref_labels, as those of pairs and triplets do.
        x: one view [n, d].
        *views: the same rows seen otherwise, [n, d] each; at least one.
        symmetric: compare all views with all, as SimCLR does: of two views, each row has one positive and 2 n - 2
            negatives, from both views. False compares x with the others only: one positive and n - 1 negatives.
        weights: a factor of each row's terms, in all views, [n].
        **options: of the loss.

    Returns:
        What the loss returns.

    Raises:
        InputError: for a single view, or shapes that do not fit.

    Example:
        Each row has its positive at cosine 1 and two negatives at 0:

        >>> from simjax.losses import nt_xent_loss
        >>> found = self_supervised_loss(nt_xent_loss, jnp.eye(2), jnp.eye(2), temperature=1.0)
        >>> print(round(float(found), 4))  # log(1 + 2 exp(0 - 1))
        0.5514
    """
    if not views:
        raise InputError("views: expected at least one beside x, got none")
    others = [as_matrices(x, view, ("x", "views"))[1] for view in views]
    first = as_float_array("x", x)
    if any(view.shape != first.shape for view in others):
        raise InputError(f"views: expected shapes {first.shape} as that of x, got {[view.shape for view in others]}")
    rows = jnp.arange(len(first), dtype=jnp.int32)
    count = len(others)
    if weights is not None:
        options["weights"] = jnp.tile(as_float_array("weights", weights), 1 + count) if symmetric else weights
    if symmetric:
        return loss(jnp.concatenate([first, *others]), jnp.tile(rows, 1 + count), **options)
    return loss(first, rows, ref_embeddings=jnp.concatenate(others), ref_labels=jnp.tile(rows, count), **options)
