"""The plain dense network: every pixel against every neuron, with no idea of what is near what."""

import jax
from flax import nnx
from jax import Array

from simjax.nn._batch_norm import BatchNorm
from simjax.nn._layers import Dense, flatten


class DenseNetwork(nnx.Module):
    """Images [b, h, w, c] to embeddings [b, embedding_size], through hidden layers of `widths` neurons.

    Each hidden layer is dense, batch norm, ReLU.

    Args:
        image_shape: (h, w, c) of the images.
        widths: neurons of the hidden layers.
        embedding_size: of the output.
        rngs: initialises the parameters.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        widths: tuple[int, ...] = (512, 512),
        embedding_size: int = 64,
        rngs: nnx.Rngs,
    ):
        sizes = (image_shape[0] * image_shape[1] * image_shape[2], *widths)
        layers: list = [flatten]
        for before, after in zip(sizes, widths, strict=False):
            layers += [Dense(before, after, use_bias=False, rngs=rngs), BatchNorm(after), jax.nn.relu]
        self.layers = nnx.Sequential(*layers, Dense(sizes[-1], embedding_size, init="lecun_normal", rngs=rngs))
        self.embedding_size = embedding_size

    def __call__(self, images: Array) -> Array:
        """Images [b, h, w, c], normalised, to embeddings [b, embedding_size]."""
        return self.layers(images)
