"""Embeddings in two dimensions, for a map."""

import numpy as np

from simjax.core import check_choice

PROJECTIONS = ("pca", "tsne")


def project(embeddings: np.ndarray, rows: np.ndarray, method: str = "pca") -> tuple[np.ndarray, str]:
    """Return some embeddings in two dimensions, and a sentence about the method.

    Args:
        embeddings: [n, d]. One or two features are the axes themselves.
        rows: Indices of the embeddings to return, [m].
        method: "pca", the two directions of the largest variance of all embeddings; or "tsne" of the selected ones,
            which keeps near images near but not distances (van der Maaten, Hinton 2008).

    Returns:
        [m, 2], and the sentence.

    Raises:
        InputError: If the method is unknown.
    """
    check_choice("projection", method, PROJECTIONS)
    features = embeddings.shape[1]
    if features <= 2:
        xy = np.pad(embeddings[rows], ((0, 0), (0, 2 - features)))
        return xy, "The axes are the features of the embedding." if features == 2 else "The embedding has one feature."
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(rows) - 1) / 3)
        xy = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(embeddings[rows])
        return xy, "Drawn by t-SNE, which keeps near images near; distances between groups have no meaning."
    centered = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centered.T @ centered)  # ascending
    share = variances[-2:].sum() / (variances.sum() or 1.0)
    first = np.argmax(np.abs(directions), axis=0)
    directions = directions * np.sign(directions[first, np.arange(len(first))])  # the sign is arbitrary
    xy = centered[rows] @ directions[:, [-1, -2]]
    return xy, (
        f"The map keeps {share:.0%} of the variance (PCA): points that are close together on it may be far apart in "
        "the embedding."
    )
