"""Kernels against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise as sklearn

from simjax import similarity
from simjax.core import InputError
from simjax.similarity import reduce_rows
from tests.slow import mostly_slow

ORACLES = {
    "polynomial": (sklearn.polynomial_kernel, {}),
    "polynomial, degree 2": (sklearn.polynomial_kernel, {"degree": 2, "gamma": 0.7, "coef0": -0.5}),
    "sigmoid": (sklearn.sigmoid_kernel, {}),
    "sigmoid, all given": (sklearn.sigmoid_kernel, {"gamma": 0.01, "coef0": -0.2}),
    "rbf": (sklearn.rbf_kernel, {}),
    "rbf, gamma 0.7": (sklearn.rbf_kernel, {"gamma": 0.7}),
    "laplacian": (sklearn.laplacian_kernel, {}),
    "laplacian, gamma 0.7": (sklearn.laplacian_kernel, {"gamma": 0.7}),
    "chi2": (sklearn.chi2_kernel, {}),
    "chi2, gamma 0.7": (sklearn.chi2_kernel, {"gamma": 0.7}),
    "additive_chi2": (sklearn.additive_chi2_kernel, {}),
}


def whole_tile(s, i, j):
    return s


def rows(kind):
    random = np.random.default_rng(7)
    x, y = random.uniform(0.1, 2, size=(7, 19)), random.uniform(0.1, 2, size=(11, 19))
    match kind:
        case "sparse":
            x, y = x * (random.uniform(size=x.shape) < 0.3), y * (random.uniform(size=y.shape) < 0.3)
        case "constant":
            x[:] = 1.5
        case "duplicate":
            y[:7] = x
        case "tiny":
            x, y = 1e-15 * x, 1e-15 * y
    return np.float64(np.float32(x)), np.float64(np.float32(y))


@pytest.mark.parametrize("kind", mostly_slow(["random", "sparse", "constant", "duplicate", "tiny"], "duplicate"))
@pytest.mark.parametrize("name", mostly_slow(ORACLES, "polynomial, degree 2", "rbf", "chi2, gamma 0.7"))
def test_agrees_with_scikit_learn(name, kind):
    oracle, parameters = ORACLES[name]
    x, y = rows(kind)
    expected = oracle(x, y, **parameters)
    for dtype, tolerance in ((jnp.float64, 1e-10), (jnp.float32, 1e-5)):
        with jax.enable_x64(dtype == jnp.float64):
            m = similarity.measure(name.split(",")[0], **parameters)
            a, b = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
            # gamma x . y and coef0 may cancel; both are about 1.
            floor = 4 * float(jnp.finfo(dtype).eps) if name.startswith(("sigmoid", "polynomial")) else 0.0
            np.testing.assert_allclose(m(a[:, None], b[None]), expected, rtol=tolerance, atol=floor)
            np.testing.assert_allclose(reduce_rows(whole_tile, a, b, measure=m), expected, rtol=tolerance, atol=floor)


def test_rows_far_from_the_origin_keep_their_distances():
    random = np.random.default_rng(3)
    x = np.float64(np.float32(random.uniform(size=(7, 5)) + 1000))
    found = reduce_rows(whole_tile, jnp.float32(x), jnp.float32(x), measure="rbf")
    np.testing.assert_allclose(found, sklearn.rbf_kernel(x), rtol=1e-4)
    np.testing.assert_array_equal(np.diagonal(found), 1)


def test_kernels_of_huge_rows_are_infinite_or_saturated_with_zero_gradient():
    x = jnp.float32([[1e30, 0], [-1e30, 0]])
    for m, expected in (
        ("polynomial", [[np.inf, -np.inf], [-np.inf, np.inf]]),
        ("sigmoid", [[1, -1], [-1, 1]]),
        ("rbf", [[1, 0], [0, 1]]),
        ("laplacian", [[1, 0], [0, 1]]),
    ):
        s, pullback = jax.vjp(lambda x, m=m: reduce_rows(whole_tile, x, x, measure=m), x)
        np.testing.assert_array_equal(s, expected)
        np.testing.assert_array_equal(pullback(jnp.ones((2, 2)))[0], np.zeros((2, 2)))


def test_a_learned_gamma_stays_finite_where_the_distance_does_not():
    x = jnp.float32([[1e30, 0], [-1e30, 0]])

    def total(gamma):
        return jnp.sum(reduce_rows(whole_tile, x, x, measure=similarity.measure("rbf", gamma=gamma)))

    value, gradient = jax.value_and_grad(total)(0.5)
    assert (value, gradient) == (2, 0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_a_traced_degree_takes_negative_bases(random, degree):
    x, y = np.float32(random.normal(size=(2, 7, 5)))
    found = jax.jit(lambda d: similarity.polynomial_kernel(x, y, degree=d, gamma=1.0, coef0=0.0))(degree)
    np.testing.assert_allclose(found, np.sum(np.float64(x) * y, axis=-1) ** degree, rtol=2e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rbf", {"gamma": -1.0}, "gamma: expected at least 0, got -1.0"),
        ("laplacian", {"gamma": np.nan}, "gamma: expected at least 0, got nan"),
        ("chi2", {"gamma": -1}, "gamma: expected at least 0, got -1"),
        ("polynomial", {"degree": -1}, "degree: expected at least 0, got -1"),
        ("sigmoid", {"coef0": np.nan}, "coef0: expected at least -inf, got nan"),
    ],
)
def test_parameters_out_of_range(name, parameters, message):
    m = similarity.measure(name)
    for call in (similarity.measure, lambda _, **p: m.pair(jnp.ones(3), jnp.ones(3), **p)):
        with pytest.raises(InputError, match=message):
            call(name, **parameters)
