"""`simjax explain`: the page, the numbers, the choice of the second image or of the class, and mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simjax import explain, load_encoder
from simjax.cli import main
from tests.cli.runs import fails


def test_the_numbers_are_those_of_the_library_and_the_page_has_them(place, capsys):
    main(["explain", "run", "images/a/0.png", "images/b/1.png", "--out", "page.html", "--json", "--patch-size", "5"])
    found = json.loads(capsys.readouterr().out)
    encoder, pair = load_encoder("run"), [Path("images/a/0.png"), Path("images/b/1.png")]
    assert found["score"] == pytest.approx(float(encoder.similarity(pair[:1], pair[1:])[0, 0]))
    assert [found[name] for name in ("measure", "probability", "patch_size", "fill")] == ["cosine", None, 5, "mean"]
    assert list(found["areas"]) == ["occlusion", "random regions"]  # of a dense network
    target = explain.similarity_to(encoder, pair[::-1])
    heat_maps = explain.occlusion(encoder, pair, target, patch_size=5)
    expected = explain.faithfulness(encoder, pair, target, heat_maps, patch_size=5)
    np.testing.assert_allclose(found["areas"]["occlusion"]["deletion"], expected.deletion_area, rtol=1e-6)
    np.testing.assert_allclose(found["areas"]["occlusion"]["insertion"], expected.insertion_area, rtol=1e-6)
    for curve, mean in found["areas"]["random regions"].items():
        for (low, high), value in zip(found["random_ranges"][curve], mean, strict=True):
            assert low < value < high
    page = Path("page.html").read_text()
    assert page.count("<img") == 4  # both images, and both under the heat map of the occlusion
    assert page.count('<svg class="chart"') == 2
    assert f'class="r">{found["areas"]["occlusion"]["insertion"][1]:.4f}</td>' in page
    assert f"cosine {found['score']:.4f}, by run" in page


def test_the_class_of_one_image_is_explained(place, capsys):
    encoder, path = load_encoder("run"), Path("images/a/0.png")
    (probabilities,) = encoder.classify(path)
    predicted, other = ("a", "b") if probabilities[0] > probabilities[1] else ("b", "a")
    main(["explain", "run", str(path), "--out", "page.html", "--json", "--class", other])
    found = json.loads(capsys.readouterr().out)
    assert (found["class"], found["predicted"]) == (other, predicted)
    assert found["probability"] == pytest.approx(probabilities["ab".index(other)], rel=1e-6)
    target = explain.class_score(encoder, [other])
    expected = explain.faithfulness(encoder, path, target, explain.occlusion(encoder, path, target))
    np.testing.assert_allclose(found["areas"]["occlusion"]["deletion"], expected.deletion_area, rtol=1e-6)
    np.testing.assert_allclose(found["areas"]["occlusion"]["insertion"], expected.insertion_area, rtol=1e-6)
    page = Path("page.html").read_text()
    assert f"class {other}, probability {found['probability']:.4f} (most probable: {predicted}, " in page
    assert f"Occlusion: orange regions make class {other} more probable" in page
    assert page.count("<img") == 2
    main(["explain", "run", str(path), "--out", "page.html"])
    assert f"{path}: class {predicted}, probability {probabilities.max():.4f}\n" in capsys.readouterr().out


def test_the_second_image_is_the_closest_one_of_a_folder_or_a_gallery(place, capsys):
    encoder, paths = load_encoder("run"), [Path(f"images/a/{i}.png") for i in range(12)]
    scores = encoder.similarity(paths[:1], paths[1:])[0]
    closest = paths[1 + int(scores.argmax())]
    main(["explain", "run", "images/a/0.png", "images/a", "--out", "page.html"])
    assert f"images/a/0.png and {closest}: cosine {scores.max():.4f}" in capsys.readouterr().out
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images/a", "--flat"])
    capsys.readouterr()
    Path("link.png").symlink_to("images/a/0.png")
    for path in ("images/a/0.png", "images/b/../a/0.png", "link.png"):
        main(["explain", "run", path, "--gallery", "G", "--out", "page.html"])
        assert f"{closest}: cosine {scores.max():.4f}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_of_a_transformer_shows_rollout_and_attention(place, capsys):
    main(["explain", "mnist-vit", "images/a/0.png", "images/a/1.png", "--out", "page.html", "--fill", "blur"])
    printed, page = capsys.readouterr().out, Path("page.html").read_text()
    assert "attention_rollout: deletion" in printed
    assert page.count(">head 4</span>") == 8  # of four blocks for both images
    assert page.count("<img") == 2 * (1 + 2 + 4 * 4)  # an image, two heat maps, and the attention of four heads


@pytest.mark.slow
def test_a_calibrated_encoder_gives_the_probability(place, capsys):
    main(["explain", "glyphs-cnn", "images/a/0.png", "images/a/1.png", "--out", "page.html", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["probability"] == pytest.approx(load_encoder("glyphs-cnn").probability(np.array([found["score"]]))[0])
    assert list(found["areas"]) == ["grad_cam", "occlusion", "random regions"]
    assert f"probability of same {found['probability']:.3f}" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("images/a/0.png --out p.html --class aa", "unknown class 'aa' (did you mean a? valid: a, b)"),
        ("images/a/0.png images/a/1.png --out p.html --class a", "expected `--class` without a second image"),
        ("images/a/0.png --gallery G --out p.html --class a", "expected `--class` without a second image"),
        ("images/a/0.png images/a/1.png --gallery G --out p.html", "expected a second image or `--gallery`, not both"),
        ("text.png images/a/1.png --out p.html", "text.png: cannot be read"),
        ("images/a/0.png text.png --out p.html", "text.png: cannot be read"),
        ("no.png images/a/0.png --out p.html", "no.png: no such file"),
        ("images images/a/0.png --out p.html", "images: expected an image, got a folder"),
        ("images/a/0.png one --out p.html", "one: has no image other than"),
        ("images/a/0.png --gallery nowhere --out p.html", "nowhere"),
        ("images/a/0.png images/a/1.png --out p.html --methods attention_rollout", "expected a vision transformer"),
        ("images/a/0.png images/a/1.png --out p.html --methods gradcam", "did you mean grad_cam?"),
        ("images/a/0.png images/a/1.png --out p.html --patch-size 0", "--patch-size: expected 1 to 12"),
        ("images/a/0.png images/a/1.png --out images/a/2.png", "--out: expected a file that ends in .html or .htm"),
        ("images/a/0.png images/a/1.png --out folder.html", "cannot write folder.html: it is a folder"),
        ("images/a/0.png images/a/1.png", "--out"),
    ],
)
def test_a_mistake_is_one_line_and_writes_no_page(place, capsys, arguments, message):
    Path("text.png").write_text("no image")
    Path("folder.html").mkdir()
    Path("one").mkdir()
    Path("one/link.png").symlink_to(Path("images/a/0.png").absolute())
    assert message in fails(capsys, "explain", "run", *arguments.split())
    assert not Path("p.html").exists()
    Image.open("images/a/2.png").verify()


def test_an_encoder_without_a_classifier_explains_pairs_only(place, capsys):
    arguments = ("explain", "digits-cnn", "images/a/0.png", "--out", "p.html")
    expected = "and digits-cnn has no classifier, as cifar10-cnn and runs with the objective softmax have"
    assert expected in fails(capsys, *arguments)
    assert "digits-cnn was saved without a classifier" in fails(capsys, *arguments, "--class", "3")
