"""Several losses at once, weighted, and what each of them is, for the log."""

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from jax.typing import ArrayLike

from simjax.core import InputError, check_choice


def combined_loss(
    losses: Mapping[str, Callable[..., Any]],
    *args: Any,
    loss_weights: Mapping[str, ArrayLike] | None = None,
    **options: Any,
) -> tuple[Any, dict[str, Any]]:
    """A weighted sum of losses of the same arguments, and its parts.

    A loss with arguments of its own is a `functools.partial`, or a function that picks what it needs.

    Args:
        losses: by any names.
        *args: of every loss, for instance embeddings and labels.
        loss_weights: a factor of each loss, by name: numbers or learned scalars; a name left out has 1.
        **options: keyword arguments of every loss.

    Returns:
        The sum, and the parts by name, before their weights: what `jax.value_and_grad(..., has_aux=True)` takes.

    Raises:
        InputError: for no loss, or a weight of an unknown one.

    Example:
        Two rows of one class at distance 5:

        >>> from functools import partial
        >>> import jax.numpy as jnp
        >>> from simjax.losses import contrastive_loss
        >>> parts = {"linear": contrastive_loss, "squared": partial(contrastive_loss, form="hadsell")}
        >>> x, labels = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0])
        >>> total, found = combined_loss(parts, x, labels, loss_weights={"squared": 0.1}, measure="euclidean")
        >>> print(total, found["linear"], found["squared"])  # 5 + 0.1 of 25
        7.5 5.0 25.0
    """
    if not losses:
        raise InputError("losses: expected at least one, got none")
    factors = dict(loss_weights or {})
    for name in factors:
        check_choice("name in loss_weights", name, losses)
    parts = {name: loss(*args, **options) for name, loss in losses.items()}
    return reduce(operator.add, [part * factors.get(name, 1.0) for name, part in parts.items()]), parts
