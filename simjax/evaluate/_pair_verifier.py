"""A scikit-learn classifier of pairs, with the names of metric-learn.

The module imports scikit-learn, so `simjax.evaluate` imports it when `PairVerifier` is first used.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_array, check_consistent_length, check_X_y
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from simjax.core import InputError, check_choice, check_fraction, check_number, check_positive
from simjax.evaluate._checks import as_finite
from simjax.evaluate._verification import Accepted, count_accepted, threshold_at
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure

STRATEGIES = ("accuracy", "f_beta", "max_tpr", "max_tnr")


class PairVerifier(ClassifierMixin, BaseEstimator):
    """Decide by a threshold of a measure whether two vectors have the same class.

    Pairs are [n, 2, d]. Labels y are +1 for the same class and -1 for different ones as in metric-learn, or any two
    labels, of which the larger one means "same". Invalid input raises a ValueError, as in scikit-learn.

    Args:
        measure: Name of a measure or a `Measure`.
        strategy: How `fit` chooses the threshold, see `calibrate_threshold`.
        min_rate: See `calibrate_threshold`.
        beta: See `calibrate_threshold`.

    Attributes:
        threshold_: In units of the measure; pairs at least as close are the same class.
        classes_: The labels of different and of same pairs.
        n_features_in_: d.

    Differs from metric-learn: `fit` learns the threshold only, and takes its strategy from the constructor, so that a
    grid search can choose it and the measure; `decision_function` is 0 at the threshold, as scikit-learn asks; the
    threshold is halfway between two scores; of equally good ones it is the strictest, for "max_tnr" the most lenient.

    Example:
        >>> from simjax.evaluate import PairVerifier
        >>> pairs = np.array([[[1, 0], [1, 0.1]], [[1, 0], [0.9, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 1]]])
        >>> verifier = PairVerifier("cosine").fit(pairs, [1, 1, -1, -1])
        >>> print(verifier.predict(pairs), verifier.pair_score(pairs[2:]).round(2))
        [ 1  1 -1 -1] [0.   0.71]
    """

    def __init__(
        self,
        measure: str | Measure = "cosine",
        *,
        strategy: str = "accuracy",
        min_rate: float | None = None,
        beta: float = 1.0,
    ):
        self.measure = measure
        self.strategy = strategy
        self.min_rate = min_rate
        self.beta = beta

    def fit(self, pairs: ArrayLike, y: ArrayLike) -> "PairVerifier":
        """Choose the threshold on labelled pairs [n, 2, d]."""
        checked, labels = check_X_y(pairs, y, allow_nd=True, estimator=self)
        check_classification_targets(labels)
        if (kind := type_of_target(labels)) != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"y: expected labels of same and of different pairs, got one class, {classes[0]}")
        self.classes_, self.n_features_in_ = classes, checked.shape[-1]
        return self.calibrate_threshold(checked, labels, self.strategy, self.min_rate, self.beta)

    def calibrate_threshold(
        self,
        pairs: ArrayLike,
        y: ArrayLike,
        strategy: str = "accuracy",
        min_rate: float | None = None,
        beta: float = 1.0,
    ) -> "PairVerifier":
        """Choose the threshold on labelled pairs that were not used to train the embeddings.

            accuracy    the highest accuracy
            f_beta      the highest (1 + beta^2) precision recall / (beta^2 precision + recall) of same pairs
            max_tpr     the highest true positive rate where the true negative rate is at least `min_rate`
            max_tnr     the highest true negative rate where the true positive rate is at least `min_rate`

        Args:
            pairs: [n, 2, d].
            y: Labels [n], both of them present.
            strategy: See above.
            min_rate: A number from 0 to 1, required by "max_tpr" and "max_tnr".
            beta: Weight of recall against precision, above 0.
        """
        check_choice("strategy", strategy, STRATEGIES)
        check_positive("beta", beta)
        if strategy in ("max_tpr", "max_tnr"):
            if min_rate is None:
                raise InputError(f"min_rate: expected a number from 0 to 1 for {strategy}, got None")
            check_fraction("min_rate", min_rate)
        scores, same = self.pair_score(pairs), self._is_same(y)
        check_consistent_length(scores, same)
        if same.all() or not same.any():
            raise InputError("y: expected same and different pairs, got one class")
        accepted = count_accepted(scores.astype(np.float64), same)
        score = threshold_at(accepted, int(np.argmax(_utility(accepted, strategy, min_rate, beta))))
        return self.set_threshold(score if as_measure(self.measure).higher_is_closer else -score)

    def set_threshold(self, threshold: float) -> "PairVerifier":
        """Set the threshold, in units of the measure."""
        check_is_fitted(self, "classes_")
        check_number("threshold", threshold)
        self.threshold_ = float(threshold)
        return self

    def pair_score(self, pairs: ArrayLike) -> np.ndarray:
        """Compute a score of each pair that is higher for closer pairs, [n]: distances are negated."""
        values = self._values(pairs)
        return values if as_measure(self.measure).higher_is_closer else -values

    def pair_distance(self, pairs: ArrayLike) -> np.ndarray:
        """Compute the distance of each pair, [n]; for a similarity, its largest value minus the similarity.

        Raises:
            InputError: If the measure is a similarity without a largest value, like the dot product.
        """
        values, m = self._values(pairs), as_measure(self.measure)
        if not m.higher_is_closer:
            return values
        if not np.isfinite(m.range[1]):
            raise InputError(f"measure: {m.name!r} is a similarity without a largest value; use pair_score")
        return m.range[1] - values

    def decision_function(self, pairs: ArrayLike) -> np.ndarray:
        """Compute by how much each pair is closer than the threshold, [n]."""
        sign = 1.0 if as_measure(self.measure).higher_is_closer else -1.0
        return self.pair_score(pairs) - sign * np.float64(self.threshold_)

    def predict(self, pairs: ArrayLike) -> np.ndarray:
        """Return the label of each pair, [n]."""
        is_same = self.decision_function(pairs) >= 0
        return self.classes_[is_same.astype(int)]

    def score(self, pairs: ArrayLike, y: ArrayLike) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute the area under the ROC of labelled pairs, as metric-learn does; the threshold does not matter."""
        return float(roc_auc_score(self._is_same(y), self.pair_score(pairs)))

    def _values(self, pairs: ArrayLike) -> np.ndarray:
        """Check pairs and compute the measure."""
        check_is_fitted(self, "classes_")
        checked = check_array(pairs, allow_nd=True, estimator=self)
        if checked.ndim != 3 or checked.shape[1] != 2 or not checked.shape[2]:
            raise InputError(f"pairs: expected shape [n, 2, d], got {checked.shape}")
        if checked.shape[2] != self.n_features_in_:
            expected = f"PairVerifier is expecting {self.n_features_in_} features as input"
            raise InputError(f"X has {checked.shape[2]} features, but {expected}")
        checked = as_finite("pairs", checked)
        return np.asarray(as_measure(self.measure)(checked[:, 0], checked[:, 1]))

    def _is_same(self, y: ArrayLike) -> np.ndarray:
        check_is_fitted(self, "classes_")
        labels = np.asarray(y)
        if not np.isin(labels, self.classes_).all():
            raise InputError(f"y: expected labels {self.classes_.tolist()}, got {np.unique(labels).tolist()}")
        return labels == self.classes_[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.classifier_tags.multi_class = False
        return tags


def _utility(accepted: Accepted, strategy: str, min_rate: float | None, beta: float) -> np.ndarray:
    """Return the quantity that the strategy maximises, at each threshold from strict to lenient."""
    same, different = accepted.same, accepted.different
    n_same, n_different = same[-1], different[-1]
    if strategy == "accuracy":
        return same - different
    if strategy == "f_beta":
        return (1 + beta**2) * same / (beta**2 * n_same + same + different)
    true_positive_rate, rejected = same / n_same, n_different - different
    if strategy == "max_tpr":
        return np.where(rejected / n_different >= min_rate, same, -1)
    # Of thresholds that reject equally many different pairs, the one that accepts the most same pairs.
    return np.where(true_positive_rate >= min_rate, rejected + true_positive_rate / 2, -1)
