"""A finished run on folders of images, trained in this process once. Other runs with its shapes compile little."""

import json
import shutil
from pathlib import Path

import pytest

from simjax.cli import main
from tests.cli.runs import image_folder, read

QUICK = ["--model", "dnn", "--dnn.widths", "8", "--augment.no-enabled", "--optimizer.schedule", "constant"]
DATA = ["--dataset", "folder:images", "--test-dataset", "folder:others"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with training images, test images and a run of four epochs that was started there."""
    place = tmp_path_factory.mktemp("place")
    image_folder(place / "images", each=12)
    image_folder(place / "others", each=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main(["train", *QUICK, "--epochs", "4", *DATA, "--out", "run"])
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder, which is also the working directory; reports of further runs are not drawn."""
    copy = shutil.copytree(finished, tmp_path / "place")
    config = read(copy / "run" / "config.json") | {"working_directory": str(copy)}
    (copy / "run" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(copy)
    monkeypatch.setattr("simjax.report.write", lambda run, begin: None)  # it takes longer than these trainings
    return copy


@pytest.fixture
def calibrated(place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the working directory with a gallery of two identities and a calibration of three others."""
    image_folder(place / "strangers", classes=("c", "d", "e"), each=9)
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    main(["gallery", "calibrate", "G", "--images", "strangers"])
    capsys.readouterr()
    return place
