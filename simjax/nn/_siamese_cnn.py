"""The Siamese CNN: one convolutional encoder, used for both images of a pair.

A Siamese network is not two networks. The encoder is stored once and called on whatever is to be compared; the
comparison is a measure of its embeddings.
"""

from functools import partial

import jax
from flax import nnx
from jax import Array

from simjax.core import InputError, check_choice
from simjax.nn._batch_norm import BatchNorm
from simjax.nn._layers import (
    Convolution,
    Dense,
    Residual,
    average_pool,
    flatten,
    global_average_pool,
    max_pool,
)

VARIANTS = ("modern", "classic")


class SiameseCNN(nnx.Module):
    """Images [b, h, w, c] to embeddings [b, embedding_size].

    Args:
        image_shape: (h, w, c) of the images. At least 8x8 for the modern variant, 28x28 for the classic one.
        variant: "modern" has stages of convolution, batch norm, ReLU and pooling, each stage after the first with a
            residual block; "classic" is the network of the early tutorials: no activations, a 2-d embedding.
        widths: channels of the stages.
        residual: whether the stages after the first have a residual block.
        embedding_size: None is 64 for the modern variant, 2 for the classic one.
        rngs: initialises the parameters.

    Raises:
        InputError: for an unknown variant or images that are too small.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        variant: str = "modern",
        widths: tuple[int, ...] = (16, 32, 64),
        residual: bool = True,
        embedding_size: int | None = None,
        rngs: nnx.Rngs,
    ):
        check_choice("cnn.variant", variant, VARIANTS)
        smallest = 28 if variant == "classic" else 2 ** len(widths)
        if min(image_shape[:2]) < smallest:
            raise InputError(
                f"images of {image_shape[0]}x{image_shape[1]} are too small for the {variant} cnn: "
                f"it needs at least {smallest}x{smallest}"
            )
        self.embedding_size = embedding_size or (2 if variant == "classic" else 64)
        if variant == "classic":
            self.layers = _classic(image_shape, self.embedding_size, rngs)
        else:
            self.layers = _modern(image_shape[2], widths, residual, self.embedding_size, rngs)

    def __call__(self, images: Array) -> Array:
        """Images [b, h, w, c], normalised, to embeddings [b, embedding_size]."""
        return self.layers(images)


def _classic(image_shape: tuple[int, int, int], embedding_size: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """The network as listed: three convolutions and two dense layers with batch norm, and no activation."""
    height, width, channels = image_shape
    places = ((height // 4 - 2) // 5) * ((width // 4 - 2) // 5)  # after both poolings, the 3x3 and the 5x5 mean
    return nnx.Sequential(
        Convolution(channels, 32, padding=1, rngs=rngs),
        BatchNorm(32),
        max_pool,
        Convolution(32, 64, padding=1, rngs=rngs),
        BatchNorm(64),
        max_pool,
        Convolution(64, 128, padding=0, rngs=rngs),
        BatchNorm(128),
        partial(average_pool, size=5),
        flatten,
        Dense(128 * places, 64, init="lecun_normal", rngs=rngs),
        BatchNorm(64),
        Dense(64, embedding_size, init="lecun_normal", rngs=rngs),
    )


def _modern(
    channels: int, widths: tuple[int, ...], residual: bool, embedding_size: int, rngs: nnx.Rngs
) -> nnx.Sequential:
    """Stages of convolution, batch norm and ReLU, pooled in between; the mean over places becomes the embedding."""

    def unit(channels_in: int, channels_out: int) -> list:
        # No bias: the batch norm that follows has one.
        convolution = Convolution(channels_in, channels_out, use_bias=False, rngs=rngs)
        return [convolution, BatchNorm(channels_out), jax.nn.relu]

    layers = unit(channels, widths[0])
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [max_pool, *unit(before, after)]
        if residual:
            layers.append(Residual(nnx.Sequential(*unit(after, after))))
    embed = Dense(widths[-1], embedding_size, init="lecun_normal", rngs=rngs)
    return nnx.Sequential(*layers, global_average_pool, embed)
