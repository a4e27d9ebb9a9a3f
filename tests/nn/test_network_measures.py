"""Layers and networks whose units compare inputs with weight vectors by another measure than the dot product."""

from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import nn
from simjax.core import InputError
from simjax.encoder import Encoder, EncoderConfig, Preprocessing, load_encoder
from simjax.explain import grad_cam, similarity_to
from simjax.nn._responses import mean_score, score_deviation
from simjax.train._settings import CNNSettings, from_dict
from tests.slow import mostly_slow

pytestmark = pytest.mark.usefixtures("compile_faster")

OTHERS = nn.NETWORK_MEASURES[1:]
NETWORKS = {
    "cnn": partial(nn.SiameseCNN, widths=(4, 8)),
    "vit": partial(nn.VisionTransformer, width=16, depth=1),
    "dnn": partial(nn.DenseNetwork, widths=(32,)),
}


def score(measure, x, w):
    """Compute the score of one input and one weight vector; gamma starts at 1 / (5 d)."""
    if measure == "cosine":
        norms = np.linalg.norm(x) * np.linalg.norm(w)
        return x @ w / norms if norms else 0.0
    if measure == "manhattan":
        return -np.abs(x - w).sum()
    square = ((x - w) ** 2).sum()
    return -square if measure == "squared_euclidean" else np.exp(-square / (5 * len(x)))


def standardized(measure, scores, weights):
    """Standardize the scores [..., k] of inputs and initial weight vectors [d, k]."""
    d = len(weights)
    mean = mean_score(
        measure, jnp.asarray(weights, jnp.float32), jnp.float32(1 / (5 * d)) if measure == "rbf" else None
    )
    return (np.asarray(scores) - np.asarray(mean)) / score_deviation(measure, d, 2.0)


def test_moments_are_those_of_random_vectors(random):
    d = 50
    few = random.normal(size=(3, d)) * np.array([[0.1], [1.0], [3.0]])
    inputs = random.normal(size=(20_000, d))
    for measure in OTHERS:
        gamma = 1 / (5 * d)
        found = mean_score(measure, jnp.asarray(few.T, jnp.float32), jnp.float32(gamma) if measure == "rbf" else None)
        for w, mean in zip(few, found, strict=True):
            squares = ((inputs - w) ** 2).sum(1)
            values = {
                "cosine": inputs @ w / np.linalg.norm(inputs, axis=1) / np.linalg.norm(w),
                "squared_euclidean": -squares,
                "rbf": np.exp(-gamma * squares),
                "manhattan": -np.abs(inputs - w).sum(1),
            }[measure]
            assert values.mean() == pytest.approx(float(mean), abs=0.03 * values.std()), measure
    x, w = random.normal(size=(2, 20_000, d))
    w *= 2 * np.sqrt(d) / np.linalg.norm(w, axis=1, keepdims=True)
    squares = ((x - w) ** 2).sum(1)
    samples = {
        "cosine": (x * w).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(w, axis=1),
        "squared_euclidean": -squares,
        "rbf": np.exp(-squares / (5 * d)),
        "manhattan": -np.abs(x - w).sum(1),
    }
    for measure, values in samples.items():
        assert values.std() == pytest.approx(score_deviation(measure, d, 2.0), rel=0.03), measure


def test_a_dense_layer_equals_loops(random):
    layers: dict[str, Any] = {m: nn.Dense(7, 5, measure=m, rngs=nnx.Rngs(0)) for m in OTHERS}
    x = random.normal(size=(2, 3, 7)).astype(np.float32)
    x[1, 1] = 0
    bias = random.normal(size=5).astype(np.float32)
    for layer in layers.values():
        layer.bias[...] = bias
    found = jax.jit(lambda x: {m: (layer(x), layer(x, slice(1, 3))) for m, layer in layers.items()})(x)
    for measure, layer in layers.items():
        weights = np.sqrt(7) * np.float64(layer.kernel[...])
        scores = [[[score(measure, row, w) for w in weights.T] for row in rows] for rows in x.astype(float)]
        expected = standardized(measure, scores, weights) + bias
        every, some = found[measure]
        np.testing.assert_allclose(every, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(some, expected[..., 1:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "padding"), mostly_slow([(3, 1, 1), (3, 2, 1), (2, 1, 0)], (3, 2, 1)))
def test_a_convolution_equals_loops(random, size, stride, padding):
    options = {"size": size, "stride": stride, "padding": padding}
    layers: dict[str, Any] = {m: nn.Convolution(2, 3, measure=m, rngs=nnx.Rngs(0), **options) for m in OTHERS}
    x = random.normal(size=(2, 5, 6, 2)).astype(np.float32)
    x[0, :3, :3] = 0  # a patch of zeros at the padding
    found = jax.jit(lambda x: {m: layer(x) for m, layer in layers.items()})(x)
    d = size * size * 2
    padded = np.pad(np.float64(x), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w = ((n - size) // stride + 1 for n in padded.shape[1:3])
    for measure, layer in layers.items():
        filters = (np.sqrt(d) * np.float64(layer.kernel[...])).reshape(d, 3).T
        scores = np.zeros((2, h, w, 3))
        for b, i, j, k in np.ndindex(scores.shape):
            patch = padded[b, i * stride : i * stride + size, j * stride : j * stride + size]
            scores[b, i, j, k] = score(measure, patch.reshape(-1), filters[k])
        expected = standardized(measure, scores, filters.T)
        np.testing.assert_allclose(found[measure], expected, rtol=1e-4, atol=1e-5)


def test_responses_start_with_mean_0_and_variance_1(random):
    layers = {m: nn.Dense(64, 500, measure=m, rngs=nnx.Rngs(0)) for m in OTHERS}
    x = random.normal(size=(1000, 64)).astype(np.float32)
    for measure, found in jax.jit(lambda x: {m: layer(x) for m, layer in layers.items()})(x).items():
        assert abs(np.mean(found)) < 0.1, measure
        assert abs(np.std(found) - 1) < 0.1, measure


@pytest.mark.parametrize("dtype", mostly_slow([jnp.float32, jnp.bfloat16], jnp.float32))
def test_gradients_are_finite_at_zero_patches_and_at_the_weights(dtype):
    """Also the squared distance is never negative: no response exceeds the one of an input that equals its weights."""
    layers = {m: nnx.split(nn.Convolution(1, 2, measure=m, rngs=nnx.Rngs(0))) for m in OTHERS}
    params: dict[str, Any] = {m: jax.tree.map(lambda a: a.astype(dtype), p) for m, (_, p) in layers.items()}
    for p in params.values():
        p["kernel"][...] = p["kernel"][...].at[..., 1].set(0)  # a filter of zeros
    x = np.zeros((3, 5, 5, 1), np.float32)
    x[0, :3, :3] = 3 * params["cosine"]["kernel"][:, :, :, 0]  # the weights of the first filter
    x[1, 2, 2] = 1e-20

    @jax.jit
    def every(params, x):
        def responses(params, x, graph):
            return nnx.merge(graph, params)(x)

        def total(*arguments):
            return jnp.sum(jnp.sin(responses(*arguments).astype(jnp.float32)))

        cases = {m: (params[m], x.astype(dtype), graph) for m, (graph, _) in layers.items()}
        return {m: (responses(*case), jax.grad(total, (0, 1))(*case)) for m, case in cases.items()}

    for measure, (found, gradients) in every(params, x).items():
        assert found.dtype == dtype
        for leaf in jax.tree.leaves((found, gradients)):
            assert np.isfinite(np.float32(leaf)).all(), measure
        filters = 3 * np.asarray(params[measure]["kernel"][...], np.float32).reshape(9, 2)
        largest = standardized(measure, {"cosine": 1.0, "rbf": 1.0}.get(measure, 0.0), filters)  # of each filter
        limit = largest * (1 + 4 * float(jnp.finfo(dtype).eps))
        assert (np.float32(found).max(axis=(0, 1, 2)) <= limit).all(), measure
        assert np.asarray(found, np.float32)[0, 1, 1, 0] == pytest.approx(largest[0], rel=0.02), measure


@pytest.mark.slow
@pytest.mark.parametrize("measure", OTHERS)
def test_bfloat16_is_close_to_float32(random, measure):
    layer = nn.Dense(64, 8, measure=measure, rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    x = random.normal(size=(16, 64)).astype(np.float32)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    run = jax.jit(lambda params, x: nnx.merge(graph, params)(x))
    found, expected = run(half, jnp.asarray(x, jnp.bfloat16)), run(params, x)
    np.testing.assert_allclose(np.float32(found), expected, atol=0.05)


@pytest.mark.slow
def test_a_manhattan_convolution_in_blocks_equals_one_image_at_a_time(random):
    layer = nn.Convolution(8, 8, measure="manhattan", rngs=nnx.Rngs(0))
    x = random.normal(size=(13, 40, 40, 8)).astype(np.float32)  # patches of 6 MB: several blocks, one with padding
    found, gradient = jax.jit(lambda x: (layer(x), jax.grad(lambda x: jnp.sum(layer(x) ** 2))(x)))(x)
    one = jax.jit(lambda x: (layer(x), jax.grad(lambda x: jnp.sum(layer(x) ** 2))(x)))
    for i in (0, 12):
        expected = one(x[i : i + 1])
        np.testing.assert_allclose(found[i], expected[0][0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient[i], expected[1][0], rtol=1e-4, atol=1e-4)


@nnx.jit
def embed(network, images):
    return network(images)


@pytest.mark.parametrize("name", mostly_slow(NETWORKS, "dnn"))
def test_dot_is_the_default(random, name):
    x = random.normal(size=(3, 8, 8, 1)).astype(np.float32)
    (plain, state), (named, named_state) = (
        (embed(network, x), nnx.to_flat_state(nnx.state(network)))
        for network in (NETWORKS[name]((8, 8, 1), rngs=nnx.Rngs(0), **options) for options in ({}, {"measure": "dot"}))
    )
    np.testing.assert_array_equal(plain, named)
    assert [path for path, _ in state] == [path for path, _ in named_state]
    assert not any({"response", "temperature", "log_scale"} & set(map(str, path)) for path, _ in state)


@pytest.mark.slow
@pytest.mark.parametrize("measure", OTHERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_all_parameters_of_a_network_are_learned(random, name, measure):
    """All gradients are finite. Those of a bias or a scale are 0 if a norm or a softmax follows, all others are not."""
    network = NETWORKS[name]((8, 8, 1), measure=measure, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    x = jnp.asarray(random.normal(size=(5, 8, 8, 1)), jnp.float32)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.sum(jnp.sin(nnx.merge(graph, p, rest, copy=True)(x))))(params)

    for path, leaf in nnx.to_flat_state(gradient(params)):
        values = np.asarray(leaf[...])
        assert np.isfinite(values).all(), path
        if path[-1] in ("kernel", "log_gamma", "gamma"):
            assert np.abs(values).max() > 1e-7, path


@pytest.mark.slow
@pytest.mark.parametrize("measure", OTHERS)
def test_cross_attention_to_the_tokens_themselves_is_self_attention(random, measure):
    layer = nn.MultiHeadAttention(12, 3, measure=measure, dense_measure=measure, rngs=nnx.Rngs(0))
    x = random.normal(size=(2, 5, 12)).astype(np.float32)
    found, expected = jax.jit(lambda x: (layer(x, x), layer(x)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("measure", OTHERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_attention_and_heat_maps(random, tmp_path, name, measure):
    """An encoder with a measure is the same after saving and loading, and has layers, attention and Grad-CAM."""
    options = {"cnn": {"widths": [4, 8]}, "vit": {"width": 16, "depth": 2}, "dnn": {"widths": [32]}}[name]
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()} | {"measure": measure}
    network = nn.NETWORKS[name]((8, 8, 1), embedding_size=16, rngs=nnx.Rngs(0), **options)
    config = EncoderConfig(name, options, 16, Preprocessing((8, 8, 1), (0.5,), (0.3,)))
    encoder = Encoder([network], config)
    images = random.integers(0, 256, (3, 8, 8, 1), np.uint8)
    encoder.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert loaded.config.options["measure"] == measure
    embeddings = encoder.encode(images)
    np.testing.assert_array_equal(loaded.encode(images), embeddings)
    layers = encoder.encode(images, layers=True)
    np.testing.assert_allclose(list(layers.values())[-1], embeddings, rtol=1e-4, atol=1e-5)
    if name == "cnn":
        target = similarity_to(encoder, images[1:])
        assert np.isfinite(grad_cam(encoder, images[:2], target)).all()
    if name == "vit":
        np.testing.assert_allclose(encoder.attention_weights(images).sum(-1), 1, rtol=1e-4)


def test_the_settings_have_the_measures_of_the_networks():
    annotation = CNNSettings.__dataclass_fields__["measure"].type
    assert get_args(annotation) == nn.NETWORK_MEASURES
    with pytest.raises(InputError, match=r"'vit.measure': unknown value 'cosin' \(did you mean cosine"):
        from_dict({"vit": {"measure": "cosin"}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: nn.SiameseCNN((28, 28, 1), variant="classic", measure="rbf", rngs=r), "^measure: .*classic.*, got"),
        (lambda r: nn.SiameseCNN((8, 8, 1), measure="cosin", rngs=r), "did you mean cosine"),
        (lambda r: nn.VisionTransformer((8, 8, 1), measure="euclidean", rngs=r), "did you mean squared_euclidean"),
        (lambda r: nn.DenseNetwork((8, 8, 1), measure="jaccard", rngs=r), "unknown measure 'jaccard'"),
        (lambda r: nn.Dense(3, 2, measure="jaccard", rngs=r), "unknown measure 'jaccard'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make(nnx.Rngs(0))
