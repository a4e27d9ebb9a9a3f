"""Corruptions are compared with SciPy and loops; a shift, a rotation and a square are found in the images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from simjax.core import InputError
from simjax.study import CORRUPTIONS, corrupt
from tests.slow import mostly_slow

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 12, 9, 2)).astype(np.float32)


def corrupted(name: str, strength: Any, images: Any = IMAGES, key: Any = KEY) -> np.ndarray:
    return np.asarray(corrupt(key, images, name, strength))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_strength_0_is_the_identity_and_strengths_increase(name):
    np.testing.assert_array_equal(corrupted(name, 0), IMAGES)
    smooth = ndimage.gaussian_filter(IMAGES, (0, 2, 2, 0))  # close pixels are similar, as in photographs
    change = [np.abs(corrupted(name, strength, smooth) - smooth).mean() for strength in range(6)]
    assert change[0] == 0
    assert (np.diff(change) > 0).all()
    assert change[-1] > 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_stay_in_range_and_differ_by_image_and_key(name):
    same = np.repeat(IMAGES[:1], 5, axis=0)
    found = corrupted(name, 4, same)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 255
    np.testing.assert_array_equal(found, corrupted(name, 4, same))
    if name != "blur":
        assert not (found == found[:1]).all()
        assert not (found == corrupted(name, 4, same, jax.random.key(1))).all()


def test_noise_is_normal_with_the_deviation_of_the_table():
    noise = (corrupted("noise", 2, np.full_like(IMAGES, 127.5)) - 127.5) / 255
    assert noise.std() == pytest.approx(0.1, rel=0.08)  # 5 standard errors from 1,080 pixels
    assert noise.mean() == pytest.approx(0, abs=0.015)


def test_blur_is_a_mean_with_gaussian_weights_of_the_pixels_inside():
    found, deviation = corrupted("blur", 5), 0.1 * 9
    for row, column in ((0, 0), (4, 8), (6, 5)):
        rows, columns = (np.exp(-((np.arange(n) - i) ** 2) / (2 * deviation**2)) for n, i in ((12, row), (9, column)))
        weights = np.outer(rows, columns) / np.outer(rows, columns).sum()
        expected = np.einsum("hw,bhwc->bc", weights, IMAGES)
        np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-4)
    far_from_edges = ndimage.gaussian_filter(IMAGES, (0, deviation, deviation, 0), truncate=5)
    np.testing.assert_allclose(found[:, 6, 4], far_from_edges[:, 6, 4], rtol=1e-3)


@pytest.mark.parametrize(("h", "w"), mostly_slow([(8, 8), (28, 28), (32, 24)], (32, 24)))
def test_a_shift_has_the_length_of_the_table_in_all_directions(h, w):
    images = np.zeros((400, h, w, 1), np.float32)
    images[:, h // 2, w // 2] = 255
    found = corrupted("shift", 4, images)[..., 0] / 255
    down = (found * (np.arange(h)[:, None] - h // 2)).sum(axis=(1, 2)) / h
    right = (found * (np.arange(w) - w // 2)).sum(axis=(1, 2)) / w
    np.testing.assert_allclose(np.hypot(down, right), 0.2, rtol=1e-4)
    assert np.hypot(down.mean(), right.mean()) < 0.03


def test_a_rotation_is_by_the_angle_of_the_table_in_both_directions():
    images = np.zeros((40, 31, 31, 1), np.float32)
    images[:, 15, 27] = 255  # at distance 12 to the right of the centre
    found, grid = corrupted("rotation", 3, images)[..., 0], np.arange(31) - 15
    angle = np.arctan2(-(found * grid[:, None]).sum(axis=(1, 2)), (found * grid).sum(axis=(1, 2)))
    np.testing.assert_allclose(np.abs(np.rad2deg(angle)), 30, atol=1)
    assert 10 < np.sum(angle > 0) < 30


@pytest.mark.parametrize(("size", "side"), mostly_slow([(8, 4), (28, 14), (32, 16)], (28, 14)))
def test_occlusion_is_a_square_anywhere_within_the_image(size, side):
    found = corrupted("occlusion", 5, np.ones((300, size, size, 1), np.float32))[..., 0]
    black = found == 0
    rows, columns = black.any(axis=2).sum(axis=1), black.any(axis=1).sum(axis=1)
    assert set(rows) == set(columns) == {side}
    assert (black.sum(axis=(1, 2)) == side**2).all()
    assert black.any(axis=(0, 1)).all()
    assert black.any(axis=(0, 2)).all()


@pytest.mark.parametrize("name", mostly_slow(CORRUPTIONS, "blur"))
def test_bfloat16_images_stay_bfloat16(name):
    found = corrupt(KEY, jnp.asarray(IMAGES, jnp.bfloat16), name, 1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), corrupted(name, 1), atol=4)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(InputError, match="^unknown name 'rotate' .*did you mean rotation"):
        corrupt(KEY, IMAGES, "rotate", 1)
    for strength in (6, -1, 0.5):
        with pytest.raises(InputError, match="^strength: expected an integer from 0 to 5, got"):
            corrupted("noise", strength)
    with pytest.raises(InputError, match="^images: expected \\[b, h, w, c\\], got shape"):
        corrupt(KEY, IMAGES[0], "noise", 1)
    with pytest.raises(TypeError, match="^images: expected a floating-point type, got uint8"):
        corrupt(KEY, IMAGES.astype(np.uint8), "noise", 1)
