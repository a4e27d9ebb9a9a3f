"""Encoders and galleries from the command line: from the images of a run to search, verification and identification."""

import csv
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simjax import load_encoder
from simjax.cli import main
from simjax.cli._gallery import filters
from simjax.encoder import Encoder
from tests.cli.runs import fails, image_folder, printed_json, read

READY_CLASSIFIERS = ("mnist-vit", "cifar10-cnn")  # both were trained with one, the second one has it


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


def test_embeddings_that_are_not_finite_are_not_written(place, capsys, monkeypatch):
    monkeypatch.setattr(Encoder, "encode", lambda *args, **options: np.array([[1, 2], [np.nan, 3]], np.float32))
    message = fails(capsys, "embed", "run", "images/a/0.png", "images/b/0.png", "--out", "e.npz")
    assert "images/b/0.png: its embedding is not finite" in message
    assert not Path("e.npz").exists()


def test_a_filter_of_deep_json_finds_text(place):
    assert filters(["key=" + "[" * 100_000]) == {"key": "[" * 100_000}


def test_the_most_probable_classes_of_images_are_printed(place, capsys, monkeypatch):
    paths = [*(Path(f"images/a/{i}.png") for i in (0, 1)), Path("images/b/0.png")]
    found = printed_json(capsys, "classify", "run", *map(str, paths), "--top", "2")
    encoder = load_encoder("run")
    for path, result, row in zip(paths, found, encoder.classify(paths), strict=True):
        assert result["path"] == str(path)
        names = [c["class"] for c in result["classes"]]
        assert names == (["a", "b"] if row[0] > row[1] else ["b", "a"])
        assert [c["probability"] for c in result["classes"]] == [row["ab".index(name)] for name in names]
    monkeypatch.setattr("warnings.filters", [])
    main(["classify", "run", *map(str, paths), "--top", "50", "--json"])
    printed, warning = capsys.readouterr()
    assert (json.loads(printed), warning) == (found, "warning: run has only 2 classes: all are listed\n")
    main(["classify", "run", "images/b/0.png"])
    best = found[2]["classes"][0]
    assert capsys.readouterr().out == f"images/b/0.png: {best['class']} {best['probability']:.4f}\n"


def test_a_gallery_is_searched_changed_and_described(calibrated, capsys):
    (result,) = printed_json(capsys, "gallery", "search", "G", "images/b/3.png", "-k", "2")
    assert result["query"] == "images/b/3.png"
    assert [set(hit) for hit in result["hits"]] == [{"id", "identity", "path", "score", "probability"}] * 2
    assert result["hits"][0]["identity"] == "b"
    assert result["hits"][0]["path"].endswith("images/b/3.png")

    main(["gallery", "add", "G", "others/a/0.png", "--identity", "new", "--metadata", "source=camera"])
    assert "added 1 item with id 25" in capsys.readouterr().out
    (result,) = printed_json(capsys, "gallery", "search", "G", "--id", "25", "--where", "identity=a")
    assert {hit["identity"] for hit in result["hits"]} == {"a"}
    (result,) = printed_json(capsys, "gallery", "recommend", "G", "--like", "1", "2", "-k", "3")
    assert result["query"] == [1, 2]
    assert "a" not in {hit["identity"] for hit in result["hits"]}  # that of the items 1 and 2
    (result,) = printed_json(capsys, "gallery", "recommend", "G", "--like", "1", "2", "-k", "23", "--same-identity")
    assert {hit["id"] for hit in result["hits"]} == set(range(3, 26))

    info = printed_json(capsys, "gallery", "info", "G")
    assert (info["items"], info["identities"], info["encoder"]) == (25, 3, "run")
    assert info["calibration"] == {"of": "gallery", "images": 27, "identities": 3}
    main(["gallery", "info", "G"])
    assert "calibration: of this gallery, on 27 images of 3 other identities" in capsys.readouterr().out
    main(["gallery", "list", "G", "--where", "source=camera"])
    assert json.loads(capsys.readouterr().out)["identity"] == "new"
    main(["gallery", "remove", "G", "25"])
    main(["gallery", "remove", "G", "--identity", "a"])
    assert "12 items of 1 identity" in capsys.readouterr().out


def test_identities_are_named_with_the_threshold(calibrated, capsys):
    found = printed_json(capsys, "gallery", "identify", "G", "images/a/0.png", "--fpir", "0.1")
    assert found[0]["closest"] == "a"
    assert found[0]["path"].endswith("images/a/0.png")
    names = ("id", "fpir", "images", "identities", "calibrated")
    assert [found[0][name] for name in names] == [1, 0.1, 27, 3, True]
    assert {"query", "identity", "score", "probability", "threshold"} < set(found[0])
    main(["gallery", "identify", "G", "images/a/0.png", "--fpir", "0.1", "--html", "page.html"])
    printed = capsys.readouterr().out
    assert "of 27 calibration images of 3 identities match one of the N = 2 identities in the gallery" in printed
    assert printed.count("for a prior of 0.5") == 1
    assert "<img" in Path("page.html").read_text()
    error = fails(capsys, "gallery", "identify", "G", "images/a/0.png", "--fpir", "0.001")
    assert "27 calibration images" in error
    verified = printed_json(capsys, "gallery", "verify", "G", "images/a/0.png", "images/a/0.png", "--fmr", "0.1")
    assert (verified["same"], verified["fmr"]) == (True, 0.1)
    assert (verified["images"], verified["identities"]) == (27, 3)
    main(["gallery", "verify", "G", "images/a/0.png", "images/b/0.png", "--fmr", "0.1"])
    assert "24 of 243 pairs of different identities among 27 calibration images of 3 id" in capsys.readouterr().out


def test_an_unknown_image_is_answered_with_the_closest_item(calibrated, capsys):
    probe, rate = "strangers/e/0.png", str(1 / 27)
    (found,) = printed_json(capsys, "gallery", "identify", "G", probe, "--fpir", rate)
    main(["gallery", "identify", "G", probe, "--fpir", rate, "--html", "page.html"])
    assert found["identity"] is None
    assert f"{probe}: unknown, closest {found['closest']} (item {found['id']}), cosine" in capsys.readouterr().out
    page = Path("page.html").read_text()
    assert f"<span>unknown</span><span>closest {found['closest']}</span><span>item {found['id']}</span>" in page


def test_without_a_calibration_nothing_is_decided(place, capsys):
    verified = printed_json(capsys, "verify", "run", "images/a/0.png", "images/b/0.png")
    assert verified["score"] is not None
    assert [verified[name] for name in ("probability", "same", "threshold", "fmr", "images")] == [None] * 5
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    main(["gallery", "identify", "G", "images/a/0.png"])
    assert "simjax gallery calibrate G" in capsys.readouterr().out
    (found,) = printed_json(capsys, "gallery", "identify", "G", "images/a/0.png")
    assert (found["calibrated"], found["identity"], found["closest"], found["fpir"]) == (False, None, "a", None)
    main(["gallery", "create", "flat", "--encoder", "run", "--images", "images", "--flat"])
    assert "flat: no item has an identity" in fails(capsys, "gallery", "identify", "flat", "images/a/0.png")


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


def test_values_of_filters_find_text_numbers_and_booleans(place, capsys, monkeypatch):
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    main(["gallery", "add", "G", "others/a/0.png", "--metadata", "price=12", "--metadata", "new=true", "code=007"])
    from simjax.gallery import Gallery

    with Gallery.open("G") as gallery:
        gallery.update(1, metadata={"price": 12, "new": True})
        gallery.update(2, metadata={"price": 12.5, "new": 1})
        gallery.update(3, metadata={"price": [12], "new": False})

    def found(*words: str) -> list[int]:
        capsys.readouterr()
        main(["gallery", "list", "G", "--where", *words])
        return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]

    assert found("price=12") == [1, 25]
    assert found("price=12.5") == [2]
    assert found("new=true") == [1, 25]
    assert found("new=1") == [2]
    assert found("code=007") == [25]
    assert found("price=12", "identity=a") == found("price=12", "--where", "identity=a") == [1]
    main(["gallery", "search", "G", "-k", "2", "--where", "price=12", "images/b/0.png", "--json"])
    (result,) = json.loads(capsys.readouterr().out)
    assert sorted(hit["id"] for hit in result["hits"]) == [1, 25]
    monkeypatch.setattr("warnings.filters", [])
    assert found("code=7") == found("price=123456789012345678901234567890") == []
    capsys.readouterr()
    main(["gallery", "list", "G", "--where", "code=7"])
    assert capsys.readouterr() == ("", "warning: no item matches `--where`\n")
    main(["gallery", "search", "G", "--where", "price=13", "--", "images/b/0.png"])
    assert capsys.readouterr().err == "warning: no item matches `--where`\n"


def test_ids_follow_one_option_or_several(place, capsys):
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images", "--flat"])
    main(["gallery", "recommend", "G", "--like", "1", "--like", "13", "14", "--html", "page.html"])
    assert "similar to items 1, 13, 14:" in capsys.readouterr().out
    page = Path("page.html").read_text()
    assert "<h1>Recommendations from G</h1>" in page
    assert page.count('class="photo query"') == 3
    assert "missing --like" in fails(capsys, "gallery", "recommend", "G")


def test_images_are_added_once_by_their_path(place, capsys):
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    capsys.readouterr()
    main(["gallery", "add", "G", "images/a", "others/a/0.png", "others/a/0.png"])
    left_out, added = capsys.readouterr().out.splitlines()
    assert left_out.startswith("left out 12 images that the gallery has already")
    assert added == "added 1 item with id 25; 25 items of 2 identities"
    main(["gallery", "add", "G", "images/a"])
    assert "added 0 items; 25 items" in capsys.readouterr().out
    main(["gallery", "add", "G", "images/a", "--again"])
    assert "added 12 items with ids 26-37" in capsys.readouterr().out


def test_a_page_replaces_only_pages(calibrated, capsys):
    image = Path("images/b/0.png").read_bytes()
    arguments = ("gallery", "search", "G", "images/a/0.png", "--html")
    assert "--html: expected a file that ends in .html or .htm, got 0.png" in fails(
        capsys, *arguments, "images/b/0.png"
    )
    assert Path("images/b/0.png").read_bytes() == image
    for file, reason in (("no/page.html", "there is no folder no"), ("dir.html", "it is a folder")):
        Path("dir.html").mkdir(exist_ok=True)
        assert f"cannot write {file}: {reason}" in fails(capsys, *arguments, file)
    assert "cannot write no/e.npz: there is no folder no" in fails(
        capsys, "embed", "run", "images", "--out", "no/e.npz"
    )


def test_images_beside_the_folders_of_identities_are_reported_with_the_way_to_add_them(place, capsys, monkeypatch):
    monkeypatch.setattr("warnings.filters", [])
    shutil.copy("images/a/0.png", "images/beside.png")
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    warning = "left out 1 image beside the folders of classes; --flat makes every image an item without an identity"
    assert warning in capsys.readouterr().err


def test_a_gallery_with_the_encoder_of_another_one_is_reported(calibrated, capsys):
    from simjax.encoder import load_encoder

    shutil.rmtree("G/encoder")
    load_encoder("digits-cnn").save("G/encoder")
    assert "its embeddings are of the encoder run" in fails(capsys, "gallery", "info", "G")


@pytest.mark.parametrize("ready", ["mnist-cnn", "efficientnet-lite0:64"])
def test_the_way_to_calibrate_a_ready_encoder_works(place, capsys, ready):
    image_folder(place / "strangers", classes=("c", "d", "e"), each=3)
    main(["verify", ready, "images/a/0.png", "images/b/0.png"])
    printed = capsys.readouterr().out
    assert f"`simjax calibrate {ready} --images FOLDER --out COPY`, and use COPY in place of {ready}" in printed
    assert "--out names a folder for a copy" in fails(capsys, "calibrate", ready, "--images", "strangers").replace(
        "`", ""
    )
    main(["calibrate", ready, "--images", "strangers", "--out", "COPY"])
    assert printed_json(capsys, "verify", "COPY", "images/a/0.png", "images/b/0.png", "--fmr", "0.1")["calibrated"]


def test_the_first_three_of_many_enrolled_identities_are_named(place, capsys):
    image_folder(place / "many", classes=tuple("pqrst"), each=2)
    main(["gallery", "create", "many.gallery", "--encoder", "run", "--images", "many"])
    capsys.readouterr()
    error = fails(capsys, "gallery", "calibrate", "many.gallery", "--images", "many")
    assert "--images: expected no enrolled identities, got p, q, r and 2 more" in error


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
        ("embed run images --out e.txt", "--out: expected a file that ends in .npz or .csv, got e.txt"),
        ("embed run images --out images/a/0.png", "--out: expected a file that ends in .npz or .csv, got 0.png"),
        ("embed run --out e.npz", "expected images or folders of images, got none"),
        ("classify run", "expected images or folders of images, got none"),
        ("classify run images --top 0", "--top: expected at least 1, got 0"),
        ("classify run text.png", "text.png: cannot be read"),
        (
            "classify digits-cnn text.png",
            "digits-cnn was saved without a classifier (objective supervised_contrastive)",
        ),
        ("gallery search nowhere images", "nowhere"),
        ("gallery search images/a/0.png G", "images/a/0.png: expected a gallery, got a file; the gallery comes first"),
        ("embed images/a/0.png run --out e.npz", "images/a/0.png: it is a file, not the folder of an encoder"),
        ("gallery copy G images", "images contains a, which no gallery wrote: not overwritten"),
        ("gallery copy G text.png", "text.png is a file, not a folder for a gallery"),
        ("gallery verify G images images/a/0.png", "expected an image, got a folder"),
        ("gallery search G images --id 3", "expected images or `--id`, not both"),
        ("gallery search G", "expected images or `--id`, got neither"),
        ("gallery search G --id 99", "--id: the gallery has no item 99"),
        ("gallery search G images/a/0.png --where source", "--where: expected KEY=VALUE, got 'source'"),
        ("gallery search G images/a/0.png --where a=1 a=2", "--where: expected each key once, got 'a' 2 times"),
        ("gallery search G images/a/0.png -k 0", "--k: expected at least 1, got 0"),
        ("gallery identify G images/a/0.png --fpir 1", "--fpir: expected a number above 0 and below 1, got 1"),
        (
            "gallery verify G images/a/0.png images/a/0.png --fmr 0",
            "--fmr: expected a number above 0 and below 1, got 0",
        ),
        ("gallery recommend G --like 99", "--like: the gallery has no item 99"),
        ("gallery recommend G --like 1 x", "unexpected argument 'x' after --like 1"),
        ("gallery remove G 99", "no item 99"),
        ("gallery remove G", "expected ids of items or `--identity`, got neither"),
        ("gallery remove G 1 --identity a", "expected ids of items or `--identity`, not both"),
        ("gallery remove G --identity nobody", "--identity: no item of the gallery has the identity 'nobody'"),
        ("gallery add G others/a/0.png --metadata identity=a", "--metadata: expected names other than 'identity'"),
        ("gallery add G text.png", "text.png: cannot be read"),
        ("gallery add G e.npz", "e.npz: expected images; embeddings are added and searched from Python"),
        ("gallery search G e.csv", "e.csv: expected images; embeddings are added and searched from Python"),
        ("gallery create G --encoder run", "G exists"),
        ("gallery create H --encoder run --images images/a", "one sub-folder with images for each identity"),
        ("gallery duplicates images --encoder run", "--min-score: expected the score from which images are dup"),
        ("gallery duplicates images", "--encoder: expected an encoder, because images is a folder of images"),
        ("gallery duplicates G --encoder run", "--encoder: G is a gallery, which is searched with its own encoder"),
        ("gallery duplicates nowhere", "nowhere: no such gallery"),
        ("gallery calibrate G --images one", "--images: expected two or more identities, one of which has two or more"),
        ("gallery calibrate G --images images", "--images: expected no enrolled identities"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(calibrated, capsys, arguments, message):
    Path("text.png").write_text("no image")
    image_folder(Path("one"), classes=("c",), each=2)
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


def test_pictures_are_links_to_files_with_their_names_below(place, capsys):
    name = "a 'b' & \"c\" <d>.png"
    shutil.copy("images/a/0.png", f"images/a/{name}")
    main(["gallery", "create", "N", "--encoder", "run", "--images", "images"])
    Path("images/a/1.png").unlink()
    main(["gallery", "search", "N", f"images/a/{name}", "--html", "page.html", "-k", "25"])
    page = Path("page.html").read_text()
    path = Path("images/a").absolute() / name
    assert page.count(f'<a href="{path.as_uri()}"><img ') == 2  # the query and the item
    assert str(path) in [html.unescape(title) for title in re.findall(r'<figure [^>]*title="([^"]*)"', page)]
    assert f"<span>{html.escape(name)}</span></figcaption>" in page
    assert name not in page
    assert page.count("<a href=") == 25  # the query and all items but the one whose file was removed
    assert f"<span>{path.parent}" not in page


def test_a_probability_says_what_the_calibration_calls_the_same(place, capsys, monkeypatch):
    def printed(gallery: str) -> str:
        capsys.readouterr()
        main(["gallery", "search", gallery, "images/a/0.png", "--html", "page.html"])
        out = capsys.readouterr().out
        assert out.splitlines()[-1].capitalize() in Path("page.html").read_text()
        return out

    image_folder(place / "strangers", classes=("c", "d", "e"), each=9)
    main(["calibrate", "run", "--images", "strangers"])
    config = read(place / "run/encoder/config.json")
    config["about"]["calibrated_for"] = "photograph"
    (place / "run/encoder/config.json").write_text(json.dumps(config))
    main(["gallery", "create", "P", "--encoder", "run", "--images", "images", "--flat"])
    assert "probability: that both images show the same photograph, for a prior of 0.5" in printed("P")
    main(["gallery", "calibrate", "P", "--images", "strangers"])
    assert "probability: that both images show the same identity, for a prior of 0.5" in printed("P")
    main(["calibrate", "run", "--images", "strangers"])  # on images of identities
    main(["gallery", "create", "I", "--encoder", "run", "--images", "images", "--flat"])
    assert "probability: that both images show the same identity, for a prior of 0.5" in printed("I")
    monkeypatch.setattr("simjax.evaluate.Calibration.probability", lambda self, scores: np.zeros(np.shape(scores)))
    assert "probability: that both images show the same identity, for a prior of 0.5" in printed("I")  # 0 is one


def test_the_ready_encoders_are_listed(capsys):
    listed = {encoder["name"]: encoder for encoder in printed_json(capsys, "encoders")}
    assert listed["glyphs-cnn"]["calibration"] == {"images": 1500, "identities": 100}
    assert listed["mnist-cnn"]["calibration"] is listed["mnist-cnn"]["classes"] is None
    main(["encoders"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in listed)
    assert "calibration: 1,500 images of 100 identities that it was not trained on" in printed
    assert "  false negative identification rate: 0.115 (95% interval" in printed
    assert "  false positive identification rate (wanted 0.01): 0.0075 (95% interval" in printed
    of_vit, of_cifar = (printed[printed.index(f"{name}\n") :].partition("precision")[0] for name in READY_CLASSIFIERS)
    note = ", by the classifier of the training, which is not part of the encoder\n"
    assert re.search(rf"  accuracy \(classifier\): 0.9933 \(95% interval [^)]*\){note}", of_vit)
    assert note not in of_cifar
