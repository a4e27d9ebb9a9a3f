"""Small encoders with random weights, and images for them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from simjax.encoder import Encoder, EncoderConfig, Preprocessing
from simjax.nn import LinearHead, VisionTransformer
from tests.slow import mostly_slow

SHAPE = (9, 10, 3)  # no multiple of the patch size 4
CLASSES = ("cat", "dog", "horse")
MEAN, STD = (0.3, 0.5, 0.6), (0.2, 0.3, 0.4)


class LinearNetwork(nnx.Module):
    """A linear spatial network: means of windows of 3x5 pixels, a 1x1 convolution, the mean over positions."""

    def __init__(self, rngs: nnx.Rngs):
        self.filters = nnx.Param(jax.random.normal(rngs.params(), (3, 4)))
        self.embed = nnx.Param(jax.random.normal(rngs.params(), (4, 7)))

    def feature_map(self, images: Array) -> Array:
        windows = images.reshape(len(images), 3, 3, 2, 5, 3).mean(axis=(2, 4))
        return windows @ self.filters[...]

    def embed_feature_map(self, features: Array) -> Array:
        return jnp.mean(features, axis=(1, 2)) @ self.embed[...]

    def __call__(self, images: Array) -> Array:
        return self.embed_feature_map(self.feature_map(images))


def encoder_of(*networks: nnx.Module, measure: str = "cosine", head: nnx.Module | None = None) -> Encoder:
    preprocessing = Preprocessing(SHAPE, MEAN, STD)
    classifier = {"class_names": CLASSES, "head": None if head is None else "linear"}
    config = EncoderConfig("test", {}, 7, preprocessing, measure, networks=len(networks), **classifier)
    return Encoder(networks, config, head=head)


@pytest.fixture(scope="session")
def linear() -> Callable[..., Encoder]:
    network = LinearNetwork(nnx.Rngs(0))
    return lambda measure="cosine": encoder_of(network, measure=measure)


@pytest.fixture(scope="session")
def classifier() -> Encoder:
    return encoder_of(LinearNetwork(nnx.Rngs(0)), head=LinearHead(7, len(CLASSES), rngs=nnx.Rngs(1)))


@pytest.fixture(scope="session", params=mostly_slow(["mean", "class"], "class"))
def transformer(request) -> Encoder:
    options = {"patch_size": 4, "width": 8, "depth": 2, "heads": 2, "pooling": request.param, "embedding_size": 7}
    return encoder_of(VisionTransformer(SHAPE, rngs=nnx.Rngs(0), **options))


@pytest.fixture(scope="session")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *SHAPE), np.uint8)
    return images[0], images[1]
