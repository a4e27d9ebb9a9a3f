"""Whole runs, in this process, on the embedded digits."""

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import load
from simjax.train import Interrupted, _loop, train
from simjax.train._run_folder import RunFolder
from simjax.train._settings import from_dict

QUICK: dict[str, Any] = {
    "model": "dnn",
    "steps": 60,
    "dnn": {"widths": [64]},
    "checkpoint_seconds": 0.0,
    "optimizer": {"learning_rate": 0.01},
}


def report_without_times(path: Path) -> dict[str, Any]:
    report = json.loads((path / "report.json").read_text())
    for name in ("train_seconds", "step_milliseconds", "images_per_second"):
        report.pop(name)
    return report


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def train_until_stopped(values: dict[str, Any], out: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, with a KeyboardInterrupt in place of the call that takes more than `steps` steps in all."""
    build_steps, taken = _loop.build_steps, []

    def build_stopping(*arguments: Any) -> Callable[..., Any]:
        take_steps = build_steps(*arguments)

        def stopping(state: Any, count: int, *rest: Any) -> Any:
            taken.append(count)
            if sum(taken) > steps:
                raise KeyboardInterrupt
            return take_steps(state, count, *rest)

        return stopping

    with monkeypatch.context() as patch:
        patch.setattr(_loop, "build_steps", build_stopping)
        with pytest.raises(KeyboardInterrupt):
            train(from_dict(values), out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "dnn"
    train(from_dict(QUICK), out, command="train")
    return out


def test_a_run_saves_everything_that_a_report_needs(finished):
    report = json.loads((finished / "report.json").read_text())
    assert report["accuracy"] > 0.8
    assert report["accuracy_of"] == "classifier"
    assert report["most_frequent_class_share"] == np.bincount(load("digits", "test").labels).max() / 450
    assert report["parameters"] == 64 * 64 + 2 * 64 + 64 * 64 + 64 + 64 * 10 + 10
    assert {"precision_at_1", "mean_average_precision_at_r", "recall_at_k"} <= set(report["retrieval"])
    assert {"roc_auc", "equal_error_rate", "accuracy", "threshold"} <= set(report["verification"])
    assert report["verification"]["threshold_from"] == "validation"
    arrays = np.load(finished / "predictions.npz")
    assert arrays["embedding"].shape == (450, 64)
    assert np.mean(arrays["predicted"] == arrays["label"]) == report["accuracy"]
    assert "path" not in arrays  # the digits are no files
    lines = log_lines(finished)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 61))
    assert lines[-1]["validation_accuracy"] > 0.5
    assert lines[-1]["spread"] > 0.3
    assert report["diagnostics"]["collapse"] is None
    assert report["diagnostics"]["spread"] > 0.3


def test_the_images_of_a_report_are_test_images_with_their_numbers_and_scores(finished):
    report, test = json.loads((finished / "report.json").read_text()), load("digits", "test")
    predictions, samples = np.load(finished / "predictions.npz"), np.load(finished / "samples.npz")
    for name in ("query", "neighbour", "pair", "mistake", "confusion", "map"):
        np.testing.assert_array_equal(samples[f"{name}_images"], test.images[samples[f"{name}_index"]])  # 8x8 pixels
    unit = predictions["embedding"] / np.linalg.norm(predictions["embedding"], axis=1, keepdims=True)
    i, j = samples["pair_index"].T
    np.testing.assert_allclose(samples["pair_scores"], (unit[i] * unit[j]).sum(1), atol=1e-5)
    is_accepted = samples["pair_scores"] >= report["verification"]["threshold"]
    is_same = test.labels[i] == test.labels[j]
    assert (is_accepted != is_same)[:-12].all()  # mistakes come first, 12 random pairs are the last ones
    assert (np.diff(samples["pair_probability"][np.argsort(samples["pair_scores"])]) >= 0).all()
    assert samples["score_same"].sum() == samples["score_different"].sum() == report["verification"]["pairs"] / 2
    confusion = np.array(report["confusion"])
    wrong = confusion[~np.eye(10, dtype=bool)]
    assert len(samples["mistake_index"]) == min(24, wrong.sum())
    assert (predictions["predicted"][samples["mistake_index"]] == samples["mistake_predicted"]).all()
    assert (np.diff(samples["mistake_confidence"]) <= 0).all()
    assert samples["mistake_confidence"].min() > 0.1  # the largest of ten probabilities
    true, predicted = samples["confusion_true"], samples["confusion_predicted"]
    np.testing.assert_array_equal(confusion[true, predicted], samples["confusion_count"])
    assert samples["confusion_count"].tolist() == np.sort(wrong)[::-1][: min(12, (wrong > 0).sum())].tolist()
    ones, sevens = (unit[test.labels == digit].mean(0) for digit in (1, 7))
    np.testing.assert_allclose(samples["class_similarity"][1, 7], ones @ sevens, atol=1e-5)


NOT_ESTIMATED = {  # settings, counts, costs, and statistics that are not rates
    *("seed", "steps", "parameters", "train_seconds", "step_milliseconds", "images_per_second", "calibration.prior"),
    *("environment.cores", "environment.devices", "retrieval.queries", "verification.pairs"),
    *("verification.different_pairs", "verification.threshold", "verification.best_f1_threshold"),
    *("diagnostics.spread", "diagnostics.effective_rank_centered", "most_frequent_class_share"),
    *("diagnostics.largest_variance_share", "calibration.expected_by_chance", "higher_is_closer"),
}


def numbers_without_interval(report: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in report.items():
        if isinstance(value, dict):
            found |= numbers_without_interval(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and report.get(f"{name}_interval") is None:
            found.add(prefix + name)
    return found


def test_every_estimate_has_an_interval_that_contains_it(finished):
    report = json.loads((finished / "report.json").read_text())
    assert numbers_without_interval(report) <= NOT_ESTIMATED
    low, high = report["test_loss_interval"]
    assert low < report["test_loss"] < high


def test_the_calibration_error_is_that_of_the_predicted_probabilities(finished):
    calibration = json.loads((finished / "report.json").read_text())["calibration"]
    bins = [part for part in calibration["bins"] if part["count"]]
    pairs = sum(part["count"] for part in bins)
    error = sum(part["count"] * abs(part["mean_probability"] - part["fraction_same"]) for part in bins) / pairs
    assert calibration["expected_calibration_error"] == pytest.approx(error)
    low, high = calibration["expected_calibration_error_interval"]
    assert 0 <= low < error < high < 0.1
    assert all(part["low"] < part["mean_probability"] <= part["high"] for part in bins)
    for part in bins:
        low, high = part["fraction_same_interval"]
        assert low <= part["fraction_same"] <= high
    same = sum(part["count"] * part["fraction_same"] for part in bins)
    assert (calibration["prior"], same) == (0.5, pytest.approx(pairs / 2))


def test_a_finished_run_is_resumed_by_evaluating_it(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "copy")
    (out / "report.json").unlink()
    assert train(from_dict(QUICK), out, resume=True).report["accuracy"] > 0.8
    assert report_without_times(out) == report_without_times(finished)
    assert (out / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_another_seed_gives_another_network_on_the_same_data(finished, tmp_path):
    train(from_dict(QUICK | {"seed": 1}), tmp_path / "other")
    configs = [json.loads((p / "config.json").read_text()) for p in (finished, tmp_path / "other")]
    assert configs[0]["data"] == configs[1]["data"]
    assert report_without_times(finished)["verification"] != report_without_times(tmp_path / "other")["verification"]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_run(finished, tmp_path, monkeypatch):
    """This also shows that two runs with the same settings give the same numbers."""
    out = tmp_path / "stopped"
    train_until_stopped(QUICK, out, 17, monkeypatch)
    assert log_lines(out)[-1]["step"] < 60
    train(from_dict(QUICK), out, resume=True)
    assert report_without_times(out) == report_without_times(finished)
    for name in ("loss", "accuracy"):
        assert [line.get(name) for line in log_lines(out)] == [line.get(name) for line in log_lines(finished)]
    a, b = (np.load(p / "predictions.npz")["embedding"] for p in (finished, out))
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_signal_in_the_last_steps_stops_as_well(finished, tmp_path, monkeypatch):
    """Otherwise an ensemble or a study would begin its next training."""
    build_steps, out = _loop.build_steps, tmp_path / "stopped"

    def build_interrupted(*arguments: Any) -> Callable[..., Any]:
        take_steps = build_steps(*arguments)

        def interrupted(state: Any, count: int, *rest: Any) -> Any:
            if state.step + count == QUICK["steps"]:
                os.kill(os.getpid(), signal.SIGINT)
            return take_steps(state, count, *rest)

        return interrupted

    with monkeypatch.context() as patch:
        patch.setattr(_loop, "build_steps", build_interrupted)
        with pytest.raises(Interrupted, match="stopped at step 60"):
            train(from_dict(QUICK), out)
    train(from_dict(QUICK), out, resume=True)
    assert report_without_times(out) == report_without_times(finished)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["contrastive", "triplet"])
def test_metric_objectives_report_the_accuracy_of_nearest_neighbours(objective, tmp_path):
    settings = from_dict(
        QUICK | {"objective": objective, "model": "cnn", "cnn": {"widths": [8, 16], "residual": False}, "steps": 20}
    )
    report = train(settings, tmp_path / "run").report
    assert report["accuracy_of"] == "knn"
    assert report["accuracy"] == report["knn_accuracy"] > 0.6
    samples = np.load(tmp_path / "run" / "samples.npz")
    assert np.isnan(samples["mistake_confidence"]).all()
    assert (np.diff(samples["mistake_index"]) > 0).all()


@pytest.mark.slow
def test_the_attention_of_a_vision_transformer_is_saved(tmp_path):
    train(from_dict({"model": "vit", "steps": 3, "vit": {"depth": 1, "pooling": "class"}}), tmp_path / "vit")
    samples = np.load(tmp_path / "vit" / "samples.npz")
    assert samples["attention"].shape == (8, 4, 4, 4)
    assert 0 < samples["attention"].sum((2, 3)).max() < 1  # without the attention of the class token to itself


def folder_of_digits(path: Path, digits: tuple[int, ...], each: int) -> Path:
    from PIL import Image

    data = load("digits", "train")
    for digit in digits:
        (path / str(digit)).mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(data.labels == digit)[:each]):
            Image.fromarray(data.images[row, :, :, 0]).save(path / str(digit) / f"{i}.png")
    return path


@pytest.mark.slow
def test_new_classes_are_evaluated_by_neighbours_and_few_shot_tasks(tmp_path):
    a, b = (folder_of_digits(tmp_path / name, digits, 24) for name, digits in (("a", (0, 1, 2, 3)), ("b", (8, 9))))
    settings = from_dict(
        QUICK | {"objective": "triplet", "dataset": f"folder:{a}", "test_dataset": f"folder:{b}", "batch_size": 16}
    )
    report = train(settings, tmp_path / "run").report
    assert report["accuracy_of"] == "knn"
    assert report["most_frequent_class_share"] == 0.5
    assert len(report["per_class_accuracy"]) == 2
    assert list(report["few_shot"]) == ["2-way 1-shot", "2-way 5-shot"]
    assert report["few_shot"]["2-way 5-shot"]["accuracy"] > 0.5
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["class_names"] == ["8", "9"]
    assert config["data"]["test_images"] == 48  # all images of a test folder are test images
    assert config["data"]["train_images"] + config["data"]["validation_images"] == 4 * 24
    arrays = np.load(tmp_path / "run" / "predictions.npz", allow_pickle=False)
    assert sorted(arrays["path"]) == sorted(f"{digit}/{i}.png" for digit in (8, 9) for i in range(24))
    assert [path.split("/")[0] for path in arrays["path"]] == [
        config["data"]["class_names"][k] for k in arrays["label"]
    ]


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
        ({"vit": {"depth": 5}}, "cannot resume .*: vit.depth was 4 and is now 5"),
        ({"seed": 3}, "seed was 0 and is now 3"),
    ],
)
def test_resuming_with_other_settings_is_refused(finished, values, message):
    with pytest.raises(InputError, match=message):
        RunFolder(finished).begin(from_dict(QUICK | values), resume=True, overwrite=False)


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
        ({"model": "dnn", "objective": "triplet", "batch_size": 4}, "cannot hold 4 images of 2 classes"),
        ({"model": "vit", "vit": {"heads": 5}}, "divisor of the width 64, got 5"),
        ({"ensemble": {"each": "clusters"}}, "'ensemble.size': expected 2 or more if other settings"),
    ):
        with pytest.raises(InputError, match=message):
            train(from_dict(values), out)
        assert not out.exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    """The steps give up at the third one."""
    steps: list[int] = []

    def build_steps(*arguments: Any) -> Callable[..., Any]:
        def take_steps(state: Any, count: int, *rest: Any) -> Any:
            steps.append(count)
            first = np.int32(2 if sum(steps) > 2 else -1)
            metrics = state.metrics._replace(steps=np.int32(count), first_nonfinite_step=first)
            return state._replace(step=state.step + count, metrics=metrics)

        return take_steps

    monkeypatch.setattr(_loop, "build_steps", build_steps)
    settings = from_dict(QUICK | {"data": {"validation_fraction": 0.0}})
    with pytest.raises(InputError, match="not finite at step 3; the last good checkpoint is kept in"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()


ENSEMBLES: dict[str, dict[str, Any]] = {
    "alone": {},
    "triplets": {"ensemble": {"size": 2}},
    "clusters": {"ensemble": {"size": 2, "each": "clusters", "combine": "concatenate"}},
}


def ensemble_settings(name: str) -> dict[str, Any]:
    small = {"steps": 40, "objective": "triplet", "dnn": {"widths": [32]}, "embedding_size": 8}
    return QUICK | small | ENSEMBLES[name]


def embeddings(folder: Path) -> np.ndarray:
    return np.load(folder / "predictions.npz")["embedding"]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that trains an ensemble, or a single encoder, on first use, and returns its folder."""
    out = tmp_path_factory.mktemp("ensembles")

    @functools.cache
    def run(name: str) -> Path:
        train(from_dict(ensemble_settings(name)), out / name)
        return out / name

    return run


@pytest.mark.slow
def test_each_encoder_has_triplets_of_its_own(ensemble):
    both, alone = embeddings(ensemble("triplets")), embeddings(ensemble("alone"))
    unit = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    np.testing.assert_allclose(both[:, :8], unit / np.sqrt(2), atol=1e-6)
    assert np.abs(both[:, :8] - both[:, 8:]).max() > 0.1
    report, single = (json.loads((ensemble(name) / "report.json").read_text()) for name in ("triplets", "alone"))
    assert report["steps"] == 80
    assert report["parameters"] == 2 * single["parameters"]
    assert report["accuracy"] > 0.9
    assert [line["step"] for line in log_lines(ensemble("triplets")) if "loss" in line] == list(range(1, 81))


@pytest.mark.slow
def test_each_encoder_continues_on_a_cluster_of_its_own(ensemble):
    both, alone = embeddings(ensemble("clusters")), embeddings(ensemble("alone"))
    assert both.shape == (450, 16)
    for own in (both[:, :8], both[:, 8:]):  # a copy of the first encoder that was trained further
        assert np.abs(own - alone).max() > 0.1
        assert np.corrcoef(own.ravel(), alone.ravel())[0, 1] > 0.5
    report = json.loads((ensemble("clusters") / "report.json").read_text())
    assert report["steps"] == 120
    assert report["accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["triplets", "clusters"])
def test_a_resumed_ensemble_equals_an_uninterrupted_one(ensemble, tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    train_until_stopped(ensemble_settings(name), out, 57, monkeypatch)  # in the second training
    for _ in range(2):  # the second time, the finished run is evaluated
        train(from_dict(ensemble_settings(name)), out, resume=True)
        np.testing.assert_array_equal(embeddings(out), embeddings(ensemble(name)))
        assert [line.get("loss") for line in log_lines(out)] == [line.get("loss") for line in log_lines(ensemble(name))]


@pytest.mark.slow
def test_a_cluster_of_a_single_class_is_rejected(tmp_path):
    values = ensemble_settings("clusters") | {"dataset": "digits[0-1]"}
    with pytest.raises(InputError, match="one of the clusters has images of a single class, give fewer"):
        train(from_dict(values), tmp_path / "run")
