"""Bad input: one line on stderr, exit status 2, no traceback, nothing left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simjax.cli import main


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    return printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian' (did you mean train?"),
        (["train", "--model", "vitt"], "--model: unknown value 'vitt' (did you mean vit?"),
        (["train", "--model=vitt"], "--model: unknown value 'vitt' (did you mean vit?"),
        (["train", "--modle", "vit"], "unknown setting --modle (did you mean --model?)"),
        (["train", "--vit.dpth", "3"], "unknown setting --vit.dpth (did you mean --vit.depth?)"),
        (["train", "--objective", "tripplet"], "--objective: unknown value 'tripplet' (did you mean triplet?"),
        (["train", "--mining.miner", "semihard"], "--mining.miner: unknown value 'semihard' (did you mean semi_hard?"),
        (
            ["train", "--loss.temperature", "1"],
            "'loss.temperature': not taken by the objective softmax, but by nt_",
        ),
        (["train", "--objective", "circle", "--mining.angle", "9"], "not taken by the miner none, but by angular"),
        (
            ["train", "--objective", "arcface", "--mining.miner", "n_hard"],
            "not taken by the objective arcface, but by",
        ),
        (["train", "--objective", "circle", "--loss.gamma", "-1"], "gamma: expected more than 0, got -1"),
        (["train", "--seed", "x"], "--seed: invalid literal for int() with base 10: 'x'"),
        (["train", "--steps"], "'--steps'"),
        (["train", "vit"], "vit"),
        (["train", "--dataset", "minst"], "did you mean mnist"),
        (["train", "--dataset", "folder:nowhere"], "nowhere"),
        (["train", "--dataset", "./nowhere"], "unknown dataset './nowhere' (did you mean folder:./nowhere?)"),
        (["train", "--test-dataset", "/nowhere"], "unknown dataset '/nowhere' (did you mean folder:/nowhere?)"),
        (["train", "--data.image-size", "1", "2", "3"], "--data.image-size"),
        (["train", "--data.input-range", "9", "0"], "setting 'data.input_range': expected less than the highest"),
        (["data", "export", "nowhere/x", "--out", "c"], "did you mean folder:nowhere/x?"),
        (["data", "export", "digits", "--out", "c", "--data.aspect", "fit"], "--data.aspect: unknown value 'fit'"),
        (["data", "prepare", "mnist", "--from"], "--from"),
        (["train", "--config", "none.toml"], "cannot read the configuration none.toml"),
        (["train", "--batch-size", "1"], "setting 'batch_size': expected at least 2, got 1"),
        (["train", "--resume", "--out", "none"], "nothing to resume in none"),
        (["train", "--resume", "--overwrite"], "nothing to resume in runs/cnn-digits-softmax-0"),
        (["compare", "a", "b", "--out", "c"], "a"),
        (["compare", "--out", "c"], "runs"),
        (["data", "prepar", "mnist"], "unknown data command 'prepar' (did you mean prepare?"),
        (["data", "prepare", "minst"], "did you mean mnist"),
        (["data", "prepare", "mnist", "--from", "nowhere", "--data-dir", "here"], "nowhere"),
    ],
)
def test_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def image_folder(path, classes=("a", "b"), each=12, size=12):
    from PIL import Image

    random = np.random.default_rng(0)
    for i, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for j in range(each):
            pixels = random.integers(100 * i, 100 * i + 90, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{j}.png")
    return path


QUICK = ["--model", "dnn", "--dnn.widths", "8", "--steps", "2"]


def test_folders(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = image_folder(tmp_path / "images")
    broken = images / "a" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    printed = fails(capsys, "train", *QUICK, "--dataset", f"folder:{images}")
    assert "3.png" in printed
    assert printed.endswith("; `--data.skip-unreadable` leaves out such images\n")
    one = image_folder(tmp_path / "one", classes=("a",))
    assert "class" in fails(capsys, "train", *QUICK, "--dataset", f"folder:{one}")
    printed = fails(capsys, "train", *QUICK, "--dataset", f"folder:{one / 'a'}")
    assert "expected a sub-folder with images for each of two or more classes, got 12 images directly in it" in printed
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(capsys, "train", *QUICK, "--dataset", f"folder:{tmp_path / 'empty'}")
    small = image_folder(tmp_path / "small", size=5)
    printed = fails(
        capsys, "train", "--model", "cnn", "--cnn.widths", "8", "8", "8", "8", "--dataset", f"folder:{small}"
    )
    assert "too small" in printed
    assert not (tmp_path / "runs").exists()

    monkeypatch.setattr("warnings.filters", [])
    main(["train", *QUICK, "--data.skip-unreadable", "--dataset", f"folder:{images}", "--out", "run"])
    assert "3.png" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").exists()


def test_the_help_names_every_flag_and_is_quick(tmp_path):
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "train.py", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 20
    for flag in (
        "--model {cnn,vit,dnn}",
        "--vit.patch-size",
        "--resume",
        "--loss.temperature",
        "--mining.miner",
    ):
        assert flag in done.stdout
    assert done.stderr == ""


def test_no_network_and_nothing_prepared(tmp_path):
    """Within 10 seconds, naming the ways out. Run in a network namespace of its own where the system allows it."""
    isolated = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let a process give up its network (unshare --net)")
    start = time.perf_counter()
    done = subprocess.run(
        [*isolated, sys.executable, "-m", "simjax", "train", "--dataset", "mnist", "--data-dir", tmp_path / "none"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 2
    assert time.perf_counter() - start < 10
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for way_out in ("data prepare mnist --from", "TFDS_DATA_DIR", "digits"):
        assert way_out in done.stderr
    assert list(tmp_path.iterdir()) == []
