"""The arrays of samples.npz: test images for the report of a run, and what the encoder makes of them.

All indices are numbers of test images, int32. Images are uint8 [h, w, c]. An array without content is left out.

    query_index [q], query_images, query_labels
        test images of as many classes as possible
    neighbour_index [q, k], neighbour_images, neighbour_labels, neighbour_scores
        their nearest neighbours, nearest first
    pair_index [p, 2], pair_images, pair_labels, pair_scores [p], pair_probability [p]
        the worst mistakes of verification, then random pairs; the probability of one class exists with a threshold
    score_edges [b + 1], score_same [b], score_different [b]
        histogram of the scores of test pairs
    mistake_index [m], mistake_images, mistake_labels, mistake_predicted, mistake_confidence
        wrongly classified images; the confidence is the probability of the predicted class, NaN for nearest neighbours
    confusion_true [f], confusion_predicted, confusion_count, confusion_index [f, 2], confusion_images [f, 2, h, w, c]
        the most frequent confusions, each with an image that is confused and an image of the predicted class
    class_similarity [c, c]
        mean of the measure over the pairs of images of two classes, NaN without pairs
    map_index [m], map_images [m, h', w', c]
        small copies of random images
    attention_images [a, h, w, c], attention_labels, attention [a, heads, rows, columns]
        attention of a vision transformer to the patches of images
"""

from typing import NamedTuple

import numpy as np

from simjax import evaluate
from simjax.core import InputError
from simjax.data import Dataset
from simjax.encoder import Encoder
from simjax.similarity import Measure, top_k

QUERIES, NEIGHBOURS, ATTENTION_IMAGES, MISTAKES, CONFUSIONS, MAP_IMAGES = 10, 8, 8, 24, 12, 1_000
FALSE_MATCHES, FALSE_NON_MATCHES, RANDOM_PAIRS = 6, 6, 12
CANDIDATES = 2_000  # test images among which some with a wrong nearest neighbour are looked for
SCORE_BINS = 60
MAP_SIDE = 32  # longer side of the images of the map in pixels
MAX_CLASSES = 40  # of class_similarity

Arrays = dict[str, np.ndarray]


class ScoredPairs(NamedTuple):
    """Pairs of images."""

    images: np.ndarray  # int32 [n, 2], the numbers of both images
    scores: np.ndarray  # [n], values of the measure
    same: np.ndarray  # booleans [n], whether both images are of one class


def neighbours(test: Dataset, embeddings: np.ndarray, measure: Measure) -> Arrays:
    """Return test images with their nearest neighbours among the other test images.

    Some whose nearest neighbour is of another class come first, then images of as many classes as possible.
    """
    candidates = _diverse_rows(test.labels, CANDIDATES)
    k = min(NEIGHBOURS, len(test.labels) - 1)
    if k < 1:
        raise InputError("there is only one test image, which has no neighbours")
    scores, indices = (np.asarray(a) for a in top_k(embeddings[candidates], embeddings, k, measure, exclude=candidates))
    wrong = np.flatnonzero(test.labels[indices[:, 0]] != test.labels[candidates])[: QUERIES // 2]
    others = np.setdiff1d(np.arange(len(candidates)), wrong)[: QUERIES - len(wrong)]
    shown = np.concatenate([wrong, others])
    rows, scores, indices = candidates[shown], scores[shown], indices[shown]
    return {
        "query_index": rows.astype(np.int32),
        "query_images": test.images[rows],
        "query_labels": test.labels[rows],
        "neighbour_index": indices.astype(np.int32),
        "neighbour_images": test.images[indices],
        "neighbour_labels": test.labels[indices],
        "neighbour_scores": scores,
    }


def pairs(
    test: Dataset,
    scored: ScoredPairs,
    threshold: float | None,
    scale: tuple[float, float] | None,
    *,
    higher_is_closer: bool,
) -> Arrays:
    """Return the pairs of `select_pairs`, with the probability of one class if its `scale` is known."""
    rows = np.concatenate([*select_pairs(scored, threshold, higher_is_closer=higher_is_closer).values()])
    index, scores = scored.images[rows], scored.scores[rows]
    arrays = {
        "pair_index": index,
        "pair_images": test.images[index],
        "pair_labels": test.labels[index],
        "pair_scores": scores,
    }
    if scale is not None:
        arrays["pair_probability"] = 1 - np.asarray(evaluate.dissimilarity_probability(scores, *scale))
    return arrays


def select_pairs(scored: ScoredPairs, threshold: float | None, *, higher_is_closer: bool) -> dict[str, np.ndarray]:
    """Return the numbers of the pairs to show, each pair once, by kind.

    The worst "false match" is the closest accepted pair of two classes, the worst "false non-match" the farthest
    rejected pair of one class. An image is in one pair of each kind at most, as one odd image is in many wrong pairs. A
    "random" pair is one of the others, half of one class if there are enough.
    """
    sign = 1.0 if higher_is_closer else -1.0
    signed_scores = sign * scored.scores.astype(np.float64)  # float32 would round the threshold
    false_matches = false_non_matches = np.zeros(0, int)
    if threshold is not None:
        is_accepted = signed_scores >= sign * threshold
        order = np.argsort(signed_scores, kind="stable")
        false_non_matches = _of_different_images(scored.images, order[(scored.same & ~is_accepted)[order]])
        false_non_matches = false_non_matches[:FALSE_NON_MATCHES]
        order = np.argsort(-signed_scores, kind="stable")
        false_matches = _of_different_images(scored.images, order[(~scored.same & is_accepted)[order]])
        false_matches = false_matches[:FALSE_MATCHES]
    order = np.random.default_rng(0).permutation(len(signed_scores))
    order = order[~np.isin(order, np.concatenate([false_matches, false_non_matches]))]
    kinds, half = [order[scored.same[order]], order[~scored.same[order]]], RANDOM_PAIRS // 2
    random = np.concatenate([kind[:half] for kind in kinds] + [kind[half:] for kind in kinds])[:RANDOM_PAIRS]
    return {"false match": false_matches, "false non-match": false_non_matches, "random": random}


def _of_different_images(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows of pairs of images [n, 2] in their order, without those with an image of an earlier one."""
    used: set[int] = set()
    selected = []
    for row in rows.tolist():
        pair = set(images[row].tolist())
        if not pair & used:
            used |= pair
            selected.append(row)
    return np.array(selected, int)


def score_histogram(scored: ScoredPairs) -> Arrays:
    """Return the numbers of pairs of one class and of two classes in bins from the smallest to the largest score."""
    is_finite = np.isfinite(scored.scores)
    scores, same = scored.scores[is_finite].astype(np.float64), scored.same[is_finite]
    if not scores.size:
        return {}
    edges = np.histogram_bin_edges(scores, SCORE_BINS)
    return {
        "score_edges": edges,
        "score_same": np.histogram(scores[same], edges)[0],
        "score_different": np.histogram(scores[~same], edges)[0],
    }


def mistakes(test: Dataset, predicted: np.ndarray, confidence: np.ndarray | None) -> Arrays:
    """Return the wrongly classified images of highest confidence, or the first ones without confidences [n]."""
    if confidence is None:
        confidence = np.full(len(predicted), np.nan)
    wrong = np.flatnonzero(predicted != test.labels)
    rows = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not rows.size:
        return {}
    return {
        "mistake_index": rows.astype(np.int32),
        "mistake_images": test.images[rows],
        "mistake_labels": test.labels[rows],
        "mistake_predicted": predicted[rows].astype(np.int32),
        "mistake_confidence": confidence[rows].astype(np.float32),
    }


def confusions(test: Dataset, predicted: np.ndarray) -> Arrays:
    """Return the most frequent confusions, of which images of the true and of the predicted class exist."""
    labels = test.labels
    # A classifier may predict a class of the training images that has no test image.
    wrong = np.flatnonzero((predicted != labels) & np.isin(predicted, labels))
    if not wrong.size:
        return {}
    kinds = np.stack([labels[wrong], predicted[wrong]], axis=1)
    kinds, first, counts = np.unique(kinds, axis=0, return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSIONS]
    of_predicted = [np.flatnonzero(labels == label) for label in kinds[order, 1]]
    # The first one that is classified correctly, or else the first one.
    examples = [rows[np.argmax(predicted[rows] == labels[rows])] for rows in of_predicted]
    index = np.stack([wrong[first[order]], examples], axis=1)
    return {
        "confusion_true": kinds[order, 0].astype(np.int32),
        "confusion_predicted": kinds[order, 1].astype(np.int32),
        "confusion_count": counts[order].astype(np.int32),
        "confusion_index": index.astype(np.int32),
        "confusion_images": test.images[index],
    }


def class_similarity(test: Dataset, embeddings: np.ndarray, measure: Measure) -> Arrays:
    """Return the mean of the measure over the pairs of images of each two classes, if there are not too many."""
    classes = len(test.class_names)
    if classes > MAX_CLASSES:
        return {}
    counts = np.bincount(test.labels, minlength=classes)
    has_pairs = np.outer(counts, counts) > np.diag(counts)  # an image is not paired with itself
    means = evaluate.class_similarity(embeddings, test.labels, classes, measure)
    return {"class_similarity": np.where(has_pairs, means, np.nan)}


def image_map(images: np.ndarray) -> Arrays:
    """Return random images, shrunk until no side is longer than `MAP_SIDE`."""
    from PIL import Image

    rows = np.sort(np.random.default_rng(0).permutation(len(images))[:MAP_IMAGES])
    small = []
    for pixels in images[rows]:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.thumbnail((MAP_SIDE, MAP_SIDE), Image.Resampling.BOX)
        small.append(np.asarray(image).reshape(image.height, image.width, pixels.shape[-1]))
    return {"map_index": rows.astype(np.int32), "map_images": np.stack(small)}


def attention(encoder: Encoder, test: Dataset) -> Arrays:
    """Return test images with the attention of a vision transformer to their patches."""
    rows = _diverse_rows(test.labels, ATTENTION_IMAGES)
    images = test.images[rows]
    return {
        "attention_images": images,
        "attention_labels": test.labels[rows],
        "attention": encoder.attention(images),
    }


def _diverse_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of `count` images of as many classes as possible; the choice does not depend on the seed."""
    order = np.random.default_rng(0).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    first = np.searchsorted(labels[by_class], labels[by_class])
    rank = np.arange(len(labels)) - first  # number of earlier images of the same class
    return by_class[np.argsort(rank, kind="stable")][:count]
