"""Losses of graded pairs and of two views, against loops."""

from functools import partial

import jax
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import (
    assert_gradient_equals_slope,
    float32,
    unit,
)
from tests.slow import mostly_slow

N, D = 11, 6


@pytest.fixture
def views(random):
    return random.normal(size=(N, D)), random.normal(size=(N, D))


def test_angle_similarity_of_0_has_gradient_0():
    """Re z + Im z of the first pair is 0, where the absolute value has a kink."""
    x, y = np.array([[1, 0], [1, 0]], np.float32), np.array([[1, 1], [1, 0]], np.float32)
    value, gradient = jax.jit(jax.value_and_grad(losses.angle_loss))(x, y, np.array([1, 0]))
    np.testing.assert_allclose(value, 20.0, rtol=1e-6)  # log(1 + exp(20 (1 - 0)))
    np.testing.assert_array_equal(gradient[0], [0, 0])


def test_cosent_equals_loops(random, views):
    x, y = views
    score, s = random.integers(0, 4, N), (unit(x) * unit(y)).sum(1)
    worse = [np.exp(20 * (s[b] - s[a])) for a in range(N) for b in range(N) if score[a] > score[b]]
    compute = jax.jit(partial(losses.cosent_loss, float32(x), float32(y), block_size=3))
    np.testing.assert_allclose(compute(score), np.log1p(sum(worse)), rtol=1e-5)
    assert float(compute(np.ones(N, int))) == 0


def test_angle_equals_complex_arithmetic(random, views):
    x, y = views
    score = random.random(N)
    z, w = (unit(v)[:, : D // 2] + 1j * unit(v)[:, D // 2 :] for v in (x, y))
    product = (z * w.conj()).sum(1)
    s = abs(product.real + product.imag)
    worse = [np.exp(20 * (s[b] - s[a])) for a in range(N) for b in range(N) if score[a] > score[b]]
    np.testing.assert_allclose(losses.angle_loss(float32(x), float32(y), score), np.log1p(sum(worse)), rtol=1e-5)


def test_vicreg_equals_its_formula(views):
    spread = [np.maximum(0, 1 - np.sqrt(v.var(0, ddof=1) + 1e-4)).mean() / 2 for v in views]
    shared = [np.square(np.cov(v.T)[~np.eye(D, dtype=bool)]).sum() / D for v in views]
    expected = 25 * np.square(views[0] - views[1]).mean() + 25 * sum(spread) + sum(shared)
    np.testing.assert_allclose(losses.vicreg_loss(*map(float32, views)), expected, rtol=1e-5)


def test_barlow_twins_equals_its_formula(views):
    matrix = np.corrcoef(views[0].T, views[1].T)[:D, D:]
    own = np.eye(D, dtype=bool)
    expected = np.square(1 - matrix[own]).sum() + 5e-3 * np.square(matrix[~own]).sum()
    np.testing.assert_allclose(losses.barlow_twins_loss(*map(float32, views)), expected, rtol=1e-5)


def test_simsiam_has_no_gradient_of_projections(views):
    cosines = (unit(views[0]) * unit(views[1])).sum(1)

    @jax.jit
    def compute(p, z):
        both = losses.simsiam_loss(p, z, other_prediction=z, other_projection=z)
        return jax.value_and_grad(losses.simsiam_loss, argnums=(0, 1))(p, z), both

    (one, (of_prediction, of_projection)), both = compute(*map(float32, views))
    np.testing.assert_allclose(one, -cosines.mean(), rtol=1e-5)
    np.testing.assert_allclose(both, -(cosines.mean() + 1) / 2, rtol=1e-5)
    assert np.any(of_prediction)
    assert not np.any(of_projection)


PAIRED = {
    "simsiam": losses.simsiam_loss,
    "cosent": lambda x, y: losses.cosent_loss(x, y, np.arange(len(x))),
    "angle": lambda x, y: losses.angle_loss(x, y, np.arange(len(x))),
    "vicreg": losses.vicreg_loss,
    "barlow_twins": losses.barlow_twins_loss,
}


@pytest.mark.parametrize("name", mostly_slow(PAIRED, "vicreg", "cosent"))
def test_gradient_equals_finite_differences(random, views, name):
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(lambda v: PAIRED[name](v[0], v[1])))
        pair = np.stack(views)
        if name == "simsiam":  # the projection has no gradient
            assert_gradient_equals_slope(lambda p: (both(np.stack([p, pair[1]]))[0], both(pair)[1][0]), pair[0], random)
        else:
            assert_gradient_equals_slope(both, pair, random)


@pytest.mark.parametrize("name", mostly_slow(PAIRED, "vicreg"))
def test_no_nan_for_degenerate_views(name):
    both = jax.jit(jax.value_and_grad(PAIRED[name], argnums=(0, 1)))
    for x, y in (
        (np.zeros((4, 4)), np.zeros((4, 4))),
        (np.ones((4, 4)), -np.ones((4, 4))),
        (np.eye(4), np.eye(4) * 1e8),
        (np.ones((1, 4)), np.ones((1, 4))),
        (np.ones((0, 4)), np.ones((0, 4))),
    ):
        value, gradients = both(float32(x), float32(y))
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    x = np.ones((3, 4))
    for name in ("vicreg", "barlow_twins", "cosent"):
        with pytest.raises(InputError, match="expected"):
            PAIRED[name](x, x[:2])
    with pytest.raises(InputError, match="expected both or neither"):
        losses.simsiam_loss(x, x, other_prediction=x)
    with pytest.raises(InputError, match="even number of features"):
        losses.angle_loss(x[:, :3], x[:, :3], np.ones(3))
    with pytest.raises(InputError, match=r"\(3, 4\), \(3, 4\) and \(2,\)"):
        losses.cosent_loss(x, x, np.ones(2))
