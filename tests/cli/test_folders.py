"""Folders of images as users have them, with real files."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from simjax.cli import main
from tests.cli.runs import ROOT, fails, read

SMALL = ["--model", "dnn", "--dnn.widths", "8", "--steps", "2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Run commands in a temporary folder, with its own cache; warnings are printed, as for a user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("warnings.filters", [])


def write(folder, count, grey, size=(12, 12), dtype=np.uint8, extension="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full(size, grey + i, dtype)).save(folder / f"{i}.{extension}")


@pytest.mark.slow
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
    arguments = ("train", *SMALL, "--dataset", "folder:pets", "--data.validation-fraction", "0", "--out", "run")
    command = [sys.executable, "-m", "simjax", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    heic = "1 image in formats that Pillow cannot read, to be converted to PNG or JPEG (.heic: 1)"
    assert done.stderr == (
        "warning: folder:pets: left out 3 files in hidden folders (.ipynb_checkpoints: 3), 2 files in system folders "
        f"(@eaDir: 2), {heic}, 1 link to a folder that contains the link (up: 1), 1 other file (.h5: 1); sub-folders "
        f"that are not read, or without images: birds ({heic})\n"
    )
    resized = "images of 12x12 to 112x92 pixels (height x width) are resized to 35x29"
    assert done.stdout.count(f"folder:pets: {resized}; those of another aspect ratio are padded\n") == 1
    assert "21 training, 0 validation and 7 test images of 35x29x1; 2 classes" in done.stdout
    assert read(tmp_path / "run" / "config.json")["data"]["image_shape"] == [35, 29, 1]


@pytest.mark.slow
def test_an_objective_without_labels_trains_on_images_without_classes(tmp_path, capsys):
    write(tmp_path / "flat", 40, 0)
    main(["train", *SMALL, "--dataset", "folder:flat", "--objective", "info_nce", "--out", "b"])
    printed = capsys.readouterr().out
    assert "30 training, 0 validation and 10 test images" in printed
    assert "Not evaluated: accuracy (the test images have no classes" in printed
    report = read(tmp_path / "b" / "report.json")
    assert all(report[key] is None for key in ("accuracy", "knn_accuracy", "retrieval", "verification", "confusion"))
    assert np.load(tmp_path / "b" / "predictions.npz")["embedding"].shape == (10, 64)
    assert "Nearest neighbours" in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.slow
def test_images_without_classes_are_trained_on_and_images_with_classes_tested(tmp_path):
    write(tmp_path / "flat", 40, 0)
    for name, grey in (("cats", 0), ("dogs", 200)):
        write(tmp_path / "pets" / name, 6, grey)
    views = ["--dataset", "folder:flat", "--objective", "nt_xent", "--loss.positives", "views"]
    main(["train", *SMALL, *views, "--test-dataset", "folder:pets", "--out", "c"])
    report = read(tmp_path / "c" / "report.json")
    assert report["accuracy"] > 0.5
    assert report["verification"]["roc_auc"] is not None
    assert report["verification"]["threshold"] is None  # only test images have classes, and they may not choose it


def test_16_bit_images_that_use_a_part_of_their_range_get_a_warning(tmp_path, capsys):
    pixels = np.array([[0, 4095]] * 2)
    for name, dtype in (("a.png", np.uint16), ("b.tiff", np.int32)):
        folder = tmp_path / "deep" / name[0]
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(pixels.astype(dtype)).save(folder / f"{i}_{name}")

    def export(*options, out):
        main(["data", "export", "folder:deep", "--out", out, *options])
        return [np.asarray(Image.open(path)).max() for path in sorted((tmp_path / out).rglob("*.png"))]

    assert export(out="dark") == [16] * 4
    assert capsys.readouterr().err == (
        "warning: folder:deep: pixels from 0 to 4095 were read as if they could be from 0 to 65535, so the images are "
        "dark or have little contrast; `--data.input-range 0 4095` maps them to 0..255\n"
    )
    assert export("--data.input-range", "0", "4095", out="bright") == [255] * 4
    assert capsys.readouterr().err == ""


def test_an_image_of_196_megapixels_is_read_when_it_is_allowed(tmp_path, capsys):
    for name in "ab":
        write(tmp_path / "large" / name, 2, 7)
    Image.new("1", (14_000, 14_000)).save(tmp_path / "large" / "a" / "huge.png")
    export = ["data", "export", "folder:large", "--out", "out"]
    assert fails(capsys, *export) == (
        "error: large/a/huge.png: cannot be read (it has 196,000,000 pixels, more than 178,956,970; "
        "`--data.max-pixels 196000000` allows it); `--data.skip-unreadable` leaves out such images\n"
    )
    main([*export, "--data.max-pixels", "196000000"])
    assert len(list((tmp_path / "out" / "a").iterdir())) == 3
