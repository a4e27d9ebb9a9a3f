"""Logistic regression, a model whose encoder has no parameters."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from simjax import explain, load_encoder
from simjax.core import InputError
from simjax.data import load
from simjax.nn import count_parameters
from simjax.train import from_dict, train
from simjax.train._data import build_normalization, load_splits
from simjax.train._learner import build_learner, encoder_config, encoder_of
from simjax.train._validation import validate

QUICK: dict[str, Any] = {"model": "logistic", "steps": 300, "optimizer": {"learning_rate": 0.02}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder with initial weights."""
    settings = from_dict(QUICK)
    splits = load_splits(settings)
    learner = build_learner(settings, splits.image_shape, 10)
    assert count_parameters(learner) == 64 * 10 + 10
    out = tmp_path_factory.mktemp("encoders") / "logistic"
    encoder_of(learner, encoder_config(settings, splits, build_normalization(settings, splits), "cosine")).save(out)
    return out


def test_the_model_is_a_linear_classifier_of_normalized_pixels(folder):
    encoder, test = load_encoder(folder), load("digits", "test")
    preprocessing = encoder.config.preprocessing
    pixels = (test.images.reshape(-1, 64) / 255 - preprocessing.mean) / preprocessing.std
    np.testing.assert_allclose(encoder.encode(test.images), pixels, rtol=1e-4, atol=1e-5)
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {"head.dense.kernel", "head.dense.bias"}
    logits = pixels @ weights["head.dense.kernel"] + weights["head.dense.bias"]
    np.testing.assert_allclose(encoder.logits(encoder.encode(test.images)), logits, rtol=1e-3, atol=1e-4)


def test_its_layer_is_the_embedding_and_its_heat_map_is_that_of_occlusion(folder):
    encoder, images = load_encoder(folder), load("digits", "test").images[:1]
    np.testing.assert_array_equal(encoder.encode(images, layers=True)["0.flatten"], encoder.encode(images))
    maps = explain.heat_maps(encoder, images, explain.class_score(encoder, encoder.class_names[3]))
    assert list(maps) == ["occlusion"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "size"), [({}, 64), ({"objective": "arcface"}, 64), ({"ensemble": {"size": 2}}, 128)]
)
def test_runs_train_and_load(tmp_path, changes, size):
    report = train(from_dict(QUICK | changes), tmp_path / "run").report
    assert report["accuracy"] > 0.93
    assert load_encoder(tmp_path / "run").encode(load("digits", "test").images[:2]).shape == (2, size)


@pytest.mark.parametrize("objective", ["contrastive", "margin", "siglip", "simsiam"])
def test_an_objective_that_trains_the_encoder_only_is_an_error(objective):
    with pytest.raises(InputError, match=f"logistic model has no parameters to train with objective {objective}; use"):
        validate(from_dict({"model": "logistic", "objective": objective}))


@pytest.mark.parametrize(
    "values", [{"objective": "arcface"}, {"objective": "contrastive", "loss": {"learned_measure": "pair_network"}}]
)
def test_an_objective_with_other_parameters_is_not(values):
    validate(from_dict({"model": "logistic"} | values))


def test_another_embedding_size_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="embedding_size: expected 64, .* 8 x 8 x 1, got 32"):
        train(from_dict(QUICK | {"embedding_size": 32}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
