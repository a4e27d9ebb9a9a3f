"""How far apart the patches are that attend to each other.

References:
    Raghu, Unterthiner, Kornblith, Zhang, Dosovitskiy (2021), Do Vision Transformers See Like Convolutional Neural
    Networks?
"""

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError


def mean_attention_distance(weights: ArrayLike, grid: tuple[int, int]) -> np.ndarray:
    """Compute the mean distance of the patches that a head attends to, in patches.

        mean over patches i of sum_j w_ij |p_i - p_j| / sum_j w_ij

    p_i is the row and the column of patch i. Compare the distances of heads with that of uniform attention, see the
    example: a head with a smaller distance attends locally.

    Args:
        weights: Attention weights [..., t, t], as `Encoder.attention_weights` returns them. The tokens are the patches,
            row by row, after the class token, if there is one, whose row and column are left out. A patch that attends
            to the class token only counts as a distance of 0.
        grid: Rows and columns of patches, `grid` of the vision transformer.

    Returns:
        [...]: for weights [n, blocks, heads, t, t] the distances of each image, block and head.

    Raises:
        InputError: If the number of tokens does not match the grid.

    Example:
        >>> uniform = np.full((16, 16), 1 / 16)
        >>> print(mean_attention_distance(uniform, (4, 4)).round(3), mean_attention_distance(np.eye(16), (4, 4)))
        2.008 0.0
    """
    weights, patches = np.asarray(weights), grid[0] * grid[1]
    if weights.ndim < 2 or weights.shape[-1] != weights.shape[-2] or weights.shape[-1] not in (patches, patches + 1):
        expected = f"[..., t, t] with t = {patches} or {patches + 1} for {grid[0]}x{grid[1]} patches"
        raise InputError(f"weights: expected {expected}, got shape {weights.shape}")
    weights = weights[..., -patches:, -patches:]
    position = np.stack(np.unravel_index(np.arange(patches), grid), axis=1)
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    total = weights.sum(axis=-1)
    of_patches = np.einsum("...ij,ij->...i", weights, distance) / np.where(total > 0, total, 1)
    return np.asarray(of_patches.mean(axis=-1))
