"""Intervals of rates from data in which trials are correlated: images of one identity, pairs that share an identity.

Identities are the sample. The delete-one jackknife computes a rate r again without each of g identities, r(1) to r(g):

    se^2         = (g - 1) / g  sum of d(i)^2,  d(i) = r(i) - mean of r(1) to r(g)
    rate         that of r m events among m independent trials (Clopper, Pearson),  m = r (1 - r) / se^2 (t(n) / t)^2
    difference   r +- t se

- m is the number of independent trials that would tell the rate as precisely (Korn, Graubard); m and r m need not be
  integers. Unlike r +- t se, the interval stays inside of [0, 1] and holds for few events.
- t is the quantile of Student's t with g - 1 degrees of freedom, fewer if a few identities cause most of the errors and
  se itself is uncertain: those of a variance of values with the kurtosis k of the d(i), 2 g / (k - 1), but at least 6.
  t(n) is the quantile with n - 1 degrees of freedom for n trials (images, searches or pairs).
- The ROC AUC and the equal error rate depend on the tails of all scores: one identity can cause most of 1 - AUC, and
  the rate scale then understates how much another sample could differ. Their intervals are those of the log odds,
  logit(r) +- t se / (r (1 - r)), with the slope at m(i), half way between r and r(i), in the deviations:
  d(i) = r (1 - r) (r(i) - r) / (m(i) (1 - m(i))), minus the mean of these.
- A rate of pairs of two identities, such as the false match rate, varies with the identities and with their pairs. The
  variance of the pairs, q = sum over pairs of identities of (sum of their deviations from r)^2 / trials^2, is counted
  twice in se^2, by both identities. se^2 - q is used instead, and at least q; the degrees of freedom are g - 1.
- If all errors are of one or two identities, se hardly tells how much identities differ. The interval then reaches at
  least as far as without an error, see below.
- If the variance is 0, for instance because no error was observed, it says nothing. The interval then is r +- 3 / g
  for a confidence of 95% (rule of 3; -log(1 - confidence) / g in general), within the range of r: an event in a share
  of 3 / g of the identities would have been observed with 95% confidence. A rate of 0 or 1 that changes without some
  identity, because an error appears in its place, has r +- the larger one of 3 / g and t se.

`python -m benchmarks.coverage` measures how often these intervals contain the true value.

If the classes are fixed (the ten digits of MNIST), images are the sample. The numbers of the images then take the place
of the identities, and one image is left out at a time.

References:
    Clopper, Pearson (1934), The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial.
    Efron, Stein (1981), The Jackknife Estimate of Variance.
    Korn, Graubard (1998), Confidence Intervals for Proportions With Small Expected Number of Positive Counts Estimated
    From Survey Data.
    O'Neill (2014), Some Useful Moment Results in Sampling Problems.
    Fogliato, Patil, Perona (2024), Confidence Intervals for Error Rates in 1:1 Matching Tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_between, check_choice, check_fraction
from simjax.evaluate._checks import as_finite

SCALES = ("rate", "linear")
ROUNDING = 1e-12  # a standard error below it is rounding
MOST_TRIALS = 1e12
FEW_IDENTITIES = 2  # with all errors
LEAST_FREEDOM = 6.0  # with fewer, FNMR has intervals 1.6 times as wide as needed (`python -m benchmarks.coverage`)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A rate, the same rate without each identity, and the interval that follows from them.

    Args:
        value: In [0, 1], or in [-1, 1] for the scale "linear"; None without trials.
        leave_one_out: The value without each of the `identities`, float64 [g]; None if one of them does not exist.
        identities: Identities of all images that the value depends on, [g].
        sample_size: The number of identities that have trials, at most g.
        pair_deviations: For a rate of pairs, the sums of deviations from the value of each pair of two identities,
            divided by the number of all trials; None for other rates.
        has_logit_deviations: Whether the interval is that of the log odds, as for the ROC AUC.
        trials: The number of trials of a rate. Default: `sample_size`.
        sources: The numbers of identities with a trial above 0, and with one below 1. Default: all.
        scale: Scale of the interval, see `jackknife_interval`.

    Example:
        >>> estimate = mean_estimate([1, 1, 0, 1, 0, 0], ["ann", "ann", "bob", "bob", "cy", "cy"])
        >>> estimate.value, estimate.leave_one_out.tolist()
        (0.5, [0.25, 0.5, 0.75])
        >>> np.round(estimate.interval(confidence=0.8), 2).tolist()
        [0.04, 0.96]
    """

    value: float | None
    leave_one_out: np.ndarray | None
    identities: tuple[Any, ...]
    sample_size: int
    pair_deviations: np.ndarray | None = None
    has_logit_deviations: bool = False
    trials: int | None = None
    sources: tuple[int, int] | None = None
    scale: Literal["rate", "linear"] = "rate"

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Return the ends of the interval, or None if fewer than two identities have trials."""
        check_between("confidence", confidence, 0, 1)
        if self.value is None or self.leave_one_out is None:
            return None
        return jackknife_interval(
            self.value,
            self.leave_one_out,
            scale=self.scale,
            confidence=confidence,
            sample_size=self.sample_size,
            pair_deviations=self.pair_deviations,
            has_logit_deviations=self.has_logit_deviations,
            trials=self.trials,
            sources=self.sources,
        )


def jackknife_interval(
    value: float,
    leave_one_out: ArrayLike,
    *,
    scale: Literal["rate", "linear"] = "rate",
    confidence: float = 0.95,
    sample_size: int | None = None,
    pair_deviations: ArrayLike | None = None,
    has_logit_deviations: bool = False,
    trials: int | None = None,
    sources: tuple[int, int] | None = None,
    limit: float = 1.0,
) -> tuple[float, float] | None:
    """Compute the interval of a rate, or of a difference of two rates, from its values without each identity.

    Args:
        value: In [0, 1], or in [-limit, limit] for "linear".
        leave_one_out: [g].
        scale: "rate" for a rate, "linear" for a difference of rates or a kappa.
        confidence: Probability that the interval should contain the true value.
        sample_size: The number of identities that have trials. Default: g.
        pair_deviations: See `Estimate`, [c].
        has_logit_deviations: See `Estimate`.
        trials, sources: See `Estimate`.
        limit: Largest value; 2 for a difference of kappas.

    Returns:
        The ends of the interval, or None if `sample_size` is less than 2.

    Example:
        >>> np.round(jackknife_interval(0.0, [0.0] * 30), 4).tolist()  # no error of 30 people
        [0.0, 0.0999]
    """
    check_choice("scale", scale, SCALES)
    check_between("confidence", confidence, 0, 1)
    left_out = as_finite("leave_one_out", leave_one_out, np.float64)
    if left_out.ndim != 1:
        raise InputError(f"leave_one_out: expected one value for each identity, [g], got shape {left_out.shape}")
    lowest = 0.0 if scale == "rate" else -limit
    if not lowest <= value <= limit:
        raise InputError(f"value: expected a number from {lowest:g} to {limit:g} for the scale {scale!r}, got {value}")
    n = len(left_out) if sample_size is None else sample_size
    if n < 2:
        return None
    pairs = None if pair_deviations is None else as_finite("pair_deviations", pair_deviations, np.float64)
    if has_logit_deviations and 0 < value < 1:
        middle = (value + left_out) / 2
        left_out = value + value * (1 - value) * (left_out - value) / (middle * (1 - middle))
    variance, freedom = jackknife_variance(left_out, n, pairs)
    unobserved = -float(np.log(1 - confidence)) / n
    if variance < ROUNDING**2 or (scale == "rate" and value in (0, 1)):  # r (1 - r) is 0
        from scipy.stats import t

        of_variance = float(t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
        margin = max(unobserved, of_variance)
        return max(lowest, value - margin), min(limit, value + margin)
    if scale == "linear":
        return linear_interval(value, [(variance, freedom)], confidence=confidence, limit=limit)
    value = min(max(value, ROUNDING), 1 - ROUNDING)
    if has_logit_deviations:
        return _logit_interval(value, variance, freedom, confidence)
    low, high = _rate_interval(value, variance, freedom, max(n, trials or n) - 1.0, confidence)
    above_0, below_1 = sources or (n, n)
    low = max(min(low, 1 - unobserved), 0.0) if below_1 <= FEW_IDENTITIES else low
    high = min(max(high, unobserved), 1.0) if above_0 <= FEW_IDENTITIES else high
    return low, high


def jackknife_variance(
    leave_one_out: np.ndarray, sample_size: int, pair_deviations: np.ndarray | None
) -> tuple[float, float]:
    """Compute the variance of a value and the degrees of freedom of this variance, see the top of this module."""
    g = len(leave_one_out)
    squares = (leave_one_out - leave_one_out.mean()) ** 2
    variance = (g - 1) / g * float(np.sum(squares))
    if pair_deviations is not None:
        counted_twice = float(np.sum(pair_deviations**2))
        return max(variance - counted_twice, counted_twice), sample_size - 1.0
    if variance < ROUNDING**2:
        return 0.0, sample_size - 1.0
    kurtosis = float(np.mean(squares**2) / np.mean(squares) ** 2)
    freedom = max(2 * g / (kurtosis - 1), LEAST_FREEDOM) if kurtosis > 1 else float(g)
    return variance, min(sample_size - 1.0, freedom)


def linear_interval(
    value: float, variances: Sequence[tuple[float, float]], *, confidence: float, limit: float = 1.0
) -> tuple[float, float]:
    """Compute the interval of a difference from independent parts of its variance, in [-limit, limit].

    Each part has its degrees of freedom, and the squared margins of the parts are added.
    """
    from scipy.stats import t

    margin = sum(float(t.ppf((1 + confidence) / 2, freedom)) ** 2 * part for part, freedom in variances) ** 0.5
    return max(-limit, value - margin), min(limit, value + margin)


def _logit_interval(value: float, variance: float, freedom: float, confidence: float) -> tuple[float, float]:
    from scipy.special import expit, logit
    from scipy.stats import t

    margin = t.ppf((1 + confidence) / 2, freedom) * variance**0.5 / (value * (1 - value))
    return float(expit(logit(value) - margin)), float(expit(logit(value) + margin))


def _rate_interval(
    value: float, variance: float, freedom: float, freedom_of_trials: float, confidence: float
) -> tuple[float, float]:
    """Compute the interval of Korn and Graubard; independent trials would have `freedom_of_trials`."""
    from scipy.stats import beta, t

    tail = (1 - confidence) / 2
    of_trials, actual = t.ppf(1 - tail, [freedom_of_trials, freedom])
    trials = value * (1 - value) / variance * (of_trials / actual) ** 2
    if trials > MOST_TRIALS:  # the quantiles of the beta distribution are then rounding errors
        return linear_interval(value, [(variance, freedom)], confidence=confidence)
    events = value * trials
    low, high = beta.ppf([tail, 1 - tail], [events, events + 1], [trials - events + 1, trials - events])
    return float(low), float(high)


def mean_estimate(values: ArrayLike, identities: ArrayLike) -> Estimate:
    """Estimate the mean of a value of each trial, with the trials of one identity left out at a time.

    A trial is an image, a query, a probe or a pair: correct classifications of images give the accuracy, accepted pairs
    of two identities the false match rate, rejected pairs of one identity the false non-match rate. A pair has two
    identities, and leaving out one identity removes all pairs that have it.

    Args:
        values: In [0, 1], or booleans, [n].
        identities: Integers or names, [n] or [n, 2].

    Example:
        >>> is_accepted = [False, True, False]  # pairs of ann and bob, ann and cy, bob and cy
        >>> mean_estimate(is_accepted, [["ann", "bob"], ["ann", "cy"], ["bob", "cy"]]).leave_one_out.tolist()
        [0.0, 1.0, 0.0]
    """
    x = as_finite("values", values, np.float64)
    if x.ndim != 1:
        raise InputError(f"values: expected one for each trial, [n], got shape {x.shape}")
    check_fraction("values", x)
    units, names = number_identities("identities", identities, len(x), columns=2)
    return mean_of_units(x, units, names)


def mean_of_units(values: np.ndarray, units: np.ndarray, names: tuple[Any, ...]) -> Estimate:
    """Return `mean_estimate` of checked values [n], and of units [n, 1 or 2], indices of `names`."""
    if not len(values):
        return Estimate(None, None, names, 0)
    of_unit = sum_by_unit(units, np.ones(len(values)), len(names)).astype(int)
    sums = values.sum() - sum_by_unit(units, values, len(names))
    sample_size = int(np.count_nonzero(of_unit))
    estimate = estimate_of_sums(values.sum(), len(values), sums, len(values) - of_unit, names, sample_size)
    is_of_two = units[:, 0] != units[:, -1]
    if not is_of_two.any():
        return estimate
    deviations = (values[is_of_two] - values.mean()) / len(values)
    first, second = units[is_of_two].T
    pair = np.minimum(first, second) * len(names) + np.maximum(first, second)
    if len(names) ** 2 > len(pair):  # else sums of all pairs of units, some of them 0, need less memory than the trials
        pair = np.unique(pair, return_inverse=True)[1]
    of_pairs = np.bincount(pair, deviations, minlength=1)
    return replace(estimate, pair_deviations=of_pairs, sources=None)  # each pair has two identities


def estimate_of_sums(
    total: float, count: int, sums: np.ndarray, counts: np.ndarray, names: tuple[Any, ...], sample_size: int
) -> Estimate:
    """Return the estimate total / count, and sums / counts [g] without each identity."""
    if not count:
        return Estimate(None, None, names, 0)
    left_out = np.clip(sums / counts, 0, 1) if counts.all() else None
    own, trials = total - sums, count - counts
    sources = int(np.count_nonzero(own > ROUNDING * count)), int(np.count_nonzero(trials - own > ROUNDING * count))
    return Estimate(float(total / count), left_out, names, sample_size, trials=count, sources=sources)


def estimates_of(
    statistics: Callable[[np.ndarray], Mapping[str, float | None]], identities: ArrayLike
) -> dict[str, Estimate]:
    """Estimate any rates, such as the average precision, by computing them again without each identity.

    The other functions of this module are faster and should be used for the rates that they know. With many identities,
    pass groups of them (`random_groups`), which are left out one at a time.

    Args:
        statistics: Returns rates in [0, 1] by name from a boolean mask [n] of the trials to use; None for a rate that
            does not exist.
        identities: Integers or names of the trials, [n], or [n, 2] for pairs.

    Example:
        >>> correct, people = np.array([1, 1, 0, 1, 0, 0]), ["ann", "ann", "bob", "bob", "cy", "cy"]
        >>> found = estimates_of(lambda mask: {"accuracy": correct[mask].mean()}, people)
        >>> found["accuracy"].leave_one_out.tolist()
        [0.25, 0.5, 0.75]
    """
    units, names = number_identities("identities", identities, len(np.asarray(identities)), columns=2)
    values = statistics(np.ones(len(units), bool))
    without = [statistics((units != unit).all(axis=1)) for unit in range(len(names))]
    found = {}
    for name, value in values.items():
        left_out = [of_others[name] for of_others in without]
        known = [rate for rate in left_out if rate is not None]
        is_known = len(known) == len(left_out)
        found[name] = Estimate(value, np.array(known, np.float64) if is_known else None, names, len(names))
    return found


def random_groups(n: int, groups: int = 100, seed: int = 0) -> np.ndarray:
    """Assign n images or identities to groups of nearly equal size at random, for `estimates_of`.

    Args:
        n: The number of images.
        groups: The number of groups; n groups of one image if there are fewer images.
        seed: Seed of the assignment.

    Returns:
        Integers [n] from 0, in place of identities.

    Example:
        >>> np.bincount(random_groups(1000, groups=4)).tolist()
        [250, 250, 250, 250]
    """
    check_at_least("n", n, 0)
    check_at_least("groups", groups, 1)
    return np.random.default_rng(seed).permutation(n) % min(groups, max(n, 1))


def number_identities(
    argument: str, identities: ArrayLike, n: int, *, columns: int = 1
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return the indices of the identities of each row, [n, 1 to `columns`], and the sorted identities."""
    given = np.asarray(identities)
    expected = [(n,), *((n, c) for c in range(2, columns + 1))]
    if given.shape not in expected or (n and given.dtype.kind not in "iuUT"):
        shapes = " or ".join(map(str, expected))
        raise InputError(f"{argument}: expected integers or names {shapes}, got {given.dtype} {given.shape}")
    names = np.unique(given)
    units = np.searchsorted(names, given)  # for a million pairs faster than the argument return_inverse
    return units.reshape(n, -1 if n else 1), tuple(names.tolist())


def sum_by_unit(units: np.ndarray, values: np.ndarray, n_units: int) -> np.ndarray:
    """Sum values [n] over the rows of each unit; a row counts once for a unit that it has twice in [n, 1 or 2]."""
    sums = np.bincount(units[:, 0], values, minlength=n_units)
    if units.shape[1] == 1:
        return sums
    is_other = units[:, 0] != units[:, 1]
    return sums + np.bincount(units[is_other, 1], values[is_other], minlength=n_units)
