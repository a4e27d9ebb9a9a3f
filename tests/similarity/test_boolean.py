"""Distances of boolean vectors. All of them are computed by one program for each shape and dtype."""

from typing import Any

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
from simjax.similarity import measure, pairwise
from tests.similarity.arrays import float32
from tests.slow import slow_unless

SCIPY: dict[str, Any] = {
    "jaccard_distance": "jaccard",
    "dice_distance": "dice",
    "rogers_tanimoto": "rogerstanimoto",
    "russell_rao": "russellrao",
    "sokal_sneath": "sokalsneath",
    "yule": "yule",
}
FUNCTIONS = {name: getattr(similarity, name if name.endswith("_distance") else f"{name}_distance") for name in SCIPY}


@jax.jit
def forms(x, y):
    """Return the matrix by pairs and by tiles."""
    return {name: (FUNCTIONS[name](x[:, None], y[None]), pairwise(x, y, name)) for name in SCIPY}


def test_agrees_with_scipy(random):
    for share in (0.1, 0.5, 0.9):
        x, y = random.random((13, 37)) < share, random.random((11, 37)) < share
        x[:, 3] |= ~x.any(1)  # SciPy gives NaN or raises for two empty sets
        for name, found in forms(float32(x), float32(y)).items():
            expected = np.broadcast_to(cdist(x, y, SCIPY[name]), (2, 13, 11))
            np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["bfloat16", slow_unless(False, "int32"), slow_unless(False, "bool")])
def test_every_number_but_zero_is_true(random, kind):
    x, y = random.integers(-2, 3, (13, 37)), random.integers(-2, 3, (11, 37))
    kind = jnp.dtype(kind)
    result = kind if kind == jnp.bfloat16 else jnp.dtype(jnp.float32)
    for name, found in forms(np.asarray(x, kind), np.asarray(y, kind)).items():
        expected = cdist(x != 0, y != 0, SCIPY[name]).astype(result)
        assert {a.dtype for a in found} == {result}
        for form in found:
            np.testing.assert_allclose(float32(form), float32(expected), rtol=1e-6, err_msg=name)


def test_tiny_numbers_are_true_and_negative_zero_is_not(random):
    x, y = random.integers(-2, 3, (13, 37)), random.integers(-2, 3, (11, 37))
    tiny = float32(np.where(x < 0, -0.0, x * 1e-30))
    for name, found in forms(tiny, float32(y)).items():
        np.testing.assert_allclose(found[1], cdist(x > 0, y != 0, SCIPY[name]), rtol=1e-6, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st_numpy.arrays(bool, (5, 9), elements=st.booleans()))
def test_symmetry_range_and_identity(x):
    for name, found in forms(float32(x), float32(x)).items():
        low, high = measure(name).range
        for d in map(np.asarray, found):
            np.testing.assert_array_equal(d, d.T)
            assert d.min() >= low
            assert d.max() <= high
            np.testing.assert_allclose(np.diag(d), (~x).mean(1) if name == "russell_rao" else 0, rtol=1e-6)


EMPTY = {  # distances of an empty set from itself and from {1, 2} of 9 features
    "jaccard_distance": (0, 1),
    "dice_distance": (0, 1),
    "rogers_tanimoto": (0, 4 / 11),
    "russell_rao": (1, 1),
    "sokal_sneath": (0, 1),
    "yule": (0, 0),
}


def test_empty_sets():
    sets = np.zeros((5, 9), np.float32)
    sets[1, :2] = 1
    for name, found in forms(sets, sets).items():
        for d in map(np.asarray, found):
            np.testing.assert_allclose(d[0, :2], EMPTY[name], rtol=1e-6, err_msg=name)


def test_vectors_without_features_are_at_distance_zero():
    for found in forms(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32)).values():
        np.testing.assert_array_equal(found, np.zeros((2, 2, 3)))


def test_counts_stay_exact_in_low_precision_and_for_many_features(random):
    x = random.random((3, 70_001)) < 0.5
    with jax.default_matmul_precision("bfloat16"):
        found = pairwise(float32(x), measure="jaccard_distance")
    np.testing.assert_allclose(found, cdist(x, x, "jaccard"), rtol=2e-7)


def test_gradients_are_zero(random):
    @jax.jit
    @jax.jacrev
    def jacobians(x, y):
        return [d for name in SCIPY for d in (FUNCTIONS[name](x[:, None], y[None]), pairwise(x, y, name))]

    for jacobian in jacobians(*float32(random.normal(size=(2, 5, 7)) > 0)):
        np.testing.assert_array_equal(jacobian, np.zeros((5, 5, 5, 7)))


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(InputError, match="y: expected as many features as x"):
        similarity.yule_distance(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="did you mean sokal_sneath"):
        measure("sokalsneath")
