"""Evaluation of a trained encoder: the metrics of report.json, and the arrays of predictions.npz and samples.npz.

Test images are not used for any choice: the last checkpoint is evaluated, and the verification threshold and the scale
of the predicted dissimilarity are fitted on validation images, or on training images if there are too few of them.

A metric that cannot be computed, such as verification without two test images of one class, is None. Its name and the
reason are in `not_evaluated` of the report.

Metrics have 95% intervals, `<name>_interval`. Many new classes are a sample of identities, and the intervals are about
other classes. Otherwise the classes are fixed, and the intervals are about other images of them. leave_one_out.npz has
each metric without each class or image, from which comparisons of runs are computed.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from simjax import evaluate
from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.evaluate import Estimate
from simjax.similarity import Measure, top_k
from simjax.train._batch_losses import batch_losses
from simjax.train._collapse import collapse_statistics, describe_collapse
from simjax.train._data import DataSplits, count_verification_pairs, threshold_source
from simjax.train._learner import Encoded, Learner, encode
from simjax.train._objective import Objective
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings

VERIFICATION_PAIRS = 20_000  # largest number of pairs
THRESHOLD_IMAGES = 5_000  # largest number of images on which the threshold is chosen
QUERIES, NEIGHBOURS, SHOWN_PAIRS, ATTENTION_IMAGES = 10, 8, 16, 8  # in samples.npz
GROUPS = 50  # of identities or images that are left out at a time for rates without a fast formula
MIN_SAMPLED_CLASSES = 20  # fewer new classes are not a sample from which other classes can be judged
PARTS = 9  # parts of an evaluation that `evaluate_run` announces

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

    names = ("accuracy", "accuracy_of", "knn_accuracy", "per_class_accuracy", "confusion")
    no_classification: tuple[dict[str, Any], np.ndarray | None, Estimates] = dict.fromkeys(names), None, {}
    classification, predicted, estimates = attempt("accuracy", lambda: _classification(inputs), no_classification)
    verification, curves, scale, found = attempt("verification", lambda: _verification(inputs), (None, {}, None, {}))
    estimates |= found
    calibration = None
    if scale is not None:
        calibration, found = attempt("calibration", lambda: _calibration(inputs, scale), (None, {}))
        estimates |= found
    retrieval, found = attempt("retrieval", lambda: _retrieval(inputs), (None, {}))
    estimates |= found
    test_loss = attempt("test_loss", lambda: _test_loss(inputs, objective), {"test_loss": None})
    few_shot = attempt("few_shot", lambda: _few_shot(inputs), None)

    diagnostics, classes = collapse_statistics(encoded.embeddings), len(np.unique(test.labels))

    index = np.arange(len(test.labels), dtype=np.int32)
    predictions = {"index": index, "label": test.labels, "embedding": encoded.embeddings}
    if predicted is not None:
        predictions["predicted"] = np.asarray(predicted, np.int32)
    if test.paths is not None:
        predictions["path"] = test.paths
    folder.write_arrays("predictions.npz", predictions)

    samples = curves | attempt("neighbours", lambda: _neighbours(inputs), {})
    if scale is not None:
        samples |= attempt("pairs", lambda: _pairs(inputs, scale), {})
    samples |= attempt("class_similarity", lambda: _class_similarity(inputs), {})
    if settings.model == "vit":
        rows = _diverse_rows(test.labels, ATTENTION_IMAGES)
        samples["attention_images"], samples["attention_labels"] = test.images[rows], test.labels[rows]
        samples["attention"] = encoder.attention(test.images[rows])
    folder.write_arrays("samples.npz", samples)
    folder.write_arrays("leave_one_out.npz", _leave_one_out(estimates))
    report: dict[str, Any] = {
        **{name: getattr(settings, name) for name in ("model", "dataset", "test_dataset", "objective", "seed")},
        **classification,
        **test_loss,
        "retrieval": retrieval,
        "verification": verification,
        "calibration": calibration,
        "few_shot": few_shot,
        "diagnostics": diagnostics | {"collapse": describe_collapse(diagnostics, encoded.embeddings, classes)},
        "measure": measure.name,
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
            raise InputError("the test images have no classes; test_dataset names images with classes")

    def has_sampled_classes(self) -> bool:
        return not self.splits.known_classes and len(self.splits.test.class_names) >= MIN_SAMPLED_CLASSES

    def identities(self) -> np.ndarray:
        """Return what intervals leave out one at a time: the class of each test image, or its number."""
        labels = self.splits.test.labels
        return labels if self.has_sampled_classes() else np.arange(len(labels))


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
    return {name: np.asarray(found.leave_one_out) for name, found in known.items()} | {
        f"{name}.identities": of_name for name, of_name in identities.items()
    }


def _classification(inputs: _Inputs) -> tuple[dict[str, Any], np.ndarray, Estimates]:
    """Classify the test images with nearest neighbours and, if it knows their classes, with the trained classifier.

    Returns:
        The metrics, the predicted classes, and the estimates of the accuracies.
    """
    (splits, encoder, encoded, measure), test = inputs, inputs.splits.test
    inputs.require_classes()
    if splits.known_classes:
        gallery, gallery_labels, exclude = encoder.encode(splits.train.images), splits.train.labels, None
    elif len(test.labels) < 2:
        raise InputError("there is one test image, which has no neighbours")
    else:  # the neighbours of a test image are other test images
        gallery, gallery_labels, exclude = encoded.embeddings, test.labels, np.arange(len(test.labels))
    predicted = knn_predicted = evaluate.knn_predict(
        encoded.embeddings, gallery, gallery_labels, measure=measure, exclude=exclude
    )
    accuracy_of = "knn"
    if encoded.logits is not None and splits.known_classes:
        predicted, accuracy_of = encoded.logits.argmax(1), "classifier"
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
        "per_class_accuracy": metrics["per_class_accuracy"],
        "per_class_accuracy_interval": [
            evaluate.mean_estimate(predicted[rows] == label, identities[rows]).interval()
            for label, rows in enumerate(test.labels == np.arange(len(test.class_names))[:, None])
        ],
        "confusion": np.asarray(metrics["confusion"]).tolist(),
    }
    return metrics, predicted, estimates


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


def _verification(
    inputs: _Inputs,
) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[float, float] | None, Estimates]:
    """Return metrics of test pairs, their ROC and DET, the scale of the dissimilarity, and estimates of the metrics."""
    splits, encoder, encoded, measure = inputs
    if not count_verification_pairs(splits.test.labels):
        raise InputError("the test images have no pairs of one class, or none of two classes")
    source, sentence = threshold_source(splits)
    threshold = scale = None
    if source is not None:
        data = splits.validation if source == "validation" else splits.train
        rows = np.random.default_rng(0).permutation(len(data.labels))[:THRESHOLD_IMAGES]
        _, scores, same = _pair_scores(encoder.encode(data.images[rows]), data.labels[rows], measure)
        threshold = evaluate.best_threshold(scores, same, higher_is_closer=measure.higher_is_closer)
        scale = evaluate.fit_dissimilarity(scores, same)
    pairs, scores, same = _pair_scores(encoded.embeddings, splits.test.labels, measure)
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
    return metrics, curves, scale, {f"verification.{name}": estimate for name, estimate in estimates.items()}


def _calibration(inputs: _Inputs, scale: tuple[float, float]) -> tuple[dict[str, Any], Estimates]:
    """Return the reliability of P(same) on test pairs, half of which are "same", and the estimate of its error.

    `scale` gives the probabilities of pairs of the same prior, fitted on other images.
    """
    pairs, scores, same = _pair_scores(inputs.encoded.embeddings, inputs.splits.test.labels, inputs.measure)
    identities = inputs.identities()[pairs]
    probabilities = 1 - np.asarray(evaluate.dissimilarity_probability(scores, *scale), np.float64)
    found = evaluate.reliability(probabilities, same, identities=identities)
    bin_of = found.pop("bin_of")
    for number, part in enumerate(found["bins"]):
        estimate = evaluate.mean_estimate(same[bin_of == number], identities[bin_of == number])
        part["fraction_same_interval"] = estimate.interval()
    names, left_out = tuple(found.pop("identities")), np.array(found.pop("leave_one_out"), np.float64)
    error = Estimate(found["expected_calibration_error"], left_out, names, len(names))
    return found, {"calibration.expected_calibration_error": error}


def _pair_scores(
    embeddings: np.ndarray, labels: np.ndarray, measure: Measure
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of both images of pairs [n, 2], their scores [n], and whether they are of one class [n]."""
    i, j, same = evaluate.sample_pairs_for_verification(labels, VERIFICATION_PAIRS, 0)
    return np.stack([i, j], axis=1), np.asarray(measure(embeddings[i], embeddings[j])), np.asarray(same)


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
            margin = result["confidence_95"]
            interval = [max(result["mean"] - margin, 0.0), min(result["mean"] + margin, 1.0)]
            accuracy = {"accuracy": result["mean"], "accuracy_interval": interval}
            tasks[f"{ways}-way {shots}-shot"] = accuracy | {"ways": ways, "shots": shots}
    if not tasks:
        raise InputError("fewer than two test classes have two images")
    return tasks


def _diverse_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of `count` images of as many classes as possible; the choice does not depend on the seed."""
    order = np.random.default_rng(0).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    first = np.searchsorted(labels[by_class], labels[by_class])
    rank = np.arange(len(labels)) - first  # number of earlier images of the same class
    return by_class[np.argsort(rank, kind="stable")][:count]


def _neighbours(inputs: _Inputs) -> dict[str, np.ndarray]:
    test, embeddings = inputs.splits.test, inputs.encoded.embeddings
    rows = _diverse_rows(test.labels, QUERIES)
    k = min(NEIGHBOURS, len(test.labels) - 1)
    if k < 1:
        raise InputError("there is one test image, which has no neighbours")
    scores, indices = (np.asarray(a) for a in top_k(embeddings[rows], embeddings, k, inputs.measure, exclude=rows))
    return {
        "query_images": test.images[rows],
        "query_labels": test.labels[rows],
        "neighbour_images": test.images[indices],
        "neighbour_labels": test.labels[indices],
        "neighbour_scores": scores,
    }


def _class_similarity(inputs: _Inputs) -> dict[str, np.ndarray]:
    inputs.require_classes()
    test = inputs.splits.test
    similarity = evaluate.class_similarity(inputs.encoded.embeddings, test.labels, len(test.class_names))
    return {"class_similarity": similarity}


def _pairs(inputs: _Inputs, scale: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return positive and negative pairs of test images with their predicted dissimilarity."""
    test, embeddings = inputs.splits.test, inputs.encoded.embeddings
    i, j, _ = evaluate.sample_pairs_for_verification(test.labels, SHOWN_PAIRS, 1)
    scores = inputs.measure(embeddings[i], embeddings[j])
    return {
        "pair_images": np.stack([test.images[i], test.images[j]], axis=1),
        "pair_labels": np.stack([test.labels[i], test.labels[j]], axis=1),
        "pair_dissimilarity": np.asarray(evaluate.dissimilarity_probability(np.asarray(scores), *scale)),
    }
