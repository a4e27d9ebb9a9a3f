import itertools
from functools import partial

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax import mining as miners
from simjax.losses import triplet_margin_loss as loss_of
from tests.losses.cases import (
    assert_gradient_equals_slope,
    float32,
)
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


@pytest.mark.slow
@pytest.mark.parametrize("mining", ORACLES)
def test_value_equals_loops_and_gradient_equals_finite_differences(mining):
    with jax.enable_x64(True):
        loss = partial(triplet_margin_loss, margin=0.7, mining=mining, measure="euclidean", block_size=4)
        both = jax.jit(jax.value_and_grad(loss))
        for seed in (0, 1, 2):
            random = np.random.default_rng(seed)
            x, labels = random.normal(size=(13, 3)), random.integers(0, 4, 13)
            np.testing.assert_allclose(both(x, labels)[0], ORACLES[mining](cdist(x, x), labels, 0.7), rtol=1e-4)
            assert_gradient_equals_slope(lambda x, labels=labels: both(x, labels), x, random)


@pytest.mark.slow
def test_the_direction_of_a_similarity(random):
    x, labels = random.normal(size=(11, 3)), random.integers(0, 3, 11)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)

    @jax.jit
    def compute(x, labels):
        return {of: triplet_margin_loss(x, labels, margin=0.3, mining=of, measure="cosine") for of in ORACLES}

    for mining, found in compute(float32(x), labels).items():
        np.testing.assert_allclose(found, ORACLES[mining](-(unit @ unit.T), labels, 0.3), rtol=1e-4, err_msg=mining)


@pytest.mark.slow
@pytest.mark.parametrize("mining", ORACLES)
def test_degenerate_batches(mining):
    both = jax.jit(jax.value_and_grad(partial(triplet_margin_loss, margin=0.5, mining=mining)))
    cases: tuple[tuple[np.ndarray, list[int], float], ...] = (
        (np.zeros((4, 3)), [0, 0, 1, 1], 0.5),  # all at one point: every triplet violates the margin by the margin
        (np.eye(4, 3), [0, 1, 2, 3], 0.0),  # no positive
        (np.eye(4, 3), [1, 1, 1, 1], 0.0),  # no negative
        (np.ones((1, 3)), [0], 0.0),
    )
    for x, labels, value in cases:
        found, gradient = both(float32(x), np.array(labels))
        np.testing.assert_allclose(found, value)
        np.testing.assert_array_equal(gradient, 0)


def enumerated(x, labels, *, margin, swap, smooth, selected=None):
    """Compute the loss of enumerated triplets."""
    a, p, q = (np.array(t) for t in zip(*(triplets(labels) if selected is None else selected), strict=True))
    d = cdist(x, x)
    closest = np.minimum(d[a, q], d[p, q]) if swap else d[a, q]
    violations = d[a, p] - closest + margin
    return mean_above_zero(np.logaddexp(0, violations) if smooth else violations)


@pytest.mark.parametrize(("swap", "smooth"), mostly_slow([(True, False), (False, True), (True, True)]))
def test_swap_and_smooth(random, swap, smooth):
    x, labels = random.normal(size=(13, 3)), random.integers(0, 4, 13)
    options = {"margin": 0.7, "swap": swap, "smooth": smooth}
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(lambda x: loss_of(x, labels, measure="euclidean", **options)))
        np.testing.assert_allclose(both(x)[0], enumerated(x, labels, **options), rtol=1e-5)
        assert_gradient_equals_slope(both, x, random)


@pytest.mark.slow
def test_smooth_mined_triplets(random):
    x, labels = random.normal(size=(13, 3)), random.integers(0, 3, 13)
    d = cdist(x, x)
    selected = [(a, p, q) for a, p, q in triplets(labels) if 0 < d[a, q] - d[a, p] <= 0.5]
    mined = miners.triplet_margin(float32(x), labels, margin=0.5, kind="semi_hard", measure="euclidean")
    found = loss_of(float32(x), mined, measure="euclidean", margin=0.7, smooth=True)
    expected = enumerated(x, labels, margin=0.7, swap=False, smooth=True, selected=selected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
