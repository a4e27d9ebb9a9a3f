"""Robustness and calibration of the classifiers of trained networks, as means over seeds.

All intervals are about other test images; the seeds are those that were trained.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from simjax.data import Dataset
from simjax.encoder import Encoder
from simjax.evaluate import calibration_error_interval, mean_estimate, reliability
from simjax.study._corruptions import CORRUPTIONS, corrupt


@dataclasses.dataclass(frozen=True)
class Classifications:
    """Predictions of one encoder for n test images.

    Attributes:
        confidence: Probability of the predicted class of each image, [n].
        correct: Whether the class is right, by the name of a corruption, at strength 0 (none) to 5, booleans [6, n].
    """

    confidence: np.ndarray
    correct: dict[str, np.ndarray]


def classify(encoder: Encoder, test: Dataset, seed: int) -> Classifications:
    """Classify test images without a corruption and with each one; `seed` is that of the corruptions."""
    images = test.images.astype(np.float32)
    probabilities = encoder.classify(test.images)
    clean = probabilities.argmax(axis=1) == test.labels

    def is_correct(name: str, strength: int) -> np.ndarray:
        corrupted = np.asarray(corrupt(jax.random.key(seed), images, name, strength))
        predicted = encoder.classify(corrupted.round().clip(0, 255).astype(np.uint8)).argmax(axis=1)
        return predicted == test.labels

    correct = {name: np.stack([clean, *(is_correct(name, i) for i in range(1, 6))]) for name in CORRUPTIONS}
    return Classifications(probabilities.max(axis=1), correct)


def robustness(runs: Sequence[Classifications]) -> dict[str, dict[str, list[Any]]]:
    """Return the amount, the accuracy and its interval at strength 0 to 5, by the name of the corruption."""
    found = {}
    for name in runs[0].correct:
        of_images = np.mean([run.correct[name] for run in runs], axis=0)  # [6, n]
        estimates = [mean_estimate(values, np.arange(len(values))) for values in of_images]
        found[name] = {
            "amount": [0.0, *map(float, CORRUPTIONS[name])],
            "accuracy": [estimate.value for estimate in estimates],
            "accuracy_interval": [estimate.interval() for estimate in estimates],
        }
    return found


def calibration(runs: Sequence[Classifications]) -> dict[str, Any]:
    """Return the mean confidence, the accuracy, and the expected calibration error (ECE) with its interval.

    The ECE is that of the predicted class: the mean difference of confidence and accuracy over ten bins of the
    confidence (Guo et al. 2017, On Calibration of Modern Neural Networks). For its interval see
    `simjax.evaluate.reliability`.
    """
    correct = [next(iter(run.correct.values()))[0] for run in runs]
    images = np.arange(len(correct[0]))
    identities = np.stack([images, images], axis=1)
    found = [reliability(run.confidence, of, identities=identities) for run, of in zip(runs, correct, strict=True)]
    value = statistics.fmean(one["expected_calibration_error"] for one in found)
    left_out = np.mean([one["leave_one_out"] for one in found], axis=0)
    interval = calibration_error_interval(value, left_out, statistics.fmean(one["expected_by_chance"] for one in found))
    return {
        "confidence": float(np.mean([run.confidence for run in runs])),
        "accuracy": float(np.mean(correct)),
        "expected_calibration_error": value,
        "expected_calibration_error_interval": interval,
    }
