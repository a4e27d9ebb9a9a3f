"""The page that compares ways to resize images; the trainings behind it take an hour."""

import json
from pathlib import Path

import numpy as np

from benchmarks import aspect

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_that_of_the_record_and_its_best_way_is_the_default():
    report = json.loads((DOCS / "aspect.json").read_text())
    assert (DOCS / "aspect.md").read_text() == aspect.markdown(report)
    accuracy = {way: np.mean([r["accuracy"] for r in report["runs"] if r["way"] == way]) for way in aspect.WAYS}
    assert max(accuracy, key=accuracy.__getitem__) == "median aspect ratio, padded"


def test_photographs_and_digits_are_cut_as_the_page_says(random):
    image = np.arange(1024, dtype=np.uint8).reshape(32, 32, 1)
    assert aspect.one_shape(image, random).shape == (32, 26, 1)
    shapes = [aspect.mixed_shapes(image, random).shape[:2] for _ in range(50)]
    ratios = [height / width for height, width in shapes]
    assert {max(shape) for shape in shapes} == {32}
    assert min(ratios) < 0.7 < 1.4 < max(ratios)
    digit = np.zeros((28, 28, 1), np.uint8)
    digit[5:9, 10:12] = 200
    assert (aspect.ink_box(digit, random) == 200).all()
    assert aspect.ink_box(digit, random).shape == (4, 2, 1)
