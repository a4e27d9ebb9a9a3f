"""Linear probes are those of scikit-learn, step by step, and find what is linear in a layer."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.random_projection import SparseRandomProjection

from simjax.core import InputError
from simjax.evaluate import mean_estimate
from simjax.study import linear_probes

LABELS = np.arange(150) % 3


def logits_of(x: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Minimize the penalized loss of a multinomial regression of standardised features with SciPy."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, test = (x - mean) / std, (test - mean) / std

    def loss(flat):
        weights, bias = flat[:-3].reshape(-1, 3), flat[-3:]
        logits = x @ weights + bias
        return np.sum(logsumexp(logits, axis=1) - logits[np.arange(len(x)), labels]) + np.sum(weights**2) / 2

    flat = minimize(loss, np.zeros(3 * x.shape[1] + 3)).x
    return test @ flat[:-3].reshape(-1, 3) + flat[-3:]


def test_the_accuracy_is_that_of_a_regression_of_standardised_features(random):
    spatial = random.normal(size=(150, 2, 2, 1)) * [[[1.0]], [[100.0]]]
    spatial[..., 0, 0, 0] += LABELS
    logits = logits_of(spatial[:90].reshape(90, 4), LABELS[:90], spatial.reshape(150, 4))
    # Two solvers may classify an image at the boundary of two classes differently.
    clear = 90 + np.flatnonzero(np.diff(np.sort(logits[90:], axis=1))[:, -1] > 0.01)
    train, test = {"spatial": spatial[:90]}, {"spatial": spatial[clear]}
    found = linear_probes(train, LABELS[:90], test, LABELS[clear])["spatial"]
    correct = np.argmax(logits[clear], axis=1) == LABELS[clear]
    expected = mean_estimate(correct, np.arange(len(clear)))
    assert len(clear) > 50
    assert found.value == expected.value
    assert 0.4 < correct.mean() < 0.9
    assert found.interval() == expected.interval()


def test_many_features_are_projected_at_random(random):
    x = random.normal(size=(150, 40)).astype(np.float32)
    x[:, :20] += LABELS[:, None]
    train, test = {"wide": x[:90]}, {"wide": x[90:]}
    found = linear_probes(train, LABELS[:90], test, LABELS[90:], max_features=7, seed=3)
    projection = SparseRandomProjection(random_state=3).set_params(n_components=7).fit(x[:90])
    narrow = [{"wide": projection.transform(rows)} for rows in (x[:90], x[90:])]
    assert found["wide"].value == linear_probes(narrow[0], LABELS[:90], narrow[1], LABELS[90:])["wide"].value
    assert found["wide"].value != linear_probes(train, LABELS[:90], test, LABELS[90:])["wide"].value


def test_layers_keep_their_order_and_noise_is_at_the_level_of_chance(random):
    noise = random.normal(size=(1200, 5))
    labels = random.integers(0, 3, size=1200)
    layers = {"z": noise, "a": np.eye(3)[labels]}
    train, test = ({name: rows[half] for name, rows in layers.items()} for half in (slice(600), slice(600, None)))
    found = linear_probes(train, labels[:600], test, labels[600:])
    assert list(found) == ["z", "a"]
    assert found["z"].value == pytest.approx(1 / 3, abs=0.1)
    assert found["a"].value == 1


@pytest.mark.usefixtures("unchecked")
def test_errors(random):
    x = random.normal(size=(6, 2))
    layers, labels = {"x": x}, [0, 1, 0, 1, 0, 1]
    for call, message in (
        (lambda: linear_probes(layers, labels, {"y": x}, labels), "^test_features: expected the layers x, got y$"),
        (lambda: linear_probes(layers, labels, {"x": x[:, :1]}, labels), r"^test_features\['x'\]: expected 2 features"),
        (lambda: linear_probes(layers, labels[:5], layers, labels), "^train_labels: expected 6 labels"),
        (lambda: linear_probes(layers, labels, layers, [0.5] * 6), "^test_labels: "),
        (lambda: linear_probes(layers, [1] * 6, layers, labels), "^train_labels: expected at least 2 classes, got 1$"),
        (lambda: linear_probes({"x": x * np.inf}, labels, layers, labels), r"^train_features\['x'\]: expected finite"),
        (lambda: linear_probes(layers, labels, {"x": x[:0]}, []), "^test_features: expected at least one image, got"),
        (lambda: linear_probes(layers, labels, layers, labels, max_features=0), "^max_features: expected at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            call()
