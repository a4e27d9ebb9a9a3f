import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.similarity import measure, pairwise
from simjax.similarity._sets import (
    dice_coefficient,
    jaccard_distance,
    jaccard_index,
    overlap_coefficient,
    tversky_index,
)
from tests.slow import mostly_slow

SETS = {
    "jaccard": jaccard_index,
    "tversky": tversky_index,
    "dice": dice_coefficient,
    "overlap": overlap_coefficient,
}


def by_loops(name, x, y, alpha=1.0, beta=1.0):
    common = sum(min(a, b) for a, b in zip(x, y, strict=True))
    only_x, only_y = sum(x) - common, sum(y) - common
    return {
        "jaccard": lambda: common / sum(max(a, b) for a, b in zip(x, y, strict=True)),
        "tversky": lambda: common / (common + alpha * only_x + beta * only_y),
        "dice": lambda: 2 * common / (sum(x) + sum(y)),
        "overlap": lambda: common / min(sum(x), sum(y)),
    }[name]()


def forms(name):
    """Yield functions of x, y [n, d] giving the sum over pairs and its gradients, by the pair and the matrix form."""
    for compare in (SETS[name], lambda x, y: jnp.diagonal(pairwise(x, y, name))):
        yield jax.jit(jax.value_and_grad(lambda x, y, f=compare: jnp.sum(f(x, y)), argnums=(0, 1)))


def weights(seed, n, d):
    """Return sparse weights, many of which are 0 in both sets; no set is empty."""
    random = np.random.default_rng(seed)
    x = random.exponential(size=(n, d)) * (random.random((n, d)) < 0.6)
    x[:, 0] += 0.1
    return x


@pytest.mark.parametrize(
    ("name", "parameters"),
    [(name, {}) for name in SETS] + [("tversky", {"alpha": 0.3, "beta": 2.0}), ("tversky", {"alpha": 1, "beta": 0})],
)
def test_agrees_with_loops(name, parameters):
    x, y = weights(0, 7, 37), weights(1, 11, 37)
    expected = [[by_loops(name, a, b, **parameters) for b in y] for a in x]
    m = measure(name, **parameters)
    np.testing.assert_allclose(pairwise(x, y, m), expected, rtol=1e-5)
    np.testing.assert_allclose(SETS[name](x[:, None], y[None], **parameters), expected, rtol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_pair_form_equals_matrix_form_in_float64(name):
    with jax.enable_x64(True):
        x, y = weights(2, 5, 13), weights(3, 7, 13)
        m = measure(name)
        np.testing.assert_allclose(pairwise(x, y, m, block_size=2), m(x[:, None], y[None]), rtol=1e-13)


def test_boolean_sets_agree_with_scipy(random):
    x, y = random.random((7, 41)) < 0.4, random.random((11, 41)) < 0.5
    for name in ("jaccard", "dice"):
        found = pairwise(x.astype(int), y.astype(int), name)
        np.testing.assert_allclose(found, 1 - cdist(x, y, name), rtol=1e-6)
    np.testing.assert_allclose(jaccard_index(x[:7], y[:7]), 1 - jaccard_distance(x[:7], y[:7]), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_symmetry_range_and_identity(seed):
    x = jnp.float32(weights(seed, 6, 19))
    for name in SETS:
        s = np.asarray(pairwise(x, measure=name))
        np.testing.assert_allclose(s, s.T, rtol=1e-6)
        assert s.min() >= 0
        assert s.max() <= 1
        np.testing.assert_allclose(np.diag(s), 1, rtol=1e-6)


def test_tversky_generalizes_jaccard_and_dice_and_is_not_symmetric():
    x, y = jnp.float32(weights(4, 7, 13)), jnp.float32(weights(5, 7, 13))
    np.testing.assert_allclose(tversky_index(x, y), jaccard_index(x, y), rtol=1e-6)
    np.testing.assert_allclose(tversky_index(x, y, alpha=0.5, beta=0.5), dice_coefficient(x, y), rtol=1e-6)
    swapped = tversky_index(y, x, alpha=2.0, beta=0.3)
    np.testing.assert_allclose(tversky_index(x, y, alpha=0.3, beta=2.0), swapped, rtol=1e-6)
    assert not np.allclose(tversky_index(x, y, alpha=2.0, beta=0.3), swapped, rtol=1e-2)


def test_the_overlap_of_a_subset_is_one():
    x = jnp.float32(weights(6, 5, 17))
    np.testing.assert_allclose(overlap_coefficient(x / 2, x), 1, rtol=1e-6)
    np.testing.assert_allclose(jaccard_index(x / 2, x), 0.5, rtol=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_empty_sets_have_a_defined_value_and_zero_gradient(name):
    empty, some = jnp.zeros((1, 3)), jnp.array([[1.0, 2.0, 0.0]])
    for compare in forms(name):
        for x, y, expected in ((empty, empty, 1), (empty, some, 0), (some, empty, 0)):
            value, gradients = compare(x, y)
            assert value == expected
            assert np.isfinite(gradients).all()
        np.testing.assert_array_equal(compare(empty, empty)[1], 0)


@pytest.mark.parametrize("name", SETS)
def test_gradient_is_zero_at_equal_sets_and_the_mean_of_both_sides_at_ties(name):
    x = jnp.array([1.0, 2.0, 0.0, 5.0])
    np.testing.assert_allclose(jax.grad(SETS[name])(x, x), 0, atol=1e-7)
    y, step = jnp.array([3.0, 2.0, 1.0, 0.5]), 2.0**-6  # a tie in the second feature
    above, below = (float(SETS[name](x.at[1].add(h), y)) for h in (step, -step))
    found = jax.grad(SETS[name])(x, y)[1]
    np.testing.assert_allclose(found, (above - below) / (2 * step), rtol=1e-2)


@pytest.mark.parametrize("name", mostly_slow(SETS, "tversky"))
def test_gradients_in_float64(name):
    with jax.enable_x64(True):
        x, y = (np.random.default_rng(i).uniform(0.1, 1, (3, 5)) for i in (1, 2))
        jax.test_util.check_grads(SETS[name], (x, y), order=1)
        matrix = jax.jit(lambda x, y: pairwise(x, y, name))
        jax.test_util.check_grads(matrix, (x, y), order=1, modes=["rev"])


def test_gradients_of_the_parameters_and_second_order():
    with jax.enable_x64(True):
        x, y = (np.random.default_rng(i).uniform(0.1, 1, (3, 5)) for i in (1, 2))

        @jax.jit
        def matrix(x, alpha, beta):
            return pairwise(x, y, measure("tversky", alpha=alpha, beta=beta))

        jax.test_util.check_grads(matrix, (x, 0.7, 1.3), order=2, modes=["rev"])


@pytest.mark.parametrize("name", mostly_slow(SETS, "tversky"))
def test_huge_and_tiny_weights(name):
    """Sums of 6e37 overflow; the value is the same at every scale, the gradient is proportional to 1 / scale."""
    x, y = (np.random.default_rng(i).uniform(1, 5, (3, 7)) for i in (1, 2))
    for compare in forms(name):
        expected, small = compare(jnp.float32(x), jnp.float32(y))
        for scale in (1e-30, 1e30, 6e37):
            found, gradients = compare(jnp.float32(x * scale), jnp.float32(y * scale))
            np.testing.assert_allclose(found, expected, rtol=1e-5)
            assert np.isfinite(gradients).all()
            if scale < 1e37:  # beyond, 1 / scale is below the smallest number
                np.testing.assert_allclose(np.multiply(gradients, scale), small, rtol=1e-4, atol=1e-6)


def test_huge_and_tiny_sets_in_one_matrix():
    x = jnp.float32([[1e30, 2e30, 0], [1e-30, 2e-30, 0], [2e-30, 1e-30, 0]])
    np.testing.assert_allclose(pairwise(x, measure="jaccard"), [[1, 0, 0], [0, 1, 0.5], [0, 0.5, 1]], atol=1e-6)


def test_a_huge_parameter_gives_finite_numbers():
    x, y = jnp.array([1e30, 1.0]), jnp.array([1.0, 1e30])
    value, gradient = jax.value_and_grad(tversky_index)(x, y, alpha=1e30)
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", [jnp.float16, jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("name", SETS)
def test_other_types_are_computed_in_float32(name, kind):
    x, y = (jnp.asarray(np.random.default_rng(i).integers(0, 200, (5, 7)), kind) for i in (1, 2))
    exact = SETS[name](jnp.float32(x), jnp.float32(y))
    result = jnp.float32 if kind == jnp.int32 else kind
    for found in (SETS[name](x, y), jnp.diagonal(pairwise(x, y, name))):
        assert found.dtype == result
        np.testing.assert_allclose(jnp.float32(found), jnp.float32(exact.astype(result)), rtol=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_transformations(name):
    x, y = jnp.float32(weights(7, 3, 11)), jnp.float32(weights(8, 3, 11))
    function = SETS[name]
    np.testing.assert_allclose(jax.jit(function)(x, y), function(x, y), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(function)(x, y), [function(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = jnp.ones(3)
    with pytest.raises(InputError, match="alpha: expected at least 0, got -1"):
        tversky_index(x, x, alpha=-1.0)
    with pytest.raises(InputError, match="beta: expected at least 0, got nan"):
        measure("tversky", beta=float("nan"))
    with pytest.raises(InputError, match="y: expected as many features as x"):
        jaccard_index(x, jnp.ones(4))
    with pytest.raises(TypeError, match="x: expected real numbers, got complex64"):
        dice_coefficient(x * 1j, x)
