"""Pictures of a page: heat maps on images, pictures as data URIs, the images of a map."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from simjax.report import _photographs as photographs


def decoded(source: str) -> Image.Image:
    kind, _, data = source.partition(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{(picture.format or '').lower()}"
    return picture


def test_positive_values_are_orange_negative_ones_blue_and_the_opacity_is_on_the_given_scale():
    image = np.full((1, 4, 1), 100, np.uint8)
    drawn = photographs.blend(image, np.array([[2.0, -1.0, 0.0, 16.0]]), scale=8)[16, 16::32].astype(int)
    expected = [
        0.8 * 100 + 0.2 * photographs.ORANGE,  # 0.8 of 2 / 8
        0.9 * 100 + 0.1 * photographs.BLUE,
        [100] * 3,
        0.2 * 100 + 0.8 * photographs.ORANGE,  # larger values have the colour of the largest
    ]
    np.testing.assert_allclose(drawn, expected, atol=4)  # colours of neighbours are interpolated


def test_a_map_of_zeros_changes_nothing():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    drawn = photographs.blend(image, np.zeros((1, 1)), scale=0)
    np.testing.assert_array_equal(drawn[::64, ::64], np.repeat(image, 3, axis=2))


def test_a_photograph_under_a_map_is_grey_so_that_only_the_map_has_a_colour():
    orange = np.broadcast_to(photographs.ORANGE.astype(np.uint8), (2, 2, 3))
    drawn = photographs.blend(orange, np.zeros((1, 1)), scale=1)
    assert np.ptp(drawn, axis=2).max() == 0
    assert drawn.max() == round(0.299 * 230 + 0.587 * 159)


def test_the_grid_of_the_patches_is_drawn_between_them():
    drawn = photographs.blend(np.zeros((4, 4, 1), np.uint8), np.zeros((2, 2)), scale=1, patch_size=2)
    is_line = drawn[..., 0] > 0
    assert np.flatnonzero(is_line.all(axis=1)).tolist() == np.flatnonzero(is_line.all(axis=0)).tolist() == [64]


@pytest.mark.parametrize("shape", [(3, 6, 1), (6, 2, 3)])
def test_heat_maps_keep_the_aspect_ratio(shape):
    height, width, _ = photographs.blend(np.zeros(shape, np.uint8), np.ones((2, 2)), scale=1).shape
    assert height / width == shape[0] / shape[1]
    assert max(height, width) >= 128


def test_small_images_are_stored_without_loss_and_large_ones_are_shrunk(random):
    small = random.integers(0, 255, (28, 28, 1)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(decoded(photographs.source(small))), small[..., 0])
    large = decoded(photographs.source(np.zeros((300, 600, 4), np.uint8)))
    assert (large.format, large.size) == ("WEBP", (photographs.LARGEST, photographs.LARGEST // 2))


def test_images_of_points_are_in_the_grid_in_their_order():
    images = np.full((5, 16, 32, 3), 0, np.uint8)
    images[:] = 50 * np.arange(5, dtype=np.uint8)[:, None, None, None]
    points = photographs.points_of(images, list("abcde"), [4, 0, 1, 2, 3])
    grid = np.asarray(decoded(points.sprite)).astype(int)
    assert (points.columns, points.size, grid.shape) == (3, (32, 16), (32, 96, 3))
    np.testing.assert_allclose(grid[8::16, 16::32, 0], [[0, 50, 100], [150, 200, 0]], atol=3)


def test_weights_of_zero_are_grey_and_the_largest_are_white():
    picture = photographs.signed_picture(np.array([[[-2.0], [0.0], [1.0], [2.0]]]))
    assert picture.ravel().tolist() == [0, 128, 191, 255]
