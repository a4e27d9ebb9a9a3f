"""What came of a training: the numbers of report.json, the arrays of predictions.npz and samples.npz.

Nothing here is chosen by looking at test images: the checkpoint is the last one, and the threshold of verification
and the scale of predicted dissimilarity come from validation images (or training images where there are too few).
"""

from typing import Any

import numpy as np

from simjax import evaluate
from simjax.data import Dataset
from simjax.similarity import top_k
from simjax.train._encode import Encoded, Encoder, Together
from simjax.train._objective import Objective
from simjax.train._progress import say
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings
from simjax.train._sources import Sources

PAIRS = 20_000
QUERIES, NEIGHBOURS, SHOWN_PAIRS, ATTENDED = 10, 8, 16, 8
FEWEST_FOR_THRESHOLD = 50
DECIDED = ("threshold", "accuracy", "balanced_accuracy", "true_accept_rate", "false_accept_rate")


def evaluate_run(
    settings: Settings, folder: RunFolder, sources: Sources, encoder: Encoder | Together, objective: Objective
) -> dict[str, Any]:
    """Evaluate on the test images and save what a report draws.

    Returns:
        The part of the report that is about quality.
    """
    test, measure = sources.test, objective.measure
    encoded = encoder(test.images)
    if len(test.class_names) < 2:
        return _without_classes(settings, folder, encoder, encoded, test, measure)
    gallery = encoder(sources.train.images).embeddings if sources.known_classes else encoded.embeddings
    gallery_labels = sources.train.labels if sources.known_classes else test.labels
    # Classes never seen have no gallery but the test images themselves, each searched among the others.
    own = None if sources.known_classes else np.arange(len(test.labels))
    knn = evaluate.knn_predict(encoded.embeddings, gallery, gallery_labels, measure=measure, exclude=own)
    knn_accuracy = float(np.mean(knn == test.labels))
    classified = encoded.logits is not None and sources.known_classes
    predicted = encoded.logits.argmax(1) if classified and encoded.logits is not None else knn
    classification = evaluate.classification_metrics(test.labels, predicted, len(test.class_names))

    threshold, scale, source = _calibrate(encoder, sources, measure)
    verification, roc = _verify(encoded.embeddings, test.labels, measure, threshold)
    folder.write_arrays(
        "predictions.npz",
        {
            "index": np.arange(len(test.labels), dtype=np.int32),
            "label": test.labels,
            "predicted": np.asarray(predicted, np.int32),
            "embedding": encoded.embeddings,
        },
    )
    pairs = {} if source is None else _pairs(encoded, test, measure, scale)
    samples = _neighbours(encoded, test, measure) | pairs | roc
    samples["class_similarity"] = evaluate.class_similarity(encoded.embeddings, test.labels, len(test.class_names))
    folder.write_arrays("samples.npz", samples | _attention(settings, encoder, test))
    return _described(settings, measure) | {
        "accuracy": classification["accuracy"],
        "accuracy_of": "classifier" if classified else "knn",
        "knn_accuracy": knn_accuracy,
        "test_loss": encoded.loss(objective, test.labels) if sources.known_classes else None,
        "retrieval": evaluate.retrieval_metrics(encoded.embeddings, test.labels, measure=measure),
        "verification": verification | {"threshold_from": source},
        "few_shot": None if sources.known_classes else _few_shot(encoded.embeddings, test.labels, measure),
        "per_class_accuracy": classification["per_class_accuracy"],
        "confusion": np.asarray(classification["confusion"]).tolist(),
    }


def _without_classes(
    settings: Settings, folder: RunFolder, encoder: Encoder | Together, encoded: Encoded, test: Dataset, measure: Any
) -> dict[str, Any]:
    """Save embeddings and neighbours of test images without classes; everything else is reported as missing."""
    say("the test images have no classes: accuracy, retrieval and verification are not evaluated (see --test-dataset)")
    index = np.arange(len(test.labels), dtype=np.int32)
    folder.write_arrays("predictions.npz", {"index": index, "embedding": encoded.embeddings})
    samples = _neighbours(encoded, test, measure)
    folder.write_arrays("samples.npz", samples | _attention(settings, encoder, test))
    missing = ("accuracy", "accuracy_of", "knn_accuracy", "test_loss", "retrieval", "verification", "few_shot")
    return _described(settings, measure) | dict.fromkeys((*missing, "per_class_accuracy", "confusion"))


def _described(settings: Settings, measure: Any) -> dict[str, Any]:
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "test_dataset": settings.test_dataset,
        "objective": settings.objective,
        "seed": settings.seed,
        "measure": measure.name,
    }


def _attention(settings: Settings, encoder: Encoder | Together, test: Dataset) -> dict[str, np.ndarray]:
    """Some test images and the attention of a vision transformer; nothing for other models."""
    if settings.model != "vit":
        return {}
    rows = _spread(test.labels, ATTENDED)
    images = test.images[rows]
    return {"attention_images": images, "attention_labels": test.labels[rows], "attention": encoder.attention(images)}


def _pair_scores(embeddings: np.ndarray, labels: np.ndarray, measure: Any) -> tuple[np.ndarray, np.ndarray]:
    i, j, same = evaluate.sample_pairs_for_verification(labels, PAIRS, 0)
    return np.asarray(measure(embeddings[i], embeddings[j])), np.asarray(same)


def _calibrate(
    encoder: Encoder | Together, sources: Sources, measure: Any
) -> tuple[float | None, tuple[float, float], str | None]:
    """Threshold and scale of dissimilarity from images that are not test images, and from which.

    Images without classes give no threshold, and one half as the dissimilarity of every pair.
    """
    name, data = "validation", sources.validation
    if len(data.labels) < FEWEST_FOR_THRESHOLD or len(np.unique(data.labels)) < 2:
        name, data = "train", sources.train
    if len(data.class_names) < 2:
        return None, (0.0, 0.0), None
    rows = np.random.default_rng(0).permutation(len(data.labels))[:5_000]
    scores, same = _pair_scores(encoder(data.images[rows]).embeddings, data.labels[rows], measure)
    threshold = evaluate.best_threshold(scores, same, higher_is_closer=measure.higher_is_closer)
    return threshold, evaluate.fit_dissimilarity(scores, same), name


def _verify(embeddings: np.ndarray, labels: np.ndarray, measure: Any, threshold: float | None) -> tuple[dict, dict]:
    """Verification of test pairs with a given threshold: numbers, and the ROC curve to draw.

    Without a threshold what is decided by one is None: one that is chosen on test pairs would flatter them.
    """
    scores, same = _pair_scores(embeddings, labels, measure)
    found = evaluate.verification_metrics(scores, same, higher_is_closer=measure.higher_is_closer, threshold=threshold)
    curve = found.pop("roc")
    roc = {
        "roc_false_positive_rate": np.asarray(curve["false_positive_rate"]),
        "roc_true_positive_rate": np.asarray(curve["true_positive_rate"]),
    }
    if threshold is None:
        found |= dict.fromkeys(DECIDED)
    elif found["roc_auc"] is not None:  # pairs of both kinds: there is a curve, and a point on it
        roc["roc_point"] = np.array([found["false_accept_rate"], found["true_accept_rate"]])
    return found | {"pairs": len(same)}, roc


def _few_shot(embeddings: np.ndarray, labels: np.ndarray, measure: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ways in (5, 20):
        for shots in (1, 5):
            result = evaluate.few_shot_accuracy(embeddings, labels, ways=ways, shots=shots, measure=measure)
            # With fewer classes than asked for, the name says how many there were.
            found[f"{result['ways']}-way {shots}-shot"] = {
                "accuracy": result["mean"],
                "interval": result["confidence_95"],
                "ways": result["ways"],
                "shots": shots,
            }
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
    scores, found = top_k(encoded.embeddings[rows], encoded.embeddings, k, measure, exclude=rows)
    found = np.asarray(found)
    return {
        "query_images": test.images[rows],
        "query_labels": test.labels[rows],
        "neighbour_images": test.images[found],
        "neighbour_labels": test.labels[found],
        "neighbour_scores": np.asarray(scores),
    }


def _pairs(encoded: Encoded, test: Dataset, measure: Any, scale: tuple[float, float]) -> dict[str, np.ndarray]:
    """Pairs of test images, alike and different in turn, with their predicted dissimilarity."""
    i, j, _ = evaluate.sample_pairs_for_verification(test.labels, SHOWN_PAIRS, 1)
    scores = np.asarray(measure(encoded.embeddings[i], encoded.embeddings[j]))
    return {
        "pair_images": np.stack([test.images[i], test.images[j]], axis=1),
        "pair_labels": np.stack([test.labels[i], test.labels[j]], axis=1),
        "pair_dissimilarity": np.asarray(evaluate.dissimilarity_probability(scores, *scale)),
    }
