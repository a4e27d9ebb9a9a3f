"""Reliability of probabilities, against a loop over bins and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from simjax.core import InputError
from simjax.evaluate import Calibration, mean_estimate, reliability

pairs = st.lists(st.tuples(st.integers(0, 20).map(lambda k: k / 20), st.booleans()), min_size=1, max_size=40)


def drawn(n, seed=0):
    """Return probabilities that are too low, and whether the pairs are "same"."""
    random = np.random.default_rng(seed)
    truth = random.beta(1, 2, n)
    return truth**1.5, random.random(n) < truth


def looped(p, same, edges, prior=None):
    """Return the ECE, and the count, the mean probability and the fraction of "same" of each bin."""
    weight = np.ones(len(p)) / len(p)
    if prior is not None:
        weight = np.where(same, prior / np.sum(same), (1 - prior) / np.sum(~same))
    error, bins = 0.0, []
    for b in range(len(edges) - 1):
        inside = [
            n for n in range(len(p)) if (b == 0 or p[n] > edges[b]) and (b == len(edges) - 2 or p[n] <= edges[b + 1])
        ]
        if not inside:
            bins.append((0, None, None))
            continue
        total = sum(weight[n] for n in inside)
        mean = sum(weight[n] * p[n] for n in inside) / total
        fraction = sum(weight[n] for n in inside if same[n]) / total
        error += total * abs(mean - fraction)
        bins.append((len(inside), mean, fraction))
    return error, bins


def columns(found):
    return [tuple(b[name] for name in ("count", "mean_probability", "fraction_same")) for b in found["bins"]]


@settings(deadline=None, max_examples=100)
@given(pairs, st.sampled_from([1, 4, 10]), st.sampled_from([None, 0.01, 0.5]))
def test_equals_a_loop_over_bins_with_probabilities_on_edges(pairs, bins, prior):
    p, same = map(np.array, zip(*pairs, strict=True))
    found = reliability(p, same, bins=bins, prior=prior)
    if prior is not None and (same.all() or not same.any()):
        assert (found["expected_calibration_error"], found["prior"]) == (None, None)
        assert {b["mean_probability"] for b in found["bins"]} == {None}
        return
    error, expected = looped(p, same, np.linspace(0, 1, bins + 1), prior)
    assert found["expected_calibration_error"] == pytest.approx(error, abs=1e-12)
    assert found["prior"] == pytest.approx(np.mean(same) if prior is None else prior)
    for row, expected_row in zip(columns(found), expected, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-12)
    given_edges = reliability(p, same, bins=np.linspace(0, 1, bins + 1), prior=prior)
    assert given_edges == found


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_bins_are_those_of_scikit_learn(strategy):
    p, same = drawn(997)
    found = reliability(p, same, strategy=strategy, bins=7)
    fraction, mean = calibration_curve(same, p, n_bins=7, strategy=strategy)
    np.testing.assert_allclose([b["fraction_same"] for b in found["bins"]], fraction, rtol=1e-12)
    np.testing.assert_allclose([b["mean_probability"] for b in found["bins"]], mean, rtol=1e-12)
    counts = [b["count"] for b in found["bins"]]
    assert sum(counts) == 997
    assert (max(counts) - min(counts) > 50) == (strategy == "uniform")


def test_equal_probabilities_share_a_bin_of_equal_mass():
    found = reliability([0.5] * 6, [True] * 3 + [False] * 3, strategy="quantile", bins=3)
    assert columns(found) == [(6, 0.5, 0.5), (0, None, None), (0, None, None)]
    assert found["expected_calibration_error"] == 0


def test_a_prior_counts_pairs_as_where_the_probabilities_are_used():
    """Repeating each different pair 9 times is the prior 0.1 for balanced pairs."""
    p, same = drawn(400, seed=1)
    keep = np.concatenate([np.flatnonzero(same)[:100], np.flatnonzero(~same)[:100]])
    p, same = p[keep], same[keep]
    repeated = np.where(same, 1, 9)
    whole = reliability(p.repeat(repeated), same.repeat(repeated))
    found = reliability(p, same, prior=0.1)
    assert found["expected_calibration_error"] == pytest.approx(whole["expected_calibration_error"], rel=1e-12)
    assert whole["prior"] == pytest.approx(0.1)
    assert found["expected_calibration_error"] != pytest.approx(reliability(p, same)["expected_calibration_error"], 0.1)


def test_a_calibration_for_the_prior_of_the_pairs_has_a_low_error_and_one_for_another_prior_a_high_one():
    random = np.random.default_rng(2)
    ids = np.arange(60).repeat(6)
    x = random.normal(size=(60, 8))[ids] + 0.7 * random.normal(size=(360, 8))
    calibration = Calibration.fit(x[:180], ids[:180], measure="euclidean")
    i, j = np.triu_indices(180, 1)
    distance, same = np.linalg.norm(x[180:][i] - x[180:][j], axis=1), ids[180:][i] == ids[180:][j]
    errors = {
        prior: reliability(calibration.probability(distance, prior=prior), same, prior=0.01)[
            "expected_calibration_error"
        ]
        for prior in (0.01, 0.5)
    }
    assert errors[0.01] < 0.01
    assert errors[0.5] > 0.1


@pytest.mark.parametrize("prior", [None, 0.2])
def test_leaving_out_an_identity_is_leaving_out_its_pairs(prior):
    p, same = drawn(211, seed=3)
    names = np.random.default_rng(3).choice(list("abcdef"), (211, 2))
    names[same, 1] = names[same, 0]
    found = reliability(p, same, prior=prior, bins=5, identities=names)
    edges = np.linspace(0, 1, 6)
    assert sorted(found["identities"]) == list("abcdef")
    bin_of = np.array([min(i for i in range(5) if value <= edges[i + 1]) for value in p])
    for number, part in enumerate(found["bins"]):
        assert part["count"] == np.sum(bin_of == number)
        if prior is None:
            expected = mean_estimate(same[bin_of == number], names[bin_of == number]).interval()
            assert part["fraction_same_interval"] == expected
    for name, without in zip(found["identities"], found["leave_one_out"], strict=True):
        rest = (names != name).all(axis=1)
        assert without == pytest.approx(looped(p[rest], same[rest], edges, prior)[0], abs=1e-12)
    assert len(set(found["leave_one_out"])) == 6


def test_without_pairs_or_without_the_only_identity_there_is_no_error():
    empty = reliability([], [], bins=2, strategy="quantile", identities=np.zeros((0, 2), int))
    assert (empty["expected_calibration_error"], empty["prior"], empty["leave_one_out"]) == (None, None, [])
    assert columns(empty) == [(0, None, None)] * 2
    lone = reliability([0.25, 0.5], [True, True], identities=[[7, 7], [7, 7]])
    assert (lone["expected_calibration_error"], lone["leave_one_out"]) == (0.625, [None])
    assert lone["expected_calibration_error_interval"] is None


def test_the_interval_of_the_error_of_right_probabilities_begins_at_0():
    random, begins, contradicted = np.random.default_rng(4), [], []
    for _ in range(40):
        p = random.uniform(size=800)
        pairs = np.arange(800)[:, None].repeat(2, axis=1)
        for right, found in ((True, begins), (False, contradicted)):
            same = random.uniform(size=800) < (p if right else p**2)
            found.append(reliability(p, same, identities=pairs)["expected_calibration_error_interval"])
    assert sum(low == 0 for low, _ in begins) >= 0.9 * 40
    assert sum(low > 0.05 for low, _ in contradicted) == 40


def test_the_interval_contains_the_error_of_one_wrong_bin():
    random, pairs, inside = np.random.default_rng(5), np.arange(1_000)[:, None].repeat(2, axis=1), 0
    for _ in range(40):
        p = random.uniform(size=1_000)
        is_wrong = (p > 0.5) & (p <= 0.6)
        found = reliability(p, random.uniform(size=1_000) < p + 0.4 * is_wrong, identities=pairs)
        low, high = found["expected_calibration_error_interval"]
        inside += low <= 0.04 <= high
        assert low <= found["expected_calibration_error"] - found["expected_by_chance"] <= high
    assert inside >= 0.9 * 40


def test_with_a_prior_bins_have_no_intervals_and_that_of_the_error_begins_at_0(random):
    p = random.uniform(size=500)
    pairs = np.arange(500)[:, None].repeat(2, axis=1)
    found = reliability(p, random.uniform(size=500) < p**3, prior=0.5, identities=pairs)
    assert found["expected_by_chance"] is None
    assert [found_bin["fraction_same_interval"] for found_bin in found["bins"]] == [None] * 10
    assert found["expected_calibration_error_interval"][0] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probabilities": [0.1, 1.5]}, "^probabilities: expected numbers from 0 to 1, got 1.5 in row 1$"),
        ({"probabilities": [[0.1]]}, r"^probabilities: expected one number for each pair, \[n\], got shape \(1, 1\)$"),
        ({"bins": 0}, "^bins: expected at least 1, got 0$"),
        (
            {"bins": [0.0, 0.5, 0.5]},
            r"^bins: expected a number, or two or more ascending edges, got \[0.0, 0.5, 0.5\]$",
        ),
        ({"bins": [0.2, 1.0]}, "^bins: expected edges around all probabilities, 0.1 to 0.9, got 0.2 to 1$"),
        ({"prior": 1.0}, "^prior: expected a number between 0 and 1, got 1.0$"),
        ({"identities": [1, 2]}, r"^identities: expected two for each of 2 pairs, \[n, 2\], got shape \(2,\)$"),
    ],
)
def test_wrong_arguments_are_errors(changed, message):
    with pytest.raises(InputError, match=message):
        reliability(**{"probabilities": [0.1, 0.9], "same": [False, True]} | changed)
