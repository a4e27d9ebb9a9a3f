"""Few images per class: validation images, the source of the threshold, and reports with missing numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simjax import report
from simjax.core import InputError
from simjax.data import Dataset
from simjax.train import train
from simjax.train._data import (
    DataSplits,
    _stratified_mask,
    _whole_classes_mask,
    count_verification_pairs,
    load_splits,
    threshold_source,
)
from simjax.train._run_folder import RunFolder, extend
from simjax.train._settings import from_dict


@pytest.mark.parametrize(
    ("images", "fraction", "aside"),
    [
        (3, 0.05, 0),
        (4, 0.05, 2),
        (10, 0.05, 2),
        (39, 0.05, 2),
        (60, 0.05, 3),
        (200, 0.05, 10),
        (30, 0.0, 0),
        (3, 0.5, 1),
    ],
)
def test_large_enough_classes_give_two_validation_images(images, fraction, aside):
    labels = np.repeat([0, 1, 2], images)
    marked = _stratified_mask(labels, fraction)
    assert np.bincount(labels[marked], minlength=3).tolist() == [aside] * 3


def test_whole_classes_give_enough_pairs_or_none():
    labels = np.repeat(np.arange(60), 3)
    marked = _whole_classes_mask(labels)
    held = np.unique(labels[marked])
    assert len(held) == 4  # of three pairs each, ten are needed
    assert marked.sum() == 12
    assert not _whole_classes_mask(np.repeat(np.arange(12), 3)).any()  # at most a quarter of the classes
    assert count_verification_pairs(np.array([0, 0, 0, 1])) == 3
    assert count_verification_pairs(np.arange(5)) == count_verification_pairs(np.zeros(5, int)) == 0


def of(labels):
    labels = np.array(labels, np.int32)
    return Dataset(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, tuple("abcdefghijklmnopqrst"))


def test_the_source_of_the_threshold_is_reported():
    two = np.repeat(np.arange(20), 2)
    for validation, trained, source, words in (
        (two, two, "validation", "is chosen on 40 validation images"),
        (
            np.arange(20),
            two,
            "train",
            "is chosen on training images, which the encoder has already seen, because 20 validation images give too",
        ),
        (two[:8], two, "train", "8 validation images give too few pairs of one class or of two (4 instead of 10);"),
        ([], two, "train", "seen, because there are no validation images; more images per class"),
        ([], np.arange(20), None, "no verification threshold: there are no validation images, and training images"),
    ):
        found, sentence = threshold_source(DataSplits(of(trained), of(validation), of(two), True, ""))
        assert found == source
        assert words in sentence


def folder(path: Path, classes: int, each: int, prefix: str) -> str:
    random = np.random.default_rng(0)
    for i in range(classes):
        (path / f"{prefix}{i:02d}").mkdir(parents=True)
        for j in range(each):
            pixels = random.integers(0, 256, (6, 6), dtype=np.uint8)
            Image.fromarray(pixels).save(path / f"{prefix}{i:02d}" / f"{j}.png")
    return f"folder:{path}"


QUICK = {"model": "dnn", "dnn": {"widths": [8]}, "steps": 2}


def test_whole_classes_become_validation_images_only_if_test_classes_are_new(tmp_path):
    many, few = folder(tmp_path / "many", 60, 3, "a"), folder(tmp_path / "few", 4, 3, "b")
    new = load_splits(from_dict(QUICK | {"dataset": many, "test_dataset": few}))
    assert not new.known_validation_classes
    assert not np.isin(new.validation.labels, new.train.labels).any()
    known = load_splits(from_dict(QUICK | {"dataset": many}))
    assert known.known_validation_classes
    assert len(np.unique(known.train.labels)) == 60
    for part, name in ((new.train, "many"), (new.validation, "many"), (new.test, "few"), (known.test, "many")):
        assert part.paths is not None
        for path, image, label in zip(part.paths, part.images, part.labels, strict=True):
            with Image.open(tmp_path / name / path) as file:
                np.testing.assert_array_equal(image[..., 0], file)
            assert path.split("/")[0] == part.class_names[label]


@pytest.mark.slow
def test_numbers_that_cannot_be_computed_are_reported_and_all_others_are_saved(tmp_path):
    one, pairs = folder(tmp_path / "one", 12, 1, "a"), folder(tmp_path / "pairs", 4, 3, "b")
    singles, run = folder(tmp_path / "singles", 3, 1, "c"), tmp_path / "run"
    settings = from_dict(QUICK | {"dataset": one, "test_dataset": singles})
    for resume in (False, True):
        found = train(settings, run, resume=resume).report
        assert list(found["not_evaluated"]) == ["verification", "retrieval", "few_shot"]
        assert found["verification"] is found["retrieval"] is found["few_shot"] is None
        assert found["accuracy"] == 0
        (run / "metrics.jsonl").unlink(missing_ok=True)  # the speed of the steps is lost with it
    assert json.loads((run / "report.json").read_text())["step_milliseconds"] is None
    report.write(run)
    for text in ((run / "report.md").read_text(), (run / "report.html").read_text(), *report.summary_lines(found)[-1:]):
        assert "Not evaluated: verification" in text
    assert (run / "predictions.npz").is_file()

    found = train(from_dict(QUICK | {"dataset": one, "test_dataset": pairs}), tmp_path / "other").report
    assert found["verification"]["roc_auc"] is not None  # no threshold is needed for it
    assert found["verification"]["threshold"] is found["verification"]["accuracy"] is None
    train(from_dict(QUICK | {"dataset": one, "test_dataset": pairs, "seed": 1}), tmp_path / "another")
    report.compare([tmp_path / "other", tmp_path / "another"], tmp_path / "both")
    assert "ROC AUC" in (tmp_path / "both" / "compare.md").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": {"schedule": "cosine"}}, "a cosine schedule, which ends after 20 steps"),
        ({"mining": {"miner": "curriculum"}}, "its curriculum ends after 20 steps"),
        ({"ensemble": {"size": 2}}, "its encoders are trained one after the other"),
    ],
)
def test_runs_that_cannot_be_extended_are_rejected(values, message):
    before = from_dict({"objective": "triplet", "epochs": 2.0, "optimizer": {"schedule": "constant"}} | values)
    with pytest.raises(InputError, match=message):
        extend(before, from_dict({"epochs": 3.0}, before), 10)
    assert extend(before, from_dict({"steps": 20}, before), 10) == before


def test_an_extended_run_keeps_its_warm_up(tmp_path):
    before = from_dict({"epochs": 3.0, "optimizer": {"schedule": "constant", "warmup": 0.1}})
    after = extend(before, from_dict({"epochs": 49.0}, before), 10)
    assert after.optimizer.warmup * 490 == pytest.approx(3)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"config\.json is not a JSON object"):
        RunFolder(tmp_path).saved_settings()
