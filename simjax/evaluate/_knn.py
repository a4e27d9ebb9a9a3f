"""k nearest neighbours: an embedding belongs to the class that most of its nearest neighbours belong to.

It needs no training, so that it measures the embedding alone, and any model can be compared with any other.
"""

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, as_integer_array, fits_dtype
from simjax.evaluate._checks import as_labels, as_rows, as_search
from simjax.similarity import Measure, top_k


def knn_predict(
    query: ArrayLike,
    gallery: ArrayLike,
    gallery_labels: ArrayLike,
    *,
    k: int = 5,
    measure: str | Measure = "cosine",
    exclude: ArrayLike | None = None,
) -> np.ndarray:
    """The class that most of the k nearest rows of the gallery have; of tied classes the one with the nearest row.

    Args:
        query: [q, d].
        gallery: [m, d].
        gallery_labels: integers [m].
        k: how many neighbours vote; a smaller gallery votes as a whole.
        measure: a name or a `Measure`.
        exclude: integers [q]: for each query the one gallery row that has no vote, for instance itself.

    Returns:
        int32 [q], or in the type of `gallery_labels` where int32 does not hold these.

    Raises:
        InputError: for shapes that do not fit, embeddings that are not finite, k below 1 or a gallery without a row to
            vote.

    Example:
        >>> print(knn_predict([[0.9, 1.0]], [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [0, 1, 0], k=1))
        [1]
    """
    query, gallery = as_rows("query", query), as_rows("gallery", gallery)
    as_labels("gallery_labels", gallery_labels, len(gallery))
    labels = np.asarray(as_integer_array("gallery_labels", gallery_labels))
    voters = len(gallery) - (exclude is not None)
    if voters < 1:
        raise InputError(f"gallery: expected at least one row to vote, got {len(gallery)}, less any excluded")
    excluded = None if exclude is None else np.asarray(exclude)
    _, nearest = top_k(query, gallery, min(k, voters), measure, exclude=excluded)
    classes = labels[np.asarray(nearest)]  # [q, k]
    votes = np.zeros(classes.shape, np.int32)  # of each neighbour's class
    for other in classes.T:
        votes += classes == other[:, None]
    winner = votes.argmax(axis=1)  # the first among equals, so the nearest
    return classes[np.arange(len(query)), winner].astype(np.int32 if fits_dtype(labels, np.int32) else labels.dtype)


def knn_accuracy(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    k: int = 5,
    measure: str | Measure = "cosine",
) -> float | None:
    """How often the k nearest neighbours vote for the true class.

    Args:
        embeddings: the gallery, [m, d].
        labels: integers [m].
        query_embeddings: [q, d]; None searches each embedding among all the others (leave one out).
        query_labels: integers [q], given with `query_embeddings`.
        k: how many neighbours vote; a smaller gallery votes as a whole.
        measure: a name or a `Measure`.

    Returns:
        A share in [0, 1]; None where there is no query, or no neighbour for it.

    Raises:
        InputError: as `knn_predict`, or for queries without labels or the reverse.
    """
    gallery, classes, query, truth = as_search(embeddings, labels, query_embeddings, query_labels)
    itself = query_embeddings is None
    if not len(query) or len(gallery) - itself < 1:
        return None
    predicted = knn_predict(
        query, gallery, classes, k=k, measure=measure, exclude=np.arange(len(query)) if itself else None
    )
    return float(np.mean(predicted == truth))
