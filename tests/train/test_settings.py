import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.train import Settings, train
from simjax.train._objective import build_objective
from simjax.train._recipes import fill_defaults
from simjax.train._settings import DNNSettings, differences, from_dict, load_toml, to_dict
from simjax.train._validation import validate

pytestmark = pytest.mark.usefixtures("compile_faster")


def test_the_package_lists_its_public_names():
    import simjax.train as package

    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_settings_survive_json():
    settings = from_dict({"model": "vit", "vit": {"depth": 3}, "cnn": {"widths": [8, 16]}, "epochs": 2})
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings
    assert settings.vit.depth == 3
    assert settings.cnn.widths == (8, 16)
    assert settings.epochs == 2.0


def test_an_image_size_is_one_or_two_numbers():
    assert from_dict({"data": {"image_size": 28}}).data.image_size == 28
    assert from_dict({"data": {"image_size": [35, 29]}}).data.image_size == (35, 29)
    assert from_dict({"data": {"input_range": [0, 4095]}}).data.input_range == (0.0, 4095.0)


def test_a_toml_file_changes_the_settings_that_it_names(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('model = "dnn"\n[optimizer]\nlearning_rate = 1\n')
    settings = load_toml(path)
    assert differences(Settings(), settings) == [("model", "cnn", "dnn"), ("optimizer.learning_rate", None, 1.0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": "vit"}, "unknown setting 'modle'.*did you mean model"),
        ({"vit": {"dept": 3}}, "unknown setting 'vit.dept'.*did you mean depth"),
        ({"model": "vitt"}, "'model': unknown value 'vitt'.*did you mean vit"),
        ({"vit": {"depth": "x"}}, "'vit.depth': expected int, got 'x'"),
        ({"vit": 3}, "'vit': expected a section"),
        ({"seed": True}, "'seed': expected int, got True"),
        ({"cnn": {"widths": 3}}, "'cnn.widths': expected a list of whole numbers"),
        ({"steps": 1.5}, "'steps': expected int, got 1.5"),
        ({"data": {"image_size": [1, 2, 3]}}, r"'data.image_size': expected one or two whole numbers, got \[1, 2, 3\]"),
        ({"data": {"image_size": "big"}}, "'data.image_size': expected int, got 'big'"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(InputError, match=message):
        from_dict(values)


@pytest.mark.parametrize(
    ("text", "message"), [("model = ", "not valid TOML"), (None, "cannot read the configuration.*No such file")]
)
def test_unreadable_configurations(tmp_path, text, message):
    path = tmp_path / "a.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_toml(path)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"steps": 0}, "steps"),
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 1}, "batch_size"),
        ({"objective": "circle", "loss": {"memory": 64}}, "loss.memory"),
        ({"seed": -1}, "seed"),
        ({"optimizer": {"learning_rate": float("nan")}}, "optimizer.learning_rate"),
        ({"optimizer": {"warmup": 1.0}}, "optimizer.warmup"),
        ({"loss": {"margin": -0.5}}, "loss.margin"),
        ({"loss": {"samples_per_class": 1}}, "loss.samples_per_class"),
        ({"data": {"validation_fraction": 1.0}}, "data.validation_fraction"),
        ({"data": {"train_fraction": 0}}, "data.train_fraction"),
        ({"augment": {"shift": -0.1}}, "augment.shift"),
        ({"augment": {"cutout": 1.1}}, "augment.cutout"),
        ({"data": {"image_size": [8, 0]}}, "data.image_size"),
        ({"data": {"image_size": 0}}, "data.image_size"),
        ({"data": {"input_range": [1, 1]}}, "data.input_range"),
        ({"data": {"max_pixels": 0}}, "data.max_pixels"),
        ({"cache_gigabytes": -1}, "cache_gigabytes"),
        ({"cnn": {"widths": []}}, "cnn.widths"),
        ({"vit": {"heads": 0}}, "vit.heads"),
    ],
)
def test_numbers_out_of_range_are_named(values, name):
    with pytest.raises(InputError, match=f"setting '{name}': expected"):
        validate(from_dict(values))


def test_a_recipe_fills_in_missing_settings_only():
    given = from_dict({"model": "vit", "optimizer": {"learning_rate": 0.5}, "augment": {"rotation": 0.0}})
    filled = fill_defaults(given, 1000)
    assert filled.optimizer.learning_rate == 0.5
    assert filled.augment.rotation == 0.0
    assert (filled.augment.shift or 0) > 0
    assert (filled.epochs or 0) > 0
    assert fill_defaults(filled, 1000) == filled
    assert fill_defaults(dataclasses.replace(given, steps=7), 1000).epochs is None


@pytest.mark.parametrize(("images", "epochs"), [(100, 60), (10_000, 60), (60_000, 10), (10**7, 2)])
def test_the_epochs_of_other_data_sets_depend_on_their_size(images, epochs):
    assert fill_defaults(from_dict({"dataset": "folder:somewhere"}), images).epochs == epochs
    assert fill_defaults(from_dict({"dataset": "folder:somewhere", "model": "vit"}), images).epochs == 2 * epochs


CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configurations_are_valid(path):
    settings = fill_defaults(load_toml(path), 60_000)
    validate(settings)
    objective = build_objective(settings, np.arange(1000) % 10, 10)
    assert objective.images_per_step >= settings.batch_size
    assert path.stem.startswith(("classic_", f"{settings.dataset}_"))
    assert f"--config configs/{path.name}" in path.read_text()


def test_families_have_configurations_for_both_data_sets():
    names = {path.stem.partition("_")[2] for path in CONFIGS if path.stem.startswith("mnist_")}
    assert names == {path.stem.partition("_")[2] for path in CONFIGS if path.stem.startswith("cifar10_")}
    assert len(names) == 12


def test_configurations_of_cifar10_differ_from_those_of_mnist_by_data_only():
    for path in CONFIGS:
        if path.stem.startswith("cifar10_"):
            other = load_toml(path.with_stem(path.stem.replace("cifar10", "mnist")))
            names = {name for name, _, _ in differences(load_toml(path), other)}
            assert names <= {"dataset", "augment.shift", "augment.rotation", "augment.flip"}, path


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in CONFIGS if not p.stem.startswith("cifar10_")], ids=lambda path: path.stem)
def test_configurations_train(path, tmp_path):
    given = load_toml(path)
    given = dataclasses.replace(given, dataset="digits", steps=3, epochs=None, model="dnn", dnn=DNNSettings((16,)))
    report = train(given, tmp_path / "run").report
    assert report["accuracy_of"] == "knn"
    assert report["accuracy"] > 0.3
    assert (report["test_loss"] is None) == (given.loss.positives == "views" or given.ensemble.size > 1)
