"""A damaged folder of an encoder is one clear error, within a short time."""

import functools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simjax.core import InputError
from simjax.encoder import Encoder, load_encoder
from simjax.encoder._storage import CALIBRATION, CONFIG, WEIGHTS, read_encoder
from simjax.evaluate import Calibration


@pytest.fixture(scope="module")
def encoder(run) -> Encoder:
    return load_encoder(run)


def damage_weights(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def cut_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def damage_head(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["head.dense.bias"][0] += 1
    save_file(weights, folder / WEIGHTS)


def add_weight(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS) | {"head.scale": np.ones(1, np.float32)}, folder / WEIGHTS)


def change_weight(name: str, value: object):
    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights[name] = np.full_like(weights[name], value)
        save_file(weights, folder / WEIGHTS)

    return change


def write_weights(dtype: str, size: int):
    def change(folder: Path) -> None:
        header = json.dumps({"networks.0.x": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}).encode()
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))

    return change


def make_pipe(name: str):
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def change_preprocessing(**values: object):
    def change(folder: Path) -> None:
        preprocessing = json.loads((folder / "config.json").read_text())["preprocessing"]
        change_config(preprocessing=preprocessing | values)(folder)

    return change


def change_config(**values: object):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "changed after"),
        (damage_head, "changed after"),
        (add_weight, "head.scale: expected no such weights"),
        (change_config(class_names=list("1023456789")), "changed after"),
        (cut_weights, "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "No such file"),
        (change_config(format=99), "newer"),
        (change_config(network="rnn"), "unknown network"),
        (change_config(options={"deep": 3}), "unknown option"),
        (change_config(head="tree"), "unknown classifier"),
        (change_config(head_options={"deep": 3}), "unknown option of the classifier"),
        (change_config(embedding_size=9), "expected shape"),
        (change_config(preprocessing={}), "incomplete"),
        (change_config(preprocessing=3), "expected an object, got 3"),
        (change_preprocessing(image_shape=8), "image_shape: expected"),
        (change_preprocessing(image_shape=[]), "image_shape: expected"),
        (change_preprocessing(image_shape=[8, 8, "1"]), "image_shape: expected int, got '1'"),
        (change_preprocessing(mean=0.5), "mean: expected"),
        (change_preprocessing(mean=[0.5, 0.5]), "a mean and a deviation for each of 1 channels"),
        (change_preprocessing(aspect="bend"), "aspect: expected"),
        (change_config(options=[1]), "options: expected dict"),
        (change_config(networks=True), "networks: expected int"),
        (change_config(class_names=5), "class_names: expected"),
        (change_config(about=3), "about: expected dict"),
        (change_config(about={"recipe": 3}), "about: expected recipe to be a dict, got 3"),
        (change_config(about={"limits": "x"}), "about: expected limits to be a list"),
        (change_config(format=-1), "a whole number above 0"),
        (change_config(format=True), "a whole number above 0"),
        (change_config(embedding_size=0), "embedding_size: expected 1 to"),
        (change_config(embedding_size=10**30), "embedding_size: expected 1 to"),
        (change_config(networks=0), "networks: expected 1 to"),
        (change_config(network="logistic", options={}, networks=10**9), "networks: expected 1 to"),
        (change_config(measure="nearness"), "unknown measure 'nearness'"),
        (change_config(combine="multiply"), "combine: expected"),
        (change_config(class_names=[]), "class_names: expected the classes of the classifier linear, got none"),
        (change_config(options={"heads": 0}), "heads: expected whole numbers above 0, got 0"),
        (change_config(options={"heads": -2}), "heads: expected whole numbers above 0, got -2"),
        (change_config(options={"mlp_ratio": 0.5}), "the network vit"),
        (
            change_config(options={"depth": 10**6}),
            r"depth: expected at most (\d+) layers for \1 weights",
        ),
        (change_config(network="dnn", options={"widths": [0]}), "widths: expected whole numbers above 0"),
        (change_config(network="dnn", options={"widths": [1] * 3000}), "widths: expected at most .* layers"),
        (change_config(network="cnn", options={"widths": []}), "network cnn cannot be built with its options"),
        (change_config(network="cnn", options={"widths": [4] * 4}), "too small for the modern cnn"),
        *((change_preprocessing(image_shape=s), "image_shape: expected a") for s in ([-8, -8, 1], [0, 0, 1])),
        *((change_preprocessing(image_shape=s), "image_shape: expected a") for s in ([8, 8, 2], [10**9, 10**9, 1])),
        *((change_preprocessing(std=[x]), "std: expected") for x in (0.0, -1.0, math.nan, math.inf, None, 1e-60, "x")),
        *((change_preprocessing(mean=[x]), "mean: expected") for x in (math.nan, -math.inf, 1e300, None)),
        *((change_preprocessing(max_pixels=x), "max_pixels: expected") for x in ("x", 0, -1)),
        *(
            (change_preprocessing(input_range=x), "input_range: expected")
            for x in (["a", "b"], [1.0, 0.0], [0.0, math.inf])
        ),
        *(
            (change_weight("networks.0.embed.bias", x), "bias: the weights are not finite")
            for x in (math.nan, math.inf)
        ),
        *((write_weights(*x), "safetensors: expected arrays") for x in (("F8_E4M3", 8), ("F4", 4), ("F6_E2M3", 6))),
        (make_pipe(CONFIG), r"saved: cannot be read as an encoder: config\.json: It is a pipe"),
        (lambda folder: (folder / CONFIG).write_text("[" * 100_000), r"config\.json: expected JSON"),
        (lambda folder: (folder / CONFIG).write_text("9" * 5000), r"config\.json: expected JSON"),
        (change_config(options={"x": functools.reduce(lambda inner, _: [inner], range(500), 0)}), "cannot be read"),
    ],
)
def test_a_damaged_encoder_is_refused(encoder, tmp_path, damage, message):
    encoder.save(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(InputError, match=message):
        load_encoder(tmp_path / "saved")


def test_weights_of_a_larger_type_that_overflow_are_refused(encoder, tmp_path):
    encoder.save(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / WEIGHTS)
    save_file(weights | {"networks.0.embed.bias": np.full(8, 1e300)}, tmp_path / "saved" / WEIGHTS)
    with pytest.raises(InputError, match="bias: the weights are not finite"):
        load_encoder(tmp_path / "saved")
    save_file(weights | {"networks.0.embed.bias": np.zeros(8, np.complex64)}, tmp_path / "saved" / WEIGHTS)
    with pytest.raises(InputError, match="bias: expected real numbers, got complex64"):
        load_encoder(tmp_path / "saved")


def test_pipes_in_place_of_the_weights_and_of_the_calibration_are_refused(encoder, random, tmp_path):
    embeddings = random.normal(size=(40, 8)).astype(np.float32)
    calibration = Calibration.fit(embeddings, [str(i // 2) for i in range(40)], measure="cosine")
    for name in (WEIGHTS, CALIBRATION):
        folder = tmp_path / name / "saved"
        encoder.calibrated(calibration).save(folder)
        make_pipe(name)(folder)
        with pytest.raises(InputError, match=f"saved: cannot be read as an encoder: {name}: It is a pipe"):
            read_encoder(folder)


def test_a_calibration_of_embeddings_of_another_size_is_refused(encoder, random, tmp_path):
    embeddings = random.normal(size=(40, 7)).astype(np.float32)
    calibration = Calibration.fit(embeddings, [str(i // 2) for i in range(40)], measure="cosine")
    encoder.calibrated(calibration).save(tmp_path / "saved")
    with pytest.raises(InputError, match=r"calibration\.safetensors: expected embeddings of size 8, got size 7"):
        load_encoder(tmp_path / "saved")
