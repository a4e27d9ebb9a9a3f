"""Platt scaling, against scikit-learn's logistic regression and a general minimiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from simjax.evaluate import dissimilarity_probability, fit_dissimilarity


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.4
    return rng.normal(size=n) + 3 - 2 * same, same


def test_equals_scikit_learn_on_weighted_copies():
    """A target between 0 and 1 is two weighted copies of the pair, one of each kind."""
    distance, same = drawn(307)
    s, d = same.sum(), (~same).sum()
    target = np.where(same, 1 / (s + 2), (d + 1) / (d + 2))
    x = np.concatenate([distance, distance])[:, None]
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(
        x, np.repeat([1, 0], len(distance)), sample_weight=np.concatenate([target, 1 - target])
    )
    a, b = fit_dissimilarity(distance, same)
    assert a == pytest.approx(peer.coef_[0, 0], rel=1e-5)
    assert b == pytest.approx(peer.intercept_[0], rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(3, 43))
def test_no_other_slope_and_intercept_are_better(seed, n):
    distance, same = drawn(n, seed)
    s, d = same.sum(), (~same).sum()
    target = np.where(same, 1 / (s + 2), (d + 1) / (d + 2))

    def loss(w):
        logits = w[0] * distance + w[1]
        return np.mean(np.logaddexp(0, logits) - target * logits)

    assert loss(fit_dissimilarity(distance, same)) <= minimize(loss, [0.0, 0.0]).fun + 1e-9


def test_the_fit_converges_with_an_outlier():
    """Undamped Newton steps diverge here."""
    near = [4.47, -0.49, 0.86, -0.26, -0.96, -1.12, 0.47, 1.25, 0.91, -1.24, 2.81, 2.25, -3.05, 1.5, -1.26, 0.33]
    distance = np.array([*near, -0.48, 0.36, 2.15, -0.82, 0.7, 18.26])
    same = distance < 18
    probability = np.asarray(dissimilarity_probability(distance, *fit_dissimilarity(distance, same)))
    # at the minimum, predictions and targets have the same mean, unweighted and weighted by distance
    target = np.where(same, 1 / 23, 2 / 3)
    assert probability.mean() == pytest.approx(target.mean(), rel=1e-5)
    assert probability @ distance == pytest.approx(target @ distance, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_separable_scores_give_finite_increasing_probabilities_at_every_scale(scale):
    distance, same = np.arange(10) * scale, np.arange(10) < 5
    a, b = fit_dissimilarity(distance, same)
    probability = np.asarray(dissimilarity_probability(distance, a, b))
    np.testing.assert_allclose(probability[[4, 5]].mean(), 0.5, atol=1e-6)
    assert np.all(np.diff(probability) > 0)
    assert probability[0] < 0.15
    # the mean prediction is the mean target, 6/7 for five and 1/7 for five
    np.testing.assert_allclose(probability.mean(), 0.5, atol=1e-6)


def test_a_similarity_negates_the_slope():
    distance, same = drawn(101)
    a, b = fit_dissimilarity(distance, same)
    negated = fit_dissimilarity(-distance, same)
    assert a > 0
    assert negated == pytest.approx((-a, b), rel=1e-6)


def test_degenerate_scores():
    assert fit_dissimilarity([], []) == (0.0, 0.0)
    a, b = fit_dissimilarity(np.full(7, 2.0), np.arange(7) < 2)
    assert a == 0
    # targets 6/7 for five different pairs, 1/4 for two same ones
    assert expit(b) == pytest.approx((5 * 6 / 7 + 2 / 4) / 7)
    a, b = fit_dissimilarity([0.5], [True])
    assert (a, expit(b)) == (0, pytest.approx(1 / 3))
    a, b = fit_dissimilarity([1.0, 2.0, 4.0], [False] * 3)
    np.testing.assert_allclose(dissimilarity_probability(np.array([1.0, 2.0, 4.0]), a, b), 4 / 5, rtol=1e-6)


def test_probability_saturates_without_overflow():
    found = dissimilarity_probability(np.array([-1e30, 0.0, 1e30]), 10.0, 0.0)
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0])
