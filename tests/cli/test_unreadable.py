"""Images that cannot be read: one error names them all, and --skip-unreadable leaves them out."""

import json
from pathlib import Path

import numpy as np
import pytest

from simjax.cli import main
from tests.cli.runs import fails, image_folder, printed_json

WARNING = "warning: left out 5 images that cannot be read: "
COMMANDS = (
    "gallery create H --encoder run --images images",
    "gallery create H --encoder run --images images --flat",
    "gallery add G images --again",
    "gallery calibrate G --images new",
    "gallery search G images",
    "gallery identify G images --fpir 0.1",
    "gallery duplicates images --encoder run --min-score 0.99",
    "embed run images --out e.npz",
    "classify run images",
    "calibrate run --images images --out copy",
    "fid run images/a images",
)


@pytest.fixture
def damaged(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory with five unreadable files in each of the folders `images` and `new`."""
    image_folder(calibrated / "new", classes=("p", "q"), each=4)
    for i in range(5):
        Path(f"images/a/bad{i}.png").write_bytes(b"no image")
        Path(f"new/p/bad{i}.png").write_bytes(b"no image")
    monkeypatch.setattr("warnings.filters", [])
    return calibrated


@pytest.mark.parametrize("command", COMMANDS)
def test_one_error_counts_the_unreadable_images_and_names_the_first_ones(damaged, capsys, command):
    error = fails(capsys, *command.split())
    folder = "new/p" if "new" in command else "images/a"
    assert "5 images cannot be read: " in error
    assert all(f"{folder}/bad{i}.png (no image format that Pillow knows)" in error for i in range(3))
    assert error.endswith(" and 2 more; `--skip-unreadable` leaves out such images\n")
    assert not any(Path(name).exists() for name in ("H", "e.npz", "copy"))
    assert printed_json(capsys, "gallery", "info", "G")["items"] == 24


@pytest.mark.parametrize("command", COMMANDS)
def test_unreadable_images_are_left_out_with_a_warning(damaged, capsys, command):
    main([*command.split(), "--skip-unreadable"])
    errors = capsys.readouterr().err
    assert errors.count(WARNING) == 1
    assert errors.count("bad0.png (no image format that Pillow knows)") == 1
    assert " and 2 more\n" in errors


def test_results_belong_to_the_images_that_can_be_read(damaged, capsys):
    main(["gallery", "create", "H", "--encoder", "run", "--images", "images", "--skip-unreadable"])
    capsys.readouterr()
    main(["gallery", "list", "H"])
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["identity"] for item in items] == ["a"] * 12 + ["b"] * 12
    assert all(Path(item["path"]).parent.name == item["identity"] for item in items)
    with_bad = ("classify", "run", "images/a/bad0.png", "images/b/0.png", "--skip-unreadable")
    assert printed_json(capsys, *with_bad) == printed_json(capsys, "classify", "run", "images/b/0.png")
    (found,) = printed_json(capsys, "gallery", "search", "G", *with_bad[2:])
    assert found["query"] == "images/b/0.png"
    assert printed_json(capsys, "fid", "run", "images/a", "images", "--skip-unreadable")["images"] == [12, 24]
    main(["embed", "run", "images", "--out", "e.npz", "--skip-unreadable"])
    arrays = np.load("e.npz")
    assert len(arrays["path"]) == len(arrays["embedding"]) == 24
    assert "images/a/bad0.png" not in arrays["path"]


def test_one_unreadable_image_is_named_with_the_option(place, capsys, monkeypatch):
    Path("bad.png").write_bytes(b"no image")
    error = fails(capsys, "classify", "run", "bad.png", "images/a")
    advice = "`--skip-unreadable` leaves out such images"
    assert error == f"error: bad.png: cannot be read (no image format that Pillow knows); {advice}\n"
    for files in (["bad.png"], ["bad.png", "bad.png"]):
        assert "no image can be read: bad.png" in fails(capsys, "classify", "run", *files, "--skip-unreadable")
    monkeypatch.setattr("warnings.filters", [])
    assert len(printed_json(capsys, "classify", "run", "bad.png", "images", "bad.png", "--skip-unreadable")) == 24


def test_a_folder_without_readable_images_is_named(damaged, capsys):
    Path("bad").mkdir()
    Path("new/p/bad0.png").rename("bad/0.png")
    with pytest.raises(SystemExit):
        main(["fid", "run", "images/b", "bad", "--skip-unreadable"])
    assert capsys.readouterr().err.endswith("\nerror: bad: no image can be read\n")
