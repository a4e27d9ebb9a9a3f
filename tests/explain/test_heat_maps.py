"""Heat maps are compared with explicit loops, gradients by hand and explicit products of matrices."""

import re
from typing import Any, cast

import jax
import numpy as np
import pytest

from simjax import explain
from simjax.core import InputError
from tests.explain.conftest import MEAN, STD, encoder_of


def patches_of(height, width, size):
    """Yield the rows and columns of each patch, row by row."""
    for top in range(0, height, size):
        for left in range(0, width, size):
            yield slice(top, top + size), slice(left, left + size)


@pytest.mark.parametrize(
    ("measure", "constant_norm"), [("cosine", True), ("cosine", False), ("dot", True), ("euclidean", True)]
)
def test_grad_cam_of_a_linear_network_is_its_gradient_by_hand(linear, pairs, measure, constant_norm):
    encoder = linear(measure)
    network = encoder.networks[0]
    target = explain.similarity_to(encoder, pairs[1], constant_norm=constant_norm)
    found = explain.grad_cam(encoder, pairs[0], target)
    a, b = (np.asarray(encoder.encode(images), np.float64) for images in pairs)
    for i in range(3):
        length, unit = np.linalg.norm(a[i]), b[i] / np.linalg.norm(b[i])
        gradient = {  # of the score with respect to the embedding
            ("cosine", True): unit,  # the constant norm is left out
            ("cosine", False): (unit - (a[i] @ unit) * a[i] / length**2) / length,
            ("dot", True): b[i],
            ("euclidean", True): (b[i] - a[i]) / np.linalg.norm(a[i] - b[i]),
        }[measure, constant_norm]
        np.testing.assert_allclose(found[i], grad_cam_by_hand(network, pairs[0][i], gradient), rtol=1e-4, atol=1e-6)
    assert found.max() > 1e-2


def grad_cam_by_hand(network, image, gradient):
    """Return the map of a `LinearNetwork` from the gradient of the score with respect to the embedding."""
    inputs, features = (image / 255 - np.array(MEAN)) / np.array(STD), np.zeros((3, 2, 4))
    for row, column in np.ndindex(3, 2):
        window = inputs[3 * row : 3 * row + 3, 5 * column : 5 * column + 5]
        features[row, column] = window.mean(axis=(0, 1)) @ np.asarray(network.filters[...])
    weights = np.asarray(network.embed[...]) @ gradient / 6  # the mean over 3 * 2 positions
    return jax.image.resize(np.maximum(features @ weights, 0), (9, 10), "bilinear")


def test_grad_cam_of_a_class_has_the_gradient_of_its_logit(classifier, pairs):
    found = explain.grad_cam(classifier, pairs[0], explain.class_score(classifier, ["dog", "horse", "dog"]))
    kernel = np.asarray(classifier.head.dense.kernel[...])
    for i, k in enumerate([1, 2, 1]):
        expected = grad_cam_by_hand(classifier.networks[0], pairs[0][i], kernel[:, k])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)
        assert found[i].max() > 1e-2


def test_occlusion_of_a_class_is_the_fall_of_its_probability(classifier, pairs):
    found = explain.occlusion(classifier, pairs[0], explain.class_score(classifier, ["dog", "horse", "dog"]))
    for i, k in enumerate([1, 2, 1]):
        for rows, columns in patches_of(9, 10, 2):  # the default, an eighth of the side
            occluded = pairs[0][i].copy()
            occluded[rows, columns] = np.round(255 * np.array(MEAN))
            drop = (classifier.classify(pairs[0][i]) - classifier.classify(occluded))[0, k]
            np.testing.assert_allclose(found[i, rows, columns], drop, atol=1e-6)
    assert found.min() < -1e-4 < 1e-4 < found.max()


def test_grad_cam_of_equal_images_is_not_zero_if_the_norm_is_constant(linear, pairs):
    encoder, images = linear(), pairs[0]
    assert explain.grad_cam(encoder, images, explain.similarity_to(encoder, images)).max() > 1e-2
    full = explain.similarity_to(encoder, images, constant_norm=False)
    np.testing.assert_allclose(explain.grad_cam(encoder, images, full), 0, atol=1e-5)


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_occlusion_is_a_loop_over_patches(linear, pairs, measure, fill):
    from scipy.ndimage import gaussian_filter

    encoder, sign = linear(measure), 1 if measure == "cosine" else -1
    target = explain.similarity_to(encoder, pairs[1])
    found = explain.occlusion(encoder, pairs[0], target, patch_size=4, fill=fill)
    for i, (image, other) in enumerate(zip(*pairs, strict=True)):
        filled = np.broadcast_to(np.round(255 * np.array(MEAN)), image.shape)
        if fill == "blur":
            filled = np.stack([gaussian_filter(image[..., channel], 4) for channel in range(3)], axis=-1)
        for rows, columns in patches_of(9, 10, 4):
            occluded = image.copy()
            occluded[rows, columns] = filled[rows, columns]
            drop = sign * float((encoder.similarity(image, other) - encoder.similarity(occluded, other))[0, 0])
            np.testing.assert_allclose(found[i, rows, columns], drop, atol=1e-5)
    assert found.min() < -1e-3 < 1e-3 < found.max()


def test_rollout_is_the_product_of_the_attention_of_all_blocks(transformer, pairs):
    found = explain.attention_rollout(transformer, pairs[0])
    weights = transformer.attention_weights(pairs[0])
    has_class_token = transformer.networks[0].class_token is not None
    tokens = 9 + has_class_token
    assert weights.shape == (3, 2, 2, tokens, tokens)
    for i in range(3):
        product = np.eye(tokens)
        for block in range(2):
            mean = (weights[i, block, 0] + weights[i, block, 1]) / 2
            product = (0.5 * mean + 0.5 * np.eye(tokens)) @ product
        values = product[0, 1:] if has_class_token else product.mean(axis=0)
        for value, (rows, columns) in zip(values, patches_of(9, 10, 4), strict=True):
            np.testing.assert_allclose(found[i, rows, columns], value, rtol=1e-5)


def test_attention_by_head_is_that_of_the_encoder_on_the_grid_of_patches(transformer, pairs):
    found = explain.attention_by_head(transformer, pairs[0])
    assert found.shape == (3, 2, 2, 9, 10)  # images, blocks, heads
    grid = transformer.attention(pairs[0])  # of the last block
    for (row, column), (rows, columns) in zip(np.ndindex(3, 3), patches_of(9, 10, 4), strict=True):
        difference = found[:, -1, :, rows, columns] - grid[:, :, row, column, None, None]
        np.testing.assert_allclose(difference, 0, atol=1e-7)


def test_all_methods_that_an_encoder_supports_are_computed(linear, pairs):
    target = explain.similarity_to(linear(), pairs[1])
    assert list(explain.heat_maps(linear(), pairs[0], target)) == ["grad_cam", "occlusion"]
    ensemble = encoder_of(*linear().networks * 2)
    found = explain.heat_maps(ensemble, pairs[0], explain.similarity_to(ensemble, pairs[1]))
    assert list(found) == ["occlusion"]
    np.testing.assert_allclose(found["occlusion"], explain.occlusion(linear(), pairs[0], target), atol=1e-5)


@pytest.mark.slow
def test_a_transformer_has_rollout_and_is_occluded_by_its_patches(transformer, pairs):
    target = explain.similarity_to(transformer, pairs[1])
    maps = explain.heat_maps(transformer, pairs[0], target)
    assert list(maps) == ["attention_rollout", "occlusion"]
    np.testing.assert_array_equal(maps["occlusion"], explain.occlusion(transformer, pairs[0], target, patch_size=4))


def test_random_regions_differ_between_patches_images_and_seeds(linear, pairs):
    found = explain.random_regions(linear(), pairs[0], patch_size=4)
    values = np.stack([found[:, rows, columns].max(axis=(1, 2)) for rows, columns in patches_of(9, 10, 4)])
    assert len(np.unique(values)) == values.size == 27
    assert not np.array_equal(found, explain.random_regions(linear(), pairs[0], patch_size=4, seed=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, v, a, t: explain.grad_cam(v, a, t), "grad_cam: expected a network with a spatial feature map"),
        (lambda e, v, a, t: explain.grad_cam(encoder_of(*e.networks * 2), a, t), "got an ensemble"),
        (lambda e, v, a, t: explain.attention_rollout(e, a), "attention: expected a vision transformer, got test"),
        (lambda e, v, a, t: explain.attention_rollout(encoder_of(*v.networks * 2), a), "got an ensemble"),
        (lambda e, v, a, t: explain.occlusion(e, a[:2], t), "target: expected one for each of 2 images, got 3"),
        (lambda e, v, a, t: explain.occlusion(e, a, t, patch_size=10), "patch_size: expected 1 to 9 for 9x10 images"),
        (lambda e, v, a, t: explain.occlusion(e, a, t, fill=cast(Any, "noise")), "unknown fill 'noise'"),
        (lambda e, v, a, t: explain.heat_maps(e, a, t, ["gradcam"]), "did you mean grad_cam?"),
        (lambda e, v, a, t: explain.class_score(e, ["dog"]), "saved without a classifier (objective not known)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_argument_is_named(linear, transformer, pairs, call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(linear(), transformer, pairs[0], explain.similarity_to(linear(), pairs[1]))


def test_an_unknown_class_is_an_error_with_the_nearest_one(classifier):
    with pytest.raises(InputError, match=r"unknown class 'hors' \(did you mean horse\? valid: cat, dog, horse\)"):
        explain.class_score(classifier, ["hors"])
