import numpy as np

from simjax.data import normalize, statistics


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
    out = normalize(images, mean, std)
    assert (out[..., 0] == 0).all()
    np.testing.assert_allclose(out[..., 1], np.where(images[..., 1] > 0, 1, -1), rtol=1e-6)


def test_normalised_pixels_have_mean_0_and_deviation_1_in_each_channel(random):
    images = random.integers(0, 256, (13, 7, 5, 3), np.uint8)
    out = np.asarray(normalize(images, *statistics(images)))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-5)
