"""Similarity of the layers of two networks, from their outputs for the same images.

The debiased linear CKA of two layers is the cosine of their Gram matrices K = X X^T after U-centering:

    U_ij = K_ij - r_i - r_j + sum of r / (n - 1),  r_i = sum of row i / (n - 2),  for i != j;  U_ii = K_ii = 0

Their sum of products, divided by n (n - 3), is the unbiased HSIC. A Gram matrix is computed once for each layer, in
float64. `simjax.similarity.centered_kernel_alignment` computes the same for one pair of layers, with gradients and
without n x n matrices.

References:
    Kornblith, Norouzi, Lee, Hinton (2019), Similarity of Neural Network Representations Revisited.
    Song, Smola, Gretton, Bedo, Borgwardt (2012), Feature Selection via Dependence Maximization (unbiased HSIC).
    Székely, Rizzo (2014), Partial Distance Correlation with Methods for Dissimilarities (U-centering).
    Nguyen, Raghu, Kornblith (2021), Do Wide and Deep Networks Learn the Same Things? (over batches)
    Raghu, Unterthiner, Kornblith, Zhang, Dosovitskiy (2021), Do Vision Transformers See Like Convolutional Neural
    Networks? (flattened features)
    Huh, Cheung, Wang, Isola (2024), The Platonic Representation Hypothesis (mutual k-NN).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least, check_choice
from simjax.evaluate._checks import as_finite
from simjax.evaluate._neighbors import mutual_share, nearest_others

INDICES = ("linear", "rbf", "mutual_knn")
"""Names of the indices of `layer_similarity`."""

BANDWIDTH = 0.8  # of the RBF kernel, divided by the median distance; the default of `centered_kernel_alignment`


def layer_similarity(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    index: str = "linear",
    batch_size: int = 1000,
    k: int = 10,
) -> np.ndarray:
    """Compute the similarity of each layer of one network with each layer of another, or of the same, network.

    Features are flattened: positions and tokens are compared one by one, not their means.

    Args:
        a, b: Outputs [n, ...] of the layers by name, for the same images in the same order, as
            `Encoder.encode(images, layers=True)` returns them. At least 4 images.
        index: "linear" or "rbf", debiased CKA with this kernel: 1 for equal layers except for a rotation and a scale,
            0 on average for independent ones, so it can be slightly negative. "mutual_knn": `evaluate.mutual_knn`,
            k / (n - 1) on average for independent layers. CKA depends on the directions of largest variance and on
            outliers; mutual k-NN depends on close pairs.
        batch_size: Largest number of images for one Gram matrix, 8 batch_size^2 bytes for each layer. The products are
            averaged over batches of about equal size, which is unbiased, too. For "mutual_knn" all images are compared.
        k: Number of neighbours, for "mutual_knn", whose measure is the cosine.

    Returns:
        float64 [layers of a, layers of b], in the order of the dictionaries; 0 for CKA if a layer is constant.

    Raises:
        InputError: If the numbers of images differ, or features are not finite.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> layer_similarity({"x": x}, {"reflected": 2 * x[:, ::-1], "rectified": np.maximum(x, 0)}).round(2)
        array([[1.  , 0.76]])
    """
    check_choice("index", index, INDICES)
    check_at_least("batch_size", batch_size, 8)
    rows_a, rows_b = (list(as_layers(*given).values()) for given in (("a", a), ("b", b)))
    n = len(rows_a[0])
    if len(rows_b[0]) != n:
        raise InputError(f"b: expected features of the same {n} images as a, got {len(rows_b[0])}")
    if index == "mutual_knn":
        near_a, near_b = ([nearest_others(rows, k, "cosine") for rows in layers] for layers in (rows_a, rows_b))
        return np.array([[mutual_share(x, y).value for y in near_b] for x in near_a])
    check_at_least("images", n, 4)
    products, squares_a, squares_b = np.zeros((len(rows_a), len(rows_b))), np.zeros(len(rows_a)), np.zeros(len(rows_b))
    for batch in np.array_split(np.arange(n), -(-n // batch_size)):
        grams_a = np.stack([_centered_gram(rows[batch], index) for rows in rows_a])
        squares_a += np.sum(grams_a**2, axis=(1, 2))
        for column, rows in enumerate(rows_b):
            gram = _centered_gram(rows[batch], index)
            products[:, column] += np.tensordot(grams_a, gram)
            squares_b[column] += np.sum(gram**2)
    scale = np.sqrt(squares_a[:, None] * squares_b)
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def shuffle_images(layers: Mapping[str, ArrayLike], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the outputs of layers with the images in random order, the same one for all layers.

    The similarity of a network with the shuffled outputs of another one is the baseline of no relation.

    Args:
        layers: Outputs [n, ...] by the name of the layer.
        seed: Seed of the order.
    """
    arrays = {name: np.asarray(features) for name, features in layers.items()}
    return {name: np.random.default_rng(seed).permutation(features) for name, features in arrays.items()}


def as_layers(argument: str, layers: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Return the features of each layer as finite rows [n, d]."""
    if not layers:
        raise InputError(f"{argument}: expected at least one layer, got none")
    arrays = {name: as_finite(f"{argument}[{name!r}]", features) for name, features in layers.items()}
    n = len(np.atleast_1d(next(iter(arrays.values()))))
    if not n:
        raise InputError(f"{argument}: expected at least one image, got none")
    for name, features in arrays.items():
        if features.ndim < 2 or len(features) != n:
            raise InputError(f"{argument}[{name!r}]: expected features [{n}, ...], got shape {features.shape}")
    return {name: features.reshape(n, -1) for name, features in arrays.items()}


def _centered_gram(rows: np.ndarray, kernel: str) -> np.ndarray:
    """Return the U-centered Gram matrix of features [n, d], float64 [n, n], divided by sqrt(n (n - 3)).

    The sum of the products of two such matrices is the unbiased HSIC.
    """
    n = len(rows)
    x = rows.astype(np.float64)
    x -= x[0]  # of constant features exactly 0, unlike after subtracting the mean; neither changes the result
    gram = x @ x.T
    if kernel == "rbf":
        square = np.diagonal(gram)
        distances = np.maximum(square[:, None] + square - 2 * gram, 0)
        pairs = distances[np.triu_indices(n, 1)]
        median = np.partition(pairs, (len(pairs) - 1) // 2)[(len(pairs) - 1) // 2]
        # If half of the pairs are equal, only equal ones are similar, in spite of rounding.
        width = max(2 * BANDWIDTH**2 * median, 1e-12 * pairs.max(), np.finfo(float).tiny)
        gram = np.expm1(-distances / width)  # minus 1, which centering removes, so that it is 0 for constant features
    np.fill_diagonal(gram, 0)
    means = gram.sum(axis=1) / (n - 2)
    gram += means.sum() / (n - 1) - means[:, None] - means
    np.fill_diagonal(gram, 0)
    return gram / (n * (n - 3)) ** 0.5
