"""Intervals: values without each identity against an evaluation of the remaining data, and formulas against SciPy."""

from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from simjax.core import InputError
from simjax.evaluate import (
    Estimate,
    estimates_of,
    jackknife_interval,
    mean_estimate,
    random_groups,
    verification_estimates,
    verification_metrics,
)

NAMES = np.array(["ann", "bob", "cy", "dee", "eve"])


def pairs_of(people):
    i, j = np.triu_indices(len(people), 1)
    return np.stack([people[i], people[j]], axis=1)


def certain(value):
    """Return a value that exists."""
    assert value is not None
    return value


def test_any_rates_are_computed_again_without_each_identity(random):
    scores, people = random.normal(size=120), random.integers(0, 6, (120, 2))
    same = people[:, 0] == people[:, 1]

    def rates(mask):
        found = verification_metrics(scores[mask], same[mask], threshold=0.1)
        return {"equal_error_rate": found["equal_error_rate"], "fmr": found["fmr"], "missing": None}

    found, expected = estimates_of(rates, people), verification_estimates(scores, same, people, threshold=0.1)
    for name in ("equal_error_rate", "fmr"):
        assert found[name].value == pytest.approx(expected[name].value)
        np.testing.assert_allclose(certain(found[name].leave_one_out), certain(expected[name].leave_one_out))
    assert found["missing"].interval() is None


def test_a_rate_of_1_that_is_smaller_without_an_identity_has_an_interval():
    left_out = [1.0] * 19 + [0.9]
    low, high = certain(jackknife_interval(1.0, left_out))
    assert high == 1
    variance, freedom = 19 / 20 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2), 6
    assert low == pytest.approx(1 - stats.t(freedom).ppf(0.975) * variance**0.5)
    assert certain(jackknife_interval(1.0, [1.0] * 19 + [0.999]))[0] == pytest.approx(1 + np.log(0.05) / 20)


def test_deviations_on_the_logit_scale_are_differences_of_log_odds_for_small_changes():
    def log_odds(p):
        return np.log(p) - np.log1p(-np.asarray(p))

    left_out = 0.99 + 0.0001 * np.array([1.0, -2.0, 0.5, -1.0, 2.0, 0.0])
    low, high = certain(jackknife_interval(0.99, left_out, has_logit_deviations=True))
    error = np.std(5 * log_odds(left_out), ddof=1) / 6**0.5
    t = stats.t(5).ppf(0.975)
    assert [low, high] == pytest.approx(stats.logistic.cdf(log_odds(0.99) + [-t * error, t * error]), abs=1e-6)


def test_one_identity_that_causes_all_errors_widens_the_interval_of_a_roc_auc():
    left_out = [0.98] * 19 + [1.0]
    on_rate_scale, on_logit_scale = (
        certain(jackknife_interval(0.98, left_out, has_logit_deviations=logit)) for logit in (False, True)
    )
    assert 0 < on_logit_scale[0] < on_rate_scale[0] < 0.98
    assert on_rate_scale[1] < on_logit_scale[1] < 1
    scores, same = np.array([0.9, 0.8, 0.7, 0.2, 0.1]), np.array([True, False, True, False, False])
    found = verification_estimates(scores, same, [[1, 1], [1, 2], [2, 2], [2, 3], [3, 1]])
    assert found["roc_auc"].has_logit_deviations
    assert found["equal_error_rate"].has_logit_deviations


def clopper_pearson(events, trials, confidence=0.95):
    """Return the interval of a rate of independent trials; events and trials need not be integers."""
    tail = (1 - confidence) / 2
    return stats.beta.ppf(tail, events, trials - events + 1), stats.beta.ppf(1 - tail, events + 1, trials - events)


@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_the_interval_of_a_rate_is_exact_for_as_many_independent_trials_as_tell_it_as_precisely(confidence):
    left_out = np.array([0.21, 0.2, 0.17, 0.26, 0.19])
    pseudo_values = 5 * 0.2 - 4 * left_out
    error = np.std(pseudo_values, ddof=1) / 5**0.5
    t = stats.t(4).ppf((1 + confidence) / 2)
    trials = 0.2 * 0.8 / error**2
    expected = clopper_pearson(0.2 * trials, trials, confidence)
    assert jackknife_interval(0.2, left_out, confidence=confidence) == pytest.approx(expected)
    linear = jackknife_interval(0.2, left_out, scale="linear", confidence=confidence)
    assert linear == pytest.approx((0.2 - t * error, 0.2 + t * error))
    margin = stats.t(2).ppf(0.975) * error
    assert jackknife_interval(0.2, left_out, scale="linear", sample_size=3) == pytest.approx(
        (0.2 - margin, 0.2 + margin)
    )


def test_intervals_of_independent_images_with_few_errors_are_nearly_exact():
    upper_ends = []
    for wrong in range(12):
        is_wrong = np.arange(450) < wrong
        low, high = certain(mean_estimate(is_wrong, np.arange(450)).interval())
        exact = stats.binomtest(wrong, 450).proportion_ci()
        assert low <= exact.low
        assert exact.high - 0.002 < high < exact.high + 0.005  # wider, as few errors are an uncertain variance
        upper_ends.append(high)
    assert (np.diff(upper_ends) > 0).all()  # each further error moves the interval


@pytest.mark.parametrize(
    ("hard", "freedom"), [(1, 6), (5, 2 * 100 / (stats.kurtosis([1] * 5 + [0] * 95) + 2)), (30, 99)]
)
def test_few_identities_with_most_of_the_errors_mean_few_degrees_of_freedom(hard, freedom):
    errors = np.arange(100) < hard
    left_out = (hard - errors) / 99
    margin = stats.t(freedom).ppf(0.975) * np.std(errors, ddof=1) / 10
    found = jackknife_interval(hard / 100, left_out, scale="linear")
    assert found == pytest.approx((hard / 100 - margin, hard / 100 + margin))
    assert 6 <= freedom <= 99


@pytest.mark.parametrize("alike", [True, False])
def test_the_variance_of_pairs_is_not_counted_twice(random, alike):
    """Either half of the people are alike, or everyone is like exactly one other, so that people do not differ."""
    pairs = pairs_of(np.arange(12).repeat(3))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    like = np.all(pairs % 2 == 0, axis=1) if alike else pairs[:, 0] // 2 == pairs[:, 1] // 2
    accepted = like & (random.random(len(pairs)) < 0.8) if alike else like
    total, twice = accepted.mean(), 0.0
    left_out = np.array([accepted[(pairs != person).all(axis=1)].mean() for person in range(12)])
    for first in range(12):
        for second in range(first):
            of_pair = accepted[(pairs == [second, first]).all(axis=1)]
            twice += np.sum(of_pair - total) ** 2 / len(pairs) ** 2
    variance = 11 / 12 * np.sum((left_out - left_out.mean()) ** 2)
    assert (variance - twice > twice) == alike
    freedom = stats.t.ppf(0.975, [len(pairs) - 1, 11])
    trials = total * (1 - total) / max(variance - twice, twice) * (freedom[0] / freedom[1]) ** 2
    assert certain(mean_estimate(accepted, pairs).interval()) == pytest.approx(clopper_pearson(total * trials, trials))


def test_without_any_difference_the_interval_is_that_of_the_rule_of_3():
    bound = 1 - 0.05 ** (1 / 400)  # the exact upper bound of a rate if none of 400 independent trials is an error
    low, high = certain(jackknife_interval(0.0, np.zeros(400)))
    assert low == 0
    assert bound < high < 3 / 400
    assert high == pytest.approx(bound, rel=0.01)
    assert jackknife_interval(1.0, np.ones(400)) == (1 - high, 1)
    assert jackknife_interval(0.0, np.zeros(400), scale="linear") == (-high, high)
    assert jackknife_interval(0.5, np.full(400, 0.5)) == (0.5 - high, 0.5 + high)
    assert jackknife_interval(0.0, np.zeros(400), sample_size=100) == pytest.approx((0, 4 * high))
    assert jackknife_interval(0.0, np.zeros(2)) == (0, 1)


def test_a_variance_near_rounding_has_an_interval_around_the_value():
    for value in (0.0303, 0.7):
        for size in (1e-9, 1e-10, 1e-11):
            left_out = value + size * np.array([1, -1, 2, -2, 1, -1])
            low, high = certain(jackknife_interval(value, left_out))
            assert low <= value <= high
            assert high - low < 100 * size


def test_errors_of_one_or_two_identities_reach_as_far_as_none():
    people, images = np.repeat(np.arange(20), 100), np.arange(2_000)
    bound = -np.log(0.05) / 20
    for errors in ([3], [3, 150]):
        is_error = np.isin(images, errors)
        assert certain(mean_estimate(is_error, people).interval())[1] == pytest.approx(bound)
        assert certain(mean_estimate(~is_error, people).interval())[0] == pytest.approx(1 - bound)
    assert certain(mean_estimate(np.isin(images, [3, 150, 250]), people).interval())[1] < 0.01
    assert certain(mean_estimate(images == 3, images).interval())[1] < 0.005


@pytest.mark.parametrize(("identities", "images", "rate"), [(5, 20, 0.1), (5, 100, 0.5), (10, 400, 0.1)])
def test_few_identities_of_nearly_independent_images_have_wide_enough_intervals(identities, images, rate):
    random, inside = np.random.default_rng(0), 0
    people = np.repeat(np.arange(identities), images)
    for _ in range(200):
        rates = random.beta(99 * rate, 99 * (1 - rate), identities)  # 1% of the variance of an image
        low, high = certain(mean_estimate(random.random(len(people)) < rates[people], people).interval())
        inside += low <= rate <= high
    assert inside >= 0.9 * 200  # 95% are expected; with the quantile of as many identities it was 87 to 91%


def test_an_interval_contains_its_value_and_stays_within_the_range(random):
    for _ in range(200):
        g = int(random.integers(2, 9))
        trials = random.integers(1, 4, g)
        events = random.binomial(trials, random.choice([0.02, 0.5, 0.98]))
        people = np.repeat(np.arange(g), trials)
        values = np.concatenate([np.arange(n) < k for n, k in zip(trials, events, strict=True)])
        estimate = mean_estimate(values, people)
        low, high = certain(estimate.interval())
        assert 0 <= low <= certain(estimate.value) <= high <= 1
        assert low < high


def test_a_mean_without_an_identity_is_the_mean_of_the_other_trials(random):
    people = NAMES[random.integers(0, 5, 43)]
    values = random.random(43)
    for identities in (people, np.stack([people, NAMES[random.integers(0, 5, 43)]], axis=1)):
        estimate = mean_estimate(values, identities)
        assert estimate.value == values.mean()
        assert estimate.identities == tuple(NAMES)
        assert estimate.sample_size == 5
        for name, left_out in zip(estimate.identities, certain(estimate.leave_one_out), strict=True):
            others = [v for v, row in zip(values, identities, strict=True) if name not in np.atleast_1d(row)]
            assert left_out == pytest.approx(np.mean(others), rel=1e-12)


@pytest.mark.parametrize("higher_is_closer", [True, False])
@pytest.mark.parametrize("of_groups", [False, True])
@pytest.mark.parametrize("decimals", [1, 6])
def test_verification_without_an_identity_is_that_of_the_other_pairs(random, higher_is_closer, of_groups, decimals):
    labels = np.sort(random.integers(0, 5, 29))
    people = random_groups(29, groups=7) if of_groups else NAMES[labels]
    pairs, label_pairs = pairs_of(people), pairs_of(labels)
    same = label_pairs[:, 0] == label_pairs[:, 1]
    scores = np.round(random.normal(size=len(same)) + same * (2 * higher_is_closer - 1), decimals)
    found = verification_estimates(scores, same, pairs, higher_is_closer=higher_is_closer, threshold=0.3)

    def expected(rows):
        metrics = verification_metrics(scores[rows], same[rows], higher_is_closer=higher_is_closer, threshold=0.3)
        accepted = scores[rows] >= 0.3 if higher_is_closer else scores[rows] <= 0.3
        rates = {
            "fmr": accepted[~same[rows]].mean(),
            "fnmr": 1 - accepted[same[rows]].mean(),
        }
        return {name: metrics[name] for name in ("roc_auc", "equal_error_rate", "accuracy")} | rates

    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected(np.arange(len(same))))
    for index, name in enumerate(found["roc_auc"].identities):
        others = expected(np.flatnonzero((pairs != name).all(axis=1)))
        assert {key: certain(e.leave_one_out)[index] for key, e in found.items()} == pytest.approx(others, rel=1e-12)


def test_only_identities_with_trials_count():
    pairs = np.array([["ann", "ann"], ["bob", "bob"], ["ann", "bob"], ["ann", "cy"], ["bob", "cy"], ["cy", "dee"]])
    same = pairs[:, 0] == pairs[:, 1]
    found = verification_estimates([0.9, 0.8, 0.1, 0.2, 0.3, 0.1], same, pairs, threshold=0.5)
    assert found["fnmr"].sample_size == 2
    assert found["fmr"].sample_size == 4
    assert found["roc_auc"].sample_size == found["equal_error_rate"].sample_size == 2
    assert found["fnmr"].interval() == (0, 1)
    assert found["fmr"].interval() == pytest.approx((0, -np.log(0.05) / 4))


def test_values_that_do_not_exist_have_no_interval():
    one_kind = verification_estimates([0.5, 0.4], [False, False], [[1, 2], [2, 3]], threshold=0.1)
    assert one_kind["roc_auc"].value is one_kind["equal_error_rate"].value is None
    assert one_kind["roc_auc"].interval() is one_kind["fnmr"].interval() is None
    assert one_kind["fnmr"].value is None
    # Without ann there is no pair of one identity.
    found = verification_estimates([0.5, 0.4, 0.1], [True, False, False], [[1, 1], [1, 2], [2, 3]])
    assert found["roc_auc"].value == 1
    assert found["roc_auc"].leave_one_out is None
    assert found["roc_auc"].interval() is None
    assert mean_estimate([], []).value is None
    assert mean_estimate([1, 0], [3, 3]).value == 0.5
    assert mean_estimate([1, 0], [3, 3]).interval() is None


def test_groups_are_of_equal_size_and_random():
    groups = random_groups(1003, groups=10)
    assert sorted(np.bincount(groups)) == [100] * 7 + [101] * 3
    assert not np.array_equal(groups, random_groups(1003, groups=10, seed=1))
    np.testing.assert_array_equal(np.sort(random_groups(4)), np.arange(4))
    assert random_groups(0).shape == (0,)


def test_the_interval_covers_correlated_images_where_one_over_images_does_not():
    """Of 40 identities with 10 images, each fails either in almost all or in almost none of its images."""
    random = np.random.default_rng(2)
    covered = {"identities": 0, "images": 0}
    for _ in range(200):
        fails = np.where(random.random(40) < 0.25, 0.95, 0.05)
        truth = 0.25 * 0.95 + 0.75 * 0.05
        is_error = random.random((40, 10)) < fails[:, None]
        low, high = certain(mean_estimate(is_error.ravel(), np.arange(40).repeat(10)).interval())
        covered["identities"] += low <= truth <= high
        exact = stats.binomtest(int(is_error.sum()), 400).proportion_ci()
        covered["images"] += exact.low <= truth <= exact.high
    assert covered["identities"] / 200 > 0.92
    assert covered["images"] / 200 < 0.7


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jackknife_interval(0.5, [[0.5]]), r"^leave_one_out: expected one value for each .* shape \(1, 1\)$"),
        (lambda: jackknife_interval(-0.5, [0.5, 0.4]), "^value: expected a number from 0 to 1 for the scale 'rate'"),
        (
            lambda: jackknife_interval(float("nan"), [0.5, 0.4], scale="linear"),
            "^value: expected a number from -1 to 1",
        ),
        (
            lambda: jackknife_interval(0.5, [0.5, 0.4], scale=cast(Any, "rates")),
            "^unknown scale 'rates' .did you mean rate",
        ),
        (lambda: jackknife_interval(0.5, [0.5, 0.4], confidence=95), "^confidence: expected a number between 0 and 1"),
        (lambda: Estimate(0.5, None, (), 0).interval(95), "^confidence: expected a number between 0 and 1"),
        (lambda: mean_estimate([0.5, 1.5], [1, 2]), "^values: expected a number from 0 to 1"),
        (lambda: mean_estimate([[0.5]], [1]), "^values: expected one for each trial"),
        (
            lambda: mean_estimate([0.5], [1, 2]),
            r"^identities: expected integers or names \(1,\) or \(1, 2\), got int64",
        ),
        (lambda: mean_estimate([0.5], [[1, 2, 3]]), r"^identities: expected integers or names"),
        (lambda: mean_estimate([0.5], [0.5]), r"^identities: expected integers or names .* got float64"),
        (lambda: random_groups(5, groups=0), "^groups: expected at least 1"),
        (lambda: random_groups(-1), "^n: expected at least 0"),
        (lambda: verification_estimates([0.5], [True], [[1, 1]], threshold=float("nan")), "^threshold: expected"),
    ],
)
def test_wrong_input_is_an_error_that_names_the_argument(call, message):
    with pytest.raises(InputError, match=message):
        call()
