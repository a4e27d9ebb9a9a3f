"""Normalization of pixels to mean 0 and standard deviation 1 in each channel."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

IMAGES_PER_CHUNK = 2048  # bounds the memory of the squared pixels


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and standard deviation of each channel, exact to float32, with pixels scaled to [0, 1].

    Args:
        images: Training images, uint8 [n, h, w, c].

    Returns:
        float32 [c] and float32 [c]. The deviation of a constant channel is replaced by 1.

    Example:
        >>> mean, std = statistics(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
        >>> mean.tolist(), std.tolist()
        ([0.5], [0.5])
    """
    total = squares = np.zeros(images.shape[-1], np.int64)
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        pixels = images[start : start + IMAGES_PER_CHUNK].reshape(-1, images.shape[-1]).astype(np.uint32)
        total = total + pixels.sum(0, dtype=np.int64)
        squares = squares + np.square(pixels).sum(0, dtype=np.int64)
    count = max(images.size // images.shape[-1], 1)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return (mean / 255).astype(np.float32), np.where(deviation > 0, deviation / 255, 1).astype(np.float32)


@jax.jit
def normalize(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Array:
    """Compute (images / 255 - mean) / std.

    Args:
        images: [b, h, w, c] in 0..255, uint8 or, after augmentation, floating-point.
        mean: Mean of each channel of images / 255, [c].
        std: Standard deviation of each channel of images / 255, [c].

    Returns:
        float32 [b, h, w, c].
    """
    mean, std = (jnp.asarray(values)[None, None, None] for values in (mean, std))  # [1, 1, 1, c]
    return (jnp.asarray(images, jnp.float32) / 255 - mean) / std
