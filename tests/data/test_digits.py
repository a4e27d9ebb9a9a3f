import numpy as np
from sklearn.datasets import load_digits as published

from simjax.data import load


def test_the_split_is_the_stated_one():
    train, test, whole = (load("digits", split) for split in ("train", "test", "all"))
    assert (len(train.labels), len(test.labels)) == (1347, 450)
    assert np.bincount(train.labels).tolist() == [133, 136, 133, 137, 136, 136, 136, 134, 131, 135]
    assert np.array_equal(whole.images, np.concatenate([train.images, test.images]))
    assert np.array_equal(whole.labels, np.concatenate([train.labels, test.labels]))


def test_values_are_scaled_to_bytes_and_stay_with_their_labels():
    whole = load("digits", "all")
    pixels, target = published(return_X_y=True)
    key = [image.tobytes() for image in whole.images]
    expected = {np.rint(p * 255 / 16).astype(np.uint8).tobytes(): t for p, t in zip(pixels, target, strict=True)}
    assert [expected[k] for k in key] == whole.labels.tolist()
    assert (whole.images.min(), whole.images.max()) == (0, 255)
