"""Every measure of vectors against SciPy, scikit-learn or NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import haversine_distances, nan_euclidean_distances

from simjax import similarity
from simjax.core import InputError
from simjax.similarity import pairwise
from tests.similarity.arrays import float32, float64
from tests.slow import mostly_slow, slow_unless

RANDOM = np.random.default_rng(5)
D = 19  # more than one chunk of features
VARIANCE = RANDOM.uniform(0.2, 3.0, D)
SQUARE = RANDOM.normal(size=(D, D))
POSITIVE = SQUARE @ SQUARE.T / D + np.eye(D)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def signal_to_noise(x, y):
    return np.asarray([[np.var(a - b) / np.var(a) for b in y] for a in x])


ORACLES = {
    "dot": (lambda x, y: x @ y.T, {}),
    "bilinear": (lambda x, y: x @ SQUARE @ y.T, {"matrix": SQUARE}),
    "cosine": (lambda x, y: 1 - cdist(x, y, "cosine"), {}),
    "cosine_distance": (lambda x, y: cdist(x, y, "cosine"), {}),
    "angular": (lambda x, y: 2 / np.pi * np.arcsin(np.clip(cdist(unit(x), unit(y)) / 2, 0, 1)), {}),
    "euclidean": (lambda x, y: cdist(x, y), {}),
    "squared_euclidean": (lambda x, y: cdist(x, y, "sqeuclidean"), {}),
    "normalized_euclidean": (lambda x, y: cdist(unit(x), unit(y)), {}),
    "standardized_euclidean": (lambda x, y: cdist(x, y, "seuclidean", V=VARIANCE), {"variance": VARIANCE}),
    "mahalanobis": (lambda x, y: cdist(x, y, "mahalanobis", VI=POSITIVE), {"matrix": POSITIVE}),
    "manhattan": (lambda x, y: cdist(x, y, "cityblock"), {}),
    "chebyshev": (lambda x, y: cdist(x, y, "chebyshev"), {}),
    "minkowski": (lambda x, y: cdist(x, y, "minkowski", p=3), {}),
    "minkowski 1.5": (lambda x, y: cdist(x, y, "minkowski", p=1.5), {"p": 1.5}),
    "minkowski 2": (lambda x, y: cdist(x, y), {"p": 2}),
    "minkowski inf": (lambda x, y: cdist(x, y, "chebyshev"), {"p": np.inf}),
    "canberra": (lambda x, y: cdist(x, y, "canberra"), {}),
    "bray_curtis": (lambda x, y: cdist(x, y, "braycurtis"), {}),
    "correlation": (lambda x, y: cdist(x, y, "correlation"), {}),
    "signal_to_noise": (signal_to_noise, {}),
    "hamming": (lambda x, y: cdist(x, y, "hamming"), {}),
    "jensen_shannon": (lambda x, y: cdist(x, y, "jensenshannon"), {}),
    "jensen_shannon 2": (lambda x, y: cdist(x, y, "jensenshannon") / np.sqrt(np.log(2)), {"base": 2.0}),
    "nan_euclidean": (lambda x, y: cdist(x, y), {}),
}
PRODUCTS = {  # computed by a matrix product, with an absolute error of some eps times the squares of the rows
    "dot", "bilinear", "cosine", "cosine_distance", "angular", "euclidean", "squared_euclidean", "normalized_euclidean",
    "standardized_euclidean", "mahalanobis", "correlation", "signal_to_noise",
}  # fmt: skip


def rows(kind):
    """x [7, d] and y [11, d]."""
    random = np.random.default_rng(7)
    x, y = random.uniform(0.1, 2, size=(7, D)), random.uniform(0.1, 2, size=(11, D))
    match kind:
        case "sparse":
            x, y = x * (random.uniform(size=x.shape) < 0.3), y * (random.uniform(size=y.shape) < 0.3)
            x[:, 0] = y[:, 0] = 1  # no row is zero, for which SciPy gives NaN
        case "duplicate":
            y[:7] = x
        case "shifted":
            x, y = x + 100, y + 100
        case "huge":
            x, y = 1e15 * x, 1e15 * y
        case "tiny":
            x, y = 1e-15 * x, 1e-15 * y
    return float64(float32(x)), float64(float32(y))


FAST = ("cosine", "euclidean", "manhattan", "mahalanobis")


@functools.cache
def forms(names):
    """Return a function of x [7, d] and y [11, d] that computes measures by pairs and by tiles."""

    def compute(x, y):
        found = {}
        for name in names:
            parameters = jax.tree.map(lambda p: jnp.asarray(p, x.dtype), ORACLES[name][1])
            m = similarity.measure(name.split()[0], **(parameters if name != "minkowski 2" else {"p": 2}))
            found[name] = m(x[:, None], y[None]), pairwise(x, y, m)
        return found

    return jax.jit(compute)


@pytest.mark.parametrize("dtype", [np.float32, slow_unless(False, np.float64)])
@pytest.mark.parametrize(
    "names", [FAST, slow_unless(False, tuple(name for name in ORACLES if name not in FAST))], ids=["some", "others"]
)
def test_agrees_with_the_oracle(names, dtype):
    tolerance, eps = {np.float64: (1e-10, 2e-16), np.float32: (1e-5, 1e-7)}[dtype]
    for kind in ("random", "sparse", "duplicate", "shifted", "huge", "tiny"):
        x, y = rows(kind)
        with jax.enable_x64(dtype == np.float64):
            found = forms(names)(x.astype(dtype), y.astype(dtype))
        for name, (pairs, s) in found.items():
            where = f"{name}, {kind}"
            expected = ORACLES[name][0](x, y)
            # Rounding of the inputs alone changes the score of rows with nearly the same direction that much.
            floor = (8 * eps if name in PRODUCTS else 0) * np.abs(expected).max()
            np.testing.assert_allclose(pairs, expected, rtol=tolerance, atol=floor, err_msg=where)
            square = name in PRODUCTS and name not in ("dot", "bilinear")
            root = "euclidean" in name and "squared" not in name or name in ("mahalanobis", "angular")
            error = (D * eps) ** (0.5 if root else 1) if square else 0.0
            np.testing.assert_allclose(
                s, expected, rtol=tolerance, atol=floor + error * np.abs(expected).max(), err_msg=where
            )


def test_haversine_agrees_with_scikit_learn_and_is_exact_for_opposite_points():
    random = np.random.default_rng(1)
    x, y = (float32(random.uniform([-1.5, -3], [1.5, 3], size=(n, 2))) for n in (7, 11))
    expected = haversine_distances(float64(x), float64(y))
    np.testing.assert_allclose(pairwise(x, y, "haversine"), expected, rtol=1e-5, atol=1e-6)
    opposite = float32(x * [-1, 1] + [0, np.pi - 1e-3])
    latitude = np.cos(float64(x[:, 0]))
    np.testing.assert_allclose(np.pi - similarity.haversine_distance(x, opposite), 1e-3 * latitude, atol=1e-6)


def test_missing_features_agree_with_scikit_learn_unless_no_feature_is_common():
    random = np.random.default_rng(1)
    x, y = (np.where(random.uniform(size=(n, 5)) < 0.3, np.nan, random.normal(size=(n, 5))) for n in (7, 11))
    x[3] = np.nan
    expected = nan_euclidean_distances(x, y)
    assert np.isnan(expected).any()
    expected = np.where(np.isnan(expected), np.inf, expected)
    found, gradient = values_and_gradients("nan_euclidean")(float32(x), float32(y))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(gradient)[np.isnan(x)], 0)
    assert np.isfinite(gradient).all()


@functools.cache
def values_and_gradients(name):
    """Return the matrix by pairs and by tiles, each with the gradient of the sum of its finite entries."""
    m = similarity.measure(name)

    def of(form, x, y):
        def total(x):
            s = form(x, y)
            return jnp.sum(jnp.where(jnp.isfinite(s), s, 0)), s

        (_, s), gradient = jax.value_and_grad(total, has_aux=True)(x)
        return s, gradient

    return jax.jit(lambda x, y: (of(lambda x, y: m(x[:, None], y[None]), x, y), of(m.all_pairs, x, y)))


@pytest.mark.parametrize("name", mostly_slow(["cosine_distance", "angular", "correlation"], "angular"))
def test_a_zero_or_constant_row_is_at_a_right_angle_to_all_other_rows(name):
    x = float32([[0, 0, 0], [0, 0, 0], [1, 2, 4]])
    right = 0.5 if name == "angular" else 1.0
    for s, _ in values_and_gradients(name)(x, x):
        np.testing.assert_allclose(s, [[0, 0, right], [0, 0, right], [right, right, 0]], rtol=1e-6)


def test_a_small_angle_keeps_its_digits():
    x = float32([[1, 1e-5, 0], [1, 0, 0], [1, 0, 0]])
    y = float32([[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    found, gradient = values_and_gradients("angular")(x, y)[0]
    np.testing.assert_allclose(found[0], np.full(3, np.arctan2(1e-5, 1) / np.pi), rtol=1e-6)
    np.testing.assert_allclose(gradient[0] / 3, [-1e-5 / np.pi, 1 / np.pi, 0], rtol=1e-4)


def test_nearly_equal_distributions_keep_their_digits():
    x = float64(float32([0.25, 0.25, 0.5]))
    y = x + [1e-5, -1e-5, 0]
    expected = cdist(x[None], float64(float32(y))[None], "jensenshannon")[0, 0]
    np.testing.assert_allclose(similarity.jensen_shannon_distance(float32(x), float32(y)), expected, rtol=2e-3)
    with jax.enable_x64(True):  # chi-squared is its second order: sqrt(sum d^2 / p / 8)
        y = x + np.array([1e-9, -1e-9, 0])
        np.testing.assert_allclose(similarity.jensen_shannon_distance(x, y), np.sqrt(1e-18 / 0.25 * 2 / 8), rtol=1e-6)


KINKS = [
    ("manhattan", [1.0, 2, 3], [-1, 0, 1]),
    ("chebyshev", [0.0, 2, 4], [-1, 0, 0]),  # two differences of 2: the first gets the gradient
    ("minkowski", [2.0, 2, 2], [0, 0, 0]),
    ("euclidean", [2.0, 2, 2], [0, 0, 0]),
    ("mahalanobis", [2.0, 2, 2], [0, 0, 0]),
    ("canberra", [2.0, 2, 2], [0, 0, 0]),
    ("signal_to_noise", [2.0, 2, 2], [0, 0, 0]),
    ("hamming", [1.0, 2, 3], [0, 0, 0]),
]


@pytest.mark.parametrize(("name", "x", "expected"), [slow_unless(case[0] == "chebyshev", *case) for case in KINKS])
def test_subgradients_at_kinks(name, x, expected):
    for _, gradient in values_and_gradients(name)(float32([x]), float32([[2, 2, 2]])):
        np.testing.assert_array_equal(gradient[0], expected)


@pytest.mark.slow
def test_the_signal_to_noise_distance_of_a_constant_signal_is_infinite():
    x = float32([[2, 2, 2], [1, 2, 3]])
    for s, _ in values_and_gradients("signal_to_noise")(x, x):
        np.testing.assert_allclose(s, [[0, np.inf], [1, 0]], rtol=1e-6)


@jax.jit
def minkowski(x, y, p):
    return jax.value_and_grad(lambda x: jnp.sum(similarity.minkowski_distance(x, y, p=p)))(x)


@pytest.mark.parametrize("p", [1.0, 1.0001, 2.0, 40.0, 1000.0, np.inf])
def test_minkowski_from_one_to_infinity(random, p):
    x, y = float32(random.normal(size=(2, 5, 7)))
    if p > 100:  # SciPy's powers overflow or vanish
        expected = np.abs(x - y).max(-1) * np.sum((np.abs(x - y) / np.abs(x - y).max(-1, keepdims=True)) ** p, -1) ** (
            1 / p
        )
    else:
        expected = np.diagonal(cdist(x, y, "minkowski", p=p))
    value, gradient = minkowski(x, y, p)
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(
        np.sum(np.abs(gradient) ** (p / (p - 1) if 1 < p < np.inf else 1), -1).max(), {1.0: 7}.get(p, 1), rtol=1e-2
    )


def test_integers_and_booleans_are_converted_to_float32(random):
    x, y = random.integers(0, 2, size=(2, 7, 5))
    for name in ("euclidean", "dot"):
        m = similarity.measure(name)
        expected = m(float32(x), float32(y))
        for kind in (int, bool):
            found = m(x.astype(kind), y.astype(kind))
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.float32


X, Y = np.ones((7, 5), np.float32), np.ones((11, 5), np.float32)
BAD = [
    (lambda: similarity.euclidean_distance(X, Y), "y: expected a shape that broadcasts with x, got (7, 5) and (11, 5)"),
    (lambda: similarity.euclidean_distance(X, X[:, :3]), "y: expected as many features as x"),
    (lambda: similarity.euclidean_distance(1.0, 2.0), "y: expected as many features as x, got shapes () and ()"),
    (lambda: similarity.pairwise(X[0], Y), "x: expected rows [n, d], got shape (5,)"),
    (lambda: similarity.pairwise(X, Y[:, :3]), "y: expected rows of 5 features as in x, got shape (11, 3)"),
    (lambda: similarity.haversine_distance(X, X), "x: expected latitude and longitude [..., 2], got shape"),
    (lambda: similarity.pairwise(X, Y, "haversine"), "x: expected latitude and longitude [..., 2], got shape"),
    (lambda: similarity.mahalanobis_distance(X, X, matrix=np.eye(3)), "matrix: expected shape (5, 5), got (3, 3)"),
    (lambda: similarity.bilinear_similarity(X, X, matrix=np.eye(3)), "matrix: expected shape (5, 5), got (3, 3)"),
    (lambda: similarity.pairwise(X, Y, similarity.measure("mahalanobis", matrix=np.eye(3))), "matrix: expected shape"),
    (lambda: similarity.standardized_euclidean_distance(X, X, variance=np.ones(3)), "variance: expected shape (5,)"),
    (
        lambda: similarity.standardized_euclidean_distance(X, X, variance=-1.0),
        "variance: expected at least 0, got -1.0",
    ),
    (lambda: similarity.measure("minkowski", p=0.5), "p: expected at least 1, got 0.5"),
    (lambda: similarity.minkowski_distance(X, X, p=np.nan), "p: expected at least 1, got nan"),
    (lambda: similarity.measure("mahalanobis", matrix=np.full((5, 5), np.nan)), "matrix: expected at least -inf"),
    (lambda: similarity.measure("jensen_shannon", base=0.5), "base: expected at least 1, got 0.5"),
    (lambda: similarity.measure("euclidian"), "unknown measure 'euclidian' (did you mean euclidean?"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), BAD)
def test_invalid_arguments_raise_with_and_without_jit(call, message):
    for function in (call, jax.jit(call)):
        with pytest.raises(InputError) as error:
            function()
        assert message in str(error.value)


@pytest.mark.usefixtures("unchecked")
def test_complex_numbers_and_unknown_parameters_raise_type_errors():
    for call in (lambda: similarity.cosine_similarity(1j * X, X), lambda: similarity.pairwise(X, 1j * Y)):
        with pytest.raises(TypeError, match="expected real numbers, got complex"):
            call()
    with pytest.raises(TypeError, match="minkowski: unknown parameter 'q'"):
        similarity.measure("minkowski", q=3)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        similarity.minkowski_distance(X, X, q=3)


def test_unit_vectors_of_one_feature_are_exact(random):
    x = np.append(float32(random.normal(size=100)), float32(0))[:, None]
    np.testing.assert_array_equal(similarity.unit_vectors(x), np.sign(x))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(similarity.unit_vectors(x))))(x)
    np.testing.assert_array_equal(slope, np.zeros_like(x))


@pytest.mark.slow
def test_distances_of_the_largest_numbers_are_infinite():
    largest = np.finfo(np.float32).max
    for name in ("minkowski", "chebyshev", "manhattan", "euclidean", "squared_euclidean"):
        of = similarity.measure(name)
        x = np.array([[largest], [0.7 * largest]], np.float32)
        np.testing.assert_array_equal(of(x, -x), np.inf, err_msg=name)
        np.testing.assert_array_equal(pairwise(x, -x, of), np.inf, err_msg=name)
