"""Every measure of vectors against SciPy, scikit-learn or NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import haversine_distances, nan_euclidean_distances

from simjax import similarity
from simjax.core import InputError, reduce_rows

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
PRODUCTS = {  # forms by matrix product, whose error is absolute: some eps times the squares of the rows
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
            x[:, 0] = y[:, 0] = 1  # no row is zero, about which SciPy has no opinion
        case "duplicate":
            y[:7] = x
        case "shifted":
            x, y = x + 100, y + 100
        case "huge":
            x, y = 1e15 * x, 1e15 * y
        case "tiny":
            x, y = 1e-15 * x, 1e-15 * y
    return np.float64(np.float32(x)), np.float64(np.float32(y))


def forms(name, x, y):
    oracle, parameters = ORACLES[name]
    m = similarity.measure(name.split()[0], **jax.tree.map(jnp.asarray, parameters))
    return oracle, m(x[:, None], y[None]), reduce_rows(lambda s, i, j: s, x, y, measure=m)


@pytest.mark.parametrize("kind", ["random", "sparse", "duplicate", "shifted", "huge", "tiny"])
@pytest.mark.parametrize("name", ORACLES)
def test_agrees_with_the_oracle(name, kind):
    x, y = rows(kind)
    for dtype, tolerance, eps in ((jnp.float64, 1e-10, 2e-16), (jnp.float32, 1e-5, 1e-7)):
        with jax.enable_x64(dtype == jnp.float64):
            oracle, pairs, s = forms(name, jnp.asarray(x, dtype), jnp.asarray(y, dtype))
            expected = oracle(x, y)
            # What no formula of rounded numbers can avoid: rows that are nearly the same direction or correlated.
            floor = (8 * eps if name in PRODUCTS else 0) * np.abs(expected).max()
            np.testing.assert_allclose(pairs, expected, rtol=tolerance, atol=floor)
            square = name in PRODUCTS and name not in ("dot", "bilinear")
            root = "euclidean" in name and "squared" not in name or name in ("mahalanobis", "angular")
            error = (D * eps) ** (0.5 if root else 1) if square else 0.0
            np.testing.assert_allclose(s, expected, rtol=tolerance, atol=floor + error * np.abs(expected).max())
