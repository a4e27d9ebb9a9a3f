"""Deletion and insertion curves are compared with explicit loops."""

import numpy as np
import pytest

from simjax import explain
from simjax.core import InputError
from tests.explain.conftest import MEAN
from tests.explain.test_heat_maps import patches_of


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_curves_are_loops_over_the_sorted_patches(linear, pairs, measure, random):
    encoder, sign = linear(measure), 1 if measure == "cosine" else -1
    maps = random.normal(size=(3, 9, 10)).astype(np.float32)
    target = explain.similarity_to(encoder, pairs[1])
    found = explain.faithfulness(encoder, pairs[0], target, maps, patch_size=4, steps=3)
    np.testing.assert_allclose(found.share, [0, 1 / 3, 2 / 3, 1])
    patches = list(patches_of(9, 10, 4))
    for i, (image, other) in enumerate(zip(*pairs, strict=True)):
        order = sorted(patches, key=lambda patch: -maps[i][patch].mean())
        filled = np.broadcast_to(np.round(255 * np.array(MEAN)).astype(np.uint8), image.shape)
        for step, count in enumerate([0, 3, 6, 9]):
            deleted, inserted = image.copy(), filled.copy()
            for patch in order[:count]:
                deleted[patch], inserted[patch] = filled[patch], image[patch]
            np.testing.assert_allclose(found.deletion[i, step], sign * encoder.similarity(deleted, other), atol=1e-5)
            np.testing.assert_allclose(found.insertion[i, step], sign * encoder.similarity(inserted, other), atol=1e-5)
    expected = (found.deletion[:, :-1] + found.deletion[:, 1:]).mean(axis=1) / 2
    np.testing.assert_allclose(found.deletion_area, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.deletion[:, -1], found.insertion[:, 0])


def test_curves_of_a_class_are_its_probabilities(classifier, pairs, random):
    maps, target = random.normal(size=(3, 9, 10)), explain.class_score(classifier, ["cat", "horse", "dog"])
    found = explain.faithfulness(classifier, pairs[0], target, maps, patch_size=4, steps=1)
    mean = np.broadcast_to(np.round(255 * np.array(MEAN)).astype(np.uint8), pairs[0].shape)
    for i, k in enumerate([0, 2, 1]):
        whole, nothing = (classifier.classify(images[i])[0, k] for images in (pairs[0], mean))
        np.testing.assert_allclose(found.deletion[i], [whole, nothing], atol=1e-6)
        np.testing.assert_allclose(found.insertion[i], [nothing, whole], atol=1e-6)
        assert abs(whole - nothing) > 1e-3


def test_equal_patches_have_a_random_order(linear, pairs):
    maps, target = np.zeros((3, 9, 10), np.float32), explain.similarity_to(linear(), pairs[1])
    first, same, second = (
        explain.faithfulness(linear(), pairs[0], target, maps, patch_size=4, seed=s) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.deletion, same.deletion)
    assert not np.allclose(first.deletion, second.deletion)


def test_a_step_of_less_than_a_patch_is_left_out(linear, pairs):
    maps, target = np.zeros((3, 9, 10), np.float32), explain.similarity_to(linear(), pairs[1])
    found = explain.faithfulness(linear(), pairs[0], target, maps, patch_size=4, steps=100)
    np.testing.assert_allclose(found.share, np.arange(10) / 9)


@pytest.mark.usefixtures("unchecked")
def test_a_heat_map_of_another_size_or_with_nan_is_refused(linear, pairs):
    target = explain.similarity_to(linear(), pairs[1])
    with pytest.raises(InputError, match=r"heat_maps: expected shape \(3, 9, 10\), got \(3, 8, 8\)"):
        explain.faithfulness(linear(), pairs[0], target, np.zeros((3, 8, 8)))
    for value in (np.nan, np.inf):
        maps = np.zeros((3, 9, 10))
        maps[1, 2, 3] = value
        with pytest.raises(InputError, match="heat_maps: expected finite numbers, got NaN or infinity in map 1"):
            explain.faithfulness(linear(), pairs[0], target, maps)
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        explain.faithfulness(linear(), pairs[0], target, np.zeros((3, 9, 10)), steps=0)
