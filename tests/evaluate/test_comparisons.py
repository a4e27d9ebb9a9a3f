"""Comparisons: the intervals of differences against their formulas, and what is shown of noise and of a difference."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from simjax.core import InputError
from simjax.evaluate import Estimate, compare, error_consistency, jackknife_interval, mcnemar, mean_estimate

PEOPLE = np.arange(30).repeat(4)


def interval(found):
    assert found.interval is not None
    return np.array(found.interval)


def student(left_out, confidence=0.95):
    """Return the quantile for values without each identity; a high kurtosis leaves fewer degrees of freedom."""
    squares = (left_out - left_out.mean()) ** 2
    kurtosis = np.mean(squares**2) / np.mean(squares) ** 2
    n = len(left_out)
    return stats.t.ppf((1 + confidence) / 2, min(n - 1, max(2 * n / (kurtosis - 1), 6)))


def test_variances_of_seeds_from_more_runs_take_the_place_of_that_of_the_compared_runs(random):
    runs: list[Any] = [mean_estimate(random.uniform(size=120) < 0.9, PEOPLE) for _ in range(4)]
    found, fixed = compare(runs[:2], runs[2:]), compare(runs[:2], runs[2:], seed_variances=[])
    differences = [runs[i].value - runs[i + 2].value for i in (0, 1)]
    same = compare(runs[:2], runs[2:], seed_variances=[(float(np.var(differences, ddof=1)) / 2, 1.0)])
    assert same.interval == found.interval
    means = np.mean([runs[i].leave_one_out - runs[i + 2].leave_one_out for i in (0, 1)], axis=0)
    assert fixed.interval == jackknife_interval(float(np.mean(differences)), means, scale="linear")
    variances = [(1e-4, 4.0), (4e-4, 6.0)]
    wide = compare(runs[:2], runs[2:], seed_variances=variances, confidence=0.99)
    of_images = student(means, 0.99) ** 2 * 29**2 / 30 * np.var(means, ddof=1)
    of_seeds = stats.t.ppf(0.995, 5e-4**2 / (1e-4**2 / 4 + 4e-4**2 / 6)) ** 2 * 5e-4  # Welch
    margin = (of_images + of_seeds) ** 0.5
    np.testing.assert_allclose(interval(wide), np.mean(differences) + np.array([-margin, margin]), rtol=1e-9)
    with pytest.raises(InputError, match=r"seed_variances\[0\]\[1\]"):
        compare(runs[:2], runs[2:], seed_variances=[(0.1, 0.0)])


def test_two_encoders_are_compared_by_the_difference_without_each_identity(random):
    a, b = (random.random(120) < rate for rate in (0.9, 0.8))
    found = compare(mean_estimate(a, PEOPLE), mean_estimate(b, PEOPLE))
    assert found.difference == pytest.approx(a.mean() - b.mean())
    mean_of_person = (a * 1.0 - b).reshape(30, 4).mean(axis=1)  # for equally many images this is Student's interval
    margin = student(mean_of_person) * stats.sem(mean_of_person)
    assert found.interval == pytest.approx((found.difference - margin, found.difference + margin))
    assert found.runs == 1


def test_a_hard_identity_counts_against_neither_encoder():
    a = PEOPLE % 3 > 0
    b = a & (np.arange(120) % 30 != 5)
    paired = compare(mean_estimate(a, PEOPLE), mean_estimate(b, PEOPLE)).interval
    single = mean_estimate(a, PEOPLE).interval()
    assert 0 < np.diff(paired or ()) < np.diff(single or ()) / 4


def test_several_runs_add_the_variance_of_seeds(random):
    a, b = ([mean_estimate(random.random(120) < rate, PEOPLE) for _ in range(4)] for rate in (0.9, 0.85))
    found = compare(a, b)
    differences = np.array([x.value for x in a], float) - np.array([x.value for x in b], float)
    left_out = np.mean([np.asarray(x.leave_one_out) for x in a], axis=0)
    left_out -= np.mean([np.asarray(x.leave_one_out) for x in b], axis=0)
    of_people, of_seeds = 29**2 / 30 * np.var(left_out, ddof=1), np.var(differences, ddof=1) / 4
    margin = (student(left_out) ** 2 * of_people + stats.t(3).ppf(0.975) ** 2 * of_seeds) ** 0.5
    assert found.difference == pytest.approx(differences.mean())
    assert found.interval == pytest.approx((found.difference - margin, found.difference + margin))
    assert found.runs == 4


@pytest.mark.parametrize("runs", [2, 3])
def test_few_runs_that_differ_more_than_people_do_are_seldom_called_different(runs):
    """One quantile for both parts of the variance shows a difference in 9% of the comparisons of two runs."""
    random, people, shown = np.random.default_rng(0), np.arange(100), 0
    for _ in range(300):
        common = 0.05 * random.normal(size=100)
        shift = 0.005 * 10**0.5 * random.normal(size=(2, runs, 1))  # 10 times the variance of the people's mean
        sides = np.clip(0.5 + np.stack([common, -common])[:, None] + shift, 0, 1)
        a, b = ([mean_estimate(values, people) for values in side] for side in sides)
        shown += compare(a, b).is_shown
    assert shown <= 0.05 * 300


def test_rates_of_pairs_are_compared_by_the_differences_of_each_pair(random):
    pairs = np.stack(np.triu_indices(9, 1), axis=1)
    a, b = (random.random(len(pairs)) < rate for rate in (0.3, 0.6))
    found = compare(mean_estimate(a, pairs), mean_estimate(b, pairs))
    d = a * 1.0 - b
    left_out = np.array([d[(pairs != person).all(axis=1)].mean() for person in range(9)])
    twice = np.sum((d - d.mean()) ** 2) / len(d) ** 2
    variance = max(8 / 9 * np.sum((left_out - left_out.mean()) ** 2) - twice, twice)
    margin = stats.t(8).ppf(0.975) * variance**0.5
    assert found.interval == pytest.approx((d.mean() - margin, d.mean() + margin))
    with pytest.raises(InputError, match="^estimates_b: expected the pairs of estimates_a, got others"):
        compare(mean_estimate(a, pairs), mean_estimate(b[:-1], pairs[:-1]))


def test_runs_that_never_differ_have_the_interval_of_the_rule_of_3():
    perfect = [mean_estimate(np.ones(120), PEOPLE)] * 3
    found = compare(perfect, perfect)
    assert found.difference == 0
    assert found.interval == jackknife_interval(0.0, np.zeros(30), scale="linear")
    assert not found.is_shown
    assert compare(perfect[0], perfect[0]).interval == found.interval


def test_noise_between_runs_is_not_a_difference_of_recipes_and_a_large_difference_is(random):
    """Runs of one recipe have accuracies from 0.8 to 0.9."""
    shown = {"none": 0, "large": 0}
    for _ in range(100):
        accuracy = random.uniform(0.8, 0.9, 6) + random.normal(scale=0.05, size=(30, 1))
        for name, gain in (("none", 0.0), ("large", -0.4)):
            rates = accuracy + gain * (np.arange(6) < 3)
            runs = [mean_estimate((random.random((30, 4)) < r[:, None]).ravel(), PEOPLE) for r in rates.T]
            shown[name] += compare(runs[:3], runs[3:]).is_shown
    assert shown["none"] <= 7
    assert shown["large"] >= 95


def test_a_comparison_says_what_it_is_about():
    sure, unsure = mean_estimate(np.ones(120), PEOPLE), mean_estimate(np.arange(120) % 4 > 0, PEOPLE)
    one = compare(sure, unsure)
    assert one.is_shown
    assert str(one).endswith("shown for these two encoders, not for recipes")
    several = compare([sure, unsure], [unsure, sure])
    assert not several.is_shown
    assert str(several).endswith("not shown for the recipes, from 2 runs of each")


def test_a_comparison_of_values_that_do_not_exist_has_no_interval():
    none, single = mean_estimate([], []), Estimate(0.5, None, (1,), 1)
    assert compare(none, none).difference is None
    assert compare(single, single).difference == 0
    assert compare(single, single).interval is None
    assert not compare(single, single).is_shown
    assert str(compare(none, none)) == "no interval: a rate is missing, or fewer than two identities have trials"


def test_comparisons_of_other_identities_or_numbers_of_runs_are_errors():
    a, b = mean_estimate([0, 1], [1, 2]), mean_estimate([0, 1], [1, 3])
    with pytest.raises(InputError, match="^estimates_b: expected the identities of estimates_a, got others"):
        compare(a, b)
    with pytest.raises(InputError, match="^estimates_b: expected as many runs as in estimates_a, .*, got 1 and 2$"):
        compare([a, a], [b])
    with pytest.raises(InputError, match="^estimates_b: expected as many runs"):
        compare([], [])
    with pytest.raises(InputError, match="^confidence: expected a number between 0 and 1"):
        compare(a, a, confidence=95.0)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (2, 9), (5, 5), (0, 1), (0, 0), (31, 14)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    a = np.array([1] * only_a + [0] * only_b + [1] * 20 + [0] * 3)
    b = np.array([0] * only_a + [1] * only_b + [1] * 20 + [0] * 3)
    found = mcnemar(a, b)
    n, discordant = len(a), only_a + only_b
    tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1)) / 2**discordant
    assert found["p_value"] == pytest.approx(min(1, 2 * tail))
    assert (found["only_a"], found["only_b"], found["difference"]) == (only_a, only_b, (only_a - only_b) / n)
    low, high = found["interval"]
    assert low < found["difference"] < high
    reverse = mcnemar(b, a)
    assert reverse["interval"] == pytest.approx((-high, -low))


def test_the_interval_of_mcnemar_covers_the_difference(random):
    """Of 40 images, a classifies 0.9 correctly and b 0.8; both fail on the same image more often than by chance."""
    covered = 0
    for _ in range(600):
        case = random.choice(4, size=40, p=[0.78, 0.12, 0.02, 0.08])  # both, only a, only b, none
        low, high = mcnemar(case < 2, (case == 0) | (case == 2))["interval"]
        covered += low <= 0.1 <= high
    assert 0.93 < covered / 600 < 0.99


@pytest.mark.parametrize("n", [1, 8, 40])
def test_the_interval_of_mcnemar_contains_the_difference(n):
    assert mcnemar([1] * n, [0] * n, confidence=0.5)["interval"][1] == 1
    assert mcnemar([0] * n, [1] * n, confidence=0.5)["interval"][0] == -1


def test_mcnemar_without_images_or_of_wrong_input():
    assert mcnemar([], [])["p_value"] is None
    with pytest.raises(InputError, match="^correct_b: expected 2 booleans, as in correct_a, got 3"):
        mcnemar([1, 0], [1, 0, 1])
    with pytest.raises(InputError, match="^correct_a: expected booleans"):
        mcnemar([1, 2], [1, 0])
    with pytest.raises(InputError, match="^confidence: expected a number between 0 and 1"):
        mcnemar([1], [1], confidence=1.0)


def errors(random, n, both_wrong, only_a, only_b):
    """Draw which of n images each of two classifiers gets right, from the probabilities of the kinds of errors."""
    kind = random.choice(4, size=n, p=[both_wrong, only_a, only_b, 1 - both_wrong - only_a - only_b])
    return (kind == 1) | (kind == 3), kind >= 2


@pytest.mark.parametrize("rates", [(0.1, 0.07, 0.05), (0.02, 0.3, 0.25), (0.3, 0.0, 0.1)])
def test_error_consistency_is_the_kappa_of_scikit_learn_without_each_image(random, rates):
    a, b = errors(random, 41, *rates)
    found = error_consistency(a, b)
    assert found.value == pytest.approx(cohen_kappa_score(a, b))
    others = [cohen_kappa_score(np.delete(a, i), np.delete(b, i)) for i in range(41)]
    assert found.leave_one_out == pytest.approx(np.array(others))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rates",
    [(0.1, 0.07, 0.05), (0.25, 0.25, 0.25), (0.02, 0.015, 0.015), (0.016, 0.002, 0.002), (0.004, 0.003, 0.003)],
)
def test_the_interval_of_error_consistency_covers_kappa(random, rates):
    both_wrong, only_a, only_b = rates
    both = 1 - sum(rates)
    wrong_a, wrong_b = both_wrong + only_b, both_wrong + only_a
    expected = wrong_a * wrong_b + (1 - wrong_a) * (1 - wrong_b)
    kappa = (both + both_wrong - expected) / (1 - expected)
    intervals = [error_consistency(*errors(random, 1000, *rates)).interval() for _ in range(500)]
    known = [interval for interval in intervals if interval is not None]
    assert len(known) > 350  # of 1,000 images with 0.7% errors, sometimes fewer than five are wrong
    assert np.mean([low <= kappa <= high for low, high in known]) >= 0.92


def test_pairs_of_classifiers_are_compared_by_their_error_consistency():
    image = np.arange(1000)
    a, c = image % 10 > 0, image // 7 % 8 > 0  # errors of a and c are almost independent
    b = np.select([image % 50 == 0, image % 70 == 1], [True, False], a)
    alike, independent = error_consistency(a, b), error_consistency(a, c)
    assert (alike.interval() or (0, 0))[0] > 0.5
    low, high = independent.interval() or (0, 0)
    assert low < 0 < high
    assert compare(alike, independent).is_shown
    assert not compare(independent, error_consistency(b, c)).is_shown


def test_error_consistency_of_equal_errors_is_as_certain_as_they_are_many():
    correct = np.arange(1000) >= 30
    found = error_consistency(correct, correct)
    assert found.value == 1
    assert found.interval() == pytest.approx((1 + math.log(0.05) / 30, 1))
    opposite = error_consistency(correct[:60], ~correct[:60])
    assert opposite.value == -1


@pytest.mark.parametrize("runs", [1, 3])
def test_kappas_differ_by_up_to_two(runs):
    correct = np.arange(60) >= 30
    almost = [np.where(np.arange(60) < run, ~correct, correct) for run in range(runs)]
    alike = [error_consistency(correct, other) for other in almost]
    opposite = [error_consistency(correct, ~other) for other in almost]
    found = compare(alike, opposite)
    assert found.difference == pytest.approx(2 - (runs - 1) / 30)
    assert found.interval is not None
    assert 1.5 < found.interval[0] < 1.95
    assert found.interval[1] == 2


@pytest.mark.parametrize("value", [0, 1])
def test_error_consistency_does_not_exist_without_errors_or_without_correct_images(value):
    found = error_consistency([value] * 5, [value] * 5)
    assert found.value is None
    assert found.interval() is None
    assert error_consistency([], []).value is None


def test_too_few_errors_have_no_interval():
    one_each = error_consistency([0, 1, 1, 1], [1, 0, 1, 1])
    assert one_each.value == pytest.approx(-1 / 3)
    assert one_each.interval() is None
    same_one = error_consistency([0, 1, 1, 1], [0, 1, 1, 1])  # without this image, none has an error
    assert (same_one.value, same_one.leave_one_out, same_one.interval()) == (1, None, None)
    perfect = error_consistency([1, 1, 1, 1], [0, 0, 1, 1])
    assert (perfect.value, perfect.interval()) == (0, None)


def test_error_consistency_takes_two_arrays_of_booleans():
    with pytest.raises(InputError, match="^correct_b: expected 2 booleans, as in correct_a, got 3"):
        error_consistency([1, 0], [1, 0, 1])
    with pytest.raises(InputError, match="^correct_a: expected booleans, one for each image, got float64"):
        error_consistency([0.5], [1.0])
