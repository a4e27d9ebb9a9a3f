"""Augmentation and normalization of images.

Augmentation changes training images at random, but not their class. Rotation, scale and shift are one affine map with
bilinear interpolation; pixels from outside the image are zero. `augment` and `normalize` run inside the jitted training
step, `statistics` in NumPy before the training.
"""

from dataclasses import dataclass, fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError

IMAGES_PER_CHUNK = 2048  # bounds the memory of the squared pixels


@dataclass(frozen=True)
class Augmentation:
    """Largest random change of each kind. Changes are uniformly distributed and independent for each image.

    Attributes:
        shift: Largest shift, as a fraction of the height and the width.
        rotation: Largest angle in degrees, in both directions.
        scale: Images are scaled by a factor between 1 - scale and 1 + scale.
        flip: Whether half of the images are flipped from left to right.
        cutout: Side of a square at a random position that is set to zero, as a fraction of the image. It may lie partly
            outside.
    """

    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    flip: bool = False
    cutout: float = 0.0

    def __post_init__(self):
        limits = {"shift": 1.0, "rotation": 180.0, "scale": 0.99, "cutout": 1.0, "flip": True}
        for field in fields(self):
            value, limit = getattr(self, field.name), limits[field.name]
            if not 0 <= value <= limit:
                raise InputError(f"{field.name}: expected a number in [0, {limit:g}], got {value}")


DEFAULTS = {
    "digits": Augmentation(shift=1 / 8, rotation=10.0),
    "mnist": Augmentation(shift=2 / 28, rotation=10.0, scale=0.1),
    "fashion_mnist": Augmentation(shift=2 / 28, flip=True),
    "cifar10": Augmentation(shift=4 / 32, flip=True),
    "cifar100": Augmentation(shift=4 / 32, flip=True),
}


def default_augmentation(name: str) -> Augmentation:
    """Return the default for a data set; for an unknown name only a small shift, as a flip may change the class."""
    return DEFAULTS.get(name.removeprefix("tfds:"), Augmentation(shift=1 / 16))


@partial(jax.jit, static_argnames="augmentation")
def augment(key: Array, images: ArrayLike, augmentation: Augmentation) -> Array:
    """Change every image at random; return images of the same shape and dtype.

    Args:
        key: PRNG key.
        images: Floating-point [b, h, w, c], before `normalize`, so that zero is the background.
        augmentation: The largest changes. Without rotation and scale, images are shifted by whole pixels.
    """
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images: expected a floating-point type, got {images.dtype}")
    b, h, w, _ = images.shape
    shift_key, angle_key, scale_key, flip_key, cut_key = jax.random.split(key, 5)
    uniform = partial(jax.random.uniform, minval=-1.0, maxval=1.0)
    if augmentation.rotation or augmentation.scale:
        shift = augmentation.shift * jnp.array([[h, w]]) * uniform(shift_key, (b, 2))
        angle = jnp.deg2rad(augmentation.rotation) * uniform(angle_key, (b,))
        images = affine(images, angle, 1 + augmentation.scale * uniform(scale_key, (b,)), shift)
    elif augmentation.shift:
        largest = jnp.array([[round(augmentation.shift * h), round(augmentation.shift * w)]])
        shift = jax.random.randint(shift_key, (b, 2), -largest, largest + 1)
        images = affine(images, jnp.zeros(b), jnp.ones(b), shift.astype(float))
    if augmentation.flip:
        is_flipped = jax.random.bernoulli(flip_key, shape=(b, 1, 1, 1))
        images = jnp.where(is_flipped, images[:, :, ::-1], images)
    if augmentation.cutout:
        centre = jax.random.uniform(cut_key, (b, 2)) * jnp.array([[h, w]])
        images = cut_out(images, centre, augmentation.cutout)
    return images


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and standard deviation of each channel of images / 255, for uint8 images [n, h, w, c].

    Returns:
        float32 [c] and float32 [c], rounded from sums of integers. The deviation of a constant channel is replaced by
        1, because `normalize` divides by it.

    Example:
        >>> mean, std = statistics(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
        >>> mean.tolist(), std.tolist()
        ([0.5], [0.5])
    """
    channels = images.shape[-1]
    total, total_of_squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        pixels = images[start : start + IMAGES_PER_CHUNK].reshape(-1, channels).astype(np.uint32)  # holds squares
        total += pixels.sum(0, dtype=np.int64)
        total_of_squares += np.square(pixels).sum(0, dtype=np.int64)
    count = max(images.size // channels, 1)
    mean = total / count
    deviation = np.sqrt(np.maximum(total_of_squares / count - mean**2, 0))
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


def affine(images: Array, angle: Array, factor: Array, shift: Array) -> Array:
    """Rotate images [b, h, w, c] anticlockwise about their centre, scale them, and shift them down and right.

    Angles are in radians [b], factors [b], shifts in pixels [b, 2].
    """
    b, h, w, c = images.shape
    # The inverse map, about the centre, gives the source (y, x) of each pixel of the result.
    centre = jnp.array([h - 1, w - 1]) / 2
    down, right = jnp.meshgrid(jnp.arange(h) - centre[0], jnp.arange(w) - centre[1], indexing="ij")
    down, right = (axis[None] - shift[:, i, None, None] for i, axis in enumerate((down, right)))  # [b, h, w]
    cosine, sine = (f(angle)[:, None, None] / factor[:, None, None] for f in (jnp.cos, jnp.sin))
    y = cosine * down + sine * right + centre[0]
    x = cosine * right - sine * down + centre[1]
    # Zeros around the image, one before and two behind, give every source outside the image four neighbours of 0.
    padded = jnp.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(-1, c)
    y, x = jnp.clip(y, -1, h) + 1, jnp.clip(x, -1, w) + 1
    top, left = jnp.floor(y), jnp.floor(x)
    lower_weight, right_weight = ((a - floor)[..., None].astype(images.dtype) for a, floor in ((y, top), (x, left)))
    row_length = w + 3
    corner = (jnp.arange(b)[:, None, None] * (h + 3) + top.astype(int)) * row_length + left.astype(int)

    def neighbour(offset: int) -> Array:
        return padded.at[corner + offset].get(mode="promise_in_bounds")

    upper = neighbour(0) * (1 - right_weight) + neighbour(1) * right_weight
    lower = neighbour(row_length) * (1 - right_weight) + neighbour(row_length + 1) * right_weight
    return upper * (1 - lower_weight) + lower * lower_weight


def cut_out(images: Array, centre: Array, side: ArrayLike) -> Array:
    """Set a rectangle around `centre` (in pixels, [b, 2]) to zero; its sides are `side` times those of the images."""
    _, h, w, _ = images.shape
    in_rows = jnp.abs(jnp.arange(h)[None] + 0.5 - centre[:, :1]) < side * h / 2  # [b, h]
    in_columns = jnp.abs(jnp.arange(w)[None] + 0.5 - centre[:, 1:]) < side * w / 2  # [b, w]
    return jnp.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 0, images)
