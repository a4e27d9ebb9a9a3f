from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import Augmentation, _augment, augment, default_augmentation, normalize, statistics

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(1, 2, (7, 6, 5, 3)).astype(np.float32)
EVERYTHING = Augmentation(shift=0.3, rotation=30.0, scale=0.2, flip=True, cutout=0.2)
cut_out = jax.jit(_augment.cut_out, static_argnums=2)
jit_affine = jax.jit(_augment.affine)


def affine(images: Any, angle: float = 0.0, factor: float = 1.0, shift: Any = (0.0, 0.0)) -> np.ndarray:
    """Apply an affine map, with one shift for all images or one for each."""
    n = len(images)
    arrays = np.full(n, angle), np.full(n, factor), np.broadcast_to(shift, (n, 2))
    return np.asarray(jit_affine(images, *(np.asarray(array, np.float32) for array in arrays)))


def augmented(images: Any, augmentation: Augmentation, seed: int = 0) -> np.ndarray:
    return np.asarray(augment(jax.random.key(seed), images, augmentation))


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """np.roll with zeros instead of wrapped pixels."""
    out = np.zeros_like(image)
    h, w, _ = image.shape
    out[max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = image[
        max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
    ]
    return out


SHIFTS = [(0, 0), (1, 0), (0, 1), (-2, 1), (2, -2), (-1, -1), (2, 2)]


def test_shifts_by_whole_pixels_are_exact():
    expected = np.stack([shifted(image, *by) for image, by in zip(IMAGES, SHIFTS, strict=True)])
    np.testing.assert_array_equal(affine(IMAGES, shift=SHIFTS), expected)


def test_a_shift_by_half_a_pixel_is_the_mean_of_two_pixels():
    out = affine(IMAGES, shift=(0, 0.5))
    np.testing.assert_allclose(out[:, :, 1:], (IMAGES[:, :, 1:] + IMAGES[:, :, :-1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(out[:, :, 0], IMAGES[:, :, 0] / 2, rtol=1e-6)


def test_rotations_by_quarters_equal_rot90(random):
    square = random.uniform(0, 1, (3, 5, 5, 2)).astype(np.float32)
    for quarters in (-1, 1, 2):
        expected = np.rot90(square, quarters, axes=(1, 2))
        np.testing.assert_allclose(affine(square, angle=quarters * np.pi / 2), expected, atol=1e-5)


def test_scaling_is_about_the_centre():
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 4, 6] = 1  # two to the right of the centre
    out = affine(image, factor=2.0)
    assert np.unravel_index(out.argmax(), out.shape)[1:3] == (4, 8)
    np.testing.assert_allclose(out[0, 3:6, 8, 0], [0.5, 1, 0.5])


def test_pixels_from_outside_the_image_are_zero():
    assert (affine(IMAGES, shift=(100.0, 100.0)) == 0).all()


def test_an_empty_augmentation_changes_nothing():
    assert (augmented(IMAGES, Augmentation()) == IMAGES).all()


def test_random_shifts_are_whole_uniform_and_within_the_limit():
    images = np.zeros((4000, 8, 8, 1), np.float32)
    images[:, 4, 4] = 1
    out = augmented(images, Augmentation(shift=1 / 4))
    assert (np.sort(out.reshape(4000, -1))[:, -2:] == [0, 1]).all()
    _, rows, columns, _ = np.nonzero(out)
    share = np.bincount(8 * rows + columns, minlength=64).reshape(8, 8) / 4000
    np.testing.assert_allclose(share[2:7, 2:7], 1 / 25, atol=0.015)
    assert share[2:7, 2:7].sum() == pytest.approx(1)


def test_half_of_the_images_are_flipped_left_to_right(random):
    images = random.uniform(0, 1, (1000, 3, 4, 1)).astype(np.float32)
    out = augmented(images, Augmentation(flip=True))
    unchanged = (out == images).all((1, 2, 3))
    flipped = (out == images[:, :, ::-1]).all((1, 2, 3))
    assert (unchanged ^ flipped).all()
    assert 0.45 < unchanged.mean() < 0.55


def test_cutout_is_a_square_of_the_given_side():
    images = np.ones((500, 10, 10, 2), np.float32)
    assert (np.asarray(cut_out(images[:1], np.array([[5.0, 2.0]], np.float32), 0.4))[0, :, :, 1] == 0).sum() == 16
    removed = (augmented(images, Augmentation(cutout=0.4)) == 0).sum((1, 2))
    assert (removed[:, 0] == removed[:, 1]).all()
    assert (removed.min(), removed.max()) == (4, 16)  # a quarter of it at a corner


def test_rotation_and_scale_stay_within_their_ranges():
    # The angle and the distance of one pixel, at distance 10 from the centre, show the rotation and the scale.
    images = np.zeros((500, 31, 31, 1), np.float32)
    images[:, 15, 25] = 1
    out = augmented(images, Augmentation(rotation=20.0, scale=0.2))[..., 0]
    grid = np.arange(31) - 15
    down = (out * grid[None, :, None]).sum((1, 2)) / out.sum((1, 2))
    right = (out * grid[None, None, :]).sum((1, 2)) / out.sum((1, 2))
    angle, distance = np.rad2deg(np.arctan2(-down, right)), np.hypot(down, right)
    assert 18 < angle.max() < 21
    assert -21 < angle.min() < -18
    assert 7.7 < distance.min() < 8.4
    assert 11.6 < distance.max() < 12.3


def test_changes_depend_on_the_key_and_differ_between_images():
    same = np.repeat(IMAGES[:1], 7, axis=0)
    out = augmented(same, EVERYTHING)
    assert (out == augmented(same, EVERYTHING)).all()
    assert not (out == augmented(same, EVERYTHING, seed=1)).all()
    assert not (out[0] == out[1]).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_the_dtype_is_preserved(dtype):
    augmentation = Augmentation(shift=0.1, rotation=5.0, cutout=0.2)
    out = augmented(IMAGES.astype(dtype), augmentation)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.astype(np.float32), augmented(IMAGES, augmentation), atol=0.03)


def test_uint8_images_are_an_error():
    with pytest.raises(TypeError, match="floating-point type, got uint8"):
        augment(KEY, IMAGES.astype(np.uint8), Augmentation(flip=True))


def test_default_augmentations():
    assert not default_augmentation("mnist").flip
    assert not default_augmentation("digits").flip
    assert default_augmentation("tfds:cifar10") == Augmentation(shift=0.125, flip=True)
    assert default_augmentation("folder:/some/where") == default_augmentation("mnist+cifar10")
    assert default_augmentation("folder:/some/where") == Augmentation(shift=1 / 16)


@pytest.mark.parametrize("wrong", [{"shift": -0.1}, {"rotation": 200.0}, {"scale": 1.0}, {"cutout": 1.5}])
def test_values_out_of_range_are_errors(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_statistics_equal_those_in_float64(random):
    images = random.integers(0, 256, (5, 7, 11, 3), np.uint8)
    mean, std = statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-6)


def test_statistics_of_many_images_do_not_overflow():
    images = np.full((3000, 32, 32, 1), 255, np.uint8)
    images[1500:] = 253
    mean, std = statistics(images)
    np.testing.assert_allclose([mean[0], std[0]], [254 / 255, 1 / 255], rtol=1e-5)


def test_a_constant_channel_has_deviation_one():
    images = np.zeros((4, 3, 3, 2), np.uint8)
    images[:2, ..., 1] = 255
    mean, std = statistics(images)
    assert (mean.tolist(), std.tolist()) == ([0, 0.5], [1, 0.5])
    out = np.asarray(normalize(images, mean, std))
    assert (out[..., 0] == 0).all()
    np.testing.assert_allclose(out[..., 1], np.where(images[..., 1] > 0, 1, -1), rtol=1e-6)


def test_normalised_pixels_have_mean_0_and_deviation_1_in_each_channel(random):
    images = random.integers(0, 256, (13, 7, 5, 3), np.uint8)
    out = np.asarray(normalize(images, *statistics(images)))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-5)
