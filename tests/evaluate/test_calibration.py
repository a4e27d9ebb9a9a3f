"""Calibration, against scikit-learn, NumPy loops and identities of a known distribution."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from simjax import similarity
from simjax.core import InputError
from simjax.evaluate import Calibration, Threshold, _calibration, _retrieval
from simjax.similarity import Measure

SIZE, NOISE = 8, 0.4


def faces(identities, images, seed):
    """Draw images of identities: a centre for each identity, and noise."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(identities, SIZE))
    x = centres.repeat(images, axis=0) + NOISE * random.normal(size=(identities * images, SIZE))
    return x.astype(np.float32), np.arange(identities).repeat(images)


def cosines(x, y):
    return 1 - cdist(x.astype(np.float64), y.astype(np.float64), "cosine")


@pytest.fixture(scope="module")
def calibration():
    return Calibration.fit(*faces(41, 4, seed=1), measure="cosine")


def pairs_of(calibration):
    """Return scores and kinds of all pairs."""
    i, j = np.triu_indices(len(calibration.identities), 1)
    scores = cosines(calibration.embeddings, calibration.embeddings)[i, j]
    return scores, calibration.identities[i] == calibration.identities[j]


def targets_of(same):
    return np.where(same, (same.sum() + 1) / (same.sum() + 2), 1 / ((~same).sum() + 2))


def test_logistic_probability_is_that_of_scikit_learn_without_penalty(calibration):
    scores, same = pairs_of(calibration)
    assert calibration.share == same.mean()
    grid = np.linspace(-1, 1, 23)
    found = calibration.probability(grid, prior=float(same.mean()))
    # a target between 0 and 1 is two weighted copies of the pair
    weights = np.concatenate([targets_of(same), 1 - targets_of(same)])
    peer = LogisticRegression(C=np.inf, tol=1e-10)
    peer.fit(np.concatenate([scores, scores])[:, None], np.repeat([1, 0], len(scores)), sample_weight=weights)
    np.testing.assert_allclose(found, peer.predict_proba(grid[:, None])[:, 1], rtol=1e-3)


def test_isotonic_probability_is_that_of_scikit_learn(calibration):
    x, ids = calibration.embeddings, calibration.identities
    found = Calibration.fit(x, ids, measure="cosine", method="isotonic")
    scores, same = pairs_of(calibration)
    scores = scores.astype(np.float32)
    peer = IsotonicRegression(out_of_bounds="clip").fit(scores, targets_of(same))
    grid = np.linspace(-1, 1, 23)
    np.testing.assert_allclose(found.probability(grid, prior=found.share), peer.predict(grid), atol=1e-3)
    assert np.all(np.diff(found.probability(grid)) >= 0)
    assert 0 < found.probability(-1.0) < found.probability(1.0) < 1
    distances = Calibration.fit(x, ids, measure="cosine_distance", method="isotonic")
    np.testing.assert_allclose(distances.probability(1 - grid), found.probability(grid), atol=1e-3)


def test_the_prior_multiplies_the_odds(calibration):
    p, q = (calibration.probability([0.2, 0.8], prior=prior) for prior in (0.5, 0.01))
    np.testing.assert_allclose(q / (1 - q), p / (1 - p) / 99, rtol=1e-9)


def test_probabilities_are_those_of_the_distribution(monkeypatch):
    """Differences of images are normal, so the log odds are linear in the squared distance and known."""
    monkeypatch.setattr(_calibration, "MOST_PAIRS", 2**16)
    x, ids = faces(5000, 2, seed=2)
    squared = np.linspace(0, 20, 23)
    same, different = (
        np.sum(stats.norm.logpdf(np.sqrt(squared / SIZE)[:, None] * np.ones(SIZE), scale=scale), axis=1)
        for scale in (np.sqrt(2 * NOISE**2), np.sqrt(2 + 2 * NOISE**2))
    )
    logistic = Calibration.fit(x, ids, measure="squared_euclidean")
    isotonic = Calibration.fit(x, ids, measure="squared_euclidean", method="isotonic")
    for found, tolerance in ((logistic, 0.05), (isotonic, 0.1)):
        for prior in (0.5, 0.03):
            truth = expit(same - different + logit(prior))
            np.testing.assert_allclose(found.probability(squared, prior=prior), truth, atol=tolerance)


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_separable_pairs_have_finite_odds(method):
    x = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0]])
    found = Calibration.fit(x, list("aabbcc"), measure="euclidean", method=method)
    p = found.probability([0.0, 1.0, 9.0, 30.0], prior=found.share)
    assert 0 < p[3] <= p[2] < 0.25
    assert 0.6 < p[1] <= p[0] < 1
    # the mean probability of the fitted pairs is the mean target, 4/5 for three pairs and 1/14 for twelve
    i, j = np.triu_indices(6, 1)
    fitted = found.probability(np.abs(x[i, 0] - x[j, 0]), prior=found.share)
    assert fitted.mean() == pytest.approx((3 * 4 / 5 + 12 / 14) / 15, abs=1e-5)


def test_many_pairs_are_sampled_by_seed(calibration, monkeypatch):
    monkeypatch.setattr(_calibration, "MOST_PAIRS", 400)
    x, ids = calibration.embeddings, calibration.identities
    first, again, other = (Calibration.fit(x, ids, measure="cosine", seed=seed) for seed in (0, 0, 1))
    assert first.share == 0.5
    np.testing.assert_array_equal(first.coefficients, again.coefficients)
    assert np.any(first.coefficients != other.coefficients)
    np.testing.assert_allclose(first.probability([0.3, 0.9]), calibration.probability([0.3, 0.9]), atol=0.1)


def test_all_pairs_of_one_identity_are_fitted_if_there_are_few():
    """One image more would otherwise leave 500 times fewer pairs to the fit."""
    x, ids = faces(513, 2, 3)
    all_pairs, sample = (Calibration.fit(x[:n], ids[:n], measure="cosine") for n in (1024, 1026))
    assert all_pairs.share == 512 / (1024 * 1023 / 2)
    assert sample.share == 513 / 2**19
    scores = [0.5, 0.7, 0.9]
    np.testing.assert_allclose(all_pairs.probability(scores), sample.probability(scores), atol=0.02)


def most_lenient(scores, wanted, higher_is_closer):
    """Return the most lenient observed score at which at most `wanted` pass, by trying all; and the rate."""
    sign = 1 if higher_is_closer else -1
    passing = [(np.mean(sign * scores >= sign * t), t) for t in np.unique(scores)]
    return max(((rate, t) for rate, t in passing if rate <= wanted), default=(0.0, None))


@pytest.mark.parametrize("measure", ["manhattan", "dot"])
@pytest.mark.parametrize("fmr", [0.004, 0.05, 0.29, 0.5, 0.999])
def test_pair_threshold_equals_a_search_over_all_pairs(measure, fmr, random, monkeypatch):
    """Integers, so that there are many ties; and several blocks of rows."""
    monkeypatch.setattr(_retrieval, "rows_per_block", lambda n, row_bytes: 5)
    x, ids = random.integers(-4, 5, (37, 3)).astype(np.float32), random.integers(0, 6, 37)
    calibration = Calibration.fit(x, ids, measure=measure)
    i, j = np.triu_indices(37, 1)
    different = ids[i] != ids[j]
    scores = (np.abs(x[i] - x[j]).sum(1) if measure == "manhattan" else (x[i] * x[j]).sum(1))[different]
    rate, value = most_lenient(scores, fmr, measure == "dot")
    found = calibration.pair_threshold(fmr)
    assert (found.rate, found.trials, found.identities) == (rate, len(scores), 6)
    assert (found.wanted, found.gallery_size) == (fmr, None)
    if value is None:
        closest, closer = (scores.max(), np.inf) if measure == "dot" else (scores.min(), -np.inf)
        assert found.value == np.nextafter(np.float32(closest), np.float32(closer))
    else:
        assert found.value == value


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_search_threshold_equals_a_search_over_the_best_scores(calibration, measure):
    strangers = replace(calibration, measure=similarity.measure(measure))
    gallery, names = faces(13, 2, seed=3)
    values = cdist(strangers.embeddings, gallery) if measure == "euclidean" else cosines(strangers.embeddings, gallery)
    best = values.min(axis=1) if measure == "euclidean" else values.max(axis=1)
    np.testing.assert_allclose(strangers.best_scores(gallery), best, atol=1e-5)
    for fpir in (1 / 164, 0.02, 0.5):
        found = strangers.search_threshold(fpir, gallery, [f"person {name}" for name in names])
        rate, value = most_lenient(best, fpir, measure == "cosine")
        assert found.rate == rate
        assert found.value == pytest.approx(value, abs=1e-5)
        assert (found.trials, found.identities, found.gallery_size) == (164, 41, 13)
        assert strangers.search_threshold(fpir, gallery).gallery_size == 26
        again = strangers.threshold_of_best_scores(fpir, strangers.best_scores(gallery), gallery_size=13)
        assert again == found


def test_fresh_strangers_pass_as_often_as_wanted_and_flattened_pairs_would_be_wrong(calibration):
    """With 20 of 400 images passing, a stranger passes with probability 20 / 401, averaged over calibrations."""
    gallery = faces(50, 1, seed=4)[0]
    best = cosines(faces(80_000, 1, seed=5)[0], gallery).max(axis=1)
    real, flattened = [], []
    for seed in range(10, 90):
        x, ids = faces(200, 2, seed)
        threshold = replace(calibration, embeddings=x, identities=ids).search_threshold(0.05, gallery)
        assert threshold.rate == 0.05
        real.append(np.mean(best >= threshold.value))
        flattened.append(np.mean(best >= np.quantile(cosines(x, gallery), 0.95)))
    assert np.mean(real) == pytest.approx(20 / 401, abs=0.006)
    assert max(real) < 0.15
    assert min(flattened) > 0.5


def test_a_larger_gallery_has_a_stricter_threshold(calibration):
    people = faces(26, 1, seed=6)[0]
    galleries = [people[np.arange(26) % n] for n in (3, 9, 26)]  # of one shape, to compile once
    found = [calibration.search_threshold(0.05, gallery).value for gallery in galleries]
    assert found[0] < found[1] < found[2]
    distances = replace(calibration, measure=similarity.measure("euclidean"))
    found = [distances.search_threshold(0.05, gallery).value for gallery in galleries]
    assert found[0] > found[1] > found[2]


def test_equal_scores_pass_together_or_not_at_all(calibration):
    distances = replace(calibration, measure=similarity.measure("euclidean"))
    best = np.arange(164.0).clip(2)
    found = distances.threshold_of_best_scores(0.03, best, gallery_size=7)  # 4 of 164
    assert (found.value, found.rate) == (3, 4 / 164)
    found = distances.threshold_of_best_scores(0.018, best, gallery_size=7)  # 2 of 164: none of three that are tied
    assert (found.value, found.rate) == (np.nextafter(np.float32(2), np.float32(0)), 0)


def test_a_rate_is_counted_as_it_is_written(calibration):
    """0.29 * 100 is less than 29 in floating point."""
    hundred = replace(calibration, embeddings=calibration.embeddings[:100], identities=calibration.identities[:100])
    assert hundred.threshold_of_best_scores(0.29, np.arange(100.0), gallery_size=7).rate == 0.29


def test_a_rate_that_the_data_cannot_show_is_an_error(calibration):
    few = replace(calibration, embeddings=calibration.embeddings[:50], identities=calibration.identities[:50])
    message = (
        r"^fpir: 0.01 of 50 calibration images is less than one; expected at least 0.02, or a calibration with more"
    )
    with pytest.raises(InputError, match=message):
        few.search_threshold(0.01, calibration.embeddings)
    with pytest.raises(InputError, match=r"^fmr: 7.6e-05 of 13,120 pairs of different identities is less than one"):
        calibration.pair_threshold(7.6e-5)
    assert calibration.pair_threshold(7.7e-5).rate == 1 / 13_120
    for rate in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="^fpir: expected a number between 0 and 1"):
            few.search_threshold(rate, calibration.embeddings)


def test_the_rate_that_an_error_asks_for_is_accepted_and_not_larger_than_needed():
    for trials in [*range(2, 20_000, 7), *(10**power + step for power in range(1, 13) for step in (-1, 0, 1))]:
        with pytest.raises(InputError) as refused:
            _calibration._largest_number("fmr", 0.5 / trials, trials, "pairs")
        least = float(str(refused.value).split("expected at least ")[1].split(",")[0])
        assert _calibration._largest_number("fmr", least, trials, "pairs") == 1
        assert least < 1.001 / trials


def test_a_threshold_is_a_sentence():
    found = str(Threshold(0.71234, 4 / 400, 0.0123, trials=400, images=400, identities=100, gallery_size=1250))
    counted = "4 of 400 calibration images of 100 identities match one of the N = 1,250 identities in the gallery"
    few = "fewer than 30 matches or identities make a rough estimate"
    assert found == f"threshold of searches 0.7123 at a false positive identification rate of 0.0123: {counted}; {few}"
    of_pairs = Threshold(2.5, 0.001, 0.001, trials=40_000, images=290, identities=60, gallery_size=None)
    expected = "40 of 40,000 pairs of different identities among 290 calibration images of 60 identities"
    assert str(of_pairs) == f"threshold of pairs 2.5000 at a false match rate of 0.001: {expected}"
    assert "rough" in str(replace(of_pairs, identities=29))
    few_identities = Threshold(0.7, 4 / 400, 0.01, trials=400, images=400, identities=20, gallery_size=50)
    assert "so few identities cannot show this rate" in str(few_identities)


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_arrays_and_json_restore_a_calibration(calibration, method, tmp_path):
    x, ids = calibration.embeddings, calibration.identities
    first = Calibration.fit(x, ids, measure="cosine", method=method)
    arrays, settings = first.to_arrays()
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    settings = json.loads((tmp_path / "settings.json").read_text())
    loaded = {name: np.load(tmp_path / f"{name}.npy", allow_pickle=False) for name in arrays}
    again = Calibration.from_arrays(loaded, settings, measure="cosine")
    assert again.embeddings.dtype == np.float32
    np.testing.assert_array_equal(again.probability([0.1, 0.7]), first.probability([0.1, 0.7]))
    assert again.pair_threshold(0.01) == first.pair_threshold(0.01)
    for name in arrays:
        with pytest.raises(InputError, match=f"^calibration: .*{name}"):
            Calibration.from_arrays({k: v for k, v in arrays.items() if k != name}, settings, measure="cosine")
        with pytest.raises(InputError):
            Calibration.from_arrays({**arrays, name: arrays[name][:-1]}, settings, measure="cosine")
    with pytest.raises(InputError, match="expected measure 'euclidean', got one that was fitted with 'cosine'"):
        Calibration.from_arrays(arrays, settings, measure="euclidean")


def test_a_measure_of_ones_own_is_calibrated(calibration):
    own = Measure.from_pair(lambda x, y: 2 * abs(x - y).sum(-1), higher_is_closer=False)
    x, ids = calibration.embeddings, calibration.identities
    found = Calibration.fit(x, ids, measure=own).pair_threshold(0.01)
    assert found.value == pytest.approx(
        2 * Calibration.fit(x, ids, measure="manhattan").pair_threshold(0.01).value, rel=1e-5
    )


def test_wrong_input_is_an_error_that_names_the_argument(calibration):
    x, ids = faces(5, 2, seed=8)
    cases = [
        (
            (x, np.arange(10)),
            "^identities: expected two or more identities, one of which has two or more images, got 10 images of 10",
        ),
        ((x, np.zeros(10, int)), "^identities: expected two or more identities, .* got 10 images of 1$"),
        ((x, ids[:-1]), r"^identities: expected an integer or a name for each of 10 rows, got int64 \(9,\)"),
        ((x, ids + 0.5), "^identities: expected an integer or a name for each of 10 rows, got float64"),
        ((np.where(np.arange(10)[:, None] == 3, np.nan, x), ids), "^embeddings: expected finite .* got nan in row 3$"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            Calibration.fit(*arguments, measure="cosine")
    for gallery in (np.zeros((0, SIZE)), np.zeros((3, SIZE - 1))):
        with pytest.raises(
            InputError, match="^gallery_embeddings: expected at least one row of size 8, as in the calib"
        ):
            calibration.search_threshold(0.1, gallery)
    with pytest.raises(InputError, match=r"^gallery_embeddings: expected finite numbers in float32, got inf in row 1$"):
        calibration.search_threshold(0.1, [[0.0] * SIZE, [np.inf] * SIZE])
    with pytest.raises(InputError, match=r"^gallery_identities: .* each of 10 rows, got int64 \(5,\)$"):
        calibration.search_threshold(0.1, x, np.arange(5))
    with pytest.raises(
        InputError, match=r"^best_scores: expected one for each of 164 calibration images, got shape \(3,\)"
    ):
        calibration.threshold_of_best_scores(0.1, [0.1, 0.2, 0.3], gallery_size=3)
    with pytest.raises(InputError, match="^scores: expected finite numbers"):
        calibration.probability([np.nan])
    with pytest.raises(InputError, match="^prior: expected a number between 0 and 1, got 1.0$"):
        calibration.probability([0.5], prior=1.0)
