"""Gradient caching: a batch larger than memory, encoded in chunks, with the loss and its gradient those of the whole.

A loss over pairs needs all embeddings at once, but not all activations of the encoder. So the chunks are encoded one
after another and only their embeddings are kept; going backward, each chunk is encoded again. In JAX that is a map
over chunks of a checkpointed function, and everything that differentiates goes on working.

References:
    Gao, Zhang, Han, Callan (2021), Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from simjax.core import InputError, check_at_least, map_rows


def encode_in_chunks(encoder: Callable[..., Any], inputs: Any, *, chunk: int, key: Array | None = None) -> Any:
    """What `encoder(inputs)` gives, in the memory of one chunk's activations, forward and backward.

    Gradients by whatever the encoder closes over and by the inputs are exact. Time is that of one more forward pass.
    A network must treat each row by itself: batch normalisation, while it learns, would take a chunk's statistics for
    the batch's.

    Args:
        encoder: a pure function of an array [r, ...], or a pytree of such, giving arrays of r rows; with a key, of
            that, too.
        inputs: an array [n, ...] or a pytree of such.
        chunk: rows encoded at once; where it does not divide n, the last chunk is filled up with rows from the start,
            whose results are dropped.
        key: for dropout. Each chunk gets a key of its own, the same when it is encoded again.

    Returns:
        The encoder's results for all n rows, to be given to any loss.

    Raises:
        InputError: for less than one row in a chunk, or inputs of different lengths.

    Example:
        A Flax NNX model is split outside and merged inside; a model of two towers is two calls.

        >>> from flax import nnx
        >>> from simjax.losses import nt_xent_loss
        >>> definition, parameters = nnx.split(nnx.Linear(8, 4, rngs=nnx.Rngs(0)))
        >>> images, labels = jax.random.normal(jax.random.key(0), (64, 8)), jnp.arange(64) // 2
        >>> def loss(parameters, chunk):
        ...     encoder = lambda part: nnx.merge(definition, parameters)(part)
        ...     return nt_xent_loss(encode_in_chunks(encoder, images, chunk=chunk), labels)
        >>> in_chunks, at_once = (jax.grad(loss)(parameters, chunk) for chunk in (16, 64))
        >>> print(jnp.allclose(in_chunks.kernel[...], at_once.kernel[...], atol=1e-5))
        True
    """
    check_at_least("chunk", chunk, 1)
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1:
        raise InputError(f"inputs: expected arrays of the same number of rows, got {sorted(lengths)}")

    def encode(part: Any, rows: Array) -> Any:
        if key is None:
            return encoder(part)
        # The number of the first row tells chunks apart. As a sum it is 0 where there is no row at all.
        return encoder(part, jax.random.fold_in(key, jnp.sum(rows[:1])))

    return map_rows(encode, inputs, jnp.arange(lengths.pop(), dtype=jnp.int32), block_size=chunk)
