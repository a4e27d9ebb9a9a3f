"""Encoders of images: a convolutional network, a dense network, and the identity.

A Siamese network has one encoder, which embeds both images of a pair; a measure compares the embeddings.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, Protocol, runtime_checkable

import jax
from flax import nnx
from jax import Array

from simjax.core import InputError, check_choice
from simjax.nn._layers import (
    BatchNorm,
    Convolution,
    Dense,
    Residual,
    average_pool,
    flatten,
    global_average_pool,
    max_pool,
)
from simjax.nn._responses import NETWORK_MEASURES

VARIANTS = ("modern", "classic")


@runtime_checkable
class SpatialNetwork(Protocol):
    """A network that is computed in two parts, before and after its last spatial feature map.

        network(images) = network.embed_feature_map(network.feature_map(images))

    `simjax.explain.grad_cam` takes any network with these two methods.
    """

    def feature_map(self, images: Array) -> Array:
        """Compute the last spatial feature map [b, h', w', channels] of normalized images [b, h, w, c]."""
        ...

    def embed_feature_map(self, features: Array) -> Array:
        """Compute the embeddings [b, embedding_size] of feature maps [b, h', w', channels]."""
        ...


class SiameseCNN(nnx.Module):
    """A convolutional network from normalized images [b, h, w, c] to embeddings [b, embedding_size].

    Args:
        image_shape: (h, w, c) of the images. The modern variant needs at least 2^n pixels per side for n widths, the
            classic variant at least 28.
        variant: "modern" has stages of convolution, batch norm and ReLU with pooling between them, and a residual block
            in each stage after the first. "classic" is the network of `configs/classic_siamese.toml`: three
            convolutions, each with batch norm and pooling, then two dense layers with batch norm between them; no
            nonlinear activations.
        widths: Number of channels of each stage; only for "modern".
        residual: Add a residual block to each stage after the first; only for "modern".
        measure: Compares inputs with weight vectors in all layers, a name in `NETWORK_MEASURES`; "dot" for "classic".
        embedding_size: Size of the embeddings. Default: 64 for "modern", 2 for "classic".
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        variant: str = "modern",
        widths: tuple[int, ...] = (16, 32, 64),
        residual: bool = True,
        measure: str = "dot",
        embedding_size: int | None = None,
        rngs: nnx.Rngs,
    ):
        check_choice("variant", variant, VARIANTS)
        check_choice("measure", measure, NETWORK_MEASURES)
        if variant == "classic" and measure != "dot":
            raise InputError(f"measure: the classic cnn computes dot products only, got {measure}")
        smallest = 28 if variant == "classic" else 2 ** len(widths)
        if min(image_shape[:2]) < smallest:
            raise InputError(
                f"image_shape: images of {image_shape[0]}x{image_shape[1]} are too small for the {variant} cnn, "
                f"which needs at least {smallest}x{smallest}"
            )
        self.embedding_size = embedding_size or (2 if variant == "classic" else 64)
        if variant == "classic":
            self.layers = _classic(image_shape, self.embedding_size, rngs)
        else:
            self.layers = _modern(image_shape[2], widths, residual, measure, self.embedding_size, rngs)
        self.embedding_layers = 5 if variant == "classic" else 2  # the layers from the last pooling on

    def __call__(self, images: Array, *, return_layers: bool = False) -> Any:
        """Compute embeddings; with `return_layers` also a dictionary of the outputs of all layers, [b, ...] each."""
        return _apply(self.layers, images, return_layers)

    def feature_map(self, images: Array) -> Array:
        """Compute the last spatial feature map, see `SpatialNetwork`."""
        return _apply_all(self.layers.layers[: -self.embedding_layers], images)

    def embed_feature_map(self, features: Array) -> Array:
        """Compute the embeddings of feature maps, see `SpatialNetwork`."""
        return _apply_all(self.layers.layers[-self.embedding_layers :], features)


class DenseNetwork(nnx.Module):
    """A dense network from normalized images [b, h, w, c] to embeddings [b, embedding_size].

    Each hidden layer is a dense layer, batch norm and a ReLU.

    Args:
        image_shape: (h, w, c) of the images.
        widths: Number of neurons of each hidden layer.
        measure: Compares inputs with weight vectors in all layers, a name in `NETWORK_MEASURES`.
        embedding_size: Size of the embeddings.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        widths: tuple[int, ...] = (512, 512),
        measure: str = "dot",
        embedding_size: int = 64,
        rngs: nnx.Rngs,
    ):
        check_choice("measure", measure, NETWORK_MEASURES)
        sizes = (image_shape[0] * image_shape[1] * image_shape[2], *widths)
        layers: list = [flatten]
        for before, after in zip(sizes, widths, strict=False):
            layers += [Dense(before, after, use_bias=False, measure=measure, rngs=rngs), BatchNorm(after), jax.nn.relu]
        embed = Dense(sizes[-1], embedding_size, init="lecun_normal", measure=measure, rngs=rngs)
        self.layers = nnx.Sequential(*layers, embed)
        self.embedding_size = embedding_size

    def __call__(self, images: Array, *, return_layers: bool = False) -> Any:
        """Compute embeddings; with `return_layers` also a dictionary of the outputs of all layers, [b, ...] each."""
        return _apply(self.layers, images, return_layers)


class IdentityNetwork(nnx.Module):
    """The identity, from normalized images [b, h, w, c] to embeddings [b, h w c]; it has no parameters.

    With a linear head on its embeddings it is a multinomial logistic regression.

    Args:
        image_shape: (h, w, c) of the images.
        measure: Only for the linear head, which takes the measure of its network; a name in `NETWORK_MEASURES`.
        embedding_size: h w c, the only valid size.
        rngs: Not used; all networks take it.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        measure: str = "dot",
        embedding_size: int | None = None,
        rngs: nnx.Rngs,
    ):
        check_choice("measure", measure, NETWORK_MEASURES)
        self.embedding_size = math.prod(image_shape)
        if embedding_size not in (None, self.embedding_size):
            raise InputError(
                f"embedding_size: expected {self.embedding_size}, the numbers of an image of "
                f"{' x '.join(map(str, image_shape))}, got {embedding_size}"
            )
        self.layers = nnx.Sequential(flatten)

    def __call__(self, images: Array, *, return_layers: bool = False) -> Any:
        """Compute embeddings; with `return_layers` also a dictionary with the output of its only layer."""
        return _apply(self.layers, images, return_layers)


def _apply(layers: nnx.Sequential, x: Array, return_layers: bool) -> Any:
    """Apply the layers; with `return_layers` also return the output of each, named such as "0.Convolution"."""
    outputs: dict[str, Array] = {}
    for index, layer in enumerate(layers.layers):
        x = layer(x)
        function = getattr(layer, "func", layer)  # of a `partial`
        outputs[f"{index}.{getattr(function, '__name__', type(function).__name__)}"] = x
    return (x, outputs) if return_layers else x


def _apply_all(layers: Sequence[Any], x: Array) -> Array:
    return reduce(lambda x, layer: layer(x), layers, x)


def _classic(image_shape: tuple[int, int, int], embedding_size: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """Return the layers of the classic variant of `SiameseCNN`."""
    height, width, channels = image_shape
    # Two 2x2 poolings divide a side by 4, the convolution without padding takes 2 off, and 5x5 average pooling follows.
    positions = ((height // 4 - 2) // 5) * ((width // 4 - 2) // 5)
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
        Dense(128 * positions, 64, init="lecun_normal", rngs=rngs),
        BatchNorm(64),
        Dense(64, embedding_size, init="lecun_normal", rngs=rngs),
    )


def _modern(
    channels: int, widths: tuple[int, ...], residual: bool, measure: str, embedding_size: int, rngs: nnx.Rngs
) -> nnx.Sequential:
    """Return stages of convolution, batch norm and ReLU with pooling between them, a global mean and a dense layer."""

    def unit(channels_in: int, channels_out: int) -> list:
        # No bias: the batch norm that follows has one.
        convolution = Convolution(channels_in, channels_out, use_bias=False, measure=measure, rngs=rngs)
        return [convolution, BatchNorm(channels_out), jax.nn.relu]

    layers = unit(channels, widths[0])
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [max_pool, *unit(before, after)]
        if residual:
            layers.append(Residual(nnx.Sequential(*unit(after, after))))
    embed = Dense(widths[-1], embedding_size, init="lecun_normal", measure=measure, rngs=rngs)
    return nnx.Sequential(*layers, global_average_pool, embed)
