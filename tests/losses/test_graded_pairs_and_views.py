"""Losses of graded pairs and of two views, and FastAP, against loops."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import rows, unit
from tests.slow import mostly_slow

N, D = 11, 6


@pytest.fixture
def views(random):
    return random.normal(size=(N, D)), random.normal(size=(N, D))


def test_fast_ap_equals_loops(random, views):
    x, labels = views[0], random.integers(0, 3, N)
    d = np.square(unit(x)[:, None] - unit(x)[None]).sum(2)
    same, bins = labels[:, None] == labels, 10
    expected = []
    for i, (p, q) in enumerate(rows(same & ~np.eye(N, dtype=bool), ~same)):
        total = all_before = positives_before = 0.0
        for b in range(bins + 1):
            share = np.maximum(0, 1 - abs(d[i] - 4 * b / bins) / (4 / bins))
            positives_before += share[p].sum()
            all_before += share[p].sum() + share[q].sum()
            if all_before > 0:
                total += share[p].sum() * positives_before / all_before
        if len(p):
            expected.append(1 - total / len(p))
    found = losses.fast_ap_loss(jnp.float32(x), labels, block_size=4)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)


def test_cosent_equals_loops(random, views):
    x, y = views
    score, s = random.integers(0, 4, N), (unit(x) * unit(y)).sum(1)
    worse = [np.exp(20 * (s[b] - s[a])) for a in range(N) for b in range(N) if score[a] > score[b]]
    found = losses.cosent_loss(jnp.float32(x), jnp.float32(y), score, block_size=3)
    np.testing.assert_allclose(found, np.log1p(sum(worse)), rtol=1e-5)
    assert float(losses.cosent_loss(jnp.float32(x), jnp.float32(y), np.ones(N))) == 0


def test_angle_equals_complex_arithmetic(random, views):
    x, y = views
    score = random.random(N)
    z, w = (unit(v)[:, : D // 2] + 1j * unit(v)[:, D // 2 :] for v in (x, y))
    product = (z * w.conj()).sum(1)
    s = abs(product.real + product.imag)
    worse = [np.exp(20 * (s[b] - s[a])) for a in range(N) for b in range(N) if score[a] > score[b]]
    np.testing.assert_allclose(
        losses.angle_loss(jnp.float32(x), jnp.float32(y), score), np.log1p(sum(worse)), rtol=1e-5
    )


def test_vicreg_equals_its_formula(views):
    spread = [np.maximum(0, 1 - np.sqrt(v.var(0, ddof=1) + 1e-4)).mean() / 2 for v in views]
    shared = [np.square(np.cov(v.T)[~np.eye(D, dtype=bool)]).sum() / D for v in views]
    expected = 25 * np.square(views[0] - views[1]).mean() + 25 * sum(spread) + sum(shared)
    np.testing.assert_allclose(losses.vicreg_loss(*map(jnp.float32, views)), expected, rtol=1e-5)


def test_barlow_twins_equals_its_formula(views):
    matrix = np.corrcoef(views[0].T, views[1].T)[:D, D:]
    own = np.eye(D, dtype=bool)
    expected = np.square(1 - matrix[own]).sum() + 5e-3 * np.square(matrix[~own]).sum()
    np.testing.assert_allclose(losses.barlow_twins_loss(*map(jnp.float32, views)), expected, rtol=1e-5)


def test_simsiam_has_no_gradient_of_projections(views):
    p, z = map(jnp.float32, views)
    cosines = (unit(views[0]) * unit(views[1])).sum(1)
    np.testing.assert_allclose(losses.simsiam_loss(p, z), -cosines.mean(), rtol=1e-5)
    both = losses.simsiam_loss(p, z, other_prediction=z, other_projection=z)
    np.testing.assert_allclose(both, -(cosines.mean() + 1) / 2, rtol=1e-5)
    of_prediction, of_projection = jax.grad(losses.simsiam_loss, argnums=(0, 1))(p, z)
    assert np.any(of_prediction)
    assert not np.any(of_projection)


PAIRED = {
    "simsiam": losses.simsiam_loss,
    "cosent": lambda x, y: losses.cosent_loss(x, y, jnp.arange(len(x))),
    "angle": lambda x, y: losses.angle_loss(x, y, jnp.arange(len(x))),
    "vicreg": losses.vicreg_loss,
    "barlow_twins": losses.barlow_twins_loss,
    "fast_ap": lambda x, y: losses.fast_ap_loss(
        x, jnp.arange(len(x)) // 2, ref_embeddings=y, ref_labels=jnp.arange(len(y))
    ),
}


@pytest.mark.parametrize("name", mostly_slow(PAIRED, "vicreg", "cosent"))
def test_gradient_equals_finite_differences(views, name):
    with jax.enable_x64(True):
        pair = tuple(jnp.asarray(v) for v in views)
        jax.test_util.check_grads(PAIRED[name], pair, order=1, modes=["rev"])


@pytest.mark.parametrize("name", mostly_slow(PAIRED, "vicreg", "cosent"))
def test_no_nan_for_degenerate_views(name):
    for x, y in (
        (np.zeros((4, 4)), np.zeros((4, 4))),
        (np.ones((4, 4)), -np.ones((4, 4))),
        (np.eye(4), np.eye(4) * 1e8),
        (np.ones((1, 4)), np.ones((1, 4))),
        (np.ones((0, 4)), np.ones((0, 4))),
    ):
        value, gradients = jax.value_and_grad(PAIRED[name], argnums=(0, 1))(jnp.float32(x), jnp.float32(y))
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    x = jnp.ones((3, 4))
    for name in ("vicreg", "barlow_twins", "cosent"):
        with pytest.raises(InputError, match="expected"):
            PAIRED[name](x, x[:2])
    with pytest.raises(InputError, match="expected both or neither"):
        losses.simsiam_loss(x, x, other_prediction=x)
    with pytest.raises(InputError, match="even number of features"):
        losses.angle_loss(x[:, :3], x[:, :3], jnp.ones(3))
    with pytest.raises(InputError, match=r"\(3, 4\), \(3, 4\) and \(2,\)"):
        losses.cosent_loss(x, x, jnp.ones(2))
    with pytest.raises(InputError, match="bins: expected at least 1"):
        losses.fast_ap_loss(x, jnp.arange(3), bins=0)
