"""Matryoshka: one embedding that can be cut. Its first k features are an embedding, too, for several k.

    loss = sum over sizes k of weight_k loss(the first k features)

References:
    Kusupati et al. (2022), Matryoshka Representation Learning.
"""

import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array
from simjax.similarity import unit_vectors

CUT = ("y", "views", "ref_embeddings", "proxies", "projection", "other_prediction", "other_projection")
"""The arguments of losses that hold embeddings beside the first one, which always does."""


def matryoshka_loss(
    loss: Callable[..., Any],
    embeddings: Num[ArrayLike, "n d"],
    *args: Any,
    sizes: Sequence[int],
    size_weights: Sequence[ArrayLike] | None = None,
    normalise: bool = False,
    **options: Any,
) -> Any:
    """Any loss over the first k features of embeddings, for several k; time and memory of one loss after another.

    The arguments that hold embeddings are cut: the first one, and by their names y, views, ref_embeddings, proxies,
    projection, other_prediction and other_projection. All others, as labels and the embeddings of a teacher, are not.

    Args:
        loss: of `simjax.losses`, or one of your own.
        embeddings: [n, d].
        *args: what else the loss takes.
        sizes: the numbers of features k, each from 1 to d. To train whole embeddings, too, d is one of them.
        size_weights: a factor for each size, numbers or learned scalars; None is 1 for all.
        normalise: bring what was cut to unit length, for measures that do not do so themselves.
        **options: of the loss.

    Returns:
        The weighted sum of the losses.

    Raises:
        InputError: for no size, one that is not from 1 to d, or another number of weights.

    Differs from sentence-transformers, where what was cut always gets unit length: here it is up to the measure, so
    that the size d alone is the loss itself. With a cosine or normalised measure there is no difference.

    Example:
        Two rows of one class are at distance 3 by their first feature, and 5 by both:

        >>> import jax.numpy as jnp
        >>> from simjax.losses import contrastive_loss
        >>> x, labels = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0])
        >>> print(matryoshka_loss(contrastive_loss, x, labels, sizes=(1, 2), measure="euclidean"))
        8.0
    """
    x = as_float_array("embeddings", embeddings)
    if not sizes or any(not 0 < k <= x.shape[-1] for k in sizes):
        raise InputError(f"sizes: expected numbers of features from 1 to {x.shape[-1]}, got {tuple(sizes)}")
    factors = [1.0] * len(sizes) if size_weights is None else list(size_weights)
    if len(factors) != len(sizes):
        raise InputError(f"size_weights: expected one for each of {len(sizes)} sizes, got {len(factors)}")
    signature = inspect.signature(loss)
    given = signature.bind(x, *args, **options)
    holds_embeddings = {next(iter(given.arguments)), *CUT}

    def cut(name: str, value: Any, k: int) -> Any:
        if name in signature.parameters and signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            return {option: cut(option, part, k) for option, part in value.items()}
        return jax.tree.map(lambda a: first_features(name, a, k), value) if name in holds_embeddings else value

    def first_features(name: str, a: ArrayLike, k: int) -> Array:
        part = as_float_array(name, a)[..., :k]
        return unit_vectors(part) if normalise else part

    def at(k: int) -> Any:
        arguments = OrderedDict((name, cut(name, value, k)) for name, value in given.arguments.items())
        call = inspect.BoundArguments(signature, arguments)
        return loss(*call.args, **call.kwargs)

    return reduce(operator.add, [at(k) * factor for k, factor in zip(sizes, factors, strict=True)])
