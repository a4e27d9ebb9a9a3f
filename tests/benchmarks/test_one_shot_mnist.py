"""The page of one-shot identification of MNIST's digits is that of its numbers."""

import json
from pathlib import Path

import pytest

from benchmarks.one_shot_mnist import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_that_of_the_recorded_numbers():
    report = json.loads((DOCS / "one_shot_mnist.json").read_text())
    assert page(report) == (DOCS / "one_shot_mnist.md").read_text()


@pytest.mark.parametrize(("rate", "is_explained"), [(0.0, True), (0.01, False)])
def test_the_rule_of_3_is_explained_if_a_rate_has_no_error(rate, is_explained):
    rates = {"rank_1_rate": 0.99, "fnir_at_rank_1": 0.2, "fpir": rate}
    record = {"objective": "triplet", "threshold from": 8, "unknown": 9} | rates
    record |= {f"{name}_interval": [0.0, 1.0] for name in rates}
    assert ("rule of 3" in page({"epochs": 3.0, "runs": [record]})) == is_explained
