"""Diagnostics of embeddings: how close classes are, how evenly directions are used, and whether embeddings collapse.

Alignment and uniformity describe unit vectors u_i = x_i / |x_i|:

    alignment   = mean of |u_i - u_j|^alpha over the pairs i < j of one class; 0 if each class is one point
    uniformity  = log of the mean of exp(-t |u_i - u_j|^2) over all pairs i < j; 0 if all embeddings are equal, about
                  -2 t (1 - t / d) if directions are evenly distributed in a large dimension d

Lower is better for both. They are sums over tiles, blocks of rows of the similarity matrix, which is never stored.

Effective rank and spread describe the embeddings as they are. With the singular values s_k of the matrix x [n, d] and
p_k = s_k / sum of all s,

    effective rank = exp(-sum of p_k log p_k),    from 1 to min(n, d)
    spread         = 1 - |mean of x|^2 / mean of |x|^2,    from 0, all embeddings are equal, to 1, their mean is 0

and with those of the centered matrix, the largest variance share is s_1^2 / sum of all s^2. Noise in many dimensions
raises the effective rank much more than this share.

References:
    Wang, Isola (2020), Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere.
    Roy, Vetterli (2007), The Effective Rank: A Measure of Effective Dimensionality.
    Jing, Vincent, LeCun, Tian (2022), Understanding Dimensional Collapse in Contrastive Self-supervised Learning.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from numpy.typing import ArrayLike

from simjax.core import check_positive
from simjax.evaluate._checks import as_labels, as_rows
from simjax.similarity import all_of, exclude_self, logsumexp, same_label, unit_vectors
from simjax.similarity import sum as sum_of_rows


def alignment(embeddings: ArrayLike, labels: ArrayLike, *, alpha: float = 2.0) -> float | None:
    """Compute the mean of |u_i - u_j|^alpha over pairs of one class, where u are unit vectors.

    Args:
        embeddings: [n, d].
        labels: Integers [n].
        alpha: Exponent of the distance, above 0.

    Returns:
        From 0 to 2^alpha, lower is better; None if no class has two rows.

    Example:
        >>> alignment([[1.0, 0.0], [0.0, 3.0], [1.0, 0.0]], [0, 0, 1])
        2.0
    """
    check_positive("alpha", alpha)
    rows = as_rows("embeddings", embeddings)
    classes = np.unique(as_labels("labels", labels, len(rows)), return_inverse=True)[1].astype(np.int32)
    sizes = np.bincount(classes) if classes.size else np.zeros(0, int)
    pairs = int(np.sum(sizes * (sizes - 1)))
    if not pairs:
        return None
    totals = sum_of_rows(
        unit_vectors(rows),
        mask=all_of(same_label(classes), exclude_self),
        function=Partial(_power, jnp.float32(alpha / 2)),
        measure="squared_euclidean",
    )
    return float(min(np.sum(np.asarray(totals, np.float64)) / pairs, 2.0**alpha))


def uniformity(embeddings: ArrayLike, *, t: float = 2.0) -> float | None:
    """Compute the log of the mean of exp(-t |u_i - u_j|^2) over all pairs, where u are unit vectors.

    Args:
        embeddings: [n, d].
        t: Scale of the squared distance, above 0.

    Returns:
        From -4 t to 0, lower is better; None for fewer than two rows.

    Example:
        >>> uniformity([[1.0, 0.0], [-2.0, 0.0]])
        -8.0
    """
    check_positive("t", t)
    rows = as_rows("embeddings", embeddings)
    if len(rows) < 2:
        return None
    scaled = Partial(_negative_product, jnp.float32(t))
    of_rows = logsumexp(unit_vectors(rows), mask=exclude_self, function=scaled, measure="squared_euclidean")
    pairs = len(rows) * (len(rows) - 1)
    return float(np.clip(np.logaddexp.reduce(np.asarray(of_rows, np.float64)) - np.log(pairs), -4 * t, 0.0))


def effective_rank(embeddings: ArrayLike, *, center: bool = False) -> float | None:
    """Compute the exponential of the entropy of the normalized singular values.

    Args:
        embeddings: [n, d].
        center: Subtract the mean of the rows first, so that a large common vector does not hide the dimensions in which
            embeddings differ.

    Returns:
        From 1 to min(n, d); None if all entries are 0, without rows, or with `center` if all rows are equal.

    Example:
        >>> round(effective_rank([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), 6)
        2.0
    """
    rows = _scaled_rows(embeddings)
    total = np.sum(rows**2)
    if center and len(rows):
        rows = rows - rows.mean(axis=0)
    # The squares of the singular values; those below the rounding of the mean and of the products are 0.
    squares = np.linalg.eigvalsh(rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T)
    singular = np.sqrt(squares[squares > np.finfo(np.float64).eps * max(rows.shape) * total])
    if not singular.size:
        return None
    p = singular / singular.sum()
    return float(np.clip(np.exp(-np.sum(p * np.log(p))), 1.0, min(rows.shape)))


def largest_variance_share(embeddings: ArrayLike) -> float | None:
    """Compute the share of the variance along the direction in which embeddings vary most, the first component of PCA.

    Args:
        embeddings: [n, d].

    Returns:
        From 1 / min(n, d) to 1, where all embeddings lie on a line; None if all rows are equal, or without rows.

    Example:
        >>> round(largest_variance_share([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), 6)
        0.9
    """
    rows = _scaled_rows(embeddings)
    total = np.sum(rows**2)
    rows = rows - rows.mean(axis=0) if len(rows) else rows
    squares = np.linalg.eigvalsh(rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T)
    if not squares.size or squares.sum() <= np.finfo(np.float64).eps * max(rows.shape) * total:  # rounding
        return None
    return float(np.clip(squares[-1] / squares.sum(), 1 / min(rows.shape), 1.0))


def spread(embeddings: ArrayLike) -> float | None:
    """Compute 1 - |mean of x|^2 / mean of |x|^2, the part of the squared length that is not common to all embeddings.

    For unit vectors this is half of the mean of |u_i - u_j|^2 over all i and j.

    Args:
        embeddings: [n, d].

    Returns:
        From 0, all embeddings are equal, to 1; None if all entries are 0, or without rows.

    Example:
        >>> spread([[1.0, 0.0], [0.0, 1.0]])
        0.5
    """
    rows = _scaled_rows(embeddings)
    total = np.sum(rows**2) / max(len(rows), 1)
    if total == 0:
        return None
    return float(min(np.sum((rows - rows.mean(axis=0)) ** 2) / len(rows) / total, 1.0))


def embedding_diagnostics(embeddings: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """Compute `alignment`, `uniformity`, `effective_rank` and `spread` together.

    Args:
        embeddings: [n, d].
        labels: Integers [n].

    Returns:
        `alignment`, `uniformity`, `effective_rank`, `largest_variance_share`, `spread`; `effective_rank_centered`,
        with `center`; `embedding_size` d. None where a value does not exist.

    Example:
        >>> found = embedding_diagnostics([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], [0, 0, 1])
        >>> found["alignment"], found["effective_rank"], round(found["spread"], 3)
        (0.0, 1.0, 0.889)
    """
    rows = as_rows("embeddings", embeddings)
    return {
        "alignment": alignment(rows, labels),
        "uniformity": uniformity(rows),
        "effective_rank": effective_rank(rows),
        "effective_rank_centered": effective_rank(rows, center=True),
        "largest_variance_share": largest_variance_share(rows),
        "spread": spread(rows),
        "embedding_size": rows.shape[1],
    }


def _power(exponent: Array, squared_distance: Array) -> Array:
    return squared_distance ** exponent.astype(squared_distance.dtype)


def _negative_product(factor: Array, squared_distance: Array) -> Array:
    return -factor.astype(squared_distance.dtype) * squared_distance


def _scaled_rows(embeddings: ArrayLike) -> np.ndarray:
    """Return embeddings in float64, divided by their largest entry, so that no square overflows or underflows."""
    rows = as_rows("embeddings", embeddings).astype(np.float64)
    largest = np.max(np.abs(rows), initial=0)
    return rows / largest if largest else rows
