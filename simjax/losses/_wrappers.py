"""Losses that combine other losses, and a batch that is encoded in chunks.

    combined      sum over losses of weight * loss(embeddings, labels)
    matryoshka    sum over sizes k of weight * loss(the first k features of the embeddings)

`encode_in_chunks` is gradient caching. A loss over pairs needs all embeddings of a batch at once, but not all
activations of the encoder. The encoder runs over one chunk of the batch after another and only the embeddings are
stored; the backward pass encodes each chunk again.

References:
    Kusupati et al. (2022), Matryoshka Representation Learning. Gao, Zhang, Han, Callan (2021), Scaling Deep Contrastive
    Learning Batch Size under Memory Limited Setup (gradient caching).
"""

import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError, as_float_array, check_at_least, check_choice, map_rows
from simjax.losses._self_supervised import Loss
from simjax.losses._terms import Embeddings
from simjax.similarity import unit_vectors

Encoded = TypeVar("Encoded")
"""An array [n, d] or a pytree of arrays [n, ...]."""

EMBEDDINGS = ("y", "views", "ref_embeddings", "proxies", "projection", "other_prediction", "other_projection")
"""Arguments of losses that hold embeddings, beside the first argument, which always does."""


def combined_loss(
    losses: Mapping[str, Callable[..., Loss]],
    *args: Any,
    loss_weights: Mapping[str, ArrayLike] | None = None,
    **options: Any,
) -> tuple[Loss, dict[str, Loss]]:
    """Compute a weighted sum of losses of the same arguments, and the losses by name without their weights.

    `jax.value_and_grad(..., has_aux=True)` takes this result. To pass arguments to one loss only, wrap it in
    `functools.partial`.

    Args:
        losses: Losses by name, at least one.
        *args: Positional arguments of every loss, for instance embeddings and labels.
        loss_weights: Factors by name, numbers or learned scalars. Default: 1 for each name that is left out.
        **options: Keyword arguments of every loss.

    Example:
        >>> from functools import partial
        >>> from simjax.losses import contrastive_loss
        >>> losses = {"linear": contrastive_loss, "wide": partial(contrastive_loss, positive_margin=1.0)}
        >>> x, labels = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0])
        >>> total, parts = combined_loss(losses, x, labels, loss_weights={"wide": 0.1}, measure="euclidean")
        >>> print(round(float(total), 4), parts["linear"], parts["wide"])  # 5 + 0.1 of 4
        5.4 5.0 4.0
    """
    if not losses:
        raise InputError("losses: expected at least one, got none")
    factors = dict(loss_weights or {})
    for name in factors:
        check_choice("name in loss_weights", name, losses)
    parts = {name: loss(*args, **options) for name, loss in losses.items()}
    return _weighted_sum(parts.values(), [factors.get(name, 1.0) for name in parts]), parts


def matryoshka_loss(
    loss: Callable[..., Loss],
    embeddings: Embeddings,
    *args: Any,
    sizes: Sequence[int],
    size_weights: Sequence[ArrayLike] | None = None,
    normalize: bool = False,
    **options: Any,
) -> Loss:
    """Compute the weighted sum of a loss, or of the terms of `unreduced(loss)`, of the first k features for several k.

    Every argument that holds embeddings is truncated: the first one, and those named y, views, ref_embeddings, proxies,
    projection, other_prediction and other_projection. Other arguments, such as labels or the embeddings of a teacher,
    are not truncated.

    Args:
        loss: A function of `simjax.losses`, or any function with similar arguments.
        *args: Other positional arguments of the loss.
        sizes: Numbers of features k, each in [1, d]. Include d to train whole embeddings as well.
        size_weights: Factor for each size, numbers or learned scalars. Default: 1.
        normalize: Scale truncated embeddings to unit length, for measures that do not normalize them.
        **options: Keyword arguments of the loss.

    Differs from sentence-transformers, which always scales truncated embeddings to unit length. Here the measure
    decides, so that the size d alone gives the loss itself. With a cosine or normalized measure both are the same.

    Example:
        >>> from simjax.losses import contrastive_loss
        >>> x, labels = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0])
        >>> print(matryoshka_loss(contrastive_loss, x, labels, sizes=(1, 2), measure="euclidean"))  # distances 3 and 5
        8.0
    """
    x = as_float_array("embeddings", embeddings)
    if not sizes or any(not 0 < k <= x.shape[-1] for k in sizes):
        raise InputError(f"sizes: expected numbers of features from 1 to {x.shape[-1]}, got {tuple(sizes)}")
    factors = [1.0] * len(sizes) if size_weights is None else list(size_weights)
    if len(factors) != len(sizes):
        raise InputError(f"size_weights: expected one for each of {len(sizes)} sizes, got {len(factors)}")
    positional = inspect.signature(loss).bind_partial(x, *args)
    truncated = {next(iter(positional.arguments)), *EMBEDDINGS}

    def first_features(arguments: Mapping[str, Any], k: int) -> OrderedDict[str, Any]:
        def of_array(a: ArrayLike) -> Array:
            part = as_float_array("embeddings", a)[..., :k]
            return unit_vectors(part) if normalize else part

        return OrderedDict((n, jax.tree.map(of_array, a) if n in truncated else a) for n, a in arguments.items())

    def loss_of_size(k: int) -> Loss:
        arguments = inspect.BoundArguments(positional.signature, first_features(positional.arguments, k)).args
        return loss(*arguments, **first_features(options, k))

    return _weighted_sum(map(loss_of_size, sizes), factors)


def encode_in_chunks(
    encoder: Callable[..., Encoded], inputs: Any, *, chunk_size: int, key: Array | None = None
) -> Encoded:
    """Compute `encoder(inputs)` in the memory of one chunk's activations, forward and backward.

    Gradients with respect to the inputs and to all values that the encoder closes over are exact. They take the time of
    one more forward pass. The encoder must compute each row independently: batch normalization in training mode would
    use the statistics of a chunk instead of the statistics of the batch.

    Args:
        encoder: A pure function of an array [r, ...] or a pytree of such arrays that returns arrays of r rows. If `key`
            is given, the second argument is the PRNG key of the chunk.
        inputs: An array [n, ...] or a pytree of such arrays.
        chunk_size: Rows per chunk, at least 1. If it does not divide n, the last chunk is padded with rows from the
            start, whose results are dropped.
        key: PRNG key, for dropout. Each chunk gets its own key, which is the same when the chunk is encoded again.
            Default: the encoder takes no key.

    Example:
        Split a Flax NNX model outside of the encoder, and call `nnx.merge(definition, parameters)(rows)` inside. Encode
        the two inputs of a model with two towers separately.

        >>> x, weights = jnp.arange(6.0).reshape(3, 2), jnp.ones((2, 1))
        >>> loss = lambda weights: jnp.sum(encode_in_chunks(lambda rows: rows @ weights, x, chunk_size=2))
        >>> print(jax.grad(loss)(weights).T)  # sums of columns
        [[6. 9.]]
    """
    check_at_least("chunk_size", chunk_size, 1)
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1:
        raise InputError(f"inputs: expected arrays of the same number of rows, got {sorted(lengths)}")

    def encode(chunk: Any, rows: Array) -> Encoded:
        if key is None:
            return encoder(chunk)
        # The index of the first row identifies the chunk; the sum is 0 if there is no row.
        return encoder(chunk, jax.random.fold_in(key, jnp.sum(rows[:1])))

    return map_rows(encode, inputs, jnp.arange(lengths.pop(), dtype=jnp.int32), block_size=chunk_size)


def _weighted_sum(losses: Iterable[Any], weights: Iterable[ArrayLike]) -> Any:
    return reduce(operator.add, [loss * weight for loss, weight in zip(losses, weights, strict=True)])
