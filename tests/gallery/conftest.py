"""An encoder with random weights, and empty galleries."""

import numpy as np
import pytest
from flax import nnx

from simjax import nn
from simjax.encoder import Encoder, EncoderConfig, Preprocessing
from simjax.gallery import Gallery

SIZE = 5


def build_encoder(size: int = SIZE, measure: str = "cosine", seed: int = 0, **options) -> Encoder:
    """A linear function of 8x8 grey pixels with random weights."""
    config = EncoderConfig("dnn", {"widths": []}, size, Preprocessing((8, 8, 1), (0.5,), (0.5,)), measure)
    network = nn.DenseNetwork((8, 8, 1), widths=(), embedding_size=size, rngs=nnx.Rngs(seed))
    return Encoder([network], config, name=f"random-{seed}", **options)


@pytest.fixture(scope="package")
def encoder() -> Encoder:
    return build_encoder()


@pytest.fixture
def gallery(encoder, tmp_path):
    with Gallery.create(tmp_path / "gallery", encoder) as found:
        yield found


@pytest.fixture
def rows(random) -> np.ndarray:
    return random.normal(size=(13, SIZE)).astype(np.float32)
