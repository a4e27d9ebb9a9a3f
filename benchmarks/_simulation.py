"""Simulated evaluations of `benchmarks.coverage`: identities as random effects, and the intervals of one data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simjax.evaluate import (
    Calibration,
    Estimate,
    compare,
    mean_estimate,
    open_set_estimates,
    retrieval_estimates,
    sample_pairs_for_verification,
    verification_estimates,
)
from simjax.similarity import measure, top_k


@dataclass(frozen=True)
class Model:
    """Identities as random effects.

    Args:
        difficulty: Standard deviation of the logarithm of the noise of an identity.
        noise: Standard deviation of the noise of each of two encoders.
        own: Share of the variance that is not common to all encoders.
    """

    difficulty: float
    noise: tuple[float, float]
    own: float = 0.3


MODELS = {"usual": Model(0.25, (0.6, 0.64)), "few hard identities": Model(0.35, (0.42, 0.45))}
SIZE, IMAGES = 16, 5
RATES = (0.01, 0.001)  # false match rates of the thresholds
CLASSES, IMAGES_OF_CLASS = 10, 50
NUMBERS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "5 of each": lambda random, n: np.full(n, 5),
    "20 of each": lambda random, n: np.full(n, 20),
    "100 of each": lambda random, n: np.full(n, 100),
    "1 to 30": lambda random, n: random.integers(1, 31, n),
    "100 of one, 5 of each other": lambda random, n: np.array([100] + [5] * (n - 1)),
}
"""Numbers of images of n identities, [n]."""

BINS = 2**17
RESAMPLES = 500
Interval = tuple[float, float] | None


@dataclass
class Result:
    """An estimate with its interval, other intervals of the same value by their names, and the true value if known."""

    value: float
    interval: Interval
    others: dict[str, Interval] = field(default_factory=dict)
    true: float | None = None


def draw(
    random: np.random.Generator, model: Model, identities: int, noise: Sequence[float], images: int = IMAGES
) -> np.ndarray:
    """Return unit vectors of images of new identities by several encoders, float32 [encoders, images, size].

    An image is the mean vector of its identity plus noise, whose standard deviation is that of the encoder times the
    difficulty of the identity. Encoders share a part of the mean vectors and of the noise.
    """

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=(*shape, SIZE))

    common, own = (1 - model.own) ** 0.5, model.own**0.5
    mean = common * normal(identities, 1) + own * normal(len(noise), identities, 1)
    image = common * normal(identities, images) + own * normal(len(noise), identities, images)
    difficulty = np.exp(model.difficulty * random.normal(size=(identities, 1, 1)))
    x = (mean + np.reshape(noise, (-1, 1, 1, 1)) * difficulty * image).reshape(len(noise), -1, SIZE)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def population(model: Model, blocks: int = 100, identities: int = 2000) -> list[dict[str, Any]]:
    """Return the true rates of both encoders, from the cosines of 2 million same and 200 million different pairs."""
    random = np.random.default_rng(0)
    i, j = np.triu_indices(IMAGES, 1)
    upper = np.triu_indices(identities, 1)
    counts = np.zeros((2, len(model.noise), BINS), np.int64)  # of different and of same pairs

    def count(cosines: np.ndarray) -> np.ndarray:
        return np.bincount(((np.clip(cosines, -1, 1) + 1) * ((BINS - 1) / 2)).astype(int).ravel(), minlength=BINS)

    for _ in range(blocks):
        for encoder, rows in enumerate(draw(random, model, identities, model.noise)):
            x = rows.reshape(identities, IMAGES, SIZE)
            counts[0, encoder] += count((x[:, 0] @ x[:, 0].T)[upper])
            counts[1, encoder] += count(np.einsum("ipd,ipd->ip", x[:, i], x[:, j]))
    # Shares of pairs in or above each bin, from the closest bin to the farthest.
    different, same = np.cumsum(counts[..., ::-1], axis=-1) / counts.sum(axis=-1, keepdims=True)
    found = []
    for fmr, accepted in zip(different, same, strict=True):
        bins = [int(np.argmin(np.abs(fmr - rate))) for rate in RATES]
        equal = int(np.argmin(np.abs(fmr - (1 - accepted))))
        record: dict[str, Any] = {"EER": float(fmr[equal]), "ROC AUC": float(np.trapezoid(accepted, fmr))}
        for rate, k in zip(RATES, bins, strict=True):
            record |= {f"FMR at {rate}": float(fmr[k]), f"FNMR at {rate}": float(1 - accepted[k])}
            record[f"threshold at {rate}"] = 2 * (BINS - 1 - k) / (BINS - 1) - 1
        found.append(record)
    return found


def evaluate_identities(
    random: np.random.Generator, model: Model, n: int, truth: list[dict[str, Any]]
) -> dict[str, Result]:
    """Draw n identities, and return all results of the first encoder and its differences from the second one."""
    people = np.repeat(np.arange(n), IMAGES)
    i, j = np.triu_indices(len(people), 1)
    pairs, same = np.stack([people[i], people[j]], axis=1), people[i] == people[j]
    x = draw(random, model, 2 * n, model.noise)  # the second half are unknown
    estimates: list[dict[str, Estimate]] = []
    trials: list[dict[str, np.ndarray]] = []  # values whose mean is the estimate
    first, second = (f"at {rate}" for rate in RATES)
    for embeddings, known in zip(x[:, : len(people)], truth, strict=True):
        scores = (embeddings @ embeddings.T)[i, j]
        accepted = scores >= known[f"threshold {second}"]
        verified = verification_estimates(scores, same, pairs, threshold=known[f"threshold {first}"])
        retrieved = retrieval_estimates(embeddings, people, ks=())
        estimates.append(
            {
                "EER": verified["equal_error_rate"],
                "ROC AUC": verified["roc_auc"],
                "MAP@R": retrieved["mean_average_precision_at_r"],
                f"FMR {first}": verified["fmr"],
                f"FNMR {first}": verified["fnmr"],
                f"FNMR {second}": mean_estimate(~accepted[same], pairs[same]),
            }
        )
        if len(estimates) == 1:
            estimates[0][f"FMR {second}"] = mean_estimate(accepted[~same], pairs[~same])
        trials.append(
            {
                "MAP@R": average_precision(embeddings, people),
                f"FMR {first}": scores[~same] >= known[f"threshold {first}"],
                f"FNMR {first}": scores[same] < known[f"threshold {first}"],
                f"FNMR {second}": ~accepted[same],
            }
        )
    results = {name: Result(value_of(found), found.interval()) for name, found in estimates[0].items()}
    n_same, n_different = int(np.count_nonzero(same)), int(np.count_nonzero(~same))
    results["EER"].others["naive"] = wilson(results["EER"].value, n_same)
    results["ROC AUC"].others["naive"] = hanley_mcneil(results["ROC AUC"].value, n_same, n_different)
    precision = trials[0]["MAP@R"]
    results["MAP@R"].others["naive"] = around(results["MAP@R"].value, precision.var(ddof=1) / len(precision))
    results["MAP@R"].others["queries only"] = mean_estimate(precision, people).interval()
    for rate in RATES:
        threshold = truth[0][f"threshold at {rate}"]
        for name, other in other_intervals(random, x[0, : len(people)], threshold, n).items():
            results[f"{name} at {rate}"].others = other
        results |= search(random, model, x[0, : len(people)], x[0, len(people) :], people, threshold, f" at {rate}")
    for name in ("EER", *trials[0]):
        found = compare(estimates[0][name], estimates[1][name])
        difference = value_of(estimates[0][name]) - value_of(estimates[1][name])
        if name == "EER":
            variance = sum(p * (1 - p) / n_same for p in (value_of(each[name]) for each in estimates))
        else:
            per_trial = trials[0][name] * 1.0 - trials[1][name]
            variance = per_trial.var(ddof=1) / len(per_trial)
        naive: dict[str, Interval] = {"naive": around(difference, variance)}
        results[f"difference of {name}"] = Result(difference, found.interval, naive)
    return results


def search(
    random: np.random.Generator,
    model: Model,
    known: np.ndarray,
    unknown_rows: np.ndarray,
    people: np.ndarray,
    threshold: float,
    suffix: str,
) -> dict[str, Result]:
    """Return the results of searches in a gallery of the first image of each identity.

    The true FPIR of this gallery comes from an image of each of 4,000 other unknown identities.
    """
    is_enrolled = np.arange(len(people)) % IMAGES == 0
    found = open_set_estimates(
        known[~is_enrolled],
        people[~is_enrolled],
        unknown_rows,
        known[is_enrolled],
        people[is_enrolled],
        measure="cosine",
        threshold=threshold,
        unknown_identities=people + len(people),
    )
    probes, unknown = np.count_nonzero(~is_enrolled), len(unknown_rows)
    rates = {
        f"FNIR{suffix}": ("fnir_at_rank_1", probes),
        f"FPIR{suffix}": ("fpir", unknown),
        "rank-1": ("rank_1_rate", probes),
    }
    results = {}
    for name, (key, n) in rates.items():
        value = value_of(found[key])
        results[name] = Result(value, found[key].interval(), {"naive": wilson(value, n)})
    others = draw(random, model, 4000, model.noise[:1], images=1)[0]
    results[f"FPIR{suffix}"].true = float(np.mean(np.max(others @ known[is_enrolled].T, axis=1) >= threshold))
    return results


def other_intervals(
    random: np.random.Generator, x: np.ndarray, threshold: float, n: int
) -> dict[str, dict[str, Interval]]:
    """Return intervals of FMR and FNMR that take pairs as independent, by Wilson's formula adjusted, and by bootstrap.

    The variance of the adjusted formula sums the covariances of pairs that share an identity (Fogliato, Patil, Perona).
    The bootstrap draws identities and takes percentiles.
    """
    accepted = (x @ x.T >= threshold).reshape(n, IMAGES, n, IMAGES).sum(axis=(1, 3)).astype(float)
    own = IMAGES * (IMAGES - 1)
    rejected = (own - (np.diagonal(accepted) - IMAGES)) / 2
    np.fill_diagonal(accepted, 0)
    trials = IMAGES**2 * (1 - np.eye(n))
    drawn = random.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    fmr, fnmr = accepted.sum() / trials.sum(), rejected.mean() / (own / 2)
    rest = accepted - fmr * trials
    variance = (np.sum(rest.sum(axis=1) ** 2) - np.sum(rest**2) / 2) / (trials.sum() / 2) ** 2
    resampled = np.sum((drawn @ accepted) * drawn, axis=1) / np.sum((drawn @ trials) * drawn, axis=1)
    own_variance = np.sum((rejected - rejected.mean()) ** 2) / (n * own / 2) ** 2
    return {
        "FMR": {
            "naive": wilson(fmr, int(trials.sum() / 2)),
            "adjusted Wilson": wilson(fmr, fmr * (1 - fmr) / variance if variance > 0 else n),
            "bootstrap": percentiles(resampled),
        },
        "FNMR": {
            "naive": wilson(fnmr, n * own // 2),
            "adjusted Wilson": wilson(fnmr, fnmr * (1 - fnmr) / own_variance if own_variance > 0 else n),
            "bootstrap": percentiles(drawn @ rejected / (n * own / 2)),
        },
    }


def evaluate_classes(random: np.random.Generator) -> dict[str, Result]:
    """Draw images of ten fixed classes, and return results whose intervals are over single images."""
    classes, images = CLASSES, IMAGES_OF_CLASS
    fixed = np.random.default_rng(0)
    mean, difficulty = fixed.normal(size=(classes, 1, SIZE)), np.exp(fixed.normal(size=(classes, 1, 1)) / 4)
    x = (mean + 1.2 * difficulty * random.normal(size=(classes, images, SIZE))).reshape(-1, SIZE).astype(np.float32)
    labels = np.repeat(np.arange(classes), images)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    image = np.arange(len(x))
    i, j, same = sample_pairs_for_verification(labels, 10_000, seed=int(random.integers(2**31)))
    scores = np.sum(x[i] * x[j], axis=1)
    pairs = np.stack([i, j], axis=1)
    found = verification_estimates(scores, same, pairs, threshold=0.4)
    found |= retrieval_estimates(x, labels, identities=image, ks=())
    correct = np.argmax(x @ mean[:, 0].T, axis=1) == labels
    precision = average_precision(x, labels)
    others = {
        "equal_error_rate": {"naive": wilson(value_of(found["equal_error_rate"]), len(i) // 2)},
        "roc_auc": {"naive": hanley_mcneil(value_of(found["roc_auc"]), len(i) // 2, len(i) // 2)},
        "accuracy": {"naive": wilson(value_of(found["accuracy"]), len(i))},
        "mean_average_precision_at_r": {
            "naive": around(float(precision.mean()), precision.var(ddof=1) / len(x)),
            "queries only": mean_estimate(precision, image).interval(),
        },
        "precision_at_1": {"naive": wilson(value_of(found["precision_at_1"]), len(x))},
    }
    names = {
        "equal_error_rate": "EER",
        "roc_auc": "ROC AUC",
        "accuracy": "accuracy of pairs",
        "mean_average_precision_at_r": "MAP@R",
        "precision_at_1": "precision at 1",
    }
    results = {
        name: Result(value_of(found[key]), found[key].interval(), dict(others[key])) for key, name in names.items()
    }
    results["accuracy"] = Result(
        float(correct.mean()),
        mean_estimate(correct, image).interval(),
        {"naive": wilson(float(correct.mean()), len(x))},
    )
    return results


def average_precision(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the average precision at R of each image, for classes of equal size."""
    r = int(np.bincount(labels)[0]) - 1
    nearest = np.asarray(top_k(x, x, r, "cosine", exclude=np.arange(len(x)))[1])
    hits = labels[nearest] == labels[:, None]
    return np.mean(np.cumsum(hits, axis=1) / np.arange(1, r + 1) * hits, axis=1)


def realized_fpir(
    random: np.random.Generator, identities: int, images: int, within: float, wanted: float, repetitions: int
) -> float:
    """Return the mean FPIR, for new unknown identities, of thresholds that a calibration chooses for a wanted one.

    The best scores of searches are normal, with the share `within` of their variance within an identity.
    """
    from scipy.stats import norm

    names = np.repeat(np.arange(identities, dtype=np.int32), images)
    embeddings, coefficients = np.zeros((len(names), 1), np.float32), np.array([1.0, 0.0])
    calibration = Calibration(embeddings, names, measure("cosine"), "logistic", coefficients, 0.5)
    rates = []
    for _ in range(repetitions):
        own = random.normal(size=(identities, images)) * within**0.5
        scores = random.normal(size=(identities, 1)) * (1 - within) ** 0.5 + own
        threshold = calibration.threshold_of_best_scores(wanted, scores.ravel(), gallery_size=100)
        rates.append(norm.sf(threshold.value))
    return float(np.mean(rates))


def unequal_numbers(random: np.random.Generator, identities: int, kind: str, rate: float, repetitions: int) -> float:
    """Return the coverage of intervals of a mean over images.

    An identity has a rate of its own from a beta distribution, whose variance is 0.3 times that of single images.

    Args:
        random: Generator.
        identities: Their number.
        kind: Numbers of images, see `NUMBERS`.
        rate: Mean of the rates.
        repetitions: Number of samples.
    """
    inside = 0
    for _ in range(repetitions):
        names = np.repeat(np.arange(identities), NUMBERS[kind](random, identities))
        rates = random.beta(rate * (1 / 0.3 - 1), (1 - rate) * (1 / 0.3 - 1), identities)
        interval = mean_estimate(random.random(len(names)) < rates[names], names).interval()
        assert interval is not None
        inside += interval[0] <= rate <= interval[1]
    return inside / repetitions


def compare_one_recipe(
    random: np.random.Generator, model: Model, n: int, runs: Sequence[int], spread: float
) -> dict[str, dict[str, bool]]:
    """Draw runs of one recipe on n identities, and return by statistic and method whether a difference is shown.

    `spread` is the standard deviation of the logarithm of the noise between the runs.
    """
    from scipy.stats import ttest_rel

    people = np.repeat(np.arange(n), IMAGES)
    i, j = np.triu_indices(len(people), 1)
    pairs, same = np.stack([people[i], people[j]], axis=1), people[i] == people[j]
    noise = model.noise[0] * np.exp(spread * random.normal(size=2 * max(runs)))
    estimates: dict[str, list[Estimate]] = {"EER": [], "MAP@R": []}
    for x in draw(random, model, n, noise.tolist()):
        estimates["EER"].append(verification_estimates((x @ x.T)[i, j], same, pairs)["equal_error_rate"])
        estimates["MAP@R"].append(retrieval_estimates(x, people, ks=())["mean_average_precision_at_r"])
    shown: dict[str, dict[str, bool]] = {}
    for name, found in estimates.items():
        a, b = found[::2], found[1::2]
        shown[name] = {"identities, one run of each": compare(a[0], b[0]).is_shown}
        for count in runs:
            values_a, values_b = ([value_of(estimate) for estimate in side[:count]] for side in (a, b))
            shown[name][f"seeds, {count} runs of each"] = bool(ttest_rel(values_a, values_b).pvalue < 0.05)
            shown[name][f"identities and seeds, {count} runs of each"] = compare(a[:count], b[:count]).is_shown
    return shown


def value_of(estimate: Estimate) -> float:
    """Return the value of an estimate that exists."""
    assert estimate.value is not None
    return estimate.value


def wilson(p: float, n: float, z: float = 1.959964) -> Interval:
    """Return Wilson's interval of a rate of n independent trials."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    margin = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return centre - margin, centre + margin


def hanley_mcneil(area: float, n_same: int, n_different: int) -> Interval:
    """Return the interval of a ROC AUC of independent pairs by Hanley and McNeil (1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_same - 1) * (q1 - area**2) + (n_different - 1) * (q2 - area**2)
    return around(area, variance / (n_same * n_different))


def around(value: float, variance: float) -> Interval:
    """Return the normal interval."""
    return value - 1.959964 * variance**0.5, value + 1.959964 * variance**0.5


def percentiles(values: np.ndarray) -> Interval:
    """Return the interval of 95% of the resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
