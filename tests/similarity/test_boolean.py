import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy.spatial.distance import cdist

from simjax import similarity
from simjax.core import InputError
from simjax.similarity import measure
from simjax.similarity import pairwise as pairwise_of_numbers

SCIPY = {
    "jaccard_distance": "jaccard",
    "dice_distance": "dice",
    "rogers_tanimoto": "rogerstanimoto",
    "russell_rao": "russellrao",
    "sokal_sneath": "sokalsneath",
    "yule": "yule",
}
FUNCTIONS = {name: getattr(similarity, name if name.endswith("_distance") else f"{name}_distance") for name in SCIPY}


def pairwise(x, y=None, measure="", **options):
    """Convert booleans to 0s and 1s."""
    x, y = (None if a is None else a.astype(jnp.int32) if a.dtype == bool else a for a in (x, y))
    return pairwise_of_numbers(x, y, measure, **options)


@pytest.mark.parametrize("name", SCIPY)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_agrees_with_scipy(random, name, share):
    x, y = random.random((13, 37)) < share, random.random((11, 37)) < share
    x[:, 3] |= ~x.any(1)  # SciPy gives NaN or raises for two empty sets
    expected = cdist(x, y, SCIPY[name])
    np.testing.assert_allclose(pairwise(x, y, name), expected, rtol=1e-6)
    np.testing.assert_allclose(FUNCTIONS[name](x[:, None], y[None]), expected, rtol=1e-6)


@pytest.mark.parametrize("name", SCIPY)
def test_every_number_but_zero_is_true(random, name):
    x, y = random.integers(-2, 3, (7, 17)), random.integers(-2, 3, (5, 17))
    expected = cdist(x != 0, y != 0, SCIPY[name])
    for kind, result in ((jnp.int32, jnp.float32), (jnp.bfloat16, jnp.bfloat16)):
        found = pairwise(jnp.asarray(x, kind), jnp.asarray(y, kind), name)
        np.testing.assert_allclose(jnp.float32(found), jnp.float32(jnp.asarray(expected, result)), rtol=1e-6)
    tiny = jnp.float32(np.where(x < 0, -0.0, x * 1e-30))
    np.testing.assert_allclose(pairwise(tiny, y, name), cdist(x > 0, y != 0, SCIPY[name]), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st_numpy.arrays(bool, (5, 9), elements=st.booleans()))
def test_symmetry_range_and_identity(x):
    for name in SCIPY:
        m = measure(name)
        d = np.asarray(pairwise(x, measure=m))
        np.testing.assert_array_equal(d, d.T)
        assert d.min() >= m.range[0]
        assert d.max() <= m.range[1]
        np.testing.assert_allclose(np.diag(d), (~x).mean(1) if name == "russell_rao" else 0, rtol=1e-6)
        np.testing.assert_array_equal(d, pairwise(x, measure=m, block_size=2))


@pytest.mark.parametrize(
    ("name", "both_empty", "one_empty"),
    [
        ("jaccard_distance", 0, 1),
        ("dice_distance", 0, 1),
        ("rogers_tanimoto", 0, 0.8),
        ("russell_rao", 1, 1),
        ("sokal_sneath", 0, 1),
        ("yule", 0, 0),
    ],
)
def test_empty_sets(name, both_empty, one_empty):
    sets = jnp.array([[False, False, False], [True, True, False]])
    expected = pairwise(sets, measure=name)[0]
    np.testing.assert_allclose(expected, [both_empty, one_empty], rtol=1e-6)
    np.testing.assert_allclose(FUNCTIONS[name](sets[:1], sets), [both_empty, one_empty], rtol=1e-6)


@pytest.mark.parametrize("name", SCIPY)
def test_vectors_without_features_are_at_distance_zero(name):
    np.testing.assert_array_equal(pairwise(jnp.zeros((2, 0)), jnp.zeros((3, 0)), name), np.zeros((2, 3)))


def test_counts_stay_exact_in_low_precision_and_for_many_features(random):
    x = random.random((3, 70_001)) < 0.5
    with jax.default_matmul_precision("bfloat16"):
        found = pairwise(x, measure="jaccard_distance")
    np.testing.assert_allclose(found, cdist(x, x, "jaccard"), rtol=2e-7)


@pytest.mark.parametrize("name", SCIPY)
def test_gradients_are_zero_and_transformations_agree(random, name):
    x, y = (jnp.float32(random.normal(size=(5, 7)) > 0) for _ in range(2))
    function = FUNCTIONS[name]
    np.testing.assert_array_equal(jax.grad(lambda x: pairwise(x, y, name).sum())(x), 0)
    np.testing.assert_array_equal(jax.grad(lambda x: function(x, y).sum())(x), 0)
    np.testing.assert_allclose(jax.jit(function)(x, y), function(x, y), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(function)(x, y), [function(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(InputError, match="y: expected as many features as x"):
        similarity.yule_distance(jnp.ones(3), jnp.ones(4))
    with pytest.raises(InputError, match="did you mean sokal_sneath"):
        measure("sokalsneath")
