"""Evaluation of a trained encoder: the metrics of report.json, and the arrays of the .npz files of a run.

Test images are not used for any choice: the last checkpoint is evaluated, and the verification threshold and the scale
of the predicted dissimilarity are fitted on validation images, or on training images if there are too few of them.

A metric that cannot be computed, such as verification without two test images of one class, is None. Its name and the
reason are in `not_evaluated` of the report.

Metrics have 95% intervals, `<name>_interval`. Many new classes are a sample of identities, and the intervals are about
other classes. Otherwise the classes are fixed, and the intervals are about other images of them. leave_one_out.npz has
each metric without each class or image, from which comparisons of runs are computed. The intervals of few-shot tasks
are about other random tasks with the same images.

samples.npz has the arrays that `_samples` lists, and the ROC and DET of verification: `roc_false_positive_rate` and
`roc_true_positive_rate`, `roc_point` [2] at the threshold, `det_fmr` and `det_fnmr`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from simjax import evaluate
from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.evaluate import Estimate
from simjax.similarity import Measure
from simjax.train import _samples as samples
from simjax.train._batch_losses import batch_losses
from simjax.train._collapse import collapse_statistics, describe_collapse
from simjax.train._data import DataSplits, count_verification_pairs, threshold_source
from simjax.train._learner import Encoded, Learner, encode
from simjax.train._objective import Objective
from simjax.train._run_folder import RunFolder
from simjax.train._samples import Arrays, ScoredPairs
from simjax.train._settings import Settings

VERIFICATION_PAIRS = 20_000  # largest number of pairs
THRESHOLD_IMAGES = 5_000  # largest number of images on which the threshold is chosen
GROUPS = 50  # of identities or images that are left out at a time for rates without a fast formula
MIN_SAMPLED_CLASSES = 20  # fewer new classes are not a sample from which other classes can be judged
PARTS = 12  # parts of an evaluation that `evaluate_run` announces
CLASSIFICATION_METRICS = (
    "accuracy",
    "accuracy_of",
    "knn_accuracy",
    "most_frequent_class_share",
    "per_class_accuracy",
    "confusion",
)

Estimates = dict[str, Estimate]
"""Estimates of metrics by their dotted paths in the report."""

T = TypeVar("T")


def evaluate_run(
    settings: Settings,
    folder: RunFolder,
    splits: DataSplits,
    encoder: Encoder,
    learner: Learner | None,
    objective: Objective,
    begin: Callable[[str], None] = lambda part: None,
) -> dict[str, Any]:
    """Evaluate on the test images, save the arrays of the run, and return the metrics of the report.

    `begin` is called with the name of each part when it begins, at most `PARTS` times.
    """
    test, measure = splits.test, encoder.measure
    encoded = encode(encoder, learner, test.images)
    inputs = _Inputs(splits, encoder, encoded, measure)
    not_evaluated: dict[str, str] = {}

    def attempt(name: str, compute: Callable[[], T], missing: T) -> T:
        """Return the result, or `missing` if it cannot be computed."""
        begin(name.replace("_", " "))
        try:
            return compute()
        except InputError as error:
            not_evaluated[name] = str(error)
            return missing

    metrics: dict[str, Any] = dict.fromkeys(CLASSIFICATION_METRICS)
    estimates: Estimates = {}
    classification = attempt("accuracy", lambda: _classification(inputs), None)
    if classification is not None:
        metrics, estimates = classification.metrics, classification.estimates
    verification = attempt("verification", lambda: _verification(inputs), None)
    calibration = None
    if verification is not None:
        calibration = attempt("calibration", lambda: _calibration(inputs, verification), None)
        estimates = estimates | verification.estimates
    retrieval, found = attempt("retrieval", lambda: _retrieval(inputs), (None, {}))
    estimates = estimates | found
    test_loss = attempt("test_loss", lambda: _test_loss(inputs, objective), {"test_loss": None})
    few_shot = attempt("few_shot", lambda: _few_shot(inputs), None)
    arrays: Arrays = {} if verification is None else verification.curves
    for name, select in _sample_parts(inputs, classification, verification).items():
        arrays = arrays | attempt(name, select, {})

    folder.write_arrays("predictions.npz", _predictions(inputs, classification))
    folder.write_arrays("samples.npz", arrays)
    folder.write_arrays("leave_one_out.npz", _leave_one_out(estimates))
    diagnostics, classes = collapse_statistics(encoded.embeddings), len(np.unique(test.labels))
    report: dict[str, Any] = {
        **{name: getattr(settings, name) for name in ("model", "dataset", "test_dataset", "objective", "seed")},
        **metrics,
        **test_loss,
        "retrieval": retrieval,
        "verification": None if verification is None else verification.metrics,
        "calibration": calibration,
        "few_shot": few_shot,
        "diagnostics": diagnostics | {"collapse": describe_collapse(diagnostics, encoded.embeddings, classes)},
        "measure": measure.name,
        "higher_is_closer": measure.higher_is_closer,
        "intervals_over": "classes" if inputs.has_sampled_classes() else "images",
        "not_evaluated": not_evaluated,
    }
    _add_intervals(report, estimates)
    return report


class _Inputs(NamedTuple):
    """Inputs of all parts of an evaluation; `encoded` is the output of the encoder for the test images."""

    splits: DataSplits
    encoder: Encoder
    encoded: Encoded
    measure: Measure

    def require_classes(self) -> None:
        if len(self.splits.test.class_names) < 2:
            raise InputError("the test images have no classes, or only one; `test_dataset` names images with classes")

    def has_sampled_classes(self) -> bool:
        return not self.splits.known_classes and len(self.splits.test.class_names) >= MIN_SAMPLED_CLASSES

    def identities(self) -> np.ndarray:
        """Return what intervals leave out one at a time: the class of each test image, or its number."""
        labels = self.splits.test.labels
        return labels if self.has_sampled_classes() else np.arange(len(labels))


class _Classification(NamedTuple):
    """Classification of the test images."""

    metrics: dict[str, Any]
    estimates: Estimates
    predicted: np.ndarray  # classes [n]
    confidence: np.ndarray | None  # probability of the predicted class [n]; None for nearest neighbours


class _Verification(NamedTuple):
    """Verification of pairs of test images."""

    metrics: dict[str, Any]
    estimates: Estimates
    curves: Arrays  # ROC and DET
    pairs: ScoredPairs
    scale: tuple[float, float] | None  # of the predicted dissimilarity; None without a threshold


def _add_intervals(report: dict[str, Any], estimates: Estimates) -> None:
    """Put the interval of each estimate beside it; the names are dotted paths in the report."""
    for name, estimate in estimates.items():
        *path, last = name.split(".")
        part = report
        for key in path:
            part = part[key]
        part[f"{last}_interval"] = estimate.interval()


def _leave_one_out(estimates: Estimates) -> dict[str, np.ndarray]:
    known = {name: found for name, found in estimates.items() if found.leave_one_out is not None}
    identities = {name: np.array(found.identities) for name, found in known.items()}
    arrays = {name: np.asarray(found.leave_one_out) for name, found in known.items()}
    arrays |= {f"{name}.identities": of_name for name, of_name in identities.items()}
    return arrays | {f"{name}.sample_size": np.array(found.sample_size) for name, found in known.items()}


def _predictions(inputs: _Inputs, classification: _Classification | None) -> Arrays:
    """Return the arrays of predictions.npz."""
    test = inputs.splits.test
    index = np.arange(len(test.labels), dtype=np.int32)
    arrays = {"index": index, "label": test.labels, "embedding": inputs.encoded.embeddings}
    if classification is not None:
        arrays["predicted"] = np.asarray(classification.predicted, np.int32)
    if test.paths is not None:
        arrays["path"] = test.paths
    return arrays


def _sample_parts(
    inputs: _Inputs, classification: _Classification | None, verification: _Verification | None
) -> dict[str, Callable[[], Arrays]]:
    """Return the parts of samples.npz by name, as functions that return arrays."""
    test, embeddings, measure = inputs.splits.test, inputs.encoded.embeddings, inputs.measure

    def class_similarity() -> Arrays:
        inputs.require_classes()
        return samples.class_similarity(test, embeddings, measure)

    parts: dict[str, Callable[[], Arrays]] = {
        "neighbours": lambda: samples.neighbours(test, embeddings, measure),
        "class_similarity": class_similarity,
        "map": lambda: samples.image_map(test.images),
    }
    if verification is not None:
        metrics, _, _, scored, scale = verification
        parts["pairs"] = lambda: (
            samples.score_histogram(scored)
            | samples.pairs(test, scored, metrics["threshold"], scale, higher_is_closer=measure.higher_is_closer)
        )
    if classification is not None:
        predicted, confidence = classification.predicted, classification.confidence
        parts["mistakes"] = lambda: samples.mistakes(test, predicted, confidence) | samples.confusions(test, predicted)
    if inputs.encoder.config.network == "vit":
        parts["attention"] = lambda: samples.attention(inputs.encoder, test)
    return parts


def _classification(inputs: _Inputs) -> _Classification:
    """Classify the test images with nearest neighbours and, if it knows their classes, with the trained classifier."""
    (splits, encoder, encoded, measure), test = inputs, inputs.splits.test
    inputs.require_classes()
    if splits.known_classes:
        gallery, gallery_labels, exclude = encoder.encode(splits.train.images), splits.train.labels, None
    elif len(test.labels) < 2:
        raise InputError("there is only one test image, which has no neighbours")
    else:  # the neighbours of a test image are other test images
        gallery, gallery_labels, exclude = encoded.embeddings, test.labels, np.arange(len(test.labels))
    predicted = knn_predicted = evaluate.knn_predict(
        encoded.embeddings, gallery, gallery_labels, measure=measure, exclude=exclude
    )
    accuracy_of, confidence = "knn", None
    if encoded.logits is not None and splits.known_classes:
        predicted, accuracy_of = encoded.logits.argmax(1), "classifier"
        relative = encoded.logits - encoded.logits.max(axis=1, keepdims=True)
        confidence = 1 / np.exp(relative.astype(np.float64)).sum(axis=1)  # the largest probability of the softmax
    metrics = evaluate.classification_metrics(test.labels, predicted, len(test.class_names))
    identities = inputs.identities()
    estimates = {
        name: evaluate.mean_estimate(classes == test.labels, identities)
        for name, classes in (("accuracy", predicted), ("knn_accuracy", knn_predicted))
    }
    metrics = {
        "accuracy": metrics["accuracy"],
        "accuracy_of": accuracy_of,
        "knn_accuracy": float(np.mean(knn_predicted == test.labels)),
        "most_frequent_class_share": float(np.bincount(test.labels).max() / len(test.labels)),
        "per_class_accuracy": metrics["per_class_accuracy"],
        "per_class_accuracy_interval": [
            evaluate.mean_estimate(predicted[rows] == label, identities[rows]).interval()
            for label, rows in enumerate(test.labels == np.arange(len(test.class_names))[:, None])
        ],
        "confusion": np.asarray(metrics["confusion"]).tolist(),
    }
    return _Classification(metrics, estimates, predicted, confidence)


def _retrieval(inputs: _Inputs) -> tuple[dict[str, Any], Estimates]:
    inputs.require_classes()
    metrics = evaluate.retrieval_metrics(inputs.encoded.embeddings, inputs.splits.test.labels, measure=inputs.measure)
    metrics.pop("per_class")
    if not metrics["queries"]:
        raise InputError("no two test images are of one class")
    estimates = evaluate.retrieval_estimates(
        inputs.encoded.embeddings, inputs.splits.test.labels, identities=inputs.identities(), measure=inputs.measure
    )
    recall = {f"recall_at_k.{k}": estimate for k, estimate in estimates.pop("recall_at_k").items()}
    return metrics, {f"retrieval.{name}": estimate for name, estimate in (estimates | recall).items()}


def _test_loss(inputs: _Inputs, objective: Objective) -> dict[str, Any]:
    """Compute the mean loss of batches of test images; None if training images do not have their classes.

    Its interval takes the batches, which share no image, as independent.
    """
    losses = batch_losses(inputs.encoded, objective, inputs.splits.test.labels) if inputs.splits.known_classes else []
    if not losses:
        return {"test_loss": None}
    loss, interval = float(np.mean(losses)), None
    if not math.isfinite(loss):
        raise InputError(f"the loss of the test images is {loss}")
    if len(losses) > 1:
        from scipy.stats import t

        margin = float(t.ppf(0.975, len(losses) - 1) * np.std(losses, ddof=1) / len(losses) ** 0.5)
        interval = (loss - margin, loss + margin)
    return {"test_loss": loss, "test_loss_interval": interval}


def _verification(inputs: _Inputs) -> _Verification:
    """Score pairs of test images, at the threshold that is chosen on other images."""
    splits, encoder, encoded, measure = inputs
    if not count_verification_pairs(splits.test.labels):
        raise InputError("no two test images are of one class, or all are of one class")
    source, sentence = threshold_source(splits)
    threshold = scale = None
    if source is not None:
        data = splits.validation if source == "validation" else splits.train
        rows = np.random.default_rng(0).permutation(len(data.labels))[:THRESHOLD_IMAGES]
        _, scores, same = _score_pairs(encoder.encode(data.images[rows]), data.labels[rows], measure)
        threshold = evaluate.best_threshold(scores, same, higher_is_closer=measure.higher_is_closer)
        scale = evaluate.fit_dissimilarity(scores, same)
    scored = _score_pairs(encoded.embeddings, splits.test.labels, measure)
    pairs, scores, same = scored
    metrics = evaluate.verification_metrics(
        scores, same, higher_is_closer=measure.higher_is_closer, threshold=threshold
    )
    roc, det = metrics.pop("roc"), metrics.pop("det")
    curves = {f"roc_{name}": np.asarray(roc[name]) for name in ("false_positive_rate", "true_positive_rate")}
    curves |= {f"det_{name}": np.asarray(det[name]) for name in ("fmr", "fnmr")}
    if threshold is None:  # the threshold of `metrics` is then chosen on the test pairs, so these values are biased
        metrics |= dict.fromkeys(("threshold", "accuracy", "balanced_accuracy", "fmr", "fnmr"))
    else:
        curves["roc_point"] = np.array([metrics["fmr"], 1 - metrics["fnmr"]])
    estimates = evaluate.verification_estimates(
        scores, same, inputs.identities()[pairs], higher_is_closer=measure.higher_is_closer, threshold=threshold
    )
    kinds = [name for name in ("average_precision", "best_f1", "balanced_accuracy") if metrics[name] is not None]

    def other_rates(mask: np.ndarray) -> dict[str, float | None]:
        found = evaluate.verification_metrics(
            scores[mask], same[mask], higher_is_closer=measure.higher_is_closer, threshold=threshold
        )
        at_fmr = {f"fnmr_at_fmr.{fmr}": rate for fmr, rate in found["fnmr_at_fmr"].items()}
        return {name: found[name] for name in kinds} | at_fmr

    groups = np.unique(inputs.identities(), return_inverse=True)[1]
    groups = evaluate.random_groups(int(groups.max()) + 1, GROUPS)[groups]
    estimates |= evaluate.estimates_of(other_rates, groups[pairs])
    metrics |= {"pairs": len(same), "threshold_from": source, "threshold_note": sentence}
    estimates = {f"verification.{name}": estimate for name, estimate in estimates.items()}
    return _Verification(metrics, estimates, curves, scored, scale)


def _calibration(inputs: _Inputs, verification: _Verification) -> dict[str, Any] | None:
    """Return the reliability of P(same) on test pairs, half of which are "same".

    The probabilities are fitted on pairs of other images, half of which are "same", too. None without a threshold.
    """
    if verification.scale is None:
        return None
    pairs, scores, same = verification.pairs
    identities = inputs.identities()[pairs]
    probabilities = 1 - np.asarray(evaluate.dissimilarity_probability(scores, *verification.scale), np.float64)
    found = evaluate.reliability(probabilities, same, identities=identities)
    return {name: value for name, value in found.items() if name not in ("identities", "leave_one_out")}


def _score_pairs(embeddings: np.ndarray, labels: np.ndarray, measure: Measure) -> ScoredPairs:
    i, j, same = evaluate.sample_pairs_for_verification(labels, VERIFICATION_PAIRS, 0)
    scores = np.asarray(measure(embeddings[i], embeddings[j]))
    return ScoredPairs(np.stack([i, j], axis=1), scores, np.asarray(same))


def _few_shot(inputs: _Inputs) -> dict[str, Any] | None:
    """Compute the accuracy of few-shot tasks, or None if training images have the classes of the test images."""
    if inputs.splits.known_classes:
        return None
    embeddings, labels = inputs.encoded.embeddings, inputs.splits.test.labels
    tasks: dict[str, Any] = {}
    for ways, shots in ((5, 1), (5, 5), (20, 1), (20, 5)):
        result = evaluate.few_shot_accuracy(embeddings, labels, ways=ways, shots=shots, measure=inputs.measure)
        ways = result["ways"]  # the number of classes, if that is smaller
        if result["mean"] is not None:
            accuracy = {"accuracy": result["mean"], "accuracy_interval": result["interval"]}
            tasks[f"{ways}-way {shots}-shot"] = accuracy | {"ways": ways, "shots": shots}
    if not tasks:
        raise InputError("fewer than two test classes have two images")
    return tasks
