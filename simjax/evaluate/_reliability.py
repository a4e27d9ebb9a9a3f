"""Reliability of predicted probabilities: whether pairs with a predicted probability of p are "same" in a fraction p.

The pairs are sorted into bins of their probability. With weights w_i of the pairs, y_i = 1 for a same pair and 0 for a
different pair, and the sums over the pairs of a bin b,

    W_b  = sum w_i
    mean probability(b) = sum w_i p_i / W_b,    fraction of same(b) = sum w_i y_i / W_b
    ECE  = sum over bins of W_b |mean probability(b) - fraction of same(b)| / sum of all weights

All weights are 1, or with a stated prior the same pairs have the total weight `prior` and the different pairs
1 - prior. The expected calibration error (ECE) is about such pairs: probabilities that are right for balanced pairs are
wrong where one in a thousand pairs is "same", so the prior of the probabilities must be the prior of the pairs.

Even for perfect probabilities the ECE is above 0, because the fraction of each bin is a sample: a bin whose fraction
has the standard error se adds sqrt(2 / pi) se (0.8 se) times its share of the pairs. Compare only values of equally
many pairs and bins. The 95% interval of the ECE is that of the jackknife, whose lower end is lowered by these, to at
least 0.

References:
    Naeini, Cooper, Hauskrecht (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning.
    Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks.
    Nixon, Dusenberry, Zhang, Jerfel, Tran (2019), Measuring Calibration in Deep Learning (bins of equal mass).
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_between, check_choice
from simjax.evaluate._checks import as_finite, as_identities, as_scored_pairs, check_rows
from simjax.evaluate._intervals import Estimate, jackknife_interval, jackknife_variance, mean_estimate

STRATEGIES = ("uniform", "quantile")


def reliability(
    probabilities: ArrayLike,
    same: ArrayLike,
    *,
    bins: int | ArrayLike = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
    prior: float | None = None,
    identities: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compute the reliability of P(same) in bins, and the expected calibration error (ECE).

    Args:
        probabilities: Predicted P(same) of each pair, [n], from 0 to 1, for the same prior as below.
        same: Booleans [n], True for a pair of one identity.
        bins: The number of bins, or their edges, ascending from at most the smallest to at least the largest
            probability. A probability on an inner edge belongs to the bin below, as in scikit-learn.
        strategy: For a number of bins: "uniform" for bins of equal width between 0 and 1, "quantile" for bins with
            equally many pairs.
        prior: Probability that a pair is "same" where the probabilities are used, between 0 and 1. Default: the
            fraction of these pairs.
        identities: Integers or names [n, 2], the two identities of each pair, for intervals.

    Returns:
        A dictionary of

            expected_calibration_error      None without pairs, or with a prior and only one kind of pairs
            bins                            a list with one dictionary for each bin: `low` and `high`, its edges;
                                            `count`, the number of its pairs; `mean_probability` and `fraction_same`,
                                            None without pairs
            prior                           that of the weighted pairs

        and with `identities`

            identities, leave_one_out       each identity, and the ECE without the pairs in which it occurs (in the same
                                            bins); None if that does not exist
            expected_by_chance              the ECE that is expected of right probabilities, None with a prior
            expected_calibration_error_interval    None if the ECE without an identity does not exist; with a prior it
                                            begins at 0
            bins                            also `fraction_same_interval` of each bin, None with a prior

    Raises:
        InputError: If a probability is not from 0 to 1, the edges do not ascend or leave out a probability, or a number
            of bins is below 1.

    Example:
        >>> found = reliability([0.1, 0.2, 0.7, 0.9], [False, False, True, False], bins=2)
        >>> found["bins"][1]["mean_probability"], found["bins"][1]["fraction_same"]
        (0.8, 0.5)
        >>> round(found["expected_calibration_error"], 3), found["prior"]
        (0.225, 0.25)
    """
    p, is_same = as_scored_pairs(probabilities, same, "probabilities")
    check_rows("probabilities: expected numbers from 0 to 1", p, (p < 0) | (p > 1))
    check_choice("strategy", strategy, STRATEGIES)
    if prior is not None:
        check_between("prior", prior, 0, 1)
    edges = _edges(bins, strategy, p)
    bin_of, size = np.searchsorted(edges[1:-1], p), len(edges) - 1
    cell = 2 * bin_of + is_same  # of a table of bins and kinds, different and same
    counts, sums = (np.bincount(cell, w, minlength=2 * size).reshape(size, 2) for w in (None, p))
    factors = _factors(counts.sum(axis=0), prior)
    found: dict[str, Any] = {
        "expected_calibration_error": _calibration_error(counts, sums, prior),
        "bins": [],
        "prior": None if factors is None else float(factors[1] * np.sum(counts[:, 1])),
    }
    for low, high, count, total in zip(edges[:-1], edges[1:], counts, sums, strict=True):
        weight = 0.0 if factors is None else count @ factors
        means = {"mean_probability": None, "fraction_same": None}
        if factors is not None and weight:
            means = {"mean_probability": total @ factors / weight, "fraction_same": count[1] * factors[1] / weight}
            means = {name: float(mean) for name, mean in means.items()}
        found["bins"].append({"low": float(low), "high": float(high), "count": int(count.sum()), **means})
    if identities is not None:
        found |= _leave_one_out(identities, cell, p, counts, sums, prior)
        found["expected_by_chance"] = None
        for number, one in enumerate(found["bins"]):
            one["fraction_same_interval"] = None
            if prior is None:
                is_in_bin = bin_of == number
                estimate = mean_estimate(is_same[is_in_bin], np.asarray(identities)[is_in_bin])
                one["fraction_same_interval"] = estimate.interval()
                by_chance = found["expected_by_chance"] or 0.0
                found["expected_by_chance"] = by_chance + one["count"] / max(len(p), 1) * _mean_deviation(estimate)
        found["expected_calibration_error_interval"] = None
        if None not in (found["expected_calibration_error"], *found["leave_one_out"]):
            value, left_out = found["expected_calibration_error"], found["leave_one_out"]
            by_chance = found["expected_by_chance"]
            found["expected_calibration_error_interval"] = calibration_error_interval(value, left_out, by_chance)
    return found


def calibration_error_interval(
    value: float, leave_one_out: ArrayLike, by_chance: float | None
) -> tuple[float, float] | None:
    """Return the 95% interval of an expected calibration error, or None for fewer than two identities.

    Args:
        value: The ECE, or the mean of several.
        leave_one_out: See `reliability`, [g].
        by_chance: See `reliability`, `expected_by_chance`. None: the interval begins at 0.

    Example:
        >>> low, high = calibration_error_interval(0.08, [0.078, 0.081, 0.079, 0.082], 0.05)
        >>> round(low, 3), round(high, 3)
        (0.025, 0.086)
    """
    interval = jackknife_interval(value, leave_one_out)
    if interval is None:
        return None
    return 0.0 if by_chance is None else max(interval[0] - by_chance, 0.0), interval[1]


def _mean_deviation(estimate: Estimate) -> float:
    """Return the mean absolute deviation of a normal distribution with the variance of an estimate."""
    if estimate.leave_one_out is None:
        return 0.0
    variance, _ = jackknife_variance(estimate.leave_one_out, estimate.sample_size, estimate.pair_deviations)
    return (2 / np.pi * variance) ** 0.5


def _edges(bins: int | ArrayLike, strategy: str, p: np.ndarray) -> np.ndarray:
    """Return the edges of the bins, [b + 1]."""
    if isinstance(bins, int | np.integer):
        check_at_least("bins", bins, 1)
        edges = np.linspace(0, 1, int(bins) + 1)
        return np.quantile(p, edges) if strategy == "quantile" and p.size else edges
    edges = as_finite("bins", bins, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or np.any(np.diff(edges) <= 0):
        raise InputError(f"bins: expected a number, or two or more ascending edges, got {edges.tolist()}")
    if p.size and not edges[0] <= p.min() <= p.max() <= edges[-1]:
        given, needed = f"{edges[0]:g} to {edges[-1]:g}", f"{p.min():g} to {p.max():g}"
        raise InputError(f"bins: expected edges around all probabilities, {needed}, got {given}")
    return edges


def _factors(numbers: np.ndarray, prior: float | None) -> np.ndarray | None:
    """Return the weights of a different and of a same pair, whose sum over all pairs is 1; None if they do not exist.

    `numbers` are those of different and of same pairs, [2].
    """
    total = numbers.sum()
    if prior is None:
        return np.full(2, 1 / total) if total else None
    return np.array([1 - prior, prior]) / numbers if numbers.all() else None


def _calibration_error(counts: np.ndarray, sums: np.ndarray, prior: float | None) -> float | None:
    """Compute the ECE from the numbers of pairs and the sums of their probabilities, by bin and kind, both [b, 2]."""
    factors = _factors(counts.sum(axis=0), prior)
    return None if factors is None else float(np.sum(np.abs(sums @ factors - counts[:, 1] * factors[1])))


def _leave_one_out(
    identities: ArrayLike, cell: np.ndarray, p: np.ndarray, counts: np.ndarray, sums: np.ndarray, prior: float | None
) -> dict[str, Any]:
    """Return the identities and the ECE without each of them.

    `cell` is the flat index of each pair into `counts` and `sums`, [n].
    """
    given = np.asarray(identities)
    if given.shape != (len(cell), 2):
        raise InputError(f"identities: expected two for each of {len(cell)} pairs, [n, 2], got shape {given.shape}")
    names = as_identities("identities", given.ravel(), given.size)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    first, second = np.array([numbers[name] for name in names], int).reshape(-1, 2).T
    is_other = first != second  # the pair of an identity with itself is left out once
    owner, cell, p = (
        np.concatenate([of_first, of_second[is_other]])
        for of_first, of_second in ((first, second), (cell, cell), (p, p))
    )
    shape = (len(numbers), *counts.shape)
    left_counts, left_sums = (
        whole - np.bincount(owner * counts.size + cell, weights, minlength=len(numbers) * counts.size).reshape(shape)
        for whole, weights in ((counts, None), (sums, p))
    )
    left_out = [_calibration_error(*without, prior) for without in zip(left_counts, left_sums, strict=True)]
    return {"identities": list(numbers), "leave_one_out": left_out}
