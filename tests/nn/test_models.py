import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from simjax import nn
from simjax.core import InputError
from tests.slow import mostly_slow

MODELS = {
    "cnn": partial(nn.SiameseCNN, widths=(4, 8)),
    "vit": partial(nn.VisionTransformer, width=16, depth=2),
    "dnn": partial(nn.DenseNetwork, widths=(32,)),
    "logistic": nn.IdentityNetwork,
}


@nnx.jit
def embed(model, images):
    return model(images)


@pytest.mark.parametrize("name", mostly_slow(MODELS, "vit"))
@pytest.mark.parametrize("shape", mostly_slow([((8, 8, 1),), ((9, 13, 3),), ((64, 64, 3),)], ((9, 13, 3),)), ids=str)
def test_images_of_any_size_become_embeddings(random, name, shape):
    model = MODELS[name](shape, rngs=nnx.Rngs(0))
    embeddings = np.asarray(embed(model, random.normal(size=(3, *shape)).astype(np.float32)))
    assert embeddings.shape == (3, math.prod(shape) if name == "logistic" else 64)
    assert np.std(embeddings, axis=0).min() > 1e-3  # every feature depends on the image
    assert np.isfinite(embeddings).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_evaluation_is_independent_of_the_batch(random, name):
    model = nnx.view(MODELS[name]((12, 12, 1), rngs=nnx.Rngs(0)), use_running_average=True, raise_if_not_found=False)
    images = random.normal(size=(5, 12, 12, 1)).astype(np.float32)
    found, expected = jax.jit(lambda images: (model(images)[2], model(images[2:3])[0]))(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_embedding_of_the_identity_is_the_image_row_by_row(random):
    images = random.normal(size=(2, 3, 5, 2)).astype(np.float32)
    network = nn.IdentityNetwork((3, 5, 2), rngs=nnx.Rngs(0))
    embeddings, layers = network(jnp.asarray(images), return_layers=True)
    expected = [[image[i][j][k] for i in range(3) for j in range(5) for k in range(2)] for image in images]
    np.testing.assert_array_equal(embeddings, expected)
    np.testing.assert_array_equal(layers["0.flatten"], expected)
    assert network.embedding_size == 30
    assert nn.count_parameters(network) == 0


def test_the_classic_network_has_the_parameters_of_its_layers():
    model = nn.SiameseCNN((28, 28, 1), variant="classic", rngs=nnx.Rngs(0))
    weights = 9 * 32 + 32 + 9 * 32 * 64 + 64 + 9 * 64 * 128 + 128 + 128 * 64 + 64 + 64 * 2 + 2
    norms = 2 * (32 + 64 + 128 + 64)
    assert nn.count_parameters(model) == weights + norms == 101_634
    assert not any(layer in (jax.nn.relu, jax.nn.gelu) for layer in model.layers.layers)


@pytest.mark.slow
def test_the_classic_network_is_linear(random):
    """Without activations and, before training, without offsets, twice the image has twice the embedding."""
    model = nn.SiameseCNN((28, 28, 1), variant="classic", rngs=nnx.Rngs(0))
    fresh = nnx.view(model, use_running_average=True)
    x = random.normal(size=(1, 28, 28, 1)).astype(np.float32)
    assert embed(fresh, x).shape == (1, 2)
    np.testing.assert_allclose(embed(fresh, 2 * x), 2 * np.asarray(embed(fresh, x)), rtol=1e-4)


@pytest.mark.slow
def test_batch_statistics_follow_the_batches():
    model = nn.SiameseCNN((8, 8, 1), widths=(4,), rngs=nnx.Rngs(0))
    norm: Any = model.layers.layers[1]
    before = np.asarray(norm.mean[...])
    embed(model, np.ones((4, 8, 8, 1), np.float32))
    assert not np.allclose(before, norm.mean[...])


@pytest.mark.parametrize(
    ("pooling", "positions"), mostly_slow([("mean", "sincos"), ("class", "learned")], ("class", "learned"))
)
def test_vision_transformer_returns_its_attention(random, pooling, positions):
    options = {"patch_size": 4, "depth": 2, "width": 16, "pooling": pooling, "positions": positions}
    model = nn.VisionTransformer((9, 10, 3), rngs=nnx.Rngs(0), **options)
    images = random.normal(size=(2, 9, 10, 3)).astype(np.float32)
    (embeddings, weights), alone = jax.jit(lambda x: (model(x, return_attention=True), model(x)))(images)
    tokens = 3 * 3 + (pooling == "class")
    assert model.grid == (3, 3)
    assert weights.shape == (2, 2, 4, tokens, tokens)  # images, blocks, heads
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(embeddings, alone)
    weights = np.asarray(weights)
    expected = weights[..., 0, 1:] if pooling == "class" else weights.mean(axis=-2)
    found = model.attention_to_patches(weights)
    np.testing.assert_allclose(found, expected.reshape(2, 2, 4, 3, 3), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "size", "feature_map"),
    mostly_slow(
        [({"widths": (4, 8)}, (8, 10), (4, 5, 8)), ({"variant": "classic"}, (28, 32), (5, 6, 128))],
        ({"widths": (4, 8)}, (8, 10), (4, 5, 8)),
    ),
    ids=str,
)
def test_a_spatial_network_is_the_embedding_of_its_feature_map(random, options, size, feature_map):
    network = nn.SiameseCNN((*size, 1), rngs=nnx.Rngs(0), **options)
    assert isinstance(network, nn.SpatialNetwork)
    model: Any = nnx.view(network, use_running_average=True)
    images = random.normal(size=(2, *size, 1)).astype(np.float32)
    features, embeddings = jax.jit(lambda x: (model.feature_map(x), model(x)))(images)
    assert features.shape == (2, *feature_map)
    np.testing.assert_allclose(jax.jit(model.embed_feature_map)(features), embeddings, rtol=1e-4, atol=1e-5)
    assert not isinstance(nn.DenseNetwork((8, 8, 1), rngs=nnx.Rngs(0)), nn.SpatialNetwork)


@pytest.mark.slow
def test_positions_distinguish_patches(random):
    images = random.normal(size=(1, 8, 8, 1)).astype(np.float32)
    swapped = np.concatenate([images[:, 4:], images[:, :4]], axis=1)
    for positions in ("learned", "sincos"):
        model = nn.VisionTransformer((8, 8, 1), patch_size=4, positions=positions, rngs=nnx.Rngs(0))
        assert np.abs(np.asarray(embed(model, images)) - np.asarray(embed(model, swapped))).max() > 1e-3


def test_pooling_equals_windows(random):
    x = random.normal(size=(2, 7, 9, 3)).astype(np.float32)
    windows = x[:, :6, :8].reshape(2, 3, 2, 4, 2, 3)
    largest, mean = jax.jit(lambda x: (nn.max_pool(x), nn.average_pool(x)))(x)
    np.testing.assert_array_equal(largest, windows.max((2, 4)))
    np.testing.assert_allclose(mean, windows.mean((2, 4)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_gradient_of_a_maximum_goes_to_the_first_of_the_largest():
    x = jnp.float32([[1, 3, 2, 2, 9], [3, 0, 2, 2, 9], [9, 9, 9, 9, 9]])[None, :, :, None]
    gradient = jax.grad(lambda x: jnp.sum(nn.max_pool(x) * jnp.float32([5, 7]).reshape(1, 1, 2, 1)))(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 5, 7, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    with jax.enable_x64(True):
        smooth = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
        check_grads(jax.jit(nn.max_pool), (smooth,), order=2, modes=["fwd", "rev"])


def test_heads(random):
    embeddings = random.normal(size=(5, 7)).astype(np.float32)
    head = nn.CosinePrototypes(7, 3, scale=10.0, rngs=nnx.Rngs(0))
    linear = nn.LinearHead(7, 3, rngs=nnx.Rngs(0))
    found, found_linear = jax.jit(lambda x: (head(x), linear(x)))(embeddings)
    prototypes, kernel = (np.asarray(a[...]) for a in (head.prototypes, linear.dense.kernel))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(found, 10 * unit @ prototypes.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found_linear, embeddings @ kernel, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda r: nn.SiameseCNN((27, 28, 1), variant="classic", rngs=r),
            "too small for the classic cnn, .* 28x28",
        ),
        (
            lambda r: nn.SiameseCNN((7, 8, 1), rngs=r),
            "images of 7x8 are too small for the modern cnn, .* 8x8",
        ),
        (lambda r: nn.SiameseCNN((8, 8, 1), variant="classical", rngs=r), "did you mean classic"),
        (
            lambda r: nn.VisionTransformer((8, 8, 1), heads=3, rngs=r),
            "^heads: .* divisor of the width 64, got 3",
        ),
        (
            lambda r: nn.VisionTransformer((8, 8, 1), patch_size=9, rngs=r),
            "^patch_size: .* 8x8 images, got 9",
        ),
        (lambda r: nn.VisionTransformer((8, 8, 1), positions="sin", rngs=r), "did you mean sincos"),
        (lambda r: nn.VisionTransformer((8, 8, 1), pooling="max", rngs=r), "valid: mean, class"),
        (
            lambda r: nn.IdentityNetwork((8, 7, 3), embedding_size=64, rngs=r),
            "^embedding_size: expected 168, the numbers of an image of 8 x 7 x 3, got 64$",
        ),
        (lambda r: nn.IdentityNetwork((8, 7, 3), measure="dott", rngs=r), "did you mean dot"),
        (
            lambda r: nn.VisionTransformer((8, 8, 1), width=6, heads=2, rngs=r),
            "^width: .* multiple of 4 for sincos",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make(nnx.Rngs(0))
