"""Whole runs, in this process, on the embedded digits."""

import json

import numpy as np
import pytest

from simjax.core import InputError
from simjax.train import train
from simjax.train._run_folder import RunFolder
from simjax.train._settings import from_dict, to_dict
from simjax.train._validation import check_options
from tests.slow import slow_unless

QUICK = {
    "model": "dnn",
    "steps": 60,
    "dnn": {"widths": [64]},
    "checkpoint_seconds": 0.0,
    "optimizer": {"learning_rate": 0.01},
}


def report_without_times(path):
    report = json.loads((path / "report.json").read_text())
    for name in ("train_seconds", "step_milliseconds", "images_per_second"):
        report.pop(name)
    return report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "dnn"
    train(from_dict(QUICK), out, command="train")
    return out


def test_a_run_saves_everything_that_a_report_needs(finished):
    report = json.loads((finished / "report.json").read_text())
    assert report["accuracy"] > 0.8
    assert report["accuracy_of"] == "classifier"
    assert report["parameters"] == 64 * 64 + 2 * 64 + 64 * 64 + 64 + 64 * 10 + 10
    assert {"precision_at_1", "mean_average_precision_at_r", "recall_at_k"} <= set(report["retrieval"])
    assert {"roc_auc", "equal_error_rate", "accuracy", "threshold"} <= set(report["verification"])
    assert report["verification"]["threshold_from"] == "validation"
    arrays = np.load(finished / "predictions.npz")
    assert arrays["embedding"].shape == (450, 64)
    assert np.mean(arrays["predicted"] == arrays["label"]) == report["accuracy"]
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 61))
    assert lines[-1]["validation_accuracy"] > 0.5


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_numbers(finished, tmp_path):
    train(from_dict(QUICK), tmp_path / "again")
    assert report_without_times(tmp_path / "again") == report_without_times(finished)
    a, b = (np.load(p / "predictions.npz")["embedding"] for p in (finished, tmp_path / "again"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_another_seed_gives_another_network_on_the_same_data(finished, tmp_path):
    train(from_dict(QUICK | {"seed": 1}), tmp_path / "other")
    configs = [json.loads((p / "config.json").read_text()) for p in (finished, tmp_path / "other")]
    assert configs[0]["data"] == configs[1]["data"]
    assert report_without_times(finished)["verification"] != report_without_times(tmp_path / "other")["verification"]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_run(finished, tmp_path, monkeypatch):
    from simjax.train import _loop

    out = tmp_path / "stopped"
    real = _loop.build_steps

    def stopping(*arguments):
        steps = real(*arguments)

        def counted(state, count, *rest):
            if state.step >= 17:
                raise KeyboardInterrupt
            return steps(state, count, *rest)

        return counted

    monkeypatch.setattr(_loop, "build_steps", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(from_dict(QUICK), out)
    monkeypatch.setattr(_loop, "build_steps", real)
    train(from_dict(QUICK), out, resume=True)
    assert report_without_times(out) == report_without_times(finished)
    for name in ("loss", "accuracy"):
        curves = [
            [json.loads(line).get(name) for line in (p / "metrics.jsonl").read_text().splitlines()]
            for p in (out, finished)
        ]
        assert curves[0] == curves[1]


def test_settings_saved_before_the_mining_section_are_converted(tmp_path):
    old = to_dict(from_dict(QUICK | {"objective": "triplet"}))
    del old["mining"]
    old["loss"] = {"head": "linear", "label_smoothing": 0.2, "margin": 0.3, "form": "linear", "mining": "semi_hard"}
    (tmp_path / "config.json").write_text(json.dumps({"settings": old}))
    found = RunFolder(tmp_path).saved_settings()
    assert (found.mining.miner, found.loss.margin, found.loss.form) == ("semi_hard", 0.3, None)
    check_options(found)
    (tmp_path / "config.json").write_text(json.dumps({"settings": old | {"objective": "softmax"}}))
    found = RunFolder(tmp_path).saved_settings()
    assert (found.mining.miner, found.loss.label_smoothing, found.loss.form) == ("none", 0.2, None)
    check_options(found)


@pytest.mark.parametrize("objective", ["contrastive", "triplet"])
@pytest.mark.slow
def test_metric_objectives_report_the_accuracy_of_nearest_neighbours(objective, tmp_path):
    settings = from_dict(
        QUICK | {"objective": objective, "model": "cnn", "cnn": {"widths": [8, 16], "residual": False}, "steps": 20}
    )
    report = train(settings, tmp_path / "run").report
    assert report["accuracy_of"] == "knn"
    assert report["accuracy"] == report["knn_accuracy"] > 0.6


def test_the_attention_of_a_vision_transformer_is_saved(tmp_path):
    train(from_dict({"model": "vit", "steps": 3, "vit": {"depth": 1, "pooling": "class"}}), tmp_path / "vit")
    samples = np.load(tmp_path / "vit" / "samples.npz")
    assert samples["attention"].shape == (8, 4, 4, 4)
    assert 0 < samples["attention"].sum((2, 3)).max() < 1  # without the attention of the class token to itself


def folder_of_digits(path, digits, each):
    from PIL import Image

    from simjax.data import load

    data = load("digits", "train")
    for digit in digits:
        (path / str(digit)).mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(data.labels == digit)[:each]):
            Image.fromarray(data.images[row, :, :, 0]).save(path / str(digit) / f"{i}.png")
    return path


@pytest.mark.slow
def test_new_classes_are_evaluated_by_neighbours_and_few_shot_tasks(tmp_path):
    a, b = (folder_of_digits(tmp_path / name, digits, 24) for name, digits in (("a", range(4)), ("b", (8, 9))))
    settings = from_dict(
        QUICK | {"objective": "triplet", "dataset": f"folder:{a}", "test_dataset": f"folder:{b}", "batch_size": 16}
    )
    report = train(settings, tmp_path / "run").report
    assert report["accuracy_of"] == "knn"
    assert len(report["per_class_accuracy"]) == 2
    assert list(report["few_shot"]) == ["2-way 1-shot", "2-way 5-shot"]
    assert report["few_shot"]["2-way 5-shot"]["accuracy"] > 0.5
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["class_names"] == ["8", "9"]
    assert config["data"]["test_images"] == 48  # all images of a test folder are test images
    assert config["data"]["train_images"] + config["data"]["validation_images"] == 4 * 24


@pytest.mark.slow
def test_known_classes_of_other_images_are_evaluated_by_the_classifier(tmp_path):
    b = folder_of_digits(tmp_path / "b", (3, 5), 12)
    report = train(from_dict(QUICK | {"test_dataset": f"folder:{b}"}), tmp_path / "run").report
    assert report["accuracy_of"] == "classifier"
    assert report["accuracy"] > 0.7
    assert len(report["confusion"]) == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        slow_unless(False, {"vit": {"depth": 5}}, "cannot resume .*: vit.depth was 4 and is now 5"),
        slow_unless(True, {"seed": 3}, "seed was 0 and is now 3"),
    ],
)
def test_resuming_with_other_settings_is_refused(finished, values, message):
    before = sorted(p.name for p in finished.iterdir())
    with pytest.raises(InputError, match=message):
        train(from_dict(QUICK | values), finished, resume=True)
    assert sorted(p.name for p in finished.iterdir()) == before


def test_a_folder_in_use_is_not_changed(finished, tmp_path):
    with pytest.raises(InputError, match="exists: `resume=True` continues its run, `overwrite=True`"):
        train(from_dict(QUICK), finished)
    with pytest.raises(InputError, match="nothing to resume"):
        train(from_dict(QUICK), tmp_path / "none", resume=True)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("keep")
    with pytest.raises(InputError, match="love.txt, which no run wrote"):
        train(from_dict(QUICK), tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "love.txt").read_text() == "keep"


def test_invalid_settings_create_no_files(tmp_path):
    out = tmp_path / "run"
    for values, message in (
        ({"dataset": "digitz"}, "did you mean digits"),
        ({"model": "cnn", "cnn": {"variant": "classic"}}, "too small for the classic cnn"),
        ({"objective": "triplet", "batch_size": 4}, "cannot hold 4 images of 2 classes"),
        ({"model": "vit", "vit": {"heads": 5}}, "divisor of the width 64, got 5"),
    ):
        with pytest.raises(InputError, match=message):
            train(from_dict(values), out)
        assert not out.exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    settings = from_dict(QUICK | {"optimizer": {"learning_rate": 1e30, "clip_norm": 0.0, "warmup": 0.2}})
    with pytest.raises(InputError, match=r"not finite at step \d+; the last good checkpoint is kept"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()
