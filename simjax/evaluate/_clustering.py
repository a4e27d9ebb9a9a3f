"""Clustering: whether the clusters of k-means are the classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.evaluate._checks import as_labels, as_rows


def clustering_metrics(embeddings: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """Compute how well the clusters of k-means agree with the classes, for as many clusters as classes.

    k-means compares Euclidean distances. For embeddings that are compared by cosine, pass unit vectors.

    Args:
        embeddings: [n, d].
        labels: Integers [n].
        seed: Seed of the initial centers.

    Returns:
        `normalized_mutual_information` in [0, 1], `adjusted_mutual_information` and `adjusted_rand_index`, both 1 for
        equal partitions and 0 on average for random ones; `clusters`, the number of clusters, smaller than the number
        of classes if there are fewer distinct embeddings. Without embeddings the metrics are None.

    Example:
        >>> clustering_metrics([[0.0], [0.1], [5.0], [5.1]], [7, 7, 3, 3])["adjusted_rand_index"]
        1.0

    References:
        Vinh, Epps, Bailey (2010), Information Theoretic Measures for Clusterings Comparison.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

    rows = as_rows("embeddings", embeddings).astype(np.float64)  # whose squares do not overflow
    classes = np.unique(as_labels("labels", labels, len(rows)), return_inverse=True)[1]
    # scikit-learn warns of more clusters than distinct rows.
    clusters = min(len(np.unique(classes)), len(np.unique(rows, axis=0)))
    names = ("normalized_mutual_information", "adjusted_mutual_information", "adjusted_rand_index")
    if not len(rows):
        return {**dict.fromkeys(names), "clusters": 0}
    found = KMeans(clusters, random_state=seed).fit_predict(rows)
    scores = (normalized_mutual_info_score, adjusted_mutual_info_score, adjusted_rand_score)
    return {
        **{name: float(score(classes, found)) for name, score in zip(names, scores, strict=True)},
        "clusters": clusters,
    }
