"""Patches of an image, and images without some of them."""

from typing import Any, Literal, get_args

import numpy as np

from simjax.core import InputError, check_choice
from simjax.encoder import Encoder

Fill = Literal["mean", "blur"]


def default_patch_size(encoder: Encoder) -> int:
    """Return the patch size of a vision transformer; of another network an eighth of the shorter side, at least 2."""
    network: Any = encoder.networks[0]
    return getattr(network, "patch_size", max(2, round(min(encoder.config.preprocessing.image_shape[:2]) / 8)))


def patch_ids(encoder: Encoder, patch_size: int | None) -> np.ndarray:
    """Return the number of the patch of each pixel, int [h, w]; patches are numbered row by row.

    Args:
        encoder: Its network's input is divided into patches.
        patch_size: Side of a patch in pixels. Default: `default_patch_size`.
    """
    height, width, _ = encoder.config.preprocessing.image_shape
    size = default_patch_size(encoder) if patch_size is None else patch_size
    if not 1 <= size <= min(height, width):
        raise InputError(f"patch_size: expected 1 to {min(height, width)} for {height}x{width} images, got {size}")
    row, column = np.arange(height) // size, np.arange(width) // size
    return row[:, None] * (column[-1] + 1) + column[None]


def filling(encoder: Encoder, pixels: np.ndarray, fill: Fill, ids: np.ndarray) -> np.ndarray:
    """Return the pixels that replace those of removed patches, uint8 [n, h, w, c].

    "mean" is the mean of the preprocessing: that of the training images for encoders that were trained here, a middle
    grey for efficientnet-lite0. "blur" is the image after a Gaussian blur whose standard deviation is the side of a
    patch.
    """
    check_choice("fill", fill, get_args(Fill))
    if fill == "mean":
        mean = np.rint(255 * np.asarray(encoder.config.preprocessing.mean)).astype(np.uint8)
        return np.broadcast_to(mean, pixels.shape)
    from scipy.ndimage import gaussian_filter

    side = np.count_nonzero(ids[0] == 0)
    return gaussian_filter(pixels, sigma=(0, side, side, 0))
