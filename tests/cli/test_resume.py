"""Resumed runs on folders of images: changed images, moved folders, longer trainings, broken checkpoints."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simjax.cli import main
from simjax.data import load, statistics
from tests.cli.test_errors import fails, image_folder
from tests.cli.test_train import final_parameters, start, wait_for_step

ROOT = Path(__file__).parents[2]
QUICK = ["--model", "dnn", "--dnn.widths", "8", "--augment.no-enabled"]
CONSTANT = [*QUICK, "--optimizer.schedule", "constant"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with training images, test images and a run of four epochs that was started there."""
    place = tmp_path_factory.mktemp("place")
    image_folder(place / "images", each=12)
    image_folder(place / "others", each=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("simjax.report.write", lambda run, begin: None)
        data = ["--dataset", "folder:images", "--test-dataset", "folder:others"]
        main(["train", *CONSTANT, "--epochs", "4", *data, "--out", "run"])
    return place


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """Return a copy of the folder; the run in it has the copy as its working directory."""
    copy = shutil.copytree(finished, tmp_path / "place")
    config = json.loads((copy / "run" / "config.json").read_text())
    (copy / "run" / "config.json").write_text(json.dumps(config | {"working_directory": str(copy)}))
    monkeypatch.chdir(copy)
    monkeypatch.setattr("simjax.report.write", lambda run, begin: None)  # it takes longer than these trainings
    return copy


def config_of(run):
    return json.loads((run / "config.json").read_text())


CHANGES = {
    "added": (lambda p: shutil.copy(p / "images/a/0.png", p / "images/b/zz.png"), "train images, now"),
    "deleted": (lambda p: (p / "images/a/3.png").unlink(), "train images, now"),
    "renamed": (lambda p: (p / "images/a/0.png").rename(p / "images/a/zz.png"), "other images or another order"),
    "another pixel": (lambda p: Image.new("L", (12, 12)).save(p / "images/a/0.png"), "other images or another order"),
    "class renamed": (lambda p: (p / "images/a").rename(p / "images/z"), "missing classes: a; new classes: z"),
    "class added": (lambda p: shutil.copytree(p / "images/a", p / "images/z"), "new classes: z"),
    "class deleted": (
        lambda p: ((p / "images/a").rename(p / "images/z"), shutil.rmtree(p / "images/b")),
        "missing classes: a, b; new classes: z|expected a sub-folder",
    ),
    "test image deleted": (lambda p: (p / "others/a/1.png").unlink(), "8 test images, now 7"),
    "test class renamed": (lambda p: (p / "others/a").rename(p / "others/z"), "new classes: z"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_not_resumed_on_changed_images(place, capsys, name):
    change, message = CHANGES[name]
    change(place)
    before = (place / "run" / "report.json").read_bytes()
    printed = fails(capsys, "train", "--resume", "--out", "run")
    assert printed.startswith("error: cannot resume run: ")
    assert any(part in printed for part in message.split("|"))
    assert (place / "run" / "report.json").read_bytes() == before


def test_a_run_is_resumed_after_its_images_were_moved(place, capsys, monkeypatch):
    elsewhere = place.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    main(["train", "--resume", "--out", str(place / "run")])  # relative paths are those of the run
    (place / "images").rename(elsewhere / "moved")
    printed = fails(capsys, "train", "--resume", "--out", str(place / "run"))
    assert f"folder:images: no such folder (the run began in {place}; dataset or test_dataset names a" in printed
    main(["train", "--resume", "--out", str(place / "run"), "--dataset", "folder:moved"])
    assert config_of(place / "run")["settings"]["dataset"] == f"folder:{elsewhere / 'moved'}"
    main(["train", "--resume", "--out", str(place / "run")])  # config.json has the new path
    shutil.copytree(place, place.parent / "copy")
    shutil.rmtree(place)
    monkeypatch.chdir(place.parent / "copy")
    main(["train", "--resume", "--out", "run"])  # the test images are in the current directory
    printed = fails(capsys, "train", "--resume", "--out", "run", "--dataset", "folder:others")
    assert "cannot resume run: its images are not those that it began with" in printed


@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
def test_a_run_resumed_for_more_epochs_equals_a_run_started_for_them(place):
    assert config_of(place / "run")["settings"]["optimizer"]["warmup"] == 0.1
    main(["train", "--resume", "--epochs", "40", "--out", "run"])
    config = config_of(place / "run")
    assert config["settings"]["epochs"] == 40
    assert config["command"].splitlines()[1] == "python train.py --resume --epochs 40 --out run"
    lines = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text().splitlines()]
    rate = {line["step"]: line["learning_rate"] for line in lines if "loss" in line}
    assert list(rate) == list(range(1, 41))
    assert {rate[step] for step in range(5, 41)} == {rate[4]}
    data = ["--dataset", "folder:images", "--test-dataset", "folder:others"]
    warmup = str(config["settings"]["optimizer"]["warmup"])
    main(["train", *CONSTANT, "--epochs", "40", "--optimizer.warmup", warmup, *data, "--out", "long"])
    (step_a, a), (step_b, b) = final_parameters(place / "run"), final_parameters(place / "long")
    assert step_a == step_b == 40
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert json.loads((place / "run/report.json").read_text())["steps"] == 40


def test_an_error_tells_why_a_training_cannot_be_made_longer(place, capsys):
    printed = fails(capsys, "train", "--resume", "--out", "run", "--epochs", "2")
    assert "epochs, steps: expected at least the 4 steps that the run was started for, got 2" in printed
    main(["train", *QUICK, "--steps", "2", "--dataset", "folder:images", "--out", "cosine"])
    printed = fails(capsys, "train", "--resume", "--out", "cosine", "--epochs", "40")
    assert "its learning rate has a cosine schedule, which ends after 2 steps" in printed
    assert "optimizer.schedule constant" in printed


def test_the_mean_and_deviation_of_pixels_are_saved_and_used(place):
    train = load("folder:images", "all")
    data = config_of(place / "run")["data"]
    assert data["train_images"] + data["validation_images"] == len(train.labels)
    mean, std = statistics(train.images)
    np.testing.assert_allclose(data["pixel_mean"], mean, atol=0.02)  # of the training images alone
    np.testing.assert_allclose(data["pixel_std"], std, atol=0.02)
    before = np.load(place / "run/predictions.npz")["embedding"]
    main(["train", "--resume", "--out", "run"])
    np.testing.assert_array_equal(np.load(place / "run/predictions.npz")["embedding"], before)
    config = config_of(place / "run")
    config["data"]["pixel_mean"] = [0.0]
    (place / "run/config.json").write_text(json.dumps(config))
    main(["train", "--resume", "--out", "run"])
    assert np.abs(np.load(place / "run/predictions.npz")["embedding"] - before).max() > 0.1


def run_process(*arguments, cwd=None):
    """Run `python train.py`; return its exit status and stderr."""
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stderr


def test_a_broken_checkpoint_is_one_line(place):
    """Pending reads of other arrays print nothing at the end of the process."""
    for manifest in (place / "run/checkpoints/4/state").rglob("manifest*"):
        manifest.unlink()
    status, errors = run_process("--resume", "--out", "run", cwd=place)
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: cannot read the checkpoint {place.resolve() / 'run/checkpoints/4'}: ")
    assert "does not exist; without that folder the run goes on from the checkpoint before it" in errors


@pytest.mark.slow
def test_a_process_refuses_an_added_and_a_deleted_class(place):
    shutil.copytree(place / "images/a", place / "images/c")
    for change in ("class added", "class deleted"):
        status, errors = run_process("--resume", "--out", place / "run", cwd=place.parent)
        assert (status, errors.count("\n")) == (2, 1), change
        assert "its images are not those that it began with" in errors
        shutil.rmtree(place / "images/b", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
def test_a_longer_training_is_resumed_after_a_kill(place):
    shutil.copytree(place / "run", place / "killed")
    longer = "--resume", "--epochs", "40", "--checkpoint-seconds", "0", "--out"
    status, errors = run_process(*longer, "run", cwd=place)
    assert status == 0, errors
    process = start(*longer, place / "killed")
    wait_for_step(process, 15)
    process.kill()
    process.communicate()
    status, errors = run_process("--resume", "--out", place / "killed")
    assert status == 0, errors
    (step_a, a), (step_b, b) = final_parameters(place / "run"), final_parameters(place / "killed")
    assert step_a == step_b == 40
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
