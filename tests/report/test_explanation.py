"""Photographs and overlays of heat maps: aspect ratio, colours, and one scale for both images."""

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from simjax.report import _photographs as photographs
from simjax.report import _style as style


def test_positive_values_are_orange_negative_ones_blue_and_the_opacity_is_on_the_given_scale():
    _, axes = style.canvas(1, 1)
    photographs.overlay(axes, np.array([[2.0, -1.0], [0.0, 4.0]]), 0, 0, scale=8, patch_size=1)
    (image,) = axes.images
    drawn = np.asarray(image.get_array())
    np.testing.assert_allclose(drawn[..., 3], [[0.2, 0.1], [0, 0.4]])
    np.testing.assert_allclose(drawn[0, 0, :3], to_rgb(style.ORANGE))
    np.testing.assert_allclose(drawn[0, 1, :3], to_rgb(style.BLUE))
    assert [len(lines.get_paths()) for lines in axes.collections] == [2, 2]


def test_a_map_of_zeros_is_transparent():
    _, axes = style.canvas(1, 1)
    photographs.overlay(axes, np.zeros((2, 2)), 0, 0, scale=0)
    assert not np.asarray(axes.images[0].get_array())[..., 3].any()


@pytest.mark.parametrize(
    ("shape", "extent"), [((3, 6, 1), (2.05, 2.95, 0.95, 0.5)), ((6, 2, 3), (2.35, 2.65, 0.95, 0.05))]
)
def test_a_photograph_and_its_overlay_keep_the_aspect_ratio_above_the_caption(shape, extent):
    _, axes = style.canvas(3, 1)
    photographs.photo(axes, np.zeros(shape, np.uint8), 2, 0, ["caption"])
    photographs.overlay(axes, np.ones(shape[:2]), 2, 0, scale=1)
    photographs.overlay(axes, np.ones((2, 2)), 2, 0, scale=1, shape=shape[:2])
    for image in axes.images:
        np.testing.assert_allclose(image.get_extent(), extent)
    frame: Any = axes.patches[0]
    left, right, bottom, top = extent
    assert frame.get_bbox().bounds == pytest.approx((left, top, right - left, bottom - top))
