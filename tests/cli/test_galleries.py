"""Encoders and galleries from the command line: from the images of a run to search, verification and identification."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simjax.cli import main
from tests.cli.runs import fails, image_folder, read


@pytest.fixture
def calibrated(place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the working directory with a gallery of two identities and a calibration of three others."""
    image_folder(place / "strangers", classes=("c", "d", "e"), each=9)
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    main(["gallery", "calibrate", "G", "--images", "strangers"])
    capsys.readouterr()
    return place


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_embeddings_are_written_with_the_names_of_files(place, capsys):
    main(["embed", "run", "images/a", "images/b/0.png", "--out", "e.npz"])
    main(["embed", "run", "images/a", "images/b/0.png", "--out", "e.csv", "--normalize"])
    arrays = np.load("e.npz")
    assert arrays["path"].tolist()[-1] == "images/b/0.png"
    assert len(arrays["embedding"]) == 13
    with Path("e.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:2] == ["path", "e0"]
    found = np.array([row[1:] for row in rows], float)
    expected = arrays["embedding"] / np.linalg.norm(arrays["embedding"], axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "13 embeddings" in capsys.readouterr().out


def test_a_gallery_is_searched_changed_and_described(calibrated, capsys):
    (result,) = printed_json(capsys, "gallery", "search", "G", "images/b/3.png", "-k", "2")
    assert result["query"] == "images/b/3.png"
    assert [set(hit) for hit in result["hits"]] == [{"id", "identity", "path", "score", "probability"}] * 2
    assert result["hits"][0]["identity"] == "b"
    assert result["hits"][0]["path"].endswith("images/b/3.png")

    main(["gallery", "add", "G", "others/a/0.png", "--identity", "new", "--metadata", "source=camera"])
    assert "ids 25" in capsys.readouterr().out
    (result,) = printed_json(capsys, "gallery", "search", "G", "--id", "25", "--where", "identity=a")
    assert {hit["identity"] for hit in result["hits"]} == {"a"}
    (result,) = printed_json(capsys, "gallery", "recommend", "G", "--like", "1", "2", "-k", "3")
    assert result["query"] == [1, 2]
    assert not {1, 2} & {hit["id"] for hit in result["hits"]}

    info = printed_json(capsys, "gallery", "info", "G")
    assert (info["items"], info["identities"], info["encoder"]) == (25, 3, "run")
    main(["gallery", "list", "G", "--where", "source=camera"])
    assert json.loads(capsys.readouterr().out)["identity"] == "new"
    main(["gallery", "remove", "G", "25"])
    main(["gallery", "remove", "G", "--identity", "a"])
    assert "12 items of 1 identity" in capsys.readouterr().out


def test_identities_are_named_with_the_threshold(calibrated, capsys):
    found = printed_json(capsys, "gallery", "identify", "G", "images/a/0.png", "--fpir", "0.1")
    assert [set(result) for result in found] == [{"query", "identity", "score", "probability", "threshold"}]
    main(["gallery", "identify", "G", "images/a/0.png", "--fpir", "0.1", "--html", "page.html"])
    assert "one of N = 2 identities" in capsys.readouterr().out
    assert "<img" in Path("page.html").read_text()
    error = fails(capsys, "gallery", "identify", "G", "images/a/0.png", "--fpir", "0.001")
    assert "27 calibration images" in error
    verified = printed_json(capsys, "gallery", "verify", "G", "images/a/0.png", "images/a/0.png", "--fmr", "0.1")
    assert (verified["same"], verified["fmr"]) == (True, 0.1)


def test_without_a_calibration_nothing_is_decided(place, capsys):
    verified = printed_json(capsys, "verify", "run", "images/a/0.png", "images/b/0.png")
    assert verified["score"] is not None
    assert [verified[name] for name in ("probability", "same", "threshold", "fmr")] == [None] * 4
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images", "--flat"])
    main(["gallery", "identify", "G", "images/a/0.png"])
    assert "simjax gallery calibrate G" in capsys.readouterr().out


def test_an_encoder_is_calibrated_in_place_or_in_a_copy(place, capsys):
    image_folder(place / "strangers", classes=("c", "d", "e"), each=9)
    main(["calibrate", "run", "--images", "strangers", "--out", "copy"])
    assert read(place / "run/encoder/config.json")["calibration"] is None
    main(["calibrate", "run", "--images", "strangers"])
    assert read(place / "run/encoder/config.json")["calibration"] is not None
    for encoder in ("copy", "run"):
        capsys.readouterr()
        verified = printed_json(capsys, "verify", encoder, "images/a/0.png", "images/a/0.png", "--fmr", "0.1")
        assert verified["same"] is True


def test_duplicates_of_a_gallery_and_of_a_folder(calibrated, capsys):
    shutil.copy("images/a/0.png", "images/a/copy.png")
    pairs = printed_json(capsys, "gallery", "duplicates", "images", "--encoder", "run", "--min-score", "0.999999")
    assert ["images/a/0.png", "images/a/copy.png"] in [[pair["a"], pair["b"]] for pair in pairs]
    main(["gallery", "add", "G", "images/a/copy.png"])
    capsys.readouterr()
    pairs = printed_json(capsys, "gallery", "duplicates", "G", "--min-score", "0.999999")
    assert [1, 25] in [[pair["a"], pair["b"]] for pair in pairs]


def test_folders_are_compared_by_the_frechet_distance(place, capsys):
    assert printed_json(capsys, "fid", "run", "images", "images")["frechet_distance"] < 1e-3
    assert printed_json(capsys, "fid", "run", "images/a", "images/b")["frechet_distance"] > 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("verify nowhere a.png b.png", "nowhere: no such folder"),
        ("verify run images/a/0.png no.png", "no.png: no such file"),
        ("verify run images/a/0.png text.png", "text.png: cannot be read"),
        ("verify run images images/a/0.png", "expected an image, got a folder"),
        ("embed run images --out e.txt", "`--out`: expected a file that ends in .npz or .csv"),
        ("gallery search nowhere images", "nowhere"),
        ("gallery verify G images images/a/0.png", "expected an image, got a folder"),
        ("gallery search G images --id 3", "images or `--id`, one of both"),
        ("gallery search G --id 99", "no item 99"),
        ("gallery search G images/a/0.png --where source", "`--where`: expected KEY=VALUE, got 'source'"),
        ("gallery remove G 99", "no item 99"),
        ("gallery remove G", "one of both"),
        ("gallery add G text.png", "text.png: cannot be read"),
        ("gallery create G --encoder run", "G exists"),
        ("gallery create H --encoder run --images images/a", "one sub-folder with images for each identity"),
        ("gallery duplicates images --encoder run", "`--min-score`"),
        ("gallery calibrate G --images images", "enrolled"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(calibrated, capsys, arguments, message):
    Path("text.png").write_text("no image")
    assert message in fails(capsys, *arguments.split())
    assert printed_json(capsys, "gallery", "info", "G")["items"] == 24
    assert not Path("H").exists()


def test_a_page_escapes_names_and_replaces_missing_images(place, capsys):
    name = "<b onload=x>"
    (place / "named" / name).mkdir(parents=True)
    Image.new("L", (12, 12), 50).save(place / "named" / name / "0.png")
    main(["gallery", "create", "N", "--encoder", "run", "--images", "named"])
    (place / "named" / name / "0.png").unlink()
    main(["gallery", "search", "N", "images/a/0.png", "--html", "page.html", "-k", "1"])
    page = Path("page.html").read_text()
    assert name not in page
    assert "&lt;b onload=x&gt;" in page
    assert "no picture" in page


def test_the_ready_encoders_are_listed(capsys):
    listed = printed_json(capsys, "encoders")
    assert isinstance(listed, list)
    main(["encoders"])
    assert all(encoder["name"] in capsys.readouterr().out for encoder in listed[:1])
