import itertools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax import mining as miners
from simjax.losses import triplet_margin_loss as loss_of
from simjax.similarity import measure
from tests.slow import mostly_slow


def triplets(labels):
    """Return all triplets (anchor, positive, negative)."""
    n = range(len(labels))
    return [
        (a, p, q)
        for a, p, q in itertools.product(n, n, n)
        if a != p and labels[a] == labels[p] and labels[a] != labels[q]
    ]


def mean_above_zero(losses):
    above = [loss for loss in losses if loss > 0]
    return np.mean(above) if above else 0.0


def all_by_loops(d, labels, margin):
    return mean_above_zero([d[a, p] - d[a, q] + margin for a, p, q in triplets(labels)])


def hard_by_loops(d, labels, margin):
    losses = []
    for _, group in itertools.groupby(triplets(labels), key=lambda t: t[0]):
        selected = list(group)
        losses.append(max(d[a, p] for a, p, _ in selected) - min(d[a, q] for a, _, q in selected) + margin)
    return mean_above_zero(losses)


def semi_hard_by_loops(d, labels, margin):
    losses = []
    for (a, p), group in itertools.groupby(triplets(labels), key=lambda t: t[:2]):
        negatives = [d[a, q] for _, _, q in group]
        farther = [value for value in negatives if value > d[a, p]]
        losses.append(d[a, p] - (min(farther) if farther else max(negatives)) + margin)
    return mean_above_zero(losses)


def triplet_margin_loss(x, labels, *, mining, measure="normalized_euclidean", **options):
    mined = {
        "all": lambda x, labels, measure: labels,
        "hard": miners.batch_hard,
        "semi_hard": miners.semi_hard,
    }[mining](x, labels, measure=measure)
    return loss_of(x, mined, measure=measure, **options)


ORACLES = {"all": all_by_loops, "hard": hard_by_loops, "semi_hard": semi_hard_by_loops}


@pytest.mark.parametrize("mining", ORACLES)
@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("seed", mostly_slow([0, 1, 2], 0))
def test_equals_loops(mining, block_size, seed):
    random = np.random.default_rng(seed)
    x, labels = random.normal(size=(13, 3)), random.integers(0, 4, 13)
    expected = ORACLES[mining](cdist(x, x), labels, 0.7)
    found = triplet_margin_loss(
        jnp.float32(x), labels, margin=0.7, mining=mining, measure="euclidean", block_size=block_size
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("mining", ORACLES)
def test_the_direction_of_a_similarity(random, mining):
    x, labels = random.normal(size=(11, 3)), random.integers(0, 3, 11)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = ORACLES[mining](-(unit @ unit.T), labels, 0.3)
    found = triplet_margin_loss(jnp.float32(x), labels, margin=0.3, mining=mining, measure="cosine")
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("mining", mostly_slow(ORACLES, "semi_hard"))
def test_gradient_equals_finite_differences(mining):
    with jax.enable_x64(True):
        random = np.random.default_rng(3)
        x, labels = jnp.asarray(random.normal(size=(9, 3))), jnp.asarray(random.integers(0, 2, 9))
        jax.test_util.check_grads(
            lambda x: triplet_margin_loss(jnp.asarray(x), labels, margin=5.0, mining=mining, block_size=4),
            (x,),
            order=1,
            modes=["rev"],
        )


@pytest.mark.parametrize("mining", mostly_slow(ORACLES, "all"))
@pytest.mark.parametrize(
    ("x", "labels", "value"),
    [
        (np.zeros((4, 3)), [0, 0, 1, 1], 0.5),  # all at one point: every triplet violates the margin by the margin
        (np.eye(3), [0, 1, 2], 0.0),  # no positive
        (np.eye(3), [1, 1, 1], 0.0),  # no negative
        (np.ones((1, 3)), [0], 0.0),
    ],
)
def test_degenerate_batches(mining, x, labels, value):
    found, gradient = jax.value_and_grad(
        lambda x: triplet_margin_loss(x, jnp.array(labels), margin=0.5, mining=mining)
    )(jnp.float32(x))
    np.testing.assert_allclose(found, value)
    np.testing.assert_array_equal(gradient, 0)


def enumerated(x, labels, *, margin, swap, smooth, selected=None):
    """Compute the loss of enumerated triplets."""
    a, p, q = (np.array(t) for t in zip(*(triplets(labels) if selected is None else selected), strict=True))
    d = measure("euclidean")(x[:, None], x[None])
    closest = jnp.minimum(d[a, q], d[p, q]) if swap else d[a, q]
    x = d[a, p] - closest + margin
    terms = jax.nn.softplus(x) if smooth else jax.nn.relu(x)
    return jnp.sum(terms) / jnp.maximum(jnp.sum(terms > 0), 1)


@pytest.mark.parametrize(("swap", "smooth"), mostly_slow([(True, False), (False, True), (True, True)], (True, True)))
def test_swap_and_smooth(random, swap, smooth):
    x, labels = jnp.float32(random.normal(size=(13, 3))), random.integers(0, 4, 13)
    options = {"margin": 0.7, "swap": swap, "smooth": smooth}

    def ours(x):
        return loss_of(x, labels, measure="euclidean", block_size=4, **options)

    found, expected = (jax.value_and_grad(f)(x) for f in (ours, lambda x: enumerated(x, labels, **options)))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)


def test_smooth_mined_triplets(random):
    x, labels = jnp.float32(random.normal(size=(13, 3))), random.integers(0, 3, 13)
    d = cdist(x, x)
    selected = [(a, p, q) for a, p, q in triplets(labels) if 0 < d[a, q] - d[a, p] <= 0.5]
    mined = miners.triplet_margin(x, labels, margin=0.5, kind="semi_hard", measure="euclidean")
    found = loss_of(x, mined, measure="euclidean", margin=0.7, smooth=True)
    expected = enumerated(x, labels, margin=0.7, swap=False, smooth=True, selected=selected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
