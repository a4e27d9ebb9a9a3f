"""Overlays of heat maps: colours, and one scale for both images."""

import numpy as np
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
