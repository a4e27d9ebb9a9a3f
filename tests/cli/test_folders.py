"""Folders of images as users have them; with real files and real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SMALL = ["--model", "dnn", "--dnn.widths", "8", "--steps", "2"]


def run(*arguments, cwd, **environment):
    """Run `python -m simjax` in a folder; return its exit status, stdout and stderr."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache"), **environment}
    command = [sys.executable, "-m", "simjax", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    return done.returncode, done.stdout, done.stderr


def write(folder, count, grey, size=(12, 12), dtype=np.uint8, extension="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full(size, grey + i, dtype)).save(folder / f"{i}.{extension}")


def test_skipped_files_and_the_resizing_are_each_reported_in_one_line(tmp_path):
    pets = tmp_path / "pets"
    for name, grey in (("cats", 0), ("dogs", 100)):
        write(pets / name, 12, grey, size=(112, 92))
    write(pets / "cats" / ".ipynb_checkpoints", 3, 0)
    write(pets / "dogs" / "@eaDir", 2, 0)
    write(tmp_path / "more", 4, 50)
    (pets / "cats" / "more").symlink_to(tmp_path / "more")
    (pets / "dogs" / "up").symlink_to("..")
    (pets / "cats" / "features.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    (pets / "birds").mkdir()
    (pets / "birds" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    arguments = (*SMALL, "--dataset", "folder:pets", "--data.validation-fraction", "0", "--out", "run")
    status, printed, errors = run("train", *arguments, cwd=tmp_path)
    assert status == 0, errors
    heic = "1 image in formats that Pillow cannot read, to be converted to PNG or JPEG (.heic: 1)"
    assert errors == (
        "warning: folder:pets: left out 3 files in hidden folders (.ipynb_checkpoints: 3), 2 files in system folders "
        f"(@eaDir: 2), {heic}, 1 link to a folder that contains the link (up: 1), 1 other file (.h5: 1); sub-folders "
        f"that are not read, or without images: birds ({heic})\n"
    )
    resized = "images of 12x12 to 112x92 pixels (height x width) are resized to 35x29"
    assert printed.count(f"folder:pets: {resized}; those of another aspect ratio are padded\n") == 1
    assert "21 training, 0 validation and 7 test images of 35x29x1; 2 classes" in printed
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["image_shape"] == [35, 29, 1]


def test_an_objective_without_labels_trains_on_images_without_classes(tmp_path):
    write(tmp_path / "flat", 40, 0)
    arguments = (*SMALL, "--dataset", "folder:flat", "--objective", "info_nce", "--out", "b")
    status, printed, errors = run("train", *arguments, cwd=tmp_path)
    assert status == 0, errors
    assert "30 training, 0 validation and 10 test images" in printed
    assert "Not evaluated: accuracy (the test images have no classes" in printed
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert all(report[key] is None for key in ("accuracy", "knn_accuracy", "retrieval", "verification", "confusion"))
    assert np.load(tmp_path / "b" / "predictions.npz")["embedding"].shape == (10, 64)
    assert "Nearest neighbours" in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.slow
def test_images_without_classes_are_trained_on_and_images_with_classes_tested(tmp_path):
    write(tmp_path / "flat", 40, 0)
    for name, grey in (("cats", 0), ("dogs", 200)):
        write(tmp_path / "pets" / name, 6, grey)
    views = ("--dataset", "folder:flat", "--objective", "nt_xent", "--loss.positives", "views")
    status, _, errors = run("train", *SMALL, *views, "--test-dataset", "folder:pets", "--out", "c", cwd=tmp_path)
    assert status == 0, errors
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert report["accuracy"] > 0.5
    assert report["verification"]["roc_auc"] is not None
    assert report["verification"]["threshold"] is None  # only test images have classes, and they may not choose it


def test_16_bit_images_that_use_a_part_of_their_range_get_a_warning(tmp_path):
    pixels = np.array([[0, 4095]] * 2)
    for name, dtype in (("a.png", np.uint16), ("b.tiff", np.int32)):
        folder = tmp_path / "deep" / name[0]
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(pixels.astype(dtype)).save(folder / f"{i}_{name}")

    def export(*options, out):
        status, _, errors = run("data", "export", "folder:deep", "--out", out, *options, cwd=tmp_path)
        assert status == 0, errors
        return [np.asarray(Image.open(path)).max() for path in sorted((tmp_path / out).rglob("*.png"))], errors

    assert export(out="dark") == (
        [16] * 4,
        "warning: folder:deep: pixels from 0 to 4095 were read as if they could be from 0 to 65535, so the images are "
        "dark or have little contrast; `--data.input-range 0 4095` maps them to 0..255\n",
    )
    assert export("--data.input-range", 0, 4095, out="bright") == ([255] * 4, "")


def test_an_image_of_196_megapixels_is_read_when_it_is_allowed(tmp_path):
    for name in "ab":
        write(tmp_path / "large" / name, 2, 7)
    Image.new("1", (14_000, 14_000)).save(tmp_path / "large" / "a" / "huge.png")
    export = ("data", "export", "folder:large", "--out", "out")
    status, _, errors = run(*export, cwd=tmp_path)
    assert status == 2
    assert errors == (
        "error: large/a/huge.png: cannot be read (it has 196,000,000 pixels, more than 178,956,970; "
        "`--data.max-pixels 196000000` allows it); `--data.skip-unreadable` leaves out such images\n"
    )
    assert run(*export, "--data.max-pixels", 196_000_000, cwd=tmp_path)[0] == 0
    assert len(list((tmp_path / "out" / "a").iterdir())) == 3
