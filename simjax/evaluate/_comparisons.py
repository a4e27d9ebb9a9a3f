"""Comparisons: whether a difference between two encoders, or between two recipes, is more than chance.

Two encoders are compared on the same images, so identities that are hard for both do not count against either of them.
With one run of each, a comparison is about these two encoders: another seed gives others. Several runs of each, with
other seeds, compare the recipes that produced them. With d(s) for the difference of the runs s = 1 to S, and d(s, i)
without identity i, the difference is the mean of d(s), and

    interval = mean of d(s) +- sqrt(t(u)^2 u + t(v)^2 v)
    u        jackknife variance of the mean of d(s, i) over s, and t(u) the quantile of Student's t for it
    v        variance of d(s) / S, and t(v) the quantile for S - 1 degrees of freedom

Each part of the margin is that of an interval of its own. One t for u + v would have too many degrees of freedom where
two or three runs happen to agree: it called equal recipes of two runs different in 9% of the cases. The chance of an
identity in a single run is in both parts, so the interval is rather too wide than too narrow. With few runs, t(v) is
large: 12.7 for two runs, 4.3 for three. If more runs tell how much seeds vary, or if the runs are not paired, variances
v(k) of two or more groups of runs take the place of v: their sum has the degrees of freedom (sum of v(k))^2 / sum of
v(k)^2 / those of v(k) (Welch).

References:
    Welch (1947), The Generalization of "Student's" Problem when Several Different Population Variances are Involved.
    McNemar (1947), Note on the Sampling Error of the Difference Between Correlated Proportions.
    Bonett, Price (2012), Adjusted Wald Confidence Interval for a Difference of Binomial Proportions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_between, check_positive
from simjax.evaluate._intervals import Estimate, jackknife_interval, jackknife_variance, linear_interval

LEAST_ERRORS = 5
"""With three or four errors among 300 images, the interval of kappa contained the true value in 89% of the cases."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two rates, its interval, and whether a difference is shown. `str` makes a sentence of it.

    Args:
        difference: The first rate minus the second one, in [-1, 1], or in [-2, 2] for kappas; None if one of them does
            not exist.
        interval: The ends of its interval; None without a difference, if fewer than two identities have trials, or
            if one of them has all trials.
        confidence: Of the interval.
        runs: Runs of each recipe. One run of each compares two encoders, not the recipes that produced them.

    Example:
        >>> print(Comparison(-0.02, (-0.03, -0.01), 0.95, runs=3))
        difference -0.02 (95% interval -0.03 to -0.01), shown for the recipes, from 3 runs of each
    """

    difference: float | None
    interval: tuple[float, float] | None
    confidence: float
    runs: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def __str__(self) -> str:
        if self.difference is None or self.interval is None:
            return "no interval: a rate is missing, or fewer than two identities have trials"
        low, high = self.interval
        about = (
            "these two encoders, not for recipes" if self.runs == 1 else f"the recipes, from {self.runs} runs of each"
        )
        found = f"difference {self.difference:.4g} ({100 * self.confidence:g}% interval {low:.4g} to {high:.4g})"
        return f"{found}, {'shown' if self.is_shown else 'not shown'} for {about}"


def compare(
    estimates_a: Estimate | Sequence[Estimate],
    estimates_b: Estimate | Sequence[Estimate],
    *,
    confidence: float = 0.95,
    seed_variances: Sequence[tuple[float, float]] | None = None,
) -> Comparison:
    """Compare the estimates of two encoders on the same identities, or of several runs of two recipes.

    With one estimate of each, the interval is for the difference of these two encoders. It says nothing about the
    recipes that produced them: two runs of one recipe with other seeds differ, too. To compare recipes, pass the
    estimates of several runs of each, at least 3; runs at the same place may share a seed or a division of the data.

    Args:
        estimates_a, estimates_b: Estimates of one rate; lists of equal length for several runs.
        confidence: Probability that the interval should contain the difference.
        seed_variances: Independent parts of the variance of the mean difference over runs with other seeds, each with
            its degrees of freedom. Default: the variance of these runs.

    Raises:
        InputError: If the numbers of runs differ, or the identities, a variance is negative, or its degrees of freedom
            are not positive.

    Example:
        >>> from simjax.evaluate import mean_estimate
        >>> people = np.arange(20).repeat(5)
        >>> a = mean_estimate(np.arange(100) % 5 > 0, people)
        >>> b = mean_estimate(np.arange(100) % 7 > 2, people)
        >>> print(compare(a, b))
        difference 0.24 (95% interval 0.162 to 0.318), shown for these two encoders, not for recipes
    """
    check_between("confidence", confidence, 0, 1)
    for part, (variance, freedom) in enumerate(seed_variances or ()):
        check_at_least(f"seed_variances[{part}][0]", variance, 0)
        check_positive(f"seed_variances[{part}][1]", freedom)
    first, second = ([given] if isinstance(given, Estimate) else list(given) for given in (estimates_a, estimates_b))
    if not first or len(first) != len(second):
        got = f"{len(second)} and {len(first)}"
        raise InputError(f"estimates_b: expected as many runs as in estimates_a, at least one, got {got}")
    estimates = first + second
    if any(estimate.identities != estimates[0].identities for estimate in estimates):
        raise InputError("estimates_b: expected the identities of estimates_a, got others; evaluate the same images")
    runs = len(first)
    limit = 2.0 if estimates[0].scale == "linear" else 1.0
    values = [estimate.value for estimate in estimates]
    left_out = [estimate.leave_one_out for estimate in estimates]
    known = [value for value in values if value is not None]
    if len(known) < 2 * runs:
        return Comparison(None, None, confidence, runs)
    differences = np.subtract(known[:runs], known[runs:])
    difference = float(differences.mean())
    without = [value for value in left_out if value is not None]
    sample_size = min(estimate.sample_size for estimate in estimates)
    if len(without) < 2 * runs or sample_size < 2:
        return Comparison(difference, None, confidence, runs)
    means = np.mean(np.subtract(without[:runs], without[runs:]), axis=0)
    pairs = _mean_pair_deviations(first, second)
    variance, freedom = jackknife_variance(means, sample_size, pairs)
    if seed_variances is None:
        seed_variances = [(float(differences.var(ddof=1)) / runs, runs - 1.0)] if runs > 1 else []
    if any(of_seeds for of_seeds, _ in seed_variances):
        of_seeds, freedoms = np.transpose(seed_variances)
        of_all_seeds = float(of_seeds.sum()), float(of_seeds.sum() ** 2 / np.sum(of_seeds**2 / freedoms))
        parts = [(variance, freedom), of_all_seeds]
        interval = linear_interval(difference, parts, confidence=confidence, limit=limit)
    else:
        interval = jackknife_interval(
            difference,
            means,
            scale="linear",
            confidence=confidence,
            sample_size=sample_size,
            pair_deviations=pairs,
            limit=limit,
        )
    return Comparison(difference, interval, confidence, runs)


def _mean_pair_deviations(first: list[Estimate], second: list[Estimate]) -> np.ndarray | None:
    """Return the deviations of the mean difference of all runs for each pair of identities, if there are any."""
    given = [estimate.pair_deviations for estimate in first + second]
    known = [deviations for deviations in given if deviations is not None]
    if not known:
        return None
    if any(deviations is None or deviations.shape != known[0].shape for deviations in given):
        raise InputError("estimates_b: expected the pairs of estimates_a, got others; evaluate the same pairs")
    return np.mean(np.subtract(known[: len(first)], known[len(first) :]), axis=0)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike, *, confidence: float = 0.95) -> dict[str, Any]:
    """Compare two fixed classifiers on the same images by the images that only one of them classifies correctly.

    With n images, x of them correct by a only and y by b only, p is the exact two-sided probability of a result at
    least as uneven if both are equally good, x ~ Binomial(x + y, 1/2). The interval adds one image to each of x and y:

        u = (x + 1) / (n + 2),  v = (y + 1) / (n + 2),  u - v +- z sqrt((u + v - (u - v)^2) / (n + 2))

    It is widened to contain the difference where a low confidence would exclude it.

    Images must be independent. If several show one identity, use `compare` with estimates of the two accuracies. The
    result is about these two classifiers, not about the recipes that produced them.

    Args:
        correct_a, correct_b: Booleans [n], whether each image is classified correctly.
        confidence: Probability that the interval should contain the difference.

    Returns:
        `difference`, the accuracy of a minus that of b, and its `interval`, (low, high); `only_a` and `only_b`, the
        numbers of images; `p_value`. Without images `difference`, `interval` and `p_value` are None.

    Example:
        >>> found = mcnemar([1, 1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1])
        >>> found["difference"], found["only_a"], found["only_b"], found["p_value"]
        (0.75, 6, 0, 0.03125)
    """
    from scipy.stats import binomtest, norm

    check_between("confidence", confidence, 0, 1)
    a, b = _as_correct(correct_a, correct_b)
    n, only_a, only_b = len(a), int(np.sum(a & ~b)), int(np.sum(b & ~a))
    if not n:
        return {"difference": None, "interval": None, "only_a": 0, "only_b": 0, "p_value": None}
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    u, v = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    margin = float(norm.ppf((1 + confidence) / 2)) * ((u + v - (u - v) ** 2) / (n + 2)) ** 0.5
    difference = (only_a - only_b) / n
    low, high = max(-1.0, u - v - margin), min(1.0, u - v + margin)
    return {
        "difference": difference,
        "interval": (min(low, difference), max(high, difference)),
        "only_a": only_a,
        "only_b": only_b,
        "p_value": p_value,
    }


def error_consistency(correct_a: ArrayLike, correct_b: ArrayLike) -> Estimate:
    """Estimate how much two classifiers agree on which images are hard, beyond the agreement of independent errors.

        kappa = (o - e) / (1 - e),  e = p_a p_b + (1 - p_a) (1 - p_b)

    o is the share of images that both classify correctly or both wrongly, and e its expected value if the errors of
    classifiers with accuracies p_a and p_b were independent. 1: the same errors; 0: as independent; below 0: fewer
    common errors than that. It is Cohen's kappa of the two arrays.

    Args:
        correct_a, correct_b: Booleans [n], whether each image is classified correctly.

    Returns:
        `value`, from -1 to 1, or None if it does not exist, because neither classifier has an error (or both have
        errors only). `interval()` is None if a classifier has fewer than five errors. `compare` tells whether two pairs
        of classifiers differ.

    Example:
        >>> found = error_consistency(np.arange(100) > 30, np.arange(100) > 40)
        >>> round(found.value, 3), np.round(found.interval(), 3).tolist()
        (0.785, [0.655, 0.915])

    References:
        Geirhos, Meding, Wichmann (2020), Beyond Accuracy: Quantifying Trial-by-trial Behaviour of CNNs and Humans by
        Measuring Error Consistency.
    """
    a, b = _as_correct(correct_a, correct_b)
    kind = 2 * a + b  # 0: both wrong, 1: only b correct, 2: only a correct, 3: both correct
    counts = np.bincount(kind, minlength=4)
    value, without = _kappa(counts), [_kappa(counts - one) for one in np.eye(4, dtype=int)]
    is_known = all(without[i] is not None for i in np.flatnonzero(counts))
    left_out = np.array(without, np.float64)[kind] if is_known else None
    # If two classifiers have the same m errors, only m of the images could have shown another kappa.
    sample_size = min(int(np.count_nonzero(c)) for correct in (a, b) for c in (correct, ~correct))
    if sample_size < LEAST_ERRORS:
        left_out = None
    return Estimate(value, left_out, tuple(range(len(a))), sample_size, scale="linear")


def _kappa(counts: np.ndarray) -> float | None:
    """Return kappa from the numbers of images that none, only b, only a, and both classify correctly, [4]."""
    none, only_b, only_a, both = counts.tolist()
    above_expected = 2 * (both * none - only_a * only_b)  # (o - e) n^2
    largest = (both + only_a) * (none + only_a) + (both + only_b) * (none + only_b)  # (1 - e) n^2
    return above_expected / largest if largest > 0 else None


def _as_correct(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return two boolean arrays of equal length, [n] each."""
    given = [np.asarray(correct) for correct in (correct_a, correct_b)]
    for argument, correct in zip(("correct_a", "correct_b"), given, strict=True):
        if correct.ndim != 1 or not np.isin(correct, (0, 1)).all():
            got = f"{correct.dtype} {correct.shape}"
            raise InputError(f"{argument}: expected booleans, one for each image, got {got}")
    a, b = (correct.astype(bool) for correct in given)
    if a.shape != b.shape:
        raise InputError(f"correct_b: expected {len(a)} booleans, as in correct_a, got {len(b)}")
    return a, b
