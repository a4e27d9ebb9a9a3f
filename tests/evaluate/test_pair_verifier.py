"""The classifier of pairs, against scikit-learn's checks and metrics, and by trying every threshold."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from simjax import similarity
from simjax.core import InputError
from simjax.evaluate import PairVerifier
from simjax.similarity import Measure


def drawn(n, seed=0):
    """Return pairs in which the same class is closer, with overlap."""
    random = np.random.default_rng(seed)
    y = np.where(random.random(n) < 0.4, 1, -1)
    x = random.normal(size=(n, 3))
    return np.stack([x, x + random.normal(size=(n, 3)) * np.where(y == 1, 0.5, 1.3)[:, None]], axis=1), y


def with_ones(rows):
    """Pair every row [n, d] with a row of ones; anything else is returned unchanged."""
    array = np.asarray(rows)
    return np.stack([array, np.ones_like(array)], axis=1) if array.ndim == 2 and not sparse.issparse(rows) else rows


def distance_on_the_host(x, y):
    """Compute without XLA, which would compile for the shape of every check."""
    return np.abs(np.asarray(x) - np.asarray(y)).sum(-1)


class VerifierOfRows(PairVerifier):
    """A verifier of pairs of a row with ones, because the checks of scikit-learn pass rows [n, d]."""

    def fit(self, pairs, y):
        return super().fit(with_ones(pairs), y)

    def _values(self, pairs):
        return super()._values(with_ones(pairs))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.classifier_tags.poor_score = True  # the classes of the checks do not differ in the distance to ones
        return tags


NOT_APPLICABLE = {
    "check_estimators_empty_data_messages": "a pair without features is named by its shape [n, 2, d]",
}


@pytest.mark.usefixtures("unchecked")
def test_scikit_learns_checks_pass():
    measure = Measure.from_pair(distance_on_the_host, higher_is_closer=False)
    results = check_estimator(VerifierOfRows(measure), on_skip=None, expected_failed_checks=NOT_APPLICABLE)
    by_status = {status: {r["check_name"] for r in results if r["status"] == status} for status in ("passed", "xfail")}
    assert by_status["xfail"] == set(NOT_APPLICABLE)
    assert len(by_status["passed"]) >= 40
    assert {"check_classifiers_train", "check_estimators_nan_inf", "check_fit1d"} <= by_status["passed"]


def best_of(strategy, scores, y, **options):
    """Return the highest value of the strategy among all thresholds."""
    found = []
    for threshold in [*scores, np.inf]:
        predicted = np.where(scores >= threshold, 1, -1)
        value = value_of(strategy, y, predicted, **options)
        found.append(-1.0 if value is None else value)
    return max(found)


def value_of(strategy, y, predicted, min_rate=0.0, beta=1.0):
    if strategy == "accuracy":
        return accuracy_score(y, predicted)
    if strategy == "f_beta":
        true_positives = np.sum((y == 1) & (predicted == 1))
        return (1 + beta**2) * true_positives / (beta**2 * np.sum(y == 1) + np.sum(predicted == 1))
    rates = [recall_score(y, predicted, pos_label=label) for label in (1, -1)]
    wanted, given = rates if strategy == "max_tpr" else rates[::-1]
    return wanted if given >= min_rate else None


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("accuracy", {}),
        ("f_beta", {"beta": 0.5}),
        ("f_beta", {"beta": 3.0}),
        ("max_tpr", {"min_rate": 0.9}),
        ("max_tpr", {"min_rate": 0.0}),
        ("max_tnr", {"min_rate": 0.8}),
        ("max_tnr", {"min_rate": 1.0}),
    ],
)
def test_no_threshold_is_better(measure, strategy, options):
    pairs, y = drawn(97)
    verifier = PairVerifier(measure, strategy=strategy, **options).fit(pairs, y)
    scores = verifier.pair_score(pairs)
    found = value_of(strategy, y, verifier.predict(pairs), **options)
    assert found == pytest.approx(best_of(strategy, scores, y, **options), abs=1e-12)
    again = PairVerifier(measure).fit(*drawn(97, seed=1)).calibrate_threshold(pairs, y, strategy, **options)
    assert again.threshold_ == verifier.threshold_


def test_scores_distances_and_decisions():
    pairs, y = drawn(97)
    for measure, of_pairs in (("cosine", similarity.cosine_similarity), ("euclidean", similarity.euclidean_distance)):
        verifier = PairVerifier(measure).fit(pairs, y)
        values = np.asarray(of_pairs(pairs[:, 0], pairs[:, 1]))
        sign = 1 if measure == "cosine" else -1
        np.testing.assert_array_equal(verifier.pair_score(pairs), sign * values)
        np.testing.assert_array_equal(verifier.pair_distance(pairs), 1 - values if measure == "cosine" else values)
        decision = sign * (values - verifier.threshold_)
        np.testing.assert_allclose(verifier.decision_function(pairs), decision, atol=1e-7)
        np.testing.assert_array_equal(verifier.predict(pairs), np.where(decision >= 0, 1, -1))
        assert verifier.score(pairs, y) == roc_auc_score(y, sign * values)
        assert verifier.set_threshold(0.0).decision_function(pairs).tolist() == (sign * values).tolist()
    with pytest.raises(InputError, match="^measure: 'dot' is a similarity without a largest value; use pair_score$"):
        PairVerifier("dot").fit(pairs, y).pair_distance(pairs)


def test_labels_may_be_any_two_of_which_the_larger_is_same():
    pairs, y = drawn(97)
    by_sign, by_bool = PairVerifier().fit(pairs, y), PairVerifier().fit(pairs, y == 1)
    assert by_bool.threshold_ == by_sign.threshold_
    np.testing.assert_array_equal(by_bool.predict(pairs), by_sign.predict(pairs) == 1)


def test_grid_search_chooses_the_measure_and_pipelines_agree():
    """Only the direction differs between classes, so the cosine is better than the distance."""
    random = np.random.default_rng(3)
    y = np.arange(120) % 2 * 2 - 1
    x = random.normal(size=(120, 2))
    turned = np.where(y[:, None] == 1, x, x[:, ::-1] * [1, -1])
    pairs = np.stack([x, turned * random.uniform(0.1, 10, (120, 1))], axis=1)
    search = GridSearchCV(PairVerifier(), {"measure": ["euclidean", "cosine"]}, cv=3).fit(pairs, y)
    assert search.best_params_ == {"measure": "cosine"}
    assert search.best_score_ == 1
    np.testing.assert_array_equal(make_pipeline(PairVerifier()).fit(pairs, y).predict(pairs), y)
    assert cross_val_score(PairVerifier(), pairs, y, scoring="accuracy", cv=3).tolist() == [1, 1, 1]


def test_wrong_input_is_an_error():
    pairs, y = drawn(11)
    with pytest.raises(NotFittedError):
        PairVerifier().predict(pairs)
    verifier = PairVerifier().fit(pairs, y)
    cases = [
        (lambda: PairVerifier().fit(pairs[:, :, 0], y), r"^pairs: expected shape \[n, 2, d\], got \(11, 2\)$"),
        (lambda: PairVerifier().fit(pairs[:, :, :0], y), r"^pairs: expected shape \[n, 2, d\], got \(11, 2, 0\)$"),
        (lambda: PairVerifier().fit(pairs, y * 0), "^y: expected labels of same and of different pairs, got one class"),
        (lambda: PairVerifier().fit(pairs, np.arange(11) % 3), "^Only binary classification is supported"),
        (lambda: PairVerifier().fit(pairs, y[:-1]), "inconsistent numbers of samples"),
        (lambda: verifier.calibrate_threshold(pairs, y[:-1]), "inconsistent numbers of samples"),
        (lambda: verifier.calibrate_threshold(pairs, y == 1), r"^y: expected labels \[-1, 1\], got \[False, True\]$"),
        (lambda: verifier.calibrate_threshold(pairs, y * 0 + 1), "^y: expected same and different pairs"),
        (lambda: verifier.calibrate_threshold(pairs, y, "max_tnr"), "^min_rate: expected a number from 0 to 1 for max"),
        (
            lambda: verifier.calibrate_threshold(pairs, y, "max_tpr", 1.5),
            "^min_rate: expected a number from 0 to 1, go",
        ),
        (lambda: verifier.calibrate_threshold(pairs, y, "f_beta", beta=0.0), "^beta: expected more than 0, got 0"),
        (lambda: verifier.calibrate_threshold(pairs, y, "f1"), "^unknown strategy 'f1'"),
        (lambda: verifier.set_threshold(float("nan")), "^threshold: expected a number"),
        (lambda: verifier.predict(pairs[:, :, :2]), "^X has 2 features, but PairVerifier is expecting 3 features"),
        (lambda: verifier.predict(pairs * np.nan), "NaN"),
        (lambda: verifier.predict(pairs * 1e300), "^pairs: expected finite numbers in float32"),
        (lambda: PairVerifier("cosines").fit(pairs, y), "^unknown measure 'cosines'"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_of_equally_good_thresholds_the_better_for_the_other_kind_is_chosen():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])[:, None]
    pairs, y = np.stack([x, 0 * x], axis=1), [1, 1, 1, -1, -1]
    verifier = PairVerifier("euclidean").fit(pairs, y)
    assert verifier.calibrate_threshold(pairs, y, "max_tnr", min_rate=0.3).threshold_ == 3.5
    assert verifier.calibrate_threshold(pairs, y, "max_tpr", min_rate=0.3).threshold_ == 3.5
