"""The page of an explanation: titles and meanings of heat maps, and whether they differ from random orders."""

import numpy as np
import pytest

from simjax.report._explanation import Explanation, _verdict, write_explanation


def explanation(deletion: list[float], insertion: list[float]) -> Explanation:
    """Return an explanation whose map has these areas for each image; those of the random orders are 0.4 to 0.6."""
    n, share = len(deletion), np.array([0.0, 1.0])
    random_areas = np.linspace(0.4, 0.6, 5)[:, None, None, None]
    return Explanation(
        names=["a.png", "b.png"][:n],
        images=np.zeros((n, 4, 4, 1), np.uint8),
        heat_maps={"grad_cam": np.ones((n, 4, 4))},
        attention=None,
        patch_size=2,
        share=share,
        curves={"grad_cam": np.array([deletion, insertion])[..., None] * np.ones(2)},
        random_curves=random_areas * np.ones((5, 2, n, 2)),
        score="cosine",
        class_name=None if n == 2 else "cat",
    )


@pytest.mark.parametrize(
    ("deletion", "insertion", "expected"),
    [
        ([0.1, 0.3], [0.9, 0.7], "by deletion, {0} for both images; by insertion, {0} for both images"),
        (
            [0.1, 0.5],
            [0.5, 0.7],
            "by deletion, {0} for the first image only; by insertion, {0} for the second image only",
        ),
        ([0.5, 0.9], [0.1, 0.5], "by deletion, {1}; by insertion, {1}"),
        ([0.39], [0.6], "by deletion, {0}; by insertion, {1}"),
    ],
)
def test_a_map_is_compared_with_the_spread_of_random_orders(deletion, insertion, expected):
    texts = ("more faithful than all random orders", "some random order is at least as faithful")
    assert _verdict(explanation(deletion, insertion), "grad_cam") == f"Grad-CAM: {expected.format(*texts)}."


def test_the_page_explains_its_heat_maps(tmp_path):
    page = tmp_path / "page.html"
    write_explanation(page, "a and b", "lead", explanation([0.1, 0.3], [0.9, 0.7]))
    text = page.read_text()
    assert "<span>Grad-CAM</span>" in text
    assert "<p>Grad-CAM: features of the network&#39;s last map, weighted by the gradient of the score.</p>" in text
    assert "beyond those of all 5 random orders, which a random order itself would be in one of 6 cases" in text
    assert 'class="wide photos pairs"' not in text  # each image has a row of its own
