"""Verification: decide from a score whether two inputs have the same class.

With P same pairs (of one class), N different pairs (of two classes), and a threshold t:

    false match rate       FMR(t) = (number of different pairs at least as close as t) / N
    false non-match rate   FNMR(t) = (number of same pairs that are farther than t) / P
    ROC                    1 - FNMR against FMR; the area under it is the probability that a same pair is closer than a
                           different pair, where ties count half
    DET                    FNMR against FMR (detection error tradeoff), drawn on axes of normal deviates
    equal error rate       FMR where FMR = FNMR, by linear interpolation between the points of the ROC
    average precision      sum over the thresholds of precision(t) times the increase of recall(t) = 1 - FNMR(t)
    F1(t)                  2 precision recall / (precision + recall)

Precision, and so average precision and F1, depend on the share of same pairs; the other numbers do not.

Pairs with equal scores are accepted or rejected together, so the results do not depend on the order of pairs.

FNMR at a wanted FMR f is that of the most lenient threshold at which at most f N different pairs are accepted. It needs
f N >= 1, so 1,000 different pairs for an FMR of 0.001; with fewer pairs no threshold with this rate was observed. One
accepted pair is the minimum, not an estimate to rely on: by the rule of 30, the true FMR is within 30% of the observed
one with 90% confidence if 30 independent pairs are accepted, 30,000 pairs for 0.001.

Calibration maps a score to a probability by logistic regression (Platt scaling):

    dissimilarity(d) = 1 / (1 + exp(-(a d + b)))    near 0 for the same class, near 1 for different classes

a and b minimise the cross-entropy with targets 1 / (S + 2) for S same pairs and (D + 1) / (D + 2) for D different pairs
instead of 0 and 1, so that the minimum is finite even if a threshold separates the pairs without an error.

References:
    Fawcett (2006), An Introduction to ROC Analysis.
    Martin, Doddington, Kamm, Ordowski, Przybocki (1997), The DET Curve in Assessment of Detection Task Performance.
    ISO/IEC 19795-1 (2021), Biometric Performance Testing and Reporting (FMR and FNMR).
    Platt (1999), Probabilistic Outputs for Support Vector Machines.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike as JaxArrayLike
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_between, check_number
from simjax.evaluate._checks import as_finite, as_labels, as_scored_pairs

CURVE_POINTS = 200  # largest number of points of an ROC or a DET, enough for a drawing


def verification_metrics(
    scores: ArrayLike,
    same: ArrayLike,
    *,
    higher_is_closer: bool = True,
    threshold: float | None = None,
    fmrs: Sequence[float] = (0.1, 0.01, 0.001),
) -> dict[str, Any]:
    """Compute how well a score separates pairs of one class from pairs of two.

    Args:
        scores: Finite similarity or distance of each pair, [n].
        same: Booleans [n], True for a pair of one class.
        higher_is_closer: True for a similarity, False for a distance.
        threshold: Pairs at least as close are accepted as one class. Default: the `best_threshold` of these scores,
            whose accuracy is optimistic; for a test accuracy, choose the threshold on validation pairs.
        fmrs: False match rates for `fnmr_at_fmr`, between 0 and 1.

    Returns:
        A dictionary of

            roc_auc, equal_error_rate, average_precision
            best_f1, best_f1_threshold      the highest F1 of these pairs, which is optimistic, and its threshold
            fnmr_at_fmr                     {"1e-1": ..., "1e-2": ..., "1e-3": ...}: FNMR at each of `fmrs`, None if it
                                            allows less than one different pair (keys have no dot, for dotted paths)
            threshold                       and at the threshold:
            accuracy, balanced_accuracy     (with equal weight for both kinds of pairs)
            fmr, fnmr
            pairs, different_pairs          the number of all pairs and of different pairs
            roc                             lists false_positive_rate, true_positive_rate, thresholds
            det                             lists fmr, fnmr, thresholds

        The curves have at most 200 points, those of the DET evenly spaced in normal deviates. If a kind of pairs is
        missing, values that need it are None, and the lists are empty.

    Raises:
        InputError: If one of `fmrs` is not between 0 and 1.

    Example:
        >>> found = verification_metrics([0.9, 0.8, 0.7, 0.1], [True, False, True, False])
        >>> found["roc_auc"], found["equal_error_rate"], found["accuracy"]
        (0.75, 0.5, 0.75)
    """
    check_number("threshold", threshold)
    for wanted in fmrs:
        check_between("fmrs", wanted, 0, 1)
    values, is_same = as_scored_pairs(scores, same)
    sign = 1.0 if higher_is_closer else -1.0
    accepted = count_accepted(sign * values, is_same)
    if threshold is None and is_same.size:
        threshold = sign * _most_accurate_threshold(accepted)
    is_accepted = np.zeros(0, bool) if threshold is None else sign * values >= sign * threshold
    fmr, fnmr = _fraction(is_accepted[~is_same]), _fraction(~is_accepted[is_same])
    has_both = fmr is not None and fnmr is not None
    best_f1, best_f1_threshold = _best_f1(accepted, sign) if has_both else (None, None)
    return {
        "roc_auc": _area(accepted) if has_both else None,
        "equal_error_rate": _equal_error_rate(accepted) if has_both else None,
        "average_precision": _average_precision(accepted) if has_both else None,
        "best_f1": best_f1,
        "best_f1_threshold": best_f1_threshold,
        "fnmr_at_fmr": {
            np.format_float_scientific(wanted, trim="-", exp_digits=1): _fnmr_at(accepted, wanted) if has_both else None
            for wanted in fmrs
        },
        "threshold": None if threshold is None else float(threshold),
        "accuracy": _fraction(is_accepted == is_same),
        "balanced_accuracy": 1 - (fmr + fnmr) / 2 if fmr is not None and fnmr is not None else None,
        "fmr": fmr,
        "fnmr": fnmr,
        "pairs": is_same.size,
        "different_pairs": int(np.count_nonzero(~is_same)),
        "roc": _roc(accepted, sign, CURVE_POINTS if has_both else 0),
        "det": _det(accepted, sign, CURVE_POINTS if has_both else 0),
    }


def best_threshold(scores: ArrayLike, same: ArrayLike, higher_is_closer: bool = True) -> float:
    """Return the threshold with the highest accuracy, halfway between two scores; of several, the strictest.

    The threshold is just beyond the closest pair if accepting no pair is best, and the score of the farthest pair if
    accepting all pairs is best. For the arguments see `verification_metrics`.

    Raises:
        InputError: If there are no pairs.

    Example:
        >>> best_threshold([0.1, 0.2, 0.6], [True, True, False], higher_is_closer=False)
        0.4
    """
    values, is_same = as_scored_pairs(scores, same)
    if not values.size:
        raise InputError("scores: expected at least one pair to choose a threshold, got none")
    sign = 1.0 if higher_is_closer else -1.0
    return sign * _most_accurate_threshold(count_accepted(sign * values, is_same))


def dissimilarity_probability(distance: JaxArrayLike, a: JaxArrayLike, b: JaxArrayLike) -> Array:
    """Compute the probability that a pair has different classes, 1 / (1 + exp(-(a distance + b))).

    Args:
        distance: Distances [...], or similarities if a is negative.
        a: Slope, from `fit_dissimilarity`.
        b: Intercept.

    Example:
        >>> print(np.asarray(dissimilarity_probability(np.arange(3.0), 4.0, -4.0)).round(2))
        [0.02 0.5  0.98]
    """
    return _logistic(distance if isinstance(distance, Tracer) else as_finite("distance", distance), a, b)


@jax.jit
def _logistic(x: JaxArrayLike, a: JaxArrayLike, b: JaxArrayLike) -> Array:
    return jax.nn.sigmoid(a * jnp.asarray(x) + b)


def fit_dissimilarity(scores: ArrayLike, same: ArrayLike) -> tuple[float, float]:
    """Fit the slope a and the intercept b of `dissimilarity_probability` to labelled pairs.

    a is positive for an informative distance and negative for an informative similarity. If all scores are equal, a = 0
    and the probability is the mean target; without pairs a = b = 0. For the arguments see `verification_metrics`.

    Example:
        >>> a, b = fit_dissimilarity([0.1, 0.2, 0.3, 0.8, 0.9, 1.0], [True, True, True, False, False, False])
        >>> print(np.asarray(dissimilarity_probability(np.array([0.1, 0.55, 1.0]), a, b)).round(2))
        [0.15 0.5  0.85]
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    values, is_same = as_scored_pairs(scores, same)
    if not values.size:
        return 0.0, 0.0
    n_same, n_different = np.count_nonzero(is_same), np.count_nonzero(~is_same)
    target = np.where(is_same, 1 / (n_same + 2), (n_different + 1) / (n_different + 2))
    centre, spread = np.mean(values), np.std(values)
    spread = spread if spread > 0 else 1.0
    inputs = np.stack([(values - centre) / spread, np.ones_like(values)], axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = inputs @ weights
        gradient = inputs.T @ (expit(logits) - target) / len(values)
        return float(np.mean(np.logaddexp(0, logits) - target * logits)), gradient

    start = np.array([0.0, np.log((n_different + 1) / (n_same + 1))])
    weights = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
    slope = weights[0] / spread
    return float(slope), float(weights[1] - slope * centre)


def sample_pairs_for_verification(
    labels: ArrayLike, n_pairs: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample pairs of rows without replacement: half of one class and half of two, each half uniformly.

    Args:
        labels: Integers [n].
        n_pairs: The number of pairs, at least 0. An odd number is reduced by one.
        seed: Seed of the sample.

    Returns:
        i and j, int32 [p], i != j, and same, booleans [p], alternating True and False. No pair occurs twice, in either
        order. p is n_pairs, or less if there are fewer than n_pairs / 2 pairs of one kind; 0 for a single class, or if
        no class has two rows.

    Example:
        >>> i, j, same = sample_pairs_for_verification([5, 5, 5, 7, 7], n_pairs=4, seed=0)
        >>> print(same)
        [ True False  True False]
    """
    classes = as_labels("labels", labels, np.size(labels))
    check_at_least("n_pairs", n_pairs, 0)
    kinds, rng = _PairsByKind(classes), np.random.default_rng(seed)
    count = min(n_pairs // 2, *kinds.totals)
    pairs = np.stack([kinds.draw(kind, count, rng) for kind in (0, 1)], axis=1)
    i, j = pairs.reshape(-1, 2).T
    return i, j, np.tile([True, False], count)


def sample_pairs(classes: np.ndarray, n_pairs: int, seed: int) -> np.ndarray:
    """Sample pairs of rows without replacement, int32 [p, 2]: half of one class, or all such pairs if they are fewer.

    p is `n_pairs`, or the number of all pairs if that is smaller.
    """
    kinds, rng = _PairsByKind(classes), np.random.default_rng(seed)
    same, different = kinds.totals
    n_same = min(same, max(n_pairs // 2, n_pairs - different))
    counts = n_same, min(different, n_pairs - n_same)
    return np.concatenate([kinds.draw(kind, count, rng) for kind, count in enumerate(counts)])


class _PairsByKind:
    """All pairs of rows of one class (kind 0) and of two classes (kind 1), numbered but not listed.

    The rows are sorted by class. The partners after a row then are a range of its own class and a range of other
    classes. Pairs are numbered row by row along these ranges.
    """

    def __init__(self, classes: np.ndarray):
        self._order = np.argsort(classes, kind="stable")
        position = np.arange(len(classes))
        ends = np.searchsorted(classes[self._order], classes[self._order], side="right")  # end of each row's class
        self._ranges = ((position + 1, ends), (ends, np.full_like(ends, len(classes))))  # starts and ends
        self.totals = [int(np.sum(stop - start)) for start, stop in self._ranges]

    def draw(self, kind: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw pairs without replacement, int32 [count, 2]."""
        start, stop = self._ranges[kind]
        number = rng.choice(self.totals[kind], count, replace=False) if count else np.zeros(0, int)
        number_ends = np.cumsum(stop - start)  # end of the numbers of each row's pairs
        row = np.searchsorted(number_ends, number, side="right")
        partner = stop[row] - number_ends[row] + number
        return np.stack([self._order[row], self._order[partner]], axis=1).astype(np.int32)


def allowed_count(rate: float, trials: int) -> int:
    """Return the largest k with k / trials <= rate.

    It rounds as the user's number does: 29 / 100 is 0.29, but 0.29 * 100 is less than 29.
    """
    k = round(rate * trials)
    return k - (k > 0 and k / trials > rate)


class Accepted(NamedTuple):
    """Counts of accepted same pairs and different pairs, [t], at each threshold, [t], from strict to lenient."""

    thresholds: np.ndarray
    same: np.ndarray
    different: np.ndarray


def count_accepted(scores: np.ndarray, same: np.ndarray) -> Accepted:
    """Count the accepted pairs for scores where larger is closer; the first threshold is beyond the closest pair."""
    levels, level_of = np.unique(-scores, return_inverse=True)
    counts = [np.bincount(level_of[mask], minlength=len(levels)) for mask in (same, ~same)]
    thresholds = np.concatenate([np.nextafter(-levels[:1], np.inf), -levels])
    return Accepted(thresholds, *(np.concatenate([[0], np.cumsum(c)]) for c in counts))


def threshold_at(accepted: Accepted, index: int) -> float:
    """Return the threshold halfway to the next one, which accepts the same pairs; the first and the last unchanged."""
    at = accepted.thresholds
    if index in (0, len(at) - 1):
        return float(at[index])
    halfway = at[index] / 2 + at[index + 1] / 2
    return float(halfway if halfway > at[index + 1] else at[index])  # neighbouring floats have no float between them


def _most_accurate_threshold(accepted: Accepted) -> float:
    # The number of correct decisions, minus the number of pairs of two classes, is largest there.
    return threshold_at(accepted, int(np.argmax(accepted.same - accepted.different)))


def _fraction(decisions: np.ndarray) -> float | None:
    return float(np.mean(decisions)) if decisions.size else None


def _area(accepted: Accepted) -> float:
    """Compute the area under the ROC; trapezoids are summed as integers, so only the division is rounded."""
    doubled = np.sum(np.diff(accepted.different) * (accepted.same[1:] + accepted.same[:-1]))
    return float(doubled / (2 * accepted.same[-1] * accepted.different[-1]))


def _equal_error_rate(accepted: Accepted) -> float:
    fmr = accepted.different / accepted.different[-1]
    difference = fmr - 1 + accepted.same / accepted.same[-1]  # FMR - FNMR, increasing from -1 to 1
    after = int(np.argmax(difference >= 0))
    part = -difference[after - 1] / (difference[after] - difference[after - 1])
    return float(fmr[after - 1] + part * (fmr[after] - fmr[after - 1]))


def _average_precision(accepted: Accepted) -> float:
    precision = accepted.same[1:] / (accepted.same[1:] + accepted.different[1:])
    return float(np.sum(np.diff(accepted.same) * precision) / accepted.same[-1])


def _best_f1(accepted: Accepted, sign: float) -> tuple[float, float]:
    """Return the highest F1 and its threshold, the strictest of several."""
    f1 = 2 * accepted.same / (accepted.same[-1] + accepted.same + accepted.different)
    best = int(np.argmax(f1))
    return float(f1[best]), sign * threshold_at(accepted, best)


def _fnmr_at(accepted: Accepted, fmr: float) -> float | None:
    """Return the FNMR at a wanted FMR, or None if it allows less than one different pair."""
    allowed = allowed_count(fmr, int(accepted.different[-1]))
    if not allowed:
        return None
    most_lenient = int(np.searchsorted(accepted.different, allowed, side="right")) - 1
    return float((accepted.same[-1] - accepted.same[most_lenient]) / accepted.same[-1])


def _roc(accepted: Accepted, sign: float, points: int) -> dict[str, list[float]]:
    """Return the corners of the ROC, or `points` evenly spaced corners if there are more."""
    bends = [np.diff(a, n=2) != 0 for a in (accepted.same, accepted.different)]
    corners = np.flatnonzero(np.concatenate([[True], bends[0] | bends[1], [True]])) if points else np.zeros(0, int)
    if len(corners) > points:
        corners = corners[np.linspace(0, len(corners) - 1, points).round().astype(int)]
    return {
        "false_positive_rate": (accepted.different[corners] / accepted.different[-1]).tolist(),
        "true_positive_rate": (accepted.same[corners] / accepted.same[-1]).tolist(),
        "thresholds": (sign * accepted.thresholds[corners]).tolist(),
    }


def _det(accepted: Accepted, sign: float, points: int) -> dict[str, list[float]]:
    """Return the points of the DET, or at most `points` of them, evenly spaced in normal deviates."""
    from scipy.special import ndtri

    if not points:
        return {"fmr": [], "fnmr": [], "thresholds": []}
    different, same = accepted.different[-1], accepted.same[-1]
    fmr, fnmr = accepted.different / different, (same - accepted.same) / same
    selected = np.arange(len(fmr))
    if len(fmr) > points:
        # Half a pair instead of a rate of 0, whose deviate is infinite. The position increases along the curve.
        deviates = [ndtri(np.clip(rate, 0.5 / n, 1 - 0.5 / n)) for rate, n in ((fmr, different), (fnmr, same))]
        position = deviates[0] - deviates[1]
        selected = np.unique(np.searchsorted(position, np.linspace(position[0], position[-1], points)))
    return {
        "fmr": fmr[selected].tolist(),
        "fnmr": fnmr[selected].tolist(),
        "thresholds": (sign * accepted.thresholds[selected]).tolist(),
    }
