"""Calibration: the probability that a score means "same identity", and thresholds with a wanted rate of false matches.

All numbers come from images of identities that are not in the gallery (not enrolled), unknown ones. For a threshold t,

    false match rate                     FMR(t)  = share of pairs of different identities at least as close as t
    false positive identification rate   FPIR(t) = share of images whose closest gallery row is at least as close as t

FMR is a rate of comparisons of two images, FPIR of searches. A search for an unknown identity is a false positive if it
matches any of the N enrolled identities, so FPIR grows with N, for independent scores as 1 - (1 - FMR)^N. FPIR counts
the best score of each search; the same count over all pairs of an image and a gallery row would be the FMR.

A threshold is the most lenient of the observed scores at which at most the wanted fraction passes. If k <= wanted * n
of n independent images pass, an image of a new unknown identity passes with probability k / (n + 1), averaged over
calibrations. Images of one identity are alike, so that the threshold fits the identities of the calibration, and images
of others pass more often: with 20 identities of 10 images and a wanted FPIR of 0.01, 1.8 times as often if the images
of an identity share 70% of the variance of their scores, 3.2 times if they share 95% (`python -m benchmarks.coverage`).
`Threshold` warns of a wanted FPIR below 1 / (identities + 1), which so few identities cannot show. A wanted fraction of
less than one image (or pair) is an InputError, because no such score was observed.

A single image or pair that passes is the minimum, and too few for access control. If none of n independent trials
passes, the rate is below 3 / n with 95% confidence (rule of 3); if 30 pass, the true rate is within 30% of the observed
one with 90% confidence (rule of 30). Images of one identity, and pairs that share an image, are correlated, so n trials
are worth fewer independent ones; the number of identities is the cautious choice of n.

All images, or pairs, have the same weight, so an identity with many images has a large one: calibrate with many
identities and about equally many images of each.

References:
    Platt (1999), Probabilistic Outputs for Support Vector Machines.
    Grother, Ngan, Hanaoka (2019), Face Recognition Vendor Test Part 2: Identification.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_between, check_choice
from simjax.evaluate._checks import as_finite, as_identities, as_rows
from simjax.evaluate._retrieval import tiles
from simjax.evaluate._verification import allowed_count, fit_dissimilarity, sample_pairs
from simjax.similarity import Measure, top_k
from simjax.similarity import measure as as_measure

METHODS = ("logistic", "isotonic")
MOST_PAIRS = 2**19
"""All pairs of up to 1,024 images are fitted; of more images a sample of this size."""


@dataclass(frozen=True)
class Threshold:
    """A threshold and the rate that was observed at it. `str` makes a sentence of it.

    Args:
        value: In units of the measure. Pairs at least as close pass.
        rate: Observed fraction of trials that pass.
        wanted: Largest fraction that was asked for.
        trials: Pairs of different identities, or searches.
        images: Calibration images.
        identities: Their identities.
        gallery_size: Identities that are searched; None for a threshold of pairs.

    Example:
        >>> threshold = Threshold(0.8, 0.01, wanted=0.01, trials=4000, images=4000, identities=100, gallery_size=250)
        >>> kind, counted = str(threshold).split(": ")
        >>> print(kind)
        threshold of searches 0.8000 at a false positive identification rate of 0.01
        >>> print(counted)
        40 of 4,000 calibration images of 100 identities match one of the N = 250 identities in the gallery
    """

    value: float
    rate: float
    wanted: float
    trials: int
    images: int
    identities: int
    gallery_size: int | None

    def __str__(self) -> str:
        passed = round(self.rate * self.trials)
        measured = f"{self.images:,} calibration images of {self.identities:,} identities"
        if self.gallery_size is None:
            kind, rate = "pairs", "false match rate"
            counted = f"{passed:,} of {self.trials:,} pairs of different identities among {measured}"
        else:
            kind, rate = "searches", "false positive identification rate"
            enrolled = f"{self.gallery_size:,} identities" if self.gallery_size > 1 else "1 identity"
            counted = f"{passed:,} of {measured} match one of the N = {enrolled} in the gallery"
        text = f"threshold of {kind} {self.value:.4f} at a {rate} of {self.wanted:.3g}: {counted}"
        if self.gallery_size is not None and self.wanted < 1 / (self.identities + 1):
            return f"{text}; so few identities cannot show this rate, images of others may pass several times as often"
        is_rough = min(passed, self.identities) < 30
        return f"{text}; fewer than 30 matches or identities make a rough estimate" if is_rough else text


@dataclass(frozen=True, eq=False)
class Calibration:
    """Embeddings of unknown identities, and the probability of "same identity" that was fitted to their pairs.

    The embeddings are stored because the threshold of a search depends on the gallery.

    Args:
        embeddings: float32 [n, e].
        identities: int32 [n].
        measure: How embeddings are compared.
        method: "logistic" or "isotonic", see `fit`.
        coefficients: Slope and intercept of the log odds, float64 [2]; for "isotonic" scores and probabilities [2, k].
        share: Fraction of "same" among the fitted pairs, the prior probability of "same" that the coefficients imply.

    Example:
        >>> x = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0]])
        >>> calibration = Calibration.fit(x, ["ann", "ann", "bob", "bob", "cy", "cy"], measure="euclidean")
        >>> print(calibration.probability([1.0, 5.0, 10.0]).round(2))
        [0.9  0.74 0.39]
        >>> calibration.pair_threshold(fmr=0.2).value
        9.0
    """

    embeddings: np.ndarray
    identities: np.ndarray
    measure: Measure
    method: str
    coefficients: np.ndarray
    share: float

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        identities: ArrayLike,
        *,
        measure: str | Measure,
        method: Literal["logistic", "isotonic"] = "logistic",
        seed: int = 0,
    ) -> "Calibration":
        """Fit P(same) to all pairs of images, or to a sample of 524,288 pairs if there are more than that.

        Half of the sample are pairs of one identity, or all of these if they are fewer.

        The targets are Platt's, (S + 1) / (S + 2) for S same pairs and 1 / (D + 2) for D different pairs, instead of 1
        and 0: no probability is 0 or 1, and the logistic fit exists even if a threshold separates the pairs.

            logistic     P(same) = 1 / (1 + exp(-(a score + b))), the maximum of the likelihood without a penalty. For
                         many pairs that overlap, this is scikit-learn's LogisticRegression(C=np.inf).
            isotonic     the best function of the score that rises for closer pairs, by scikit-learn, linear between
                         its corners and constant beyond them. It needs more pairs.

        Args:
            embeddings: [n, e].
            identities: Integers or names [n].
            measure: Name of a measure or a `Measure`.
            method: See above.
            seed: Seed of the sample of pairs.

        Raises:
            InputError: If there is no pair of one identity or none of two identities.
        """
        check_choice("method", method, METHODS)
        m, x = as_measure(measure), as_rows("embeddings", embeddings, np.float32)
        names = as_identities("identities", identities, len(x))
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        ids = np.array([numbers[name] for name in names], np.int32)
        if len(numbers) < 2 or len(numbers) == len(ids):
            got = f"{len(ids)} images of {len(numbers)}"
            raise InputError(
                f"identities: expected two or more identities, one of which has two or more images, got {got}"
            )
        i, j = sample_pairs(ids, MOST_PAIRS, seed).T
        by_row = np.argsort(i, kind="stable")
        i, j = i[by_row], j[by_row]
        scores, same = _scores_of_pairs(x, m, i, j), ids[i] == ids[j]
        if method == "isotonic":
            fitted = _fit_isotonic(scores, same, m.higher_is_closer)
        else:
            fitted = -np.array(fit_dissimilarity(scores, same))  # the log odds of "different", negated
        return cls(x, ids, m, method, fitted, float(np.mean(same)))

    def probability(self, scores: ArrayLike | float, *, prior: float = 0.5) -> np.ndarray:
        """Compute P(same) of scores [...], in units of the measure.

        Args:
            scores: Values of the measure, [...].
            prior: Probability of "same" before the score is known. It shifts the log odds by its own log odds minus
                those of the fitted pairs.
        """
        check_between("prior", prior, 0, 1)
        values = as_finite("scores", scores, np.float64)
        if self.method == "isotonic":
            log_odds = _logit(np.interp(values, *self.coefficients))
        else:
            log_odds = self.coefficients[0] * values + self.coefficients[1]
        log_odds = log_odds + _logit(prior) - _logit(self.share)
        return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds)))  # the logistic function; importing SciPy's takes 0.2 s

    def pair_threshold(self, fmr: float) -> Threshold:
        """Return the most lenient observed score at which at most `fmr` of all pairs of different identities pass.

        The similarity matrix is computed block by block; only the closest fmr * pairs scores are stored.

        Raises:
            InputError: If `fmr` is not between 0 and 1 or is less than one pair.
        """
        n, counts = len(self.identities), np.unique(self.identities, return_counts=True)[1]
        trials = (n * (n - 1) - int(np.sum(counts * (counts - 1)))) // 2
        passing = _largest_number("fmr", fmr, trials, "pairs of different identities")
        sign = 1 if self.measure.higher_is_closer else -1
        closest = np.zeros(0, np.float32)
        for rows, values in tiles(self.embeddings, self.embeddings, self.measure):
            different = self.identities[rows, None] != self.identities
            scores = sign * values[different & (rows[:, None] < np.arange(n))]
            closest = _closest(np.concatenate([closest, scores]), passing + 1)
        return self._threshold(closest, passing, wanted=fmr, trials=trials, gallery_size=None)

    def search_threshold(
        self, fpir: float, gallery_embeddings: ArrayLike, gallery_identities: ArrayLike | None = None
    ) -> Threshold:
        """Return the most lenient observed score at which at most `fpir` of the calibration images find a match.

        Args:
            fpir: Fraction of searches for unknown identities that may have a match, between 0 and 1.
            gallery_embeddings: [m, e], without the calibration identities.
            gallery_identities: Integers or names [m]. Default: every row is an identity of its own.

        Raises:
            InputError: If `fpir` is less than one image, or the gallery is empty.
        """
        _largest_number("fpir", fpir, len(self.identities), "calibration images")  # before a search that may take long
        gallery = as_rows("gallery_embeddings", gallery_embeddings, np.float32)
        size = len(gallery)
        if gallery_identities is not None:
            size = len(set(as_identities("gallery_identities", gallery_identities, size)))
        return self.threshold_of_best_scores(fpir, self.best_scores(gallery), gallery_size=size)

    def threshold_of_best_scores(self, fpir: float, best_scores: ArrayLike, *, gallery_size: int) -> Threshold:
        """Return `search_threshold` from the `best_scores` [n] in a gallery, which can be stored and updated."""
        n = len(self.identities)
        passing = _largest_number("fpir", fpir, n, "calibration images")
        best = as_finite("best_scores", best_scores, np.float32)
        if best.shape != (n,):
            raise InputError(f"best_scores: expected one for each of {n} calibration images, got shape {best.shape}")
        closest = _closest(best if self.measure.higher_is_closer else -best, passing + 1)
        return self._threshold(closest, passing, wanted=fpir, trials=n, gallery_size=gallery_size)

    def best_scores(self, gallery_embeddings: ArrayLike) -> np.ndarray:
        """Compute the closest score of each calibration image in a gallery [m, e] by exact search, float32 [n]."""
        gallery = as_rows("gallery_embeddings", gallery_embeddings, np.float32)
        if not len(gallery) or gallery.shape[1] != self.embeddings.shape[1]:
            expected = f"at least one row of size {self.embeddings.shape[1]}, as in the calibration"
            raise InputError(f"gallery_embeddings: expected {expected}, got shape {gallery.shape}")
        return np.asarray(top_k(self.embeddings, gallery, 1, self.measure)[0])[:, 0]

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays, and settings for JSON, from which `from_arrays` restores the calibration."""
        arrays = {name: getattr(self, name) for name in ("embeddings", "identities", "coefficients")}
        return arrays, {"method": self.method, "share": self.share, "measure": self.measure.name}

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, np.ndarray], settings: dict[str, Any], *, measure: str | Measure
    ) -> "Calibration":
        """Return the calibration that `to_arrays` converted; pass its measure, of which only the name is stored.

        Raises:
            InputError: If an array or setting is missing or invalid, or the measure is not that of the calibration.
        """
        m = as_measure(measure)
        try:
            x, ids, fitted = (np.asarray(arrays[name]) for name in ("embeddings", "identities", "coefficients"))
            method, share, name = settings["method"], float(settings["share"]), settings["measure"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"calibration: expected the arrays and settings of to_arrays ({error!r})") from error
        if name != m.name:
            raise InputError(f"calibration: expected measure {m.name!r}, got one that was fitted with {name!r}")
        check_choice("method", method, METHODS)
        check_between("share", share, 0, 1)
        x, fitted = as_rows("embeddings", x, np.float32), as_finite("coefficients", fitted, np.float64)
        shapes_fit = ids.shape == (len(x),) and fitted.ndim == (2 if method == "isotonic" else 1) and len(fitted) == 2
        if not shapes_fit or ids.dtype != np.int32:
            shapes = f"{x.shape}, {ids.shape} {ids.dtype} and {fitted.shape}"
            raise InputError(f"calibration: expected shapes [n, e], [n] int32 and [2] or [2, k], got {shapes}")
        return cls(x, ids, m, method, fitted, share)

    def _threshold(self, closest: np.ndarray, passing: int, **observed: Any) -> Threshold:
        """Return the threshold that the first `passing` of the closest scores pass, or fewer if scores are equal."""
        too_far = closest[passing]
        passed = closest[closest > too_far]
        score = float(passed[-1] if passed.size else np.nextafter(too_far, np.float32(np.inf)))
        value = score if self.measure.higher_is_closer else -score
        rate = passed.size / observed["trials"]
        sizes = {"images": len(self.identities), "identities": len(np.unique(self.identities))}
        return Threshold(value, rate, **sizes, **observed)


def _largest_number(argument: str, wanted: float, trials: int, what: str) -> int:
    """Return the largest k with k / trials <= wanted, or raise an InputError if that is 0."""
    check_between(argument, wanted, 0, 1)
    k = allowed_count(wanted, trials)
    if k < 1:
        power = 10 ** (len(str(trials - 1)) + 3)  # 1 / trials with 4 digits, rounded up, so that it is not refused
        least = -(-power // trials) / power
        expected = f"expected at least {least:.4g}, or a calibration with more images"
        raise InputError(f"{argument}: {wanted:g} of {trials:,} {what} is less than one; {expected}")
    return k


def _logit(p: np.ndarray | float) -> np.ndarray:
    """Return the log odds of probabilities strictly between 0 and 1."""
    return np.asarray(np.log(p) - np.log1p(-p))


def _closest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` largest scores, in descending order."""
    if len(scores) > count:
        scores = np.partition(scores, len(scores) - count)[-count:]
    return np.sort(scores)[::-1]


def _scores_of_pairs(x: np.ndarray, measure: Measure, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Compute the measure of pairs of rows i and j, where i is sorted."""
    scores = np.empty(len(i), np.float32)
    for rows, values in tiles(x, x, measure):
        in_tile = slice(*np.searchsorted(i, [rows[0], rows[-1] + 1]))
        scores[in_tile] = values[i[in_tile] - rows[0], j[in_tile]]
    return scores


def _fit_isotonic(scores: np.ndarray, same: np.ndarray, higher_is_closer: bool) -> np.ndarray:
    from sklearn.isotonic import IsotonicRegression

    n_same = np.count_nonzero(same)
    targets = np.where(same, (n_same + 1) / (n_same + 2), 1 / (len(same) - n_same + 2))
    model = IsotonicRegression(increasing=higher_is_closer).fit(scores.astype(np.float64), targets)
    return np.stack([model.X_thresholds_, model.y_thresholds_])
