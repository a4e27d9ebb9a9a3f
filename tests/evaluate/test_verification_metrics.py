"""Verification, against scikit-learn, SciPy and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn import metrics

from simjax.core import InputError
from simjax.evaluate import best_threshold, verification_metrics

pairs = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda p: {same for _, same in p} == {True, False}
)


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    return rng.normal(size=n) + same, same


@settings(deadline=None, max_examples=100)
@given(pairs)
def test_with_ties_equals_scikit_learn(pairs):
    scores, same = map(np.array, zip(*pairs, strict=True))
    found = verification_metrics(scores, same)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-12)
    curve = found["roc"]
    assert metrics.auc(curve["false_positive_rate"], curve["true_positive_rate"]) == pytest.approx(found["roc_auc"])
    far, tar, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    crossing = brentq(lambda f: 1 - f - interp1d(tar_at(far, tar)[0], tar_at(far, tar)[1])(f), 0, 1)
    assert found["equal_error_rate"] == pytest.approx(crossing, abs=1e-6)


def tar_at(far, tar):
    """Make the curve a function by a small slope of its vertical steps."""
    return far * (1 - 1e-9) + tar * 1e-9, tar


@settings(deadline=None, max_examples=100)
@given(pairs)
def test_the_best_threshold_has_the_highest_accuracy(pairs):
    scores, same = map(np.array, zip(*pairs, strict=True))
    candidates = np.arange(-5, 6)
    best = max(np.mean((scores >= t) == same) for t in candidates)
    threshold = best_threshold(scores, same)
    assert np.mean((scores >= threshold) == same) == pytest.approx(best)
    assert verification_metrics(scores, same)["accuracy"] == pytest.approx(best)


@settings(deadline=None, max_examples=50)
@given(pairs, st.randoms(use_true_random=False))
def test_direction_and_order_do_not_matter(pairs, random):
    scores, same = map(np.array, zip(*pairs, strict=True))
    found = verification_metrics(scores, same)
    negated = verification_metrics(-scores, same, higher_is_closer=False)
    assert negated["threshold"] == -found["threshold"]
    assert negated["roc"]["thresholds"] == [-t for t in found["roc"]["thresholds"]]
    assert negated["det"]["thresholds"] == [-t for t in found["det"]["thresholds"]]
    assert negated["best_f1_threshold"] == -found["best_f1_threshold"]
    for name in (
        "roc_auc",
        "equal_error_rate",
        "average_precision",
        "best_f1",
        "fnmr_at_fmr",
        "accuracy",
        "fmr",
        "fnmr",
    ):
        assert negated[name] == found[name]
    random.shuffle(pairs)
    scores, same = map(np.array, zip(*pairs, strict=True))
    assert verification_metrics(scores, same) == found


def test_the_curve_has_the_corners_of_scikit_learns():
    scores, same = drawn(157)
    curve = {name: np.array(values) for name, values in verification_metrics(scores, same)["roc"].items()}
    far, tar, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    assert len(curve["thresholds"]) < len(thresholds) / 2
    corners = np.searchsorted(-thresholds, -curve["thresholds"][1:])
    np.testing.assert_array_equal(thresholds[corners], curve["thresholds"][1:])
    np.testing.assert_allclose(curve["false_positive_rate"][1:], far[corners], rtol=1e-12)
    np.testing.assert_allclose(curve["true_positive_rate"][1:], tar[corners], rtol=1e-12)
    assert metrics.auc(curve["false_positive_rate"], curve["true_positive_rate"]) == pytest.approx(
        metrics.auc(far, tar)
    )
    assert curve["thresholds"][0] == np.nextafter(scores.max(), np.inf)
    assert (curve["false_positive_rate"][0], curve["true_positive_rate"][0]) == (0, 0)


def test_a_long_curve_is_thinned_from_end_to_end():
    scores, same = drawn(10_007)
    curve = verification_metrics(scores, same)["roc"]
    far, tar = np.array(curve["false_positive_rate"]), np.array(curve["true_positive_rate"])
    assert len(far) == len(tar) == len(curve["thresholds"]) == 200
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tar, far) == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-3)
    at = curve["thresholds"][100]
    assert tar[100] == np.mean(scores[same] >= at)
    assert far[100] == np.mean(scores[~same] >= at)


@settings(deadline=None, max_examples=100)
@given(pairs)
def test_precision_f1_and_the_det_with_ties_equal_scikit_learn(pairs):
    scores, same = map(np.array, zip(*pairs, strict=True))
    found = verification_metrics(scores, same)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(same, scores), abs=1e-12)
    best = max(metrics.f1_score(same, scores >= t) for t in np.unique(scores))
    assert found["best_f1"] == pytest.approx(best, abs=1e-12)
    assert metrics.f1_score(same, scores >= found["best_f1_threshold"]) == pytest.approx(best, abs=1e-12)
    det = {name: np.array(values) for name, values in found["det"].items()}
    fmr, fnmr, thresholds = metrics.det_curve(same, scores)  # without some points of FNMR 0
    at = np.searchsorted(-det["thresholds"], -np.minimum(thresholds, det["thresholds"][0]))
    np.testing.assert_allclose(det["fmr"][at], fmr, atol=1e-12)
    np.testing.assert_allclose(det["fnmr"][at], fnmr, atol=1e-12)
    assert len(set(at)) == len(thresholds)


@settings(deadline=None, max_examples=100)
@given(pairs, st.sampled_from([0.07, 0.1, 0.25, 0.5]))
def test_the_fnmr_at_an_fmr_is_the_lowest_of_all_thresholds_that_keep_it(pairs, wanted):
    scores, same = map(np.array, zip(*pairs, strict=True))
    (found,) = verification_metrics(scores, same, fmrs=(wanted,))["fnmr_at_fmr"].values()
    if wanted * np.sum(~same) < 1:
        assert found is None
        return
    rates = [(np.mean(scores[~same] >= t), np.mean(scores[same] < t)) for t in range(-4, 6)]
    assert found == pytest.approx(min(fnmr for fmr, fnmr in rates if fmr <= wanted), abs=1e-12)
    fmr, recall, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    assert found == pytest.approx(1 - recall[fmr <= wanted].max(), abs=1e-12)


def test_a_rate_that_the_pairs_cannot_show_is_none():
    scores, same = np.arange(1010.0), np.arange(1010) >= 1000
    for count, expected in ((1000, 0.0), (999, None)):
        found = verification_metrics(scores[-count - 10 :], same[-count - 10 :])
        assert found["fnmr_at_fmr"] == {"1e-1": 0.0, "1e-2": 0.0, "1e-3": expected}
        assert found["different_pairs"] == count
    close = verification_metrics(-scores, same, fmrs=[0.29, 0.999])  # 0.29 * 1000 is less than 290 in floats
    assert close["fnmr_at_fmr"] == {"2.9e-1": 1.0, "9.99e-1": 1.0}
    with pytest.raises(InputError, match=r"^fmrs: expected a number between 0 and 1, got 1.0$"):
        verification_metrics(scores, same, fmrs=(0.1, 1.0))


def test_a_long_det_is_thinned_evenly_in_normal_deviates():
    scores, same = drawn(30_011)
    det = verification_metrics(scores, same)["det"]
    fmr, fnmr = np.array(det["fmr"]), np.array(det["fnmr"])
    assert 150 < len(fmr) == len(fnmr) == len(det["thresholds"]) <= 200
    assert (fmr[0], fnmr[0], fmr[-1], fnmr[-1]) == (0, 1, 1, 0)
    inner = (fmr > 1e-3) & (fnmr > 1e-3)
    steps = np.diff(norm.ppf(fmr[inner]) - norm.ppf(fnmr[inner]))
    assert steps.max() < 2 * np.median(steps)
    at = det["thresholds"][100]
    assert (fmr[100], fnmr[100]) == pytest.approx((np.mean(scores[~same] >= at), np.mean(scores[same] < at)))


def test_a_given_threshold_is_used():
    (validation, v), (test, t) = drawn(503), drawn(401, seed=1)
    threshold = best_threshold(validation, v)
    found = verification_metrics(test, t, threshold=threshold)
    accept = test >= threshold
    assert found["threshold"] == threshold
    assert found["accuracy"] == pytest.approx(np.mean(accept == t))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(t, accept))
    assert found["fnmr"] == pytest.approx(1 - metrics.recall_score(t, accept))
    assert found["fmr"] == pytest.approx(np.mean(accept[~t]))
    assert (found["pairs"], found["different_pairs"]) == (401, np.sum(~t))


def test_thresholds_by_hand():
    assert best_threshold([1, 2, 5, 7], [True, True, False, False], higher_is_closer=False) == 3.5
    assert best_threshold([0.1, 0.2], [True, True]) == 0.1  # accept all
    assert best_threshold([0.1, 0.2], [False, False]) == np.nextafter(0.2, 1)  # accept none
    low, high = 1.0, np.nextafter(1.0, 2)  # no float between them: the threshold must still separate them
    assert best_threshold([low, high], [False, True]) == high


def test_constant_scores():
    found = verification_metrics(np.zeros(6), [True, True, False, False, False, False])
    assert (found["roc_auc"], found["equal_error_rate"]) == (0.5, 0.5)
    assert found["accuracy"] == 4 / 6
    assert (found["average_precision"], found["best_f1"], found["fmr"]) == (pytest.approx(2 / 6), 0.5, 0)


def test_pairs_of_one_kind_or_none():
    found = verification_metrics([0.3, 0.7], [True, True])
    for name in ("roc_auc", "equal_error_rate", "average_precision", "best_f1", "best_f1_threshold"):
        assert found[name] is None
    assert (found["accuracy"], found["balanced_accuracy"], found["fmr"], found["fnmr"]) == (1.0, None, None, 0.0)
    assert found["fnmr_at_fmr"] == {"1e-1": None, "1e-2": None, "1e-3": None}
    assert found["roc"] == {"false_positive_rate": [], "true_positive_rate": [], "thresholds": []}
    assert found["det"] == {"fmr": [], "fnmr": [], "thresholds": []}
    for threshold in (None, 0.5):
        empty = verification_metrics([], [], threshold=threshold)
        for name in ("roc", "det", "fnmr_at_fmr"):
            assert empty.pop(name) == found[name]
        assert (empty.pop("threshold"), empty.pop("pairs"), empty.pop("different_pairs")) == (threshold, 0, 0)
        assert set(empty.values()) == {None}
    assert verification_metrics([0.3], [False])["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, np.nan], [True, False], "scores: expected finite numbers in float64, got nan in row 1"),
        ([0.1, 0.2], [True], "same: expected 2 booleans"),
        ([0.1, 0.2], [3, 4], "same: expected booleans, True for a pair of one class, got 3 in row 0"),
        ([[0.1]], [[True]], r"scores: expected one number for each pair, \[n\], got shape \(1, 1\)"),
        ([], [], "scores: expected at least one pair"),
    ],
)
def test_wrong_arguments_are_errors(scores, same, message):
    with pytest.raises(InputError, match=message):
        best_threshold(scores, same)
