"""Encoders are saved by a run, loaded anywhere, and embed images of any form."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

import simjax
from simjax import Gallery
from simjax.core import InputError
from simjax.data import load
from simjax.encoder import (
    Encoder,
    EncoderConfig,
    EncoderTransformer,
    Preprocessing,
    find_identities,
    find_images,
    load_encoder,
)
from simjax.encoder._storage import WEIGHTS
from simjax.nn import NETWORKS, CosinePrototypes
from simjax.similarity import unit_vectors
from simjax.train import train
from simjax.train._data import build_normalization, load_splits
from simjax.train._learner import build_learner, encoder_config, encoder_of
from simjax.train._settings import from_dict

UNWANTED = ("simjax.train", "simjax.losses", "simjax.report", "tensorflow_datasets", "orbax", "sklearn", "matplotlib")


@pytest.fixture(scope="module")
def encoder(run) -> Encoder:
    return load_encoder(run)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return load("digits", "test").images[:20]


@pytest.fixture(scope="module")
def embeddings(run) -> np.ndarray:
    return np.load(run / "predictions.npz")["embedding"]


def test_a_copied_encoder_gives_the_embeddings_of_the_run_without_its_data_and_training_code(run, tmp_path):
    shutil.copytree(run / "encoder", tmp_path / "copy")
    np.save(tmp_path / "images.npy", load("digits", "test").images)
    code = (
        "import sys, numpy as np, simjax\n"
        "encoder, images = simjax.load_encoder('copy'), np.load('images.npy')\n"
        "np.save('found.npy', encoder.encode(images))\n"
        "np.save('classes.npy', encoder.classify(images))\n"
        f"print([name for name in {UNWANTED} if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(Path(simjax.__file__).parents[1]), "JAX_PLATFORMS": "cpu", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), np.load(run / "predictions.npz")["embedding"])
    expected = load_encoder(run).classify(load("digits", "test").images)
    np.testing.assert_array_equal(np.load(tmp_path / "classes.npy"), expected)


def test_the_saved_classifier_has_the_predictions_and_the_accuracy_of_the_run(run, encoder, embeddings):
    test, report = load("digits", "test"), json.loads((run / "report.json").read_text())
    found = encoder.classify(test.images, batch_size=64)
    predicted = found.argmax(1)
    np.testing.assert_array_equal(predicted, np.load(run / "predictions.npz")["predicted"])
    assert (report["accuracy"], report["accuracy_of"]) == (np.mean(predicted == test.labels), "classifier")
    weights = load_file(run / "encoder/model.safetensors")
    exponentials = np.exp(embeddings @ weights["head.dense.kernel"] + weights["head.dense.bias"])
    np.testing.assert_allclose(found, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-4)
    assert "| Classifier | 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |" in (run / "encoder/README.md").read_text()
    assert encoder.classify([]).shape == (0, 10)


def test_the_model_card_states_the_results_of_the_run_with_their_intervals(run, encoder):
    report, card = json.loads((run / "report.json").read_text()), (run / "encoder/README.md").read_text()
    low, high = report["accuracy_interval"]
    assert f"| Accuracy (classifier) | {report['accuracy']:.5g} (95% interval {low:.5g} to {high:.5g}) |" in card
    retrieval = report["retrieval"]
    expected = {"value": retrieval["precision_at_1"], "interval": retrieval["precision_at_1_interval"]}
    assert encoder.config.about["results"]["Precision at 1"] == expected


def test_a_classifier_is_saved_with_its_options_and_does_not_change_the_fingerprint(tmp_path, digits):
    options = {"scale": 1.5, "max_scale": 2.0}
    network = NETWORKS["dnn"]((8, 8, 1), widths=(4,), embedding_size=3, rngs=nnx.Rngs(0))
    config = EncoderConfig("dnn", {"widths": [4]}, 3, Preprocessing((8, 8, 1), (0.3,), (0.2,)), class_names=("a", "b"))
    head = CosinePrototypes(3, 2, rngs=nnx.Rngs(0), **options)
    head.log_scale[...] = 5.0  # clipped to max_scale
    encoder = Encoder([network], replace(config, head="cosine", head_options=options), head=head)
    encoder.save(tmp_path / "saved")
    found = load_encoder(tmp_path / "saved")
    np.testing.assert_array_equal(found.calibrated(None).classify(digits), encoder.classify(digits))
    assert found.fingerprint == encoder.fingerprint == Encoder([network], config).fingerprint
    with pytest.raises(InputError, match="head: expected the module that config.head = None names, got "):
        Encoder([network], config, head=head)
    cosine = np.asarray(unit_vectors(found.encode(digits)) @ unit_vectors(found.head.prototypes[...]).T)
    np.testing.assert_allclose(found.logits(found.encode(digits)), 2 * cosine, rtol=1e-5, atol=1e-6)


def test_the_classifier_of_a_run_is_saved_with_the_measure_of_the_network(tmp_path, digits):
    settings = from_dict({"model": "dnn", "dnn": {"widths": [4], "measure": "rbf"}, "embedding_size": 3})
    splits = load_splits(settings)
    config = encoder_config(settings, splits, build_normalization(settings, splits), "cosine")
    encoder = encoder_of(build_learner(settings, splits.image_shape, 10), config)
    encoder.save(tmp_path / "saved")
    assert load_encoder(tmp_path / "saved").config.head_options == {"measure": "rbf"}
    np.testing.assert_array_equal(load_encoder(tmp_path / "saved").classify(digits), encoder.classify(digits))


def test_an_encoder_that_was_saved_without_a_classifier_loads_and_says_so(encoder, digits, tmp_path):
    encoder.save(tmp_path / "saved")
    weights, path = load_file(tmp_path / "saved/model.safetensors"), tmp_path / "saved/config.json"
    save_file({name: a for name, a in weights.items() if not name.startswith("head.")}, path.with_name(WEIGHTS))
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: v for name, v in config.items() if not name.startswith("head")}))
    np.testing.assert_array_equal(load_encoder(tmp_path / "saved").encode(digits), encoder.encode(digits))
    with pytest.raises(InputError, match=r"saved was saved without a classifier \(objective softmax\); compare emb"):
        load_encoder(tmp_path / "saved").classify(digits)
    with pytest.raises(InputError, match=r"without a classifier \(objective supervised_contrastive\)"):
        load_encoder("digits-cnn").logits(np.zeros((1, 64), np.float32))


def test_every_form_of_an_image_has_the_same_embedding(encoder, digits, embeddings, tmp_path):
    one, pillow = digits[0], Image.fromarray(digits[0, ..., 0])
    pillow.save(tmp_path / "one.png")
    buffer = io.BytesIO()
    pillow.convert("RGB").save(buffer, "png")
    forms = (one, one[..., 0], one[None], one / 255, np.repeat(one, 3, axis=2), pillow, pillow.convert("RGBA"))
    for form in (
        *forms,
        tmp_path / "one.png",
        str(tmp_path / "one.png"),
        np.array([str(tmp_path / "one.png")]),
        np.array([tmp_path / "one.png"]),
        np.array(str(tmp_path / "one.png")),
        tmp_path,
        buffer.getvalue(),
        io.BytesIO(buffer.getvalue()),
        [io.BytesIO(buffer.getvalue())],
        [one],
        iter([one]),
    ):
        np.testing.assert_allclose(encoder.encode(form), embeddings[:1], atol=1e-5)


def test_batches_of_any_size_keep_the_order_of_an_iterator(encoder, digits, embeddings):
    seen: list[tuple[int, int]] = []
    found = encoder.encode(
        (image for image in digits), batch_size=7, progress=lambda text, done, total: seen.append((done, total))
    )
    np.testing.assert_allclose(found, embeddings[:20], atol=1e-5)
    assert seen == [(7, 7), (14, 14), (20, 20)]
    assert encoder.encode([]).shape == (0, 8)
    assert [(name, rows.shape) for name, rows in encoder.encode([], layers=True).items()] == [("embedding", (0, 8))]


def test_images_of_other_sizes_are_resized(encoder, digits):
    large = [Image.fromarray(image[..., 0]).resize((80, 80)) for image in digits]
    small = [np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))[..., None] for image in large]
    np.testing.assert_array_equal(encoder.encode(large), encoder.encode(np.stack(small)))


def test_a_narrow_grey_image_is_no_color_image(encoder, random):
    narrow = random.integers(0, 256, (9, 3), np.uint8)
    np.testing.assert_array_equal(encoder.encode(narrow), encoder.encode(Image.fromarray(narrow)))


def test_layers_are_returned_in_the_order_of_computation(encoder, digits, embeddings):
    layers = encoder.encode(digits, layers=True)
    assert list(layers) == ["patches", "block.0", "block.1", "norm", "embedding"]
    assert layers["block.0"].shape == (20, 16, 16)
    np.testing.assert_allclose(layers["embedding"], embeddings[:20], atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 5, 1)), "expected an array"),
        (np.zeros((8, 8), np.int32), "int32"),
        (np.full((8, 8), 255.0), "from 0 to 1"),
        (np.array(["no/such/file.png"]), "no/such/file.png: cannot be read"),
        (np.full((8, 8), np.nan), "got NaN or infinite pixels$"),
        ([3], "expected paths, Pillow images, arrays, encoded bytes or binary files, got int"),
        (io.StringIO("text"), "binary files, got str"),
        ("no/such/file.png", "no such file"),
    ],
)
def test_unusable_images_are_one_clear_error(encoder, images, message):
    with pytest.raises(InputError, match=message):
        encoder.encode(images)


def test_an_unreadable_image_is_named(encoder, digits, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.fromarray(digits[0, ..., 0]).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"broken\.png: cannot be read"):
        encoder.encode(tmp_path)
    with pytest.raises(InputError, match="image 1: cannot be read"):
        encoder.encode([digits[0], b"no image"])


def test_a_decompression_bomb_is_refused_by_name(encoder, digits, tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(
        InputError, match=r"bomb\.png: cannot be read \(it has 200,000,000 pixels, more than [0-9,]+\)$"
    ):
        encoder.encode([tmp_path / "bomb.png"])


def test_a_small_range_of_all_images_is_one_warning_for_any_batch_size(encoder):
    images = [Image.fromarray(np.full((8, 8), 100 * i, np.uint16)) for i in range(5)]
    for batch_size in (1, 2, 5):
        with pytest.warns(UserWarning, match="^pixels from 0 to 400 were read as if they") as warned:
            encoder.encode(iter(images), batch_size=batch_size)
        (message,) = (str(warning.message) for warning in warned)
        assert "input_range" not in message


def test_pixels_outside_the_assumed_range_are_an_error_without_the_options_of_a_data_set(encoder):
    with pytest.raises(InputError, match=r"image 0: cannot be read \(pixels from -1000 to 3000, .* of mode I\)$"):
        encoder.encode(Image.fromarray(np.array([[-1000, 3000]], np.int32)))


def test_files_and_identities_are_found_in_alphabetical_order(digits, tmp_path):
    for name in ("b/1.png", "a/x/2.png", "a/1.png", "@eaDir/1.png", ".hidden/1.png", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0, ..., 0]).save(tmp_path / name)
    with pytest.warns(UserWarning, match="left out .*@eaDir"):
        files, identities = find_identities(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in files] == ["a/1.png", "a/x/2.png", "b/1.png"]
    assert identities == ["a", "a", "b"]
    assert find_images([tmp_path / "c.png", tmp_path / "b"]) == [tmp_path / "c.png", tmp_path / "b/1.png"]
    with pytest.raises(InputError, match="one sub-folder"):
        find_identities(tmp_path / "b")


@pytest.mark.parametrize("name", ["pipe.png", "x" * 300, "null\0", "folder.png/x.png"])
def test_a_path_that_is_no_file_is_one_clear_error(encoder, tmp_path, name):
    os.mkfifo(tmp_path / "pipe.png")
    path = tmp_path / name
    message = {"pipe.png": "It is a pipe, a socket", "x" * 300: "File name too long", "null\0": "null"}
    for images in (path, [path], str(path)):
        with pytest.raises(InputError) as caught:
            encoder.encode(images)
        assert message.get(name, "o such file") in str(caught.value)
        assert str(caught.value).count(str(path)) == 1
        assert "Errno" not in str(caught.value)
    with pytest.raises(InputError, match="no such folder|a file, not a folder"):
        find_identities(path)


def test_similarities_are_those_of_the_measure(encoder, digits, embeddings):
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.similarity(digits[:3], embeddings), unit[:3] @ unit.T, atol=1e-5)


def test_an_uncalibrated_encoder_says_how_to_calibrate(encoder):
    with pytest.raises(InputError, match="simjax calibrate"):
        encoder.probability([0.5])


def test_an_ensemble_is_an_encoder(tmp_path):
    settings = {"model": "dnn", "steps": 4, "dnn": {"widths": [8]}, "embedding_size": 4, "ensemble": {"size": 2}}
    report = train(from_dict(settings), tmp_path / "run").report
    found = load_encoder(tmp_path / "run")
    assert len(found.networks) == 2
    expected = np.load(tmp_path / "run/predictions.npz")["embedding"]
    np.testing.assert_array_equal(found.encode(load("digits", "test").images), expected)
    assert (report["accuracy_of"], found.head, found.config.head) == ("knn", None, None)


def test_saving_again_is_refused_or_replaces_the_folder(encoder, tmp_path):
    encoder.save(tmp_path / "saved")
    with pytest.raises(InputError, match="exists"):
        encoder.save(tmp_path / "saved")
    encoder.save(tmp_path / "saved", overwrite=True)
    assert load_encoder(tmp_path / "saved").fingerprint == encoder.fingerprint
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        encoder.save(tmp_path / "saved", overwrite=True)
    assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"
    for entry in ("mine/README.md", "mine too/calibration.safetensors/notes.txt"):
        (tmp_path / entry).parent.mkdir(parents=True)
        (tmp_path / entry).write_text("mine")
        with pytest.raises(InputError, match="which is not of an encoder: not overwritten"):
            encoder.save(tmp_path / Path(entry).parts[0], overwrite=True)
        assert (tmp_path / entry).read_text() == "mine"
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "vit on digits" in card
    assert "8x8 pixels, grey" in card


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_encoder("no-such-encoder")
    with pytest.raises(InputError, match="has no encoder"):
        load_encoder(tmp_path)
    for name in ("x" * 300, "null\0"):
        with pytest.raises(InputError, match="no such folder"):
            load_encoder(tmp_path / name)


@pytest.mark.parametrize(
    ("measure", "objective"),
    [("low_rank_mahalanobis", "triplet"), pytest.param("pair_network", "nt_xent", marks=pytest.mark.slow)],
)
def test_a_learned_measure_is_saved_and_used(tmp_path, digits, measure, objective):
    loss = {"learned_measure": measure, "measure_size": 3}
    settings = {"model": "dnn", "steps": 20, "dnn": {"widths": [8]}, "embedding_size": 4, "loss": loss}
    trained = train(from_dict(settings | {"objective": objective, "mining": {"miner": "batch_hard"}}), tmp_path / "run")
    assert trained.report["measure"] == measure
    found = load_encoder(tmp_path / "run")
    learned = trained.encoder.learned_measure
    assert found.measure.name == measure
    pairs = found.encode(digits[:10]), found.encode(digits[10:])
    np.testing.assert_allclose(found.measure(*pairs), learned(*pairs), rtol=1e-6)
    with Gallery.create(tmp_path / "gallery", found) as gallery:
        gallery.add(pairs[1])
        (result,) = gallery.search(pairs[0][:1], 10)
    scores = found.similarity(pairs[0][:1], pairs[1])[0]
    expected = np.argsort(-scores if found.measure.higher_is_closer else scores, kind="stable")
    assert [hit.id - 1 for hit in result.hits] == expected.tolist()


def test_an_encoder_is_a_transformer_of_scikit_learn(encoder, digits, embeddings):
    transformer: Any = clone(EncoderTransformer(encoder, normalize=True))
    with pytest.raises(NotFittedError):
        check_is_fitted(transformer)
    found = transformer.fit_transform(digits)
    np.testing.assert_allclose(found, encoder.encode(digits, normalize=True), atol=1e-6)
    assert transformer.get_feature_names_out().tolist() == [f"encodertransformer{i}" for i in range(8)]
    labels = load("digits", "test").labels[:20]
    assert make_pipeline(transformer, KNeighborsClassifier(1)).fit(digits, labels).score(digits, labels) == 1
