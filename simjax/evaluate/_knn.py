"""k nearest neighbours: the class of an embedding by the classes of the gallery rows closest to it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from simjax.core import InputError, as_integer_array, fits_dtype
from simjax.evaluate._checks import as_labels, as_rows, gallery_and_queries
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
    """Predict the most frequent class among the k nearest gallery rows; of tied classes, that of the nearest row.

    Args:
        query: [q, d].
        gallery: [m, d].
        gallery_labels: Integers [m].
        k: The number of neighbours. If it exceeds the gallery, all gallery rows are neighbours.
        measure: Name of a measure, or a `Measure`.
        exclude: Integers [q]: for each query, the index of one gallery row that cannot be its neighbour, for instance
            the query itself.

    Returns:
        int32 [q], or the dtype of `gallery_labels` if int32 cannot represent them.

    Raises:
        InputError: If k is below 1 or a query has no neighbour.

    Example:
        >>> print(knn_predict([[0.9, 1.0]], [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [0, 1, 0], k=1))
        [1]
    """
    query, gallery = as_rows("query", query), as_rows("gallery", gallery)
    as_labels("gallery_labels", gallery_labels, len(gallery))  # a check only, because it may change the dtype
    labels = np.asarray(as_integer_array("gallery_labels", gallery_labels))
    available = len(gallery) - (exclude is not None)
    if available < 1:
        raise InputError(f"gallery: expected at least one row that is not excluded, got {len(gallery)} rows")
    excluded = None if exclude is None else np.asarray(exclude)
    _, nearest = top_k(query, gallery, min(k, available), measure, exclude=excluded)
    classes, indices = np.unique(labels, return_inverse=True)
    neighbor_classes = indices[np.asarray(nearest)]  # [q, k]
    winner = np.asarray(nearest_of_most_frequent(jnp.asarray(neighbor_classes, jnp.int32)))
    predicted = classes[neighbor_classes[np.arange(len(query)), winner]]
    return predicted.astype(np.int32 if fits_dtype(labels, np.int32) else labels.dtype)


@jax.jit
def nearest_of_most_frequent(classes: Array) -> Array:
    """Return the index [q] of the nearest neighbour of the most frequent class; `classes` [q, k] are nearest first."""

    def count(votes: Array, other: Array) -> tuple[Array, None]:
        return votes + (classes == other[:, None]), None

    votes, _ = jax.lax.scan(count, jnp.zeros_like(classes), classes.T)  # neighbours with the class of each neighbour
    return jnp.argmax(votes, axis=1)  # the first of equal votes, hence the nearest neighbour


def knn_accuracy(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    k: int = 5,
    measure: str | Measure = "cosine",
) -> float | None:
    """Compute the accuracy of `knn_predict`, or None without queries or without gallery rows other than the query.

    Args:
        embeddings, labels, query_embeddings, query_labels: See `retrieval_metrics`.
        k, measure: See `knn_predict`.
    """
    gallery, gallery_ids, query, query_ids = gallery_and_queries(embeddings, labels, query_embeddings, query_labels)
    is_self_search = query_embeddings is None
    if not len(query) or len(gallery) - is_self_search < 1:
        return None
    exclude = np.arange(len(query)) if is_self_search else None
    predicted = knn_predict(query, gallery, gallery_ids, k=k, measure=measure, exclude=exclude)
    return float(np.mean(predicted == query_ids))
