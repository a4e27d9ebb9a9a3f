"""Classical models, against scikit-learn, on digits and on features of very different scales."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from simjax import classical
from simjax.classical import _logistic
from simjax.core import InputError
from simjax.evaluate import knn_predict
from simjax.similarity import measure
from tests.slow import mostly_slow

DIGITS, LABELS = map(np.asarray, load_digits(return_X_y=True))


def ill_scaled(x: np.ndarray) -> np.ndarray:
    """Return features with scales from 1e-3 to 1e3 and means of about 10."""
    random = np.random.default_rng(0)
    return x * 10.0 ** random.uniform(-3, 3, x.shape[1]) + 10 * random.normal(size=x.shape[1])


DATA = {"digits": DIGITS, "ill-scaled": ill_scaled(DIGITS)}
FITS: dict[str, Any] = {
    "k_nearest_neighbors": partial(classical.fit_k_nearest_neighbors, k=1),
    "nearest_prototype": classical.fit_nearest_prototype,
    "logistic_regression": classical.fit_logistic_regression,
    "kernel_ridge_classifier": classical.fit_kernel_ridge_classifier,
}


@pytest.mark.parametrize("data", mostly_slow(DATA, "digits"))
@pytest.mark.parametrize("penalty", mostly_slow([0.0, 2.0], 0.0))
def test_linear_regression(data, penalty):
    x, scale = DATA[data], DATA[data].std(axis=0)  # weights are compared per standard deviation of their features
    model = classical.fit_linear_regression(x, LABELS, penalty=penalty)
    if penalty:
        peer = Ridge(penalty, solver="svd").fit(x, LABELS)
    else:  # LinearRegression drops small singular values, so that its residuals on ill-scaled features are larger
        unit = np.where(scale > 1e-9, scale, 1)
        peer = LinearRegression().fit(x / unit, LABELS)
        peer.coef_ = peer.coef_ / unit
    np.testing.assert_allclose(model.weights * scale, peer.coef_ * scale, rtol=1e-4, atol=1e-6)
    rounding = 1e-6 * np.max(np.abs(x) @ np.abs(model.weights))  # of float32 terms, whose sum is much smaller
    np.testing.assert_allclose(model.predict(x), x @ peer.coef_ + peer.intercept_, rtol=1e-4, atol=rounding)
    both = classical.fit_linear_regression(x, np.stack([LABELS, -2 * LABELS], axis=1), penalty=penalty)
    np.testing.assert_allclose(both.weights[1] * scale, -2 * model.weights * scale, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both.predict(x)[:, 1], -2 * model.predict(x), rtol=1e-4, atol=2 * rounding)


def test_linear_regression_of_too_few_rows_has_the_shortest_weights():
    x = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]])
    model = classical.fit_linear_regression(x, np.array([0.0, 5.0]))
    np.testing.assert_allclose(model.weights, [1.0, 2.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(model.predict(x), [0.0, 5.0], atol=1e-5)


@pytest.mark.parametrize(("data", "penalty"), [("digits", 1.0), ("ill-scaled", 1.0), ("ill-scaled", 1e4)])
@pytest.mark.slow
def test_logistic_regression(data, penalty):
    x, labels = DATA[data][LABELS < 5], LABELS[LABELS < 5]
    model = classical.fit_logistic_regression(x, labels, penalty=penalty)
    peer: Any = Peer(C=1 / penalty, tol=1e-12, max_iter=1000, solver="newton-cholesky")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its line search ends at the precision of float64
        peer.fit(x, labels)
    weights, scale = peer.coef_, x.std(axis=0)
    largest = np.abs(weights * scale).max()
    np.testing.assert_allclose(model.weights * scale / largest, weights * scale / largest, atol=1e-4)
    intercept = peer.intercept_ - peer.intercept_.mean()
    np.testing.assert_allclose(model.intercept, intercept, atol=1e-4 * np.abs(intercept).max())
    np.testing.assert_allclose(model.probabilities(x), peer.predict_proba(x), atol=1e-4)
    np.testing.assert_array_equal(model.predict(x), peer.predict(x))


@pytest.mark.slow
def test_a_training_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(_logistic, "MAX_STEPS", 2)  # read when a shape is compiled; no other test has this one
    with pytest.raises(InputError, match="^penalty: expected a fit that converges in 2 steps, got 1.0; raise it$"):
        classical.fit_logistic_regression(DIGITS[:53, :7], LABELS[:53])


def test_logistic_regression_of_two_classes_has_twice_the_penalty_of_scikit_learn():
    x, labels = DIGITS[LABELS < 2], LABELS[LABELS < 2]
    model = classical.fit_logistic_regression(x, 7 - labels, penalty=0.5)
    peer = Peer(C=2 / 0.5, tol=1e-10, solver="newton-cholesky").fit(x, 7 - labels)
    np.testing.assert_allclose(model.weights[1] - model.weights[0], peer.coef_[0], atol=1e-4)
    np.testing.assert_allclose(model.intercept[1] - model.intercept[0], peer.intercept_[0], rtol=1e-4)
    np.testing.assert_array_equal(model.classes, [6, 7])
    np.testing.assert_allclose(model.probabilities(x), peer.predict_proba(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("data", DATA)
def test_k_nearest_neighbors(data, name):
    x = DATA[data]
    train, test = x[:1000], x[1000:1200]
    model = classical.fit_k_nearest_neighbors(train, LABELS[:1000] + 5, k=4, measure=name)
    peer = KNeighborsClassifier(4, metric=name, algorithm="brute").fit(train, LABELS[:1000] + 5)
    np.testing.assert_allclose(model.probabilities(test), peer.predict_proba(test), atol=1e-6)
    expected = knn_predict(test, train, LABELS[:1000] + 5, k=4, measure=name)
    np.testing.assert_array_equal(model.predict(test), expected)


def test_the_nearest_of_tied_classes_wins():
    model = classical.fit_k_nearest_neighbors(np.arange(1.0, 6.0)[:, None], np.array([9, 4, 7, 4, 7]), k=5)
    assert model.predict(np.array([[0.0], [6.0]])).tolist() == [4, 7]
    np.testing.assert_allclose(model.probabilities(np.array([[0.0]])), [[0.4, 0.4, 0.2]])


@pytest.mark.parametrize("data", mostly_slow(DATA, "ill-scaled"))
@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")  # constant features
def test_nearest_prototype(data):
    x = DATA[data]
    model = classical.fit_nearest_prototype(x, LABELS)
    peer = NearestCentroid().fit(x, LABELS)
    np.testing.assert_allclose(model.prototypes, peer.centroids_, rtol=1e-4)
    np.testing.assert_array_equal(model.predict(x), peer.predict(x))


def test_the_direction_of_the_measure_of_a_prototype_is_respected():
    x = np.array([[1.0, 0.0], [5.0, 1.0], [0.0, 1.0]])
    queries = np.array([[9.0, 1.0], [0.5, 1.0]])
    for name, expected in (("cosine", [1, 2]), ("cosine_distance", [1, 2]), ("dot", [1, 1])):
        assert (
            classical.fit_nearest_prototype(x, np.array([1, 1, 2]), measure=name).predict(queries).tolist() == expected
        ), name


@pytest.mark.slow
def test_kernel_ridge_classifier():
    x, labels = DIGITS[:300], LABELS[:300]
    kernel = measure("rbf", gamma=0.001)
    model = classical.fit_kernel_ridge_classifier(x, labels, penalty=0.1, measure=kernel)
    peer = KernelRidge(kernel="rbf", gamma=0.001).set_params(alpha=0.1).fit(x, np.eye(10)[labels])
    np.testing.assert_allclose(model.weights, peer.dual_coef_, atol=1e-4)
    np.testing.assert_allclose(model.scores(DIGITS[300:500]), peer.predict(DIGITS[300:500]), atol=1e-4)
    np.testing.assert_array_equal(model.predict(x), peer.predict(x).argmax(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_a_compiled_prediction_is_the_same_and_compiles_once(name):
    x, labels = DIGITS[:60], LABELS[:60] - 3
    model = FITS[name](x, labels)
    predict: Any = jax.jit(lambda model, x: (model.predict(x), model.scores(x)))
    found, scores = predict(model, jnp.asarray(x, jnp.float32))
    predict(jax.tree.map(jnp.copy, model), jnp.asarray(x + 1, jnp.float32))
    assert predict._cache_size() == 1
    np.testing.assert_array_equal(found, model.predict(x))
    np.testing.assert_allclose(scores, model.scores(x), rtol=1e-4, atol=1e-4)
    assert set(np.asarray(found)) <= set(labels)
    assert model.predict(np.zeros((0, 64))).shape == (0,)


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.zeros(3), [0, 1, 2], "^x: expected rows"),
        (np.zeros((0, 2)), np.zeros(0, int), "^x: expected at least one row"),
        (np.zeros((2, 0)), [0, 1], "^x: expected at least one row and one feature"),
        ([[0.0], [np.nan]], [0, 1], "^x: expected finite numbers in float64, got nan in row 1"),
        ([[0.0], [1.0]], [0, 1, 2], "^labels: expected 2 labels"),
        ([[0.0], [1.0]], [0.0, 1.0], "^labels: expected integer class ids, got float64"),
        ([[0.0], [1.0]], [0, 2**40], "^labels: expected integers that int32 holds"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_training_data_are_named(name, x, labels, message):
    with pytest.raises(InputError, match=message):
        FITS[name](x, labels)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: classical.fit_k_nearest_neighbors(x, y, k=4), "^k: expected 1 to 3, .* got 4"),
        (lambda x, y: classical.fit_k_nearest_neighbors(x, y, k=1, measure="cosin"), "did you mean cosine"),
        (lambda x, y: classical.fit_logistic_regression(x, y, penalty=0.0), "^penalty: expected more than 0"),
        (lambda x, y: classical.fit_logistic_regression(x, y * 0), "^labels: expected at least 2 classes, got 1"),
        (lambda x, y: classical.fit_linear_regression(x, y, penalty=-1.0), "^penalty: expected at least 0"),
        (lambda x, y: classical.fit_linear_regression(x, y[:2]), "^y: expected targets of 3 rows"),
        (lambda x, y: classical.fit_linear_regression(x, np.array([0.0, np.inf, 0.0])), "^y: expected finite numbers"),
        (lambda x, y: classical.fit_kernel_ridge_classifier(x, y, penalty=0.0), "^penalty: expected more than 0"),
        (
            lambda x, y: classical.fit_kernel_ridge_classifier(x, y, measure="euclidean"),
            "^measure: expected a positive definite kernel, such as rbf, got euclidean",
        ),
        (
            lambda x, y: classical.fit_nearest_prototype(x, y).predict(np.zeros((1, 3))),
            r"^x: expected rows of 2 features, as in the fit, got shape \(1, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call(np.array([[0.0, 1.0], [4.0, 1.0], [9.0, 9.0]]), np.array([0, 1, 1]))
