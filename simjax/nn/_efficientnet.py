"""EfficientNet-Lite0, a convolutional network for photographs whose ImageNet weights an encoder can load.

An inverted residual block expands the channels by a convolution of single pixels, filters every channel by itself and
projects back to few channels, without an activation after the projection:

    y = project(clip(filter(clip(expand(x)))))         + x if the shapes are equal

All convolutions are followed by batch normalization. "Lite" variants have no squeeze-and-excitation, and ReLU6,
clip(x) = min(max(x, 0), 6), instead of swish.

References:
    Tan, Le (2019), EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. Liu, Tan (2020),
    Higher accuracy on vision models with EfficientNet-Lite.
"""

from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from simjax import core
from simjax.core import InputError
from simjax.nn._layers import BatchNorm, Convolution, Dense, global_average_pool

STEM_WIDTH = 32


class Stage(NamedTuple):
    """Blocks in sequence. The first one has the stride; all have the same width."""

    blocks: int
    size: int  # of the filters, in pixels
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class FrozenParam(nnx.Variable):
    """A parameter that is not trained."""


class EfficientNetLite0(nnx.Module):
    """A network from normalized color images [b, h, w, 3] to embeddings [b, embedding_size].

    Args:
        image_shape: (h, w, 3). The pretrained weights are for 224x224.
        embedding_size: 1280 for the features before the classifier of ImageNet; for another size a dense layer follows.
        frozen: Train only the dense layer: the other parameters are `FrozenParam`s, and the batch norms use their
            running statistics.
    """

    FEATURES = 1280

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        embedding_size: int = FEATURES,
        frozen: bool = False,
        rngs: nnx.Rngs,
    ):
        if image_shape[2] != 3:
            raise InputError(f"image_shape: efficientnet-lite0 expects color images, got {image_shape[2]} channels")
        self.stem = Unit(Convolution(3, STEM_WIDTH, stride=2, padding=0, use_bias=False, rngs=rngs), STEM_WIDTH)
        blocks, width = [], STEM_WIDTH
        for stage in STAGES:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                expanded = width * stage.expansion
                blocks.append(InvertedResidual(width, expanded, stage.width, stage.size, stride, rngs=rngs))
                width = stage.width
        self.blocks = nnx.List(blocks)
        self.last = Unit(_pointwise(width, self.FEATURES, rngs), self.FEATURES)
        self.embedding_size = embedding_size
        if frozen:
            _freeze(self)
        has_dense = embedding_size != self.FEATURES
        self.embed = Dense(self.FEATURES, embedding_size, init="lecun_normal", rngs=rngs) if has_dense else None

    def __call__(self, images: Array, *, return_layers: bool = False) -> Any:
        """Compute embeddings; with `return_layers` also a dictionary of the outputs of all layers, [b, ...] each."""
        layers = {"stem": self.stem(core.pad_same(images, (3, 3), 2))}
        x = layers["stem"]
        for number, block in enumerate(self.blocks):
            layers[f"block_{number}"] = x = block(x)
        layers["last"] = x = self.last(x)
        layers["features"] = x = global_average_pool(x)
        if self.embed is not None:
            layers["embed"] = x = self.embed(x)
        return (x, layers) if return_layers else x

    def feature_map(self, images: Array) -> Array:
        """Compute the last spatial feature map, see `SpatialNetwork`."""
        return self(images, return_layers=True)[1]["last"]

    def embed_feature_map(self, features: Array) -> Array:
        """Compute the embeddings of feature maps, see `SpatialNetwork`."""
        x = global_average_pool(features)
        return x if self.embed is None else self.embed(x)


class Unit(nnx.Module):
    """A convolution, batch norm and ReLU6."""

    def __init__(self, convolution: nnx.Module, width: int, *, has_activation: bool = True):
        self.convolution: Any = convolution
        self.norm = BatchNorm(width, momentum=0.99, epsilon=1e-3)
        self.has_activation = has_activation

    def __call__(self, x: Array) -> Array:
        x = self.norm(self.convolution(x))
        return jax.nn.relu6(x) if self.has_activation else x


class DepthwiseConvolution(nnx.Module):
    """One filter for each channel, see `core.depthwise_convolution`."""

    def __init__(self, channels: int, *, size: int, stride: int, rngs: nnx.Rngs):
        kernel = nnx.initializers.he_normal()(rngs.params(), (size, size, 1, channels))
        self.kernel = nnx.Param(kernel[:, :, 0])
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        return core.depthwise_convolution(x, self.kernel[...], stride=self.stride)


class InvertedResidual(nnx.Module):
    """An inverted residual block, see the top of this module."""

    def __init__(self, width_in: int, expanded: int, width_out: int, size: int, stride: int, *, rngs: nnx.Rngs):
        self.expand = None if expanded == width_in else Unit(_pointwise(width_in, expanded, rngs), expanded)
        self.filter = Unit(DepthwiseConvolution(expanded, size=size, stride=stride, rngs=rngs), expanded)
        self.project = Unit(_pointwise(expanded, width_out, rngs), width_out, has_activation=False)
        self.is_residual = stride == 1 and width_in == width_out

    def __call__(self, x: Array) -> Array:
        expanded = x if self.expand is None else self.expand(x)
        y = self.project(self.filter(expanded))
        return x + y if self.is_residual else y


def _pointwise(channels_in: int, channels_out: int, rngs: nnx.Rngs) -> Convolution:
    """Return a convolution of single pixels."""
    return Convolution(channels_in, channels_out, size=1, padding=0, use_bias=False, rngs=rngs)


def _freeze(network: nnx.Module) -> None:
    """Replace the parameters by `FrozenParam`s, and let the batch norms use their running statistics."""
    for _, module in nnx.iter_modules(network):
        for name, value in vars(module).items():
            if isinstance(value, nnx.Param):
                setattr(module, name, FrozenParam(value[...]))
        if isinstance(module, BatchNorm):
            module.use_running_average = True
