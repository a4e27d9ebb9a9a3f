"""Resumed runs on folders of images: changed images, moved folders, longer trainings, broken checkpoints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simjax.cli import main
from simjax.data import load, statistics
from tests.cli.conftest import DATA, QUICK
from tests.cli.runs import assert_same_parameters, fails, read, start, wait_for
from tests.slow import mostly_slow

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


@pytest.mark.parametrize("name", mostly_slow(CHANGES, "another pixel", "test class renamed"))
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
    assert read(place / "run/config.json")["settings"]["dataset"] == f"folder:{elsewhere / 'moved'}"
    main(["train", "--resume", "--out", str(place / "run")])  # config.json has the new path
    shutil.copytree(place, place.parent / "copy")
    shutil.rmtree(place)
    monkeypatch.chdir(place.parent / "copy")
    main(["train", "--resume", "--out", "run"])  # the test images are in the current directory
    printed = fails(capsys, "train", "--resume", "--out", "run", "--dataset", "folder:others")
    assert "cannot resume run: its images are not those that it began with" in printed


@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
def test_a_run_resumed_for_more_epochs_equals_a_run_started_for_them(place):
    assert read(place / "run/config.json")["settings"]["optimizer"]["warmup"] == 0.1
    main(["train", "--resume", "--epochs", "40", "--out", "run"])
    config = read(place / "run/config.json")
    assert config["settings"]["epochs"] == 40
    assert config["command"].splitlines()[1] == "python train.py --resume --epochs 40 --out run"
    lines = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text().splitlines()]
    rate = {line["step"]: line["learning_rate"] for line in lines if "loss" in line}
    assert list(rate) == list(range(1, 41))
    assert {rate[step] for step in range(5, 41)} == {rate[4]}
    warmup = str(config["settings"]["optimizer"]["warmup"])
    main(["train", *QUICK, "--epochs", "40", "--optimizer.warmup", warmup, *DATA, "--out", "long"])
    assert_same_parameters(place / "run", place / "long", 40)
    assert read(place / "run/report.json")["steps"] == 40


def test_an_error_tells_why_a_training_cannot_be_made_longer(place, capsys):
    printed = fails(capsys, "train", "--resume", "--out", "run", "--epochs", "2")
    assert "epochs, steps: expected at least the 4 steps that the run was started for, got 2" in printed
    config = read(place / "run/config.json")
    config["settings"]["optimizer"]["schedule"] = "cosine"
    (place / "run/config.json").write_text(json.dumps(config))
    printed = fails(capsys, "train", "--resume", "--out", "run", "--epochs", "40")
    assert "its learning rate has a cosine schedule, which ends after 4 steps" in printed
    assert "optimizer.schedule constant" in printed


def test_the_mean_and_deviation_of_pixels_are_saved_and_used(place):
    train = load("folder:images", "all")
    data = read(place / "run/config.json")["data"]
    assert data["train_images"] + data["validation_images"] == len(train.labels)
    mean, std = statistics(train.images)
    np.testing.assert_allclose(data["pixel_mean"], mean, atol=0.02)  # of the training images alone
    np.testing.assert_allclose(data["pixel_std"], std, atol=0.02)
    before = np.load(place / "run/predictions.npz")["embedding"]
    main(["train", "--resume", "--out", "run"])
    np.testing.assert_array_equal(np.load(place / "run/predictions.npz")["embedding"], before)
    config = read(place / "run/config.json")
    config["data"]["pixel_mean"] = [0.0]
    (place / "run/config.json").write_text(json.dumps(config))
    main(["train", "--resume", "--out", "run"])
    assert np.abs(np.load(place / "run/predictions.npz")["embedding"] - before).max() > 0.1


def run_process(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Run `python train.py`; return its exit status and stderr."""
    process = start(*arguments, cwd=cwd)
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.slow
def test_a_broken_checkpoint_is_one_line(place):
    """Pending reads of other arrays print nothing at the end of the process."""
    for manifest in (place / "run/checkpoints/4/state").rglob("manifest*"):
        manifest.unlink()
    status, errors = run_process("--resume", "--out", "run", cwd=place)
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: cannot read the checkpoint {place.resolve() / 'run/checkpoints/4'}: ")
    assert "does not exist; delete that folder to continue from the checkpoint before it" in errors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
def test_a_longer_training_is_resumed_after_a_kill(place):
    shutil.copytree(place / "run", place / "killed")
    longer = "--resume", "--epochs", "40", "--checkpoint-seconds", "0", "--out"
    status, errors = run_process(*longer, "run", cwd=place)
    assert status == 0, errors
    process = start(*longer, "killed", cwd=place)
    wait_for(process, r"step (1[5-9]|[2-4]\d)/")
    process.kill()
    process.communicate()
    status, errors = run_process("--resume", "--out", "killed", cwd=place)
    assert status == 0, errors
    assert_same_parameters(place / "run", place / "killed", 40)
