"""Kernels against scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise as sklearn

from simjax import similarity
from simjax.core import InputError
from simjax.similarity import pairwise
from tests.similarity.arrays import float32, float64
from tests.slow import slow_unless

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
FAST = ("polynomial, degree 2", "rbf")


@functools.cache
def forms(names):
    """Return a function of x [7, d] and y [11, d] that computes kernels by pairs and by tiles."""

    def compute(x, y):
        kernels = {name: similarity.measure(name.split(",")[0], **ORACLES[name][1]) for name in names}
        return {name: (m(x[:, None], y[None]), pairwise(x, y, m)) for name, m in kernels.items()}

    return jax.jit(compute)


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
    return float64(float32(x)), float64(float32(y))


@pytest.mark.parametrize("dtype", [np.float32, slow_unless(False, np.float64)])
@pytest.mark.parametrize(
    "names", [FAST, slow_unless(False, tuple(name for name in ORACLES if name not in FAST))], ids=["some", "others"]
)
def test_agrees_with_scikit_learn(names, dtype):
    for kind in ("random", "sparse", "constant", "duplicate", "tiny"):
        x, y = rows(kind)
        with jax.enable_x64(dtype == np.float64):
            found = forms(names)(x.astype(dtype), y.astype(dtype))
        for name, both in found.items():
            oracle, parameters = ORACLES[name]
            # gamma x . y and coef0 may cancel; both are about 1.
            floor = 4 * float(np.finfo(dtype).eps) if name.startswith(("sigmoid", "polynomial")) else 0.0
            tolerance = 1e-10 if dtype == np.float64 else 1e-5
            for form in both:
                np.testing.assert_allclose(
                    form, oracle(x, y, **parameters), rtol=tolerance, atol=floor, err_msg=f"{name}, {kind}"
                )


def test_rows_far_from_the_origin_keep_their_distances():
    x = float32(np.random.default_rng(3).uniform(size=(11, 19)) + 1000)
    found = np.asarray(forms(FAST)(x[:7], x)["rbf"][1])
    np.testing.assert_allclose(found, sklearn.rbf_kernel(float64(x[:7]), float64(x)), rtol=1e-4)
    np.testing.assert_array_equal(np.diagonal(found), 1)


@pytest.mark.slow
def test_kernels_of_huge_rows_are_infinite_or_saturated_with_zero_gradient():
    x = float32([[1e30, 0], [-1e30, 0]])
    expected = {
        "polynomial": [[np.inf, -np.inf], [-np.inf, np.inf]],
        "sigmoid": [[1, -1], [-1, 1]],
        "rbf": [[1, 0], [0, 1]],
        "laplacian": [[1, 0], [0, 1]],
    }

    @jax.jit
    def values_and_gradients(x, gamma):
        found = {}
        for name in expected:
            s, pullback = jax.vjp(lambda x, g, name=name: similarity.measure(name, gamma=g).all_pairs(x, x), x, gamma)
            found[name] = s, pullback(jnp.ones((2, 2)))
        return found

    for name, (s, (gradient, of_gamma)) in values_and_gradients(x, 0.5).items():
        np.testing.assert_array_equal(s, expected[name])
        np.testing.assert_array_equal(gradient, np.zeros((2, 2)))
        assert of_gamma == 0 or name == "polynomial", "a learned gamma is finite where the distance is not"


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_a_traced_degree_takes_negative_bases(random, degree):
    x, y = float32(random.normal(size=(2, 7, 5)))
    found = polynomial(x, y, degree)
    np.testing.assert_allclose(found, np.sum(float64(x) * y, axis=-1) ** degree, rtol=2e-5)


@jax.jit
def polynomial(x, y, degree):
    return similarity.polynomial_kernel(x, y, degree=degree, gamma=1.0, coef0=0.0)


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
    for call in (similarity.measure, lambda _, **p: m.pair(np.ones(3), np.ones(3), **p)):
        with pytest.raises(InputError, match=message):
            call(name, **parameters)
