"""What came of a training: the numbers of report.json, the arrays of predictions.npz and samples.npz.

Nothing here is chosen by looking at test images: the checkpoint is the last one, and the threshold of verification
and the scale of predicted dissimilarity come from validation images (or training images where there are too few).

A number that cannot be computed, such as verification without two test images of one class, is None; its name and the
reason are in the report's `not_evaluated`, and all others are written.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from simjax import evaluate
from simjax.core import InputError
from simjax.data import Dataset
from simjax.similarity import top_k
from simjax.train._encode import Encoded, Encoder, Together
from simjax.train._objective import Objective
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings
from simjax.train._sources import Sources, threshold_source, verification_pairs

PARTS = 8
"""Parts of an evaluation, each of which `evaluate_run` announces."""
PAIRS = 20_000
QUERIES, NEIGHBOURS, SHOWN_PAIRS, ATTENDED = 10, 8, 16, 8

T = TypeVar("T")


class _Evaluation:
    """Computes parts of a report, and keeps the reasons of those that cannot be computed."""

    def __init__(self, begin: Callable[[str], None]) -> None:
        self.begin = begin
        self.not_evaluated: dict[str, str] = {}

    def __call__(self, name: str, part: Callable[[], T], missing: T) -> T:
        """Return the part, or `missing` if it raises an InputError."""
        self.begin(name.replace("_", " "))
        try:
            return part()
        except InputError as error:
            self.not_evaluated[name] = str(error)
            return missing


def evaluate_run(
    settings: Settings,
    folder: RunFolder,
    sources: Sources,
    encoder: Encoder | Together,
    objective: Objective,
    begin: Callable[[str], None] = lambda part: None,
) -> dict[str, Any]:
    """Evaluate on the test images and save what a report draws.

    Returns:
        The part of the report that is about quality.
    """
    test, measure, attempt = sources.test, objective.measure, _Evaluation(begin)
    encoded = encoder(test.images)
    classification = attempt("accuracy", lambda: _classify(encoder, encoded, sources, measure), _NO_CLASSES)
    verification, roc, scale = attempt(
        "verification", lambda: _verify(encoder, encoded, sources, measure), (None, {}, None)
    )
    retrieval = attempt("retrieval", lambda: _retrieve(encoded, test, measure), None)
    test_loss = attempt("test_loss", lambda: _test_loss(encoded, objective, sources), None)
    few_shot = attempt("few_shot", lambda: _few_shot(encoded, sources, measure), None)
    predicted = classification.pop("predicted")
    folder.write_arrays(
        "predictions.npz",
        {
            "index": np.arange(len(test.labels), dtype=np.int32),
            "label": test.labels,
            "embedding": encoded.embeddings,
            **({} if predicted is None else {"predicted": np.asarray(predicted, np.int32)}),
        },
    )
    samples = roc | attempt("neighbours", lambda: _neighbours(encoded, test, measure), {})
    if scale is not None:
        samples |= attempt("pairs", lambda: _pairs(encoded, test, measure, scale), {})
    samples |= attempt("class_similarity", lambda: _class_similarity(encoded, test), {})
    if settings.model == "vit":
        rows = _spread(test.labels, ATTENDED)
        samples["attention_images"], samples["attention_labels"] = test.images[rows], test.labels[rows]
        samples["attention"] = encoder.attention(test.images[rows])
    folder.write_arrays("samples.npz", samples)
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "test_dataset": settings.test_dataset,
        "objective": settings.objective,
        "seed": settings.seed,
        **classification,
        "test_loss": test_loss,
        "retrieval": retrieval,
        "verification": verification,
        "few_shot": few_shot,
        "measure": measure.name,
        "not_evaluated": attempt.not_evaluated,
    }


_NO_CLASSES: dict[str, Any] = dict.fromkeys(
    ("accuracy", "accuracy_of", "knn_accuracy", "per_class_accuracy", "confusion", "predicted")
)


def _classify(encoder: Encoder | Together, encoded: Encoded, sources: Sources, measure: Any) -> dict[str, Any]:
    """Classes of the test images by the classifier, if it knows them, and by the nearest neighbours."""
    test, known = sources.test, sources.known_classes
    _check_classes(test)
    if not known and len(test.labels) < 2:
        raise InputError("there is one test image, which has no neighbours")
    gallery = encoder(sources.train.images).embeddings if known else encoded.embeddings
    gallery_labels = sources.train.labels if known else test.labels
    # Classes never seen have no gallery but the test images themselves, each searched among the others.
    own = None if known else np.arange(len(test.labels))
    knn = evaluate.knn_predict(encoded.embeddings, gallery, gallery_labels, measure=measure, exclude=own)
    classified = encoded.logits is not None and known
    predicted = encoded.logits.argmax(1) if classified and encoded.logits is not None else knn
    found = evaluate.classification_metrics(test.labels, predicted, len(test.class_names))
    return {
        "accuracy": found["accuracy"],
        "accuracy_of": "classifier" if classified else "knn",
        "knn_accuracy": float(np.mean(knn == test.labels)),
        "per_class_accuracy": found["per_class_accuracy"],
        "confusion": np.asarray(found["confusion"]).tolist(),
        "predicted": predicted,
    }


def _check_classes(test: Dataset) -> None:
    if len(test.class_names) < 2:
        raise InputError("the test images have no classes; test_dataset names images with classes")


def _retrieve(encoded: Encoded, test: Dataset, measure: Any) -> dict[str, Any]:
    _check_classes(test)
    found = evaluate.retrieval_metrics(encoded.embeddings, test.labels, measure=measure)
    if not found["queries"]:
        raise InputError("no two test images are of one class")
    return found


def _test_loss(encoded: Encoded, objective: Objective, sources: Sources) -> float | None:
    """The loss of the test images, where their classes were learned and the loss has a value without views."""
    loss = encoded.loss(objective, sources.test.labels) if sources.known_classes else None
    if loss is not None and not math.isfinite(loss):
        raise InputError(f"the loss of the test images is {loss}")
    return loss


def _pair_scores(embeddings: np.ndarray, labels: np.ndarray, measure: Any) -> tuple[np.ndarray, np.ndarray]:
    i, j, same = evaluate.sample_pairs_for_verification(labels, PAIRS, 0)
    return np.asarray(measure(embeddings[i], embeddings[j])), np.asarray(same)


def _calibrate(
    encoder: Encoder | Together, sources: Sources, measure: Any
) -> tuple[float | None, tuple[float, float] | None]:
    """Threshold and scale of dissimilarity from images that are not test images; None where those give no pairs."""
    source, _ = threshold_source(sources)
    if source is None:
        return None, None
    data = sources.validation if source == "validation" else sources.train
    rows = np.random.default_rng(0).permutation(len(data.labels))[:5_000]
    scores, same = _pair_scores(encoder(data.images[rows]).embeddings, data.labels[rows], measure)
    threshold = evaluate.best_threshold(scores, same, higher_is_closer=measure.higher_is_closer)
    return threshold, evaluate.fit_dissimilarity(scores, same)


def _verify(
    encoder: Encoder | Together, encoded: Encoded, sources: Sources, measure: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[float, float] | None]:
    """Verification of test pairs with a threshold of other images: numbers, the ROC curve, the scale."""
    if not verification_pairs(sources.test.labels):
        raise InputError("the test images have no pairs of one class, or none of two classes")
    source, sentence = threshold_source(sources)
    threshold, scale = _calibrate(encoder, sources, measure)
    scores, same = _pair_scores(encoded.embeddings, sources.test.labels, measure)
    found = evaluate.verification_metrics(scores, same, higher_is_closer=measure.higher_is_closer, threshold=threshold)
    curve = found.pop("roc")
    roc = {
        "roc_false_positive_rate": np.asarray(curve["false_positive_rate"]),
        "roc_true_positive_rate": np.asarray(curve["true_positive_rate"]),
    }
    if threshold is None:  # the metrics then choose one on the test pairs, which would flatter
        found |= dict.fromkeys(("threshold", "accuracy", "balanced_accuracy", "true_accept_rate", "false_accept_rate"))
    else:
        roc["roc_point"] = np.array([found["false_accept_rate"], found["true_accept_rate"]])
    return found | {"pairs": len(same), "threshold_from": source, "threshold_note": sentence}, roc, scale


def _few_shot(encoded: Encoded, sources: Sources, measure: Any) -> dict[str, Any] | None:
    """Accuracy of tasks with classes never seen; None for classes that were learned."""
    if sources.known_classes:
        return None
    found: dict[str, Any] = {}
    for ways in (5, 20):
        for shots in (1, 5):
            result = evaluate.few_shot_accuracy(
                encoded.embeddings, sources.test.labels, ways=ways, shots=shots, measure=measure
            )
            if result["mean"] is None:
                continue
            # With fewer classes than asked for, the name says how many there were.
            found[f"{result['ways']}-way {shots}-shot"] = {
                "accuracy": result["mean"],
                "interval": result["confidence_95"],
                "ways": result["ways"],
                "shots": shots,
            }
    if not found:
        raise InputError("fewer than two test classes have two images")
    return found


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Rows of `count` images, as many classes as possible, always the same."""
    order = np.random.default_rng(0).permutation(len(labels))
    seen: dict[int, int] = {}
    turn = np.empty(len(labels), int)  # how many of its class come before a row
    for row in order:
        label = int(labels[row])
        turn[row] = seen[label] = seen.get(label, -1) + 1
    return order[np.lexsort((labels[order], turn[order]))][:count]


def _neighbours(encoded: Encoded, test: Dataset, measure: Any) -> dict[str, np.ndarray]:
    rows = _spread(test.labels, QUERIES)
    k = min(NEIGHBOURS, len(test.labels) - 1)
    if k < 1:
        raise InputError("there is one test image, which has no neighbours")
    scores, found = top_k(encoded.embeddings[rows], encoded.embeddings, k, measure, exclude=rows)
    found = np.asarray(found)
    return {
        "query_images": test.images[rows],
        "query_labels": test.labels[rows],
        "neighbour_images": test.images[found],
        "neighbour_labels": test.labels[found],
        "neighbour_scores": np.asarray(scores),
    }


def _class_similarity(encoded: Encoded, test: Dataset) -> dict[str, np.ndarray]:
    _check_classes(test)
    return {"class_similarity": evaluate.class_similarity(encoded.embeddings, test.labels, len(test.class_names))}


def _pairs(encoded: Encoded, test: Dataset, measure: Any, scale: tuple[float, float]) -> dict[str, np.ndarray]:
    """Pairs of test images, alike and different in turn, with their predicted dissimilarity."""
    i, j, _ = evaluate.sample_pairs_for_verification(test.labels, SHOWN_PAIRS, 1)
    scores = np.asarray(measure(encoded.embeddings[i], encoded.embeddings[j]))
    return {
        "pair_images": np.stack([test.images[i], test.images[j]], axis=1),
        "pair_labels": np.stack([test.labels[i], test.labels[j]], axis=1),
        "pair_dissimilarity": np.asarray(evaluate.dissimilarity_probability(scores, *scale)),
    }
