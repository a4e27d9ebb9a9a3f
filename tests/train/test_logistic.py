"""Logistic regression, a model whose encoder has no parameters."""

from typing import Any

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from simjax import explain, load_encoder
from simjax.core import InputError
from simjax.data import load
from simjax.nn import count_parameters
from simjax.train import from_dict, train
from simjax.train._data import build_normalization, load_splits
from simjax.train._learner import build_learner, encoder_config, encoder_of
from simjax.train._objective import build_objective
from simjax.train._recipes import fill_defaults
from simjax.train._step import build_augmentation, build_optimizer, build_steps, initial_state
from simjax.train._validation import validate

QUICK: dict[str, Any] = {
    "model": "logistic",
    "steps": 300,
    "optimizer": {"learning_rate": 0.02},
    "augment": {"enabled": False},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder after 300 steps."""
    splits = load_splits(from_dict(QUICK))
    settings, labels = fill_defaults(from_dict(QUICK), len(splits.train.labels)), splits.train.labels
    learner, objective = build_learner(settings, splits.image_shape, 10), build_objective(settings, labels, 10)
    assert count_parameters(learner) == 64 * 10 + 10
    optimizer, _ = build_optimizer(settings, 300)
    graphdef, state = initial_state(learner, optimizer, 0)
    take_steps: Any = build_steps(graphdef, optimizer, objective, build_augmentation(settings), "float32")
    normalization, order = build_normalization(settings, splits), np.arange(len(labels))
    state = take_steps(state, 300, splits.train.images, labels, order, normalization)
    config = encoder_config(settings, splits, normalization, "cosine")
    out = tmp_path_factory.mktemp("encoders") / "logistic"
    encoder_of(nnx.merge(graphdef, state.params, state.statistics), config).save(out)
    return out


def test_training_is_a_linear_classifier_of_normalized_pixels(folder):
    encoder, test = load_encoder(folder), load("digits", "test")
    preprocessing = encoder.config.preprocessing
    pixels = (test.images.reshape(-1, 64) / 255 - preprocessing.mean) / preprocessing.std
    np.testing.assert_allclose(encoder.encode(test.images), pixels, rtol=1e-4, atol=1e-5)
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {"head.dense.kernel", "head.dense.bias"}
    logits = pixels @ weights["head.dense.kernel"] + weights["head.dense.bias"]
    np.testing.assert_allclose(encoder.logits(encoder.encode(test.images)), logits, rtol=1e-3, atol=1e-4)
    assert np.mean(logits.argmax(1) == test.labels) > 0.93


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
