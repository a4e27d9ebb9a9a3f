"""The page of an explanation: titles and meanings of heat maps, and whether they differ from random orders."""

from collections.abc import Sequence

import numpy as np
import pytest

from simjax.report._explanation import Explanation, _verdict, write_explanation


def explanation(deletion: list[float], insertion: list[float], methods: Sequence[str] = ("grad_cam",)) -> Explanation:
    """Return an explanation whose maps have these areas for each image; those of the random orders are 0.4 to 0.6."""
    n, share = len(deletion), np.array([0.0, 1.0])
    random_areas = np.linspace(0.4, 0.6, 5)[:, None, None, None]
    return Explanation(
        names=["a.png", "b.png"][:n],
        images=np.zeros((n, 4, 4, 1), np.uint8),
        heat_maps={name: np.ones((n, 4, 4)) for name in methods},
        attention=None,
        patch_size=2,
        share=share,
        curves={name: np.array([deletion, insertion])[..., None] * np.ones(2) for name in methods},
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
    assert "<p>Grad-CAM: features of the network&#39;s last map, weighted by the gradient of the score; " in text
    assert "beyond those of all 5 random orders, which a random order itself would be in one of 6 cases" in text
    assert 'class="wide photos pairs"' not in text  # each image has a row of its own


@pytest.mark.parametrize("methods", [("grad_cam", "attention_rollout"), ("grad_cam", "occlusion")])
def test_only_occlusion_is_said_to_have_blue_regions(tmp_path, methods):
    for areas, effect in (([0.1, 0.3], "make the images similar"), ([0.1], "make class cat more probable")):
        write_explanation(tmp_path / "page.html", "a", "lead", explanation(areas, areas, methods))
        text = (tmp_path / "page.html").read_text()
        assert (f"Occlusion: orange regions {effect}, blue regions " in text) == ("occlusion" in methods)
        assert text.count("blue regions") == ("occlusion" in methods)
