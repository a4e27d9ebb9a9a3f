"""Similarities of weighted sets. All of them are computed by one program for each shape and dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.similarity import (
    dice_coefficient,
    jaccard_index,
    measure,
    overlap_coefficient,
    pairwise,
    tversky_index,
)
from tests.similarity.arrays import float32, float64
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless

CASES = {
    "jaccard": ("jaccard", jaccard_index, {}),
    "tversky": ("tversky", tversky_index, {}),
    "dice": ("dice", dice_coefficient, {}),
    "overlap": ("overlap", overlap_coefficient, {}),
    "tversky, 0.3 and 2": ("tversky", tversky_index, {"alpha": 0.3, "beta": 2.0}),
    "tversky, 2 and 0.3": ("tversky", tversky_index, {"alpha": 2.0, "beta": 0.3}),
    "tversky, 0.5 and 0.5": ("tversky", tversky_index, {"alpha": 0.5, "beta": 0.5}),
    "tversky, 1 and 0": ("tversky", tversky_index, {"alpha": 1, "beta": 0}),
}
SETS = ("jaccard", "tversky", "dice", "overlap")


@jax.jit
def forms(x, y):
    """Return the matrix by pairs and by tiles."""
    return {
        name: (function(x[:, None], y[None], **parameters), pairwise(x, y, measure(m, **parameters), block_size=2))
        for name, (m, function, parameters) in CASES.items()
    }


@jax.jit
def gradients(x, y):
    """Return the sum of the matrix and its gradients, by pairs and by tiles."""
    found = {}
    for name in SETS:
        m = measure(name)
        for form in (lambda x, y, m=m: m(x[:, None], y[None]), m.all_pairs):
            total = lambda x, y, form=form: jnp.sum(form(x, y))  # noqa: E731
            found.setdefault(name, []).append(jax.value_and_grad(total, argnums=(0, 1))(x, y))
    return found


def by_loops(name, x, y, alpha=1.0, beta=1.0):
    common = sum(min(a, b) for a, b in zip(x, y, strict=True))
    only_x, only_y = sum(x) - common, sum(y) - common
    return {
        "jaccard": lambda: common / sum(max(a, b) for a, b in zip(x, y, strict=True)),
        "tversky": lambda: common / (common + alpha * only_x + beta * only_y),
        "dice": lambda: 2 * common / (sum(x) + sum(y)),
        "overlap": lambda: common / min(sum(x), sum(y)),
    }[name]()


def weights(seed, n=5, d=19):
    """Return sparse weights, many of which are 0 in both sets; no set is empty."""
    random = np.random.default_rng(seed)
    x = random.exponential(size=(n, d)) * (random.random((n, d)) < 0.6)
    x[:, 0] += 0.1
    return float32(x)


@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_agrees_with_loops(x64):
    x, y = weights(0), weights(1, 7)
    with jax.enable_x64(x64):
        found = forms(*(float64(a) if x64 else a for a in (x, y)))
    for name, both in found.items():
        m, _, parameters = CASES[name]
        expected = [[by_loops(m, a, b, **parameters) for b in float64(y)] for a in float64(x)]
        for form in both:
            np.testing.assert_allclose(form, expected, rtol=1e-13 if x64 else 1e-5, err_msg=name)


def test_boolean_sets_agree_with_scipy(random):
    x, y = random.random((5, 19)) < 0.4, random.random((7, 19)) < 0.5
    found = forms(float32(x), float32(y))
    for name in ("jaccard", "dice"):
        for form in found[name]:
            np.testing.assert_allclose(form, 1 - cdist(x, y, name), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_symmetry_range_identity_and_relations(seed):
    x = weights(seed, 7)
    for k in range(2):
        s = {name: np.asarray(found[k]) for name, found in forms(x, x).items()}
        for name in SETS:
            np.testing.assert_allclose(s[name], s[name].T, rtol=1e-6)
            assert s[name].min() >= 0
            assert s[name].max() <= 1
            np.testing.assert_allclose(np.diag(s[name]), 1, rtol=1e-6)
        np.testing.assert_allclose(s["tversky"], s["jaccard"], rtol=1e-6)
        np.testing.assert_allclose(s["tversky, 0.5 and 0.5"], s["dice"], rtol=1e-6)
        np.testing.assert_allclose(s["tversky, 0.3 and 2"], s["tversky, 2 and 0.3"].T, rtol=1e-6)
        assert not np.allclose(s["tversky, 0.3 and 2"], s["tversky, 0.3 and 2"].T, rtol=1e-2)


def test_the_overlap_of_a_subset_is_one():
    x = weights(6, 7)
    found = forms(x / 2, x)
    for k in range(2):
        np.testing.assert_allclose(np.diag(found["overlap"][k]), 1, rtol=1e-6)
        np.testing.assert_allclose(np.diag(found["jaccard"][k]), 0.5, rtol=1e-6)


@pytest.mark.slow
def test_empty_sets_have_a_defined_value_and_zero_gradient():
    empty, some = np.zeros((1, 3), np.float32), float32([[1, 2, 0]])
    for x, y, expected in ((empty, empty, 1), (empty, some, 0), (some, empty, 0)):
        for both in gradients(x, y).values():
            for value, slopes in both:
                assert value == expected
                assert np.isfinite(slopes).all()
                if x is y:
                    np.testing.assert_array_equal(slopes, 0)


def test_gradient_is_zero_at_equal_sets_and_the_mean_of_both_sides_at_ties():
    x, y, step = float32([[1, 2, 0, 5]]), float32([[3, 2, 1, 0.5]]), 2.0**-6  # a tie in the second feature
    change = float32([[0, step, 0, 0]])
    equal, at, above, below = gradients(x, x), gradients(x, y), gradients(x + change, y), gradients(x - change, y)
    for name in SETS:
        for k in range(2):
            np.testing.assert_allclose(equal[name][k][1], 0, atol=1e-7)
            expected = (above[name][k][0] - below[name][k][0]) / (2 * step)
            np.testing.assert_allclose(at[name][k][1][0][0, 1], expected, rtol=1e-2, err_msg=name)


@pytest.mark.slow
def test_derivatives_of_weights_and_parameters():
    x, y = (np.random.default_rng(i).uniform(0.1, 1, (3, 5)) for i in (1, 2))

    def values(x, y, alpha, beta):
        of_tversky = measure("tversky", alpha=alpha, beta=beta)
        return [(m(x[:, None], y[None]), pairwise(x, y, m, block_size=2)) for m in (of_tversky, measure("overlap"))]

    gradient = assert_derivatives(values, x, y, 0.7, 1.3)
    assert all(np.abs(a).min() > 1e-3 for a in gradient[2:])


def test_huge_and_tiny_weights():
    """Sums of 6e37 overflow; the value is the same at every scale, the gradient is proportional to 1 / scale."""
    x, y = float32(np.random.default_rng(1).uniform(1, 5, (2, 1, 4)))
    expected = gradients(x, y)
    for scale in (1e-30, 1e30, 6e37):
        found = gradients(*(float32(float64(a) * scale) for a in (x, y)))
        for name in SETS:
            for (value, slopes), (expected_value, expected_slopes) in zip(found[name], expected[name], strict=True):
                np.testing.assert_allclose(value, expected_value, rtol=1e-5)
                assert np.isfinite(slopes).all()
                if scale < 1e37:  # beyond, 1 / scale is below the smallest number
                    np.testing.assert_allclose(np.multiply(slopes, scale), expected_slopes, rtol=1e-4, atol=1e-6)


def test_huge_and_tiny_sets_in_one_matrix():
    x = np.zeros((5, 19), np.float32)
    x[:3, :2] = [[1e30, 2e30], [1e-30, 2e-30], [2e-30, 1e-30]]
    found = forms(x, np.concatenate([x, x[:2]]))["jaccard"]
    for form in found:
        np.testing.assert_allclose(np.asarray(form)[:3, :3], [[1, 0, 0], [0, 1, 0.5], [0, 0.5, 1]], atol=1e-6)


def test_a_huge_parameter_gives_finite_numbers():
    x, y = float32([1e30, 1]), float32([1, 1e30])
    value, gradient = jax.value_and_grad(functools.partial(tversky_index, alpha=1e30))(x, y)
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["int32", *(slow_unless(False, kind) for kind in ("float16", "bfloat16"))])
def test_other_types_are_computed_in_float32(kind):
    x, y = (np.asarray(np.random.default_rng(n).integers(0, 200, (n, 19)), jnp.dtype(kind)) for n in (5, 7))
    exact = forms(float32(x), float32(y))
    result = jnp.dtype(jnp.float32 if kind == "int32" else kind)
    for name, both in forms(x, y).items():
        for form, expected in zip(both, exact[name], strict=True):
            assert form.dtype == result
            np.testing.assert_allclose(float32(form), float32(np.asarray(expected).astype(result)), rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = np.ones(3, np.float32)
    with pytest.raises(InputError, match="alpha: expected at least 0, got -1"):
        tversky_index(x, x, alpha=-1.0)
    with pytest.raises(InputError, match="beta: expected at least 0, got nan"):
        measure("tversky", beta=float("nan"))
    with pytest.raises(InputError, match="y: expected as many features as x"):
        jaccard_index(x, np.ones(4, np.float32))
    with pytest.raises(TypeError, match="x: expected real numbers, got complex64"):
        dice_coefficient(x * np.complex64(1j), x)
