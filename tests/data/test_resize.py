import numpy as np
import pytest
from PIL import Image

from simjax.core import InputError
from simjax.data import Dataset, load, resize


@pytest.fixture
def colours(random) -> Dataset:
    images = random.integers(0, 256, (5, 6, 6, 3), np.uint8)
    return Dataset(images, np.arange(5, dtype=np.int32), tuple("abcde"))


def test_nothing_to_do_is_the_same_object(colours):
    assert resize(colours, (6, 6), 3) is colours


def test_one_channel_is_repeated_and_three_become_luminance(colours):
    grey = resize(colours, (6, 6), 1)
    exact = colours.images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.images[..., 0] - exact).max() <= 0.51
    assert np.array_equal(resize(grey, (6, 6), 3).images, np.repeat(grey.images, 3, axis=3))


def test_constant_images_stay_constant_and_labels_stay():
    flat = Dataset(np.full((2, 8, 8, 1), 77, np.uint8), np.array([1, 0], np.int32), ("a", "b"))
    large = resize(flat, (13, 11), 3)
    assert large.images.shape == (2, 13, 11, 3)
    assert (large.images == 77).all()
    assert large.labels is flat.labels


def test_another_aspect_ratio_is_padded_unless_it_is_to_be_cropped(colours):
    wide = resize(colours, (6, 10), 3)
    assert np.array_equal(wide.images[:, :, 2:8], colours.images)
    assert (wide.images[:, :, :2] == colours.images[:, :, :1]).all()
    assert np.array_equal(resize(wide, (6, 6), 3, "crop").images, colours.images)


def test_resampling_is_pillows_antialiased_bicubic():
    digits = load("digits", "test")
    for size in (4, 28):
        found = resize(digits, (size, size), 1).images
        for before, after in zip(digits.images[:20, ..., 0], found[:20, ..., 0], strict=True):
            expected = Image.fromarray(before).resize((size, size), Image.Resampling.BICUBIC)
            assert np.array_equal(after, np.asarray(expected))


@pytest.mark.parametrize(("size", "channels"), [((0, 4), 1), ((4, 4), 2), ((4, 4), 0)])
def test_impossible_formats(colours, size, channels):
    with pytest.raises(InputError, match="expected"):
        resize(colours, size, channels)
