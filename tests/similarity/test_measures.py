import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from simjax import similarity
from simjax.core import InputError

SCIPY = {
    "cosine_distance": "cosine",
    "euclidean": "euclidean",
    "squared_euclidean": "sqeuclidean",
}
NAMES = ["dot", "cosine", "cosine_distance", "euclidean", "squared_euclidean"]


@pytest.mark.parametrize("name", SCIPY)
def test_agrees_with_scipy(random, name):
    x, y = random.normal(size=(7, 5)), random.normal(size=(11, 5))
    expected = cdist(x, y, SCIPY[name])
    found = similarity.pairwise(jnp.float32(x), jnp.float32(y), name)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    pair = similarity.measure(name)(jnp.float32(x)[:, None], jnp.float32(y)[None])
    np.testing.assert_allclose(pair, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_pair_form_equals_matrix_form_in_float64(name):
    with jax.enable_x64(True):
        random = np.random.default_rng(2)
        x, y = jnp.asarray(random.normal(size=(7, 5))), jnp.asarray(random.normal(size=(11, 5)))
        m = similarity.measure(name)
        np.testing.assert_allclose(m.all_pairs(x, y), m(x[:, None], y[None]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite_at_degenerate_points(name):
    m = similarity.measure(name)
    zero, one = jnp.zeros(3), jnp.array([1.0, 2.0, -1.0])
    for x, y in ((zero, zero), (zero, one), (one, one), (one, -one)):
        value, gradients = jax.value_and_grad(m, argnums=(0, 1))(x, y)
        assert np.isfinite(value)
        assert np.isfinite(gradients).all()
        strip, pullback = jax.vjp(m.strip, x[None], y[None])
        assert np.isfinite(strip).all()
        assert np.isfinite(pullback(jnp.ones((1, 1)))).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_of_huge_and_tiny_vectors(scale):
    a, b = jnp.array([0.2, 0.99]) * scale, jnp.array([0.9, 0.99])
    np.testing.assert_allclose(similarity.cosine_similarity(a, b), 0.8585, atol=2e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_symmetry_and_range(seed):
    x = jnp.float32(np.random.default_rng(seed).normal(size=(6, 3)))
    for name in NAMES:
        m = similarity.measure(name)
        s = np.asarray(m.all_pairs(x, x))
        np.testing.assert_allclose(s, s.T, rtol=1e-3, atol=1e-4)
        assert s.min() >= m.range[0] - 1e-6
        assert s.max() <= m.range[1] + 1e-6


def test_gradients_in_float64():
    with jax.enable_x64(True):
        x, y = (jnp.asarray(np.random.default_rng(i).normal(size=(3, 4))) for i in (1, 2))
        for name in NAMES:
            m = similarity.measure(name)
            jax.test_util.check_grads(lambda x, y, m=m: m.all_pairs(jnp.asarray(x), jnp.asarray(y)), (x, y), order=1)
            jax.test_util.check_grads(m, (x, y), order=2)


def test_a_users_own_function_works_everywhere(random):
    x = jnp.float32(random.normal(size=(7, 3)))
    m = similarity.Measure.from_pair(lambda a, b: jnp.sum(jnp.abs(a - b), -1), higher_is_closer=False)
    np.testing.assert_allclose(similarity.pairwise(x, measure=m), cdist(x, x, "cityblock"), rtol=1e-5, atol=1e-6)
    _, nearest = similarity.top_k(x, x, 1, m)
    np.testing.assert_array_equal(nearest[:, 0], np.arange(7))


def test_worked_example_of_the_colours():
    colours = jnp.array([[255.0, 0, 0], [255, 105, 180], [0, 255, 0]])
    expected = [[1, 0.77, 0], [0.77, 1, 0.32], [0, 0.32, 1]]
    np.testing.assert_allclose(similarity.pairwise(colours), expected, atol=0.005)


def test_worked_example_of_the_people():
    people = jnp.array([[179.0, 70, 25, 1, 1, 1, 1], [180, 70, 26, 1, 1, 1, 1], [185, 80, 54, 2, 2, 2, 2]])
    for name in ("euclidean", "squared_euclidean", "cosine_distance"):
        d = similarity.pairwise(people, measure=name)
        assert d[0, 1] < d[0, 2]
        assert int(similarity.top_k(people[:1], people, 1, name, exclude=jnp.array([0]))[1][0, 0]) == 1


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_measure_names_the_nearest():
    with pytest.raises(InputError, match="did you mean euclidean"):
        similarity.measure("euclidian")
