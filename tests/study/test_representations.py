"""Similarity of layers is compared with the formula of Song et al. 2012 in loops and with the functions for a pair."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from simjax import data, evaluate, load_encoder
from simjax.core import InputError
from simjax.similarity import centered_kernel_alignment
from simjax.study import layer_similarity, shuffle_images


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Equation 5 of Song et al. (2012), for Gram matrices whose diagonal is 0."""
    n, one = len(k), np.ones(len(k))
    means = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return float((np.trace(k @ m) + means) / (n * (n - 3)))


def gram(features: np.ndarray, index: str) -> np.ndarray:
    rows = features.reshape(len(features), -1).astype(np.float64)
    if index == "linear":
        kernel = rows @ rows.T
    else:
        distances = pdist(rows)
        width = 0.8 * np.sort(distances)[(len(distances) - 1) // 2]
        kernel = np.exp(-(squareform(distances) ** 2) / (2 * width**2))
    return kernel - np.diag(np.diag(kernel))


def reference(x: np.ndarray, y: np.ndarray, index: str, batches: int = 1) -> float:
    grams = [[gram(a, index) for a in pair] for pair in zip(*(np.array_split(a, batches) for a in (x, y)), strict=True)]
    xy, xx, yy = (np.mean([hsic(g[i], g[j]) for g in grams]) for i, j in ((0, 1), (0, 0), (1, 1)))
    return float(xy / np.sqrt(xx * yy))


def layers(random: np.random.Generator, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return related layers of a spatial and of a dense network."""
    x = random.normal(size=(n, 2, 3, 2)) + 3
    mixed = x.reshape(n, -1) @ random.normal(size=(12, 5))
    a = {"convolution": x, "relu": np.maximum(x - 3, 0)}
    b = {"dense": mixed, "tanh": np.tanh(mixed), "noise": random.normal(size=(n, 7))}
    a, b = ({name: f.astype(np.float32) for name, f in both.items()} for both in (a, b))
    return a, b


@pytest.mark.parametrize(("index", "batch_size", "batches"), [("linear", 1000, 1), ("rbf", 1000, 1), ("rbf", 19, 2)])
def test_debiased_cka_is_the_formula_of_song(random, index, batch_size, batches):
    a, b = layers(random, 37)
    found = layer_similarity(a, b, index=index, batch_size=batch_size)
    expected = [[reference(x, y, index, batches) for y in b.values()] for x in a.values()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["linear", "rbf"])
def test_the_alignment_of_a_pair_is_an_entry(random, index):
    a, b = layers(random, 37)
    x, y = a["relu"].reshape(37, -1), b["tanh"]
    expected = centered_kernel_alignment(x, y, kernel=index, unbiased=True)
    assert layer_similarity(a, b, index=index)[1, 1] == pytest.approx(float(expected), abs=1e-6)


def test_mutual_knn_of_layers_is_that_of_pairs(random):
    x = random.normal(size=(37, 2, 3))
    a, b = {"x": x, "shifted": x + 1}, {"squares": x**2, "noise": random.normal(size=(37, 6))}
    found = layer_similarity(a, b, index="mutual_knn", k=3)
    for i, rows in enumerate(a.values()):
        for j, others in enumerate(b.values()):
            assert found[i, j] == evaluate.mutual_knn(rows.reshape(37, 6), others.reshape(37, 6), k=3).value
    assert found.min() > 0


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    """Layers of a trained CNN, one of each kind."""
    images = data.load("digits", "train").images[:1024]  # batches of the encoder have one size
    outputs = load_encoder("digits-cnn").encode(images, layers=True)
    return {name: outputs[name] for name in list(outputs)[::3]}


@pytest.mark.slow
@pytest.mark.parametrize("index", ["linear", "rbf"])
def test_batches_are_close_to_all_images_of_a_trained_network(digits, index):
    """The median distance of the RBF kernel differs between batches, too."""
    whole = layer_similarity(digits, digits, index=index, batch_size=2000)
    in_batches = layer_similarity(digits, digits, index=index, batch_size=256)
    np.testing.assert_allclose(np.diagonal(whole), 1)
    assert np.ptp(whole) > 0.3
    np.testing.assert_allclose(in_batches, whole, rtol=0, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["linear", "rbf", "mutual_knn"])
def test_shuffled_images_have_no_similarity(digits, index):
    found = layer_similarity(digits, shuffle_images(digits), index=index)
    n = len(digits["0.Convolution"])
    np.testing.assert_allclose(found, 10 / (n - 1) if index == "mutual_knn" else 0, rtol=0, atol=0.02)


def test_all_layers_are_shuffled_alike(random):
    a, _ = layers(random, 11)
    found = shuffle_images(a, seed=3)
    np.testing.assert_allclose(found["relu"], np.maximum(found["convolution"] - 3, 0), atol=1e-6)
    assert sorted(found["convolution"][:, 0, 0, 0]) == sorted(a["convolution"][:, 0, 0, 0])
    assert not np.array_equal(found["relu"], shuffle_images(a, seed=4)["relu"])


@pytest.mark.parametrize("index", ["linear", "rbf"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_a_constant_layer_has_similarity_zero(random, index, value):
    a, _ = layers(random, 11)
    constant = {"constant": np.full((11, 3), value, np.float32)}
    assert not layer_similarity(a, constant, index=index).any()
    assert layer_similarity(constant, constant, index=index) == 0


def test_a_median_distance_of_zero_compares_equal_with_other_images(random):
    x = np.repeat(random.normal(size=(3, 5)), (12, 3, 2), axis=0).astype(np.float32)
    equal = (x[:, None] == x).all(axis=-1) - np.eye(17)
    y = random.normal(size=(17, 4))
    expected = hsic(equal, gram(y, "rbf")) / np.sqrt(hsic(equal, equal) * hsic(gram(y, "rbf"), gram(y, "rbf")))
    assert layer_similarity({"x": x}, {"y": y}, index="rbf")[0, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_errors(random):
    a, b = layers(random, 11)
    x = a["relu"]
    for call, message in (
        (lambda: layer_similarity({}, b), "^a: expected at least one layer, got none"),
        (lambda: layer_similarity(a, {"x": x[:5]}), "^b: expected features of the same 11 images as a, got 5"),
        (lambda: layer_similarity({"x": x, "y": x[:5]}, b), r"^a\['y'\]: expected features \[11, ...\], got shape"),
        (lambda: layer_similarity({"x": np.ones(11)}, b), r"^a\['x'\]: expected features \[11, ...\], got shape"),
        (lambda: layer_similarity(a, {"x": x * np.nan}), r"^b\['x'\]: expected finite numbers"),
        (lambda: layer_similarity({"x": x[:3]}, {"x": x[:3]}), "^images: expected at least 4, got 3"),
        (lambda: layer_similarity(a, b, batch_size=3), "^batch_size: expected at least 8, got 3"),
        (lambda: layer_similarity(a, b, index="mutual_knn"), "^k: expected at most 9, two less than the number"),
        (lambda: layer_similarity(a, b, index="liner"), "^unknown index 'liner' .*did you mean linear"),
    ):
        with pytest.raises(InputError, match=message):
            call()
