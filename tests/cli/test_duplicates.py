"""`simjax gallery duplicates`: groups as text and on the page, pairs in JSON, and the default threshold."""

import itertools
import re
import shutil
from pathlib import Path

import pytest

from simjax.cli import main
from simjax.cli._gallery_duplicates import groups_of
from tests.cli.runs import fails, image_folder, printed_json


@pytest.fixture
def copies(place: Path) -> Path:
    """Return a folder with four copies of one image, two of another one, and an image of its own."""
    folder = place / "copies"
    folder.mkdir()
    image_folder(place / "motifs", classes=("p", "q", "r"), each=1)
    for name, motif in (("1", "q"), ("2", "p"), ("3", "p"), ("4", "q"), ("5", "p"), ("6", "p"), ("7", "r")):
        shutil.copy(f"motifs/{motif}/0.png", folder / f"{name}.png")
    return folder


def test_connected_pairs_are_one_group_and_the_largest_group_is_first():
    assert groups_of([]) == []
    assert groups_of([(7, 8), (5, 6), (1, 4), (4, 2), (8, 7)]) == [[1, 2, 4], [7, 8], [5, 6]]
    assert groups_of([(1, 2), (3, 4), (5, 6), (4, 5), (2, 3)]) == [[1, 2, 3, 4, 5, 6]]


def test_duplicates_of_a_gallery_and_of_a_folder(calibrated, capsys):
    shutil.copy("images/a/0.png", "images/a/copy.png")
    pairs = printed_json(capsys, "gallery", "duplicates", "images", "--encoder", "run", "--min-score", "0.999999")
    assert ["images/a/0.png", "images/a/copy.png"] in [[pair["a"], pair["b"]] for pair in pairs]
    main(["gallery", "add", "G", "images/a/copy.png"])
    pairs = printed_json(capsys, "gallery", "duplicates", "G", "--min-score", "0.999999")
    assert [1, 25] in [[pair["a"], pair["b"]] for pair in pairs]


def test_copies_are_printed_and_shown_as_groups(copies, capsys):
    main(["gallery", "duplicates", "copies", "--encoder", "run", "--min-score", "0.999999", "--html", "page.html"])
    names = [["2", "3", "5", "6"], ["1", "4"]]
    lines = [
        ["4 images: cosine 1.0000", *(f"  copies/{name}.png" for name in names[0])],
        ["2 images: cosine 1.0000", *(f"  copies/{name}.png" for name in names[1])],
        ["7 pairs of duplicates in 2 groups among 21 compared pairs; threshold 0.999999, as given"],
    ]
    assert capsys.readouterr().out.splitlines() == list(itertools.chain(*lines))
    page = Path("page.html").read_text()
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == ["4 images: cosine 1.0000", "2 images: cosine 1.0000"]
    rows = page.split("<h2")[1:]
    size = (copies / "1.png").stat().st_size
    for row, in_row in zip(rows, names, strict=True):
        assert re.findall(r"<span>(\d\.png)</span>", row) == [f"{name}.png" for name in in_row]
    assert f"<span>1.png</span><span>12 x 12 pixels, {size:,} bytes</span>" in page


def test_without_duplicates_the_page_does_not_explain_its_rows(copies, capsys):
    arguments = ("gallery", "duplicates", "copies", "--encoder", "run", "--html", "page.html", "--min-score")
    for score, has_rows in (("0.999999", True), ("2", False)):
        main([*arguments, score])
        page = Path("page.html").read_text()
        assert (has_rows, not has_rows) == ("Images in one row" in page, "0 pairs of duplicates in 0 groups" in page)


def test_pairs_in_json_have_the_threshold_and_their_group_and_the_summary_is_on_stderr(copies, capsys):
    arguments = ("gallery", "duplicates", "copies", "--encoder", "run", "--min-score", "0.999999")
    pairs = printed_json(capsys, *arguments)
    assert {pair["threshold"] for pair in pairs} == {0.999999}
    found = {(Path(pair["a"]).stem, Path(pair["b"]).stem): pair["group"] for pair in pairs}
    assert found == dict.fromkeys(itertools.combinations("2356", 2), 1) | {("1", "4"): 2}
    main([*arguments, "--json"])
    assert capsys.readouterr().err.endswith(
        "7 pairs of duplicates in 2 groups among 21 compared pairs; threshold 0.999999, as given\n"
    )


def test_k_limits_the_pairs_of_each_image(copies, capsys):
    arguments = ("gallery", "duplicates", "copies", "--encoder", "run", "--min-score", "0.999999")
    assert len(printed_json(capsys, *arguments, "-k", "1")) < len(printed_json(capsys, *arguments)) == 7
    assert "--k: expected at least 1, got 0" in fails(capsys, *arguments, "-k", "0")


def test_the_default_threshold_of_duplicates_is_that_of_the_calibration(calibrated, capsys):
    main(["calibrate", "run", "--images", "strangers"])
    capsys.readouterr()
    main(["gallery", "duplicates", "images", "--encoder", "run"])
    of_folder = capsys.readouterr().out
    main(["gallery", "duplicates", "G", "--html", "page.html"])
    of_gallery = capsys.readouterr().out
    # 24 images have 276 pairs; the calibration has 243 pairs of different identities, 1 of which passes.
    expected = "among 276 compared pairs; threshold of pairs"
    for printed in (of_folder, of_gallery):
        assert expected in printed
        assert "at a false match rate of 0.00412: 1 of 243 pairs" in printed
        assert "expected number of false pairs: 1.1" in printed
    assert of_folder.splitlines()[-1] == of_gallery.splitlines()[-1]
    pairs = printed_json(capsys, "gallery", "duplicates", "G")
    assert pairs
    assert all(pair["score"] >= pair["threshold"] for pair in pairs)
    page = Path("page.html").read_text()
    for pair in pairs[:3]:
        for side in "ab":
            path = pair[f"path_{side}"]
            assert f"<span>item {pair[side]}</span><span>{pair[f'identity_{side}']}</span></figcaption>" in page
            assert f'title="{path}"' in page
            assert f'<a href="{Path(path).as_uri()}">' in page
