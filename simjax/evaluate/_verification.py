"""Verification: are two things the same? A score decides, and its threshold trades one error for the other.

Going down the scores from the closest pair, with P pairs of one class and N pairs of two:

    true accept rate   TAR(t) = same pairs at least as close as t / P
    false accept rate  FAR(t) = different pairs at least as close as t / N
    ROC                TAR against FAR; the area under it is the probability that a same pair scores closer than a
                       different one, ties counted half
    equal error rate   FAR where FAR = 1 - TAR, on the straight lines between the points of the ROC

Pairs with equal scores are accepted or rejected together, so that no result depends on their order.

References:
    Fawcett: An introduction to ROC analysis, 2006.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_number
from simjax.evaluate._checks import as_scored_pairs

ROC_POINTS = 200
"""Most points of a curve: enough to draw it."""


class _Accepted(NamedTuple):
    """What is accepted by ever weaker thresholds: none, then one more distinct score at a time.

    Attributes:
        levels: the distinct scores, larger is closer, closest first [t].
        same: pairs of one class accepted [t + 1], integers.
        different: pairs of two classes accepted [t + 1], integers.
    """

    levels: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def thresholds(self) -> np.ndarray:
        """Closeness from which each of the t + 1 accepts; the first is just beyond the closest pair, and finite."""
        return np.concatenate([np.nextafter(self.levels[:1], np.inf), self.levels])


def verification_metrics(
    scores: ArrayLike, same: ArrayLike, *, higher_is_closer: bool = True, threshold: float | None = None
) -> dict[str, Any]:
    """How well a score tells pairs of one class from pairs of two.

    Args:
        scores: similarity or distance of each pair, finite, [n].
        same: booleans [n], True for a pair of one class.
        higher_is_closer: True for a similarity, False for a distance.
        threshold: a pair that scores this or closer is accepted as one class; None takes `best_threshold` of these
            scores, which flatters the accuracy: choose it on validation pairs to report test accuracy.

    Returns:
        `roc_auc`, `equal_error_rate`; `threshold` and at it `accuracy`, `balanced_accuracy` (of both kinds of pairs
        alike), `true_accept_rate`, `false_accept_rate`; `pairs`, their number; `roc` with lists `false_positive_rate`,
        `true_positive_rate`, `thresholds` of at most 200 points. What needs pairs of a kind that is not there is None,
        and the lists are empty.

    Raises:
        InputError: for lengths that differ, scores that are not finite, or a threshold that is NaN.

    Example:
        >>> found = verification_metrics([0.9, 0.8, 0.7, 0.1], [True, False, True, False])
        >>> found["roc_auc"], found["equal_error_rate"], found["accuracy"]
        (0.75, 0.5, 0.75)
    """
    check_number("threshold", threshold)
    values, alike = as_scored_pairs(scores, same)
    sign = 1.0 if higher_is_closer else -1.0
    accepted = _accepted(sign * values, alike)
    if threshold is None and alike.size:
        threshold = sign * _most_accurate(accepted)
    decided = np.zeros(0, bool) if threshold is None else sign * values >= sign * threshold
    true_accepts, false_accepts = _share(decided[alike]), _share(decided[~alike])
    if true_accepts is None or false_accepts is None:
        both, balanced = False, None
    else:
        both, balanced = True, (true_accepts + 1 - false_accepts) / 2
    return {
        "roc_auc": _area(accepted) if both else None,
        "equal_error_rate": _equal_error_rate(accepted) if both else None,
        "threshold": None if threshold is None else float(threshold),
        "accuracy": _share(decided == alike),
        "balanced_accuracy": balanced,
        "true_accept_rate": true_accepts,
        "false_accept_rate": false_accepts,
        "pairs": alike.size,
        "roc": _curve(accepted, sign, ROC_POINTS if both else 0),
    }


def best_threshold(scores: ArrayLike, same: ArrayLike, higher_is_closer: bool = True) -> float:
    """The threshold with the highest accuracy on these pairs, halfway between two scores; of equals the strictest.

    Args:
        scores: similarity or distance of each pair, finite, [n].
        same: booleans [n], True for a pair of one class.
        higher_is_closer: True for a similarity, False for a distance.

    Returns:
        A score: a pair that scores this or closer is accepted. Where it is best to accept none it lies just beyond
        the closest pair, where it is best to accept all, at the farthest.

    Raises:
        InputError: for no pairs, lengths that differ or scores that are not finite.

    Example:
        >>> best_threshold([0.1, 0.2, 0.6], [True, True, False], higher_is_closer=False)
        0.4
    """
    values, alike = as_scored_pairs(scores, same)
    if not values.size:
        raise InputError("scores: expected at least one pair to choose a threshold on, got none")
    sign = 1.0 if higher_is_closer else -1.0
    return sign * _most_accurate(_accepted(sign * values, alike))


def _accepted(closeness: np.ndarray, same: np.ndarray) -> _Accepted:
    levels, level_of = np.unique(-closeness, return_inverse=True)
    counts = [np.bincount(level_of[kind], minlength=len(levels)) for kind in (same, ~same)]
    return _Accepted(-levels, *(np.concatenate([[0], np.cumsum(c)]) for c in counts))


def _most_accurate(accepted: _Accepted) -> float:
    """Closeness from which to accept."""
    best = int(np.argmax(accepted.same - accepted.different))
    at = accepted.thresholds()
    if best in (0, len(accepted.levels)):
        return float(at[best])
    halfway = at[best] / 2 + at[best + 1] / 2
    return float(halfway if halfway > at[best + 1] else at[best])  # no float lies between neighbours


def _share(decisions: np.ndarray) -> float | None:
    return float(np.mean(decisions)) if decisions.size else None


def _area(accepted: _Accepted) -> float:
    """Under the ROC; the trapezoids are summed in integers, so that the only rounding is the division's."""
    doubled = np.sum(np.diff(accepted.different) * (accepted.same[1:] + accepted.same[:-1]))
    return float(doubled / (2 * accepted.same[-1] * accepted.different[-1]))


def _equal_error_rate(accepted: _Accepted) -> float:
    false_accepts = accepted.different / accepted.different[-1]
    gap = false_accepts - 1 + accepted.same / accepted.same[-1]  # FAR - FRR, from -1 up to 1
    after = int(np.argmax(gap >= 0))
    part = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(false_accepts[after - 1] + part * (false_accepts[after] - false_accepts[after - 1]))


def _curve(accepted: _Accepted, sign: float, points: int) -> dict[str, list[float]]:
    """The ROC, its corners only, and of too many of them every so manieth."""
    turns = [np.diff(a, n=2) != 0 for a in (accepted.same, accepted.different)]
    corners = np.flatnonzero(np.concatenate([[True], turns[0] | turns[1], [True]])) if points else np.zeros(0, int)
    if len(corners) > points:
        corners = corners[np.linspace(0, len(corners) - 1, points).round().astype(int)]
    return {
        "false_positive_rate": (accepted.different[corners] / accepted.different[-1]).tolist(),
        "true_positive_rate": (accepted.same[corners] / accepted.same[-1]).tolist(),
        "thresholds": (sign * accepted.thresholds()[corners]).tolist(),
    }
