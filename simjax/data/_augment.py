"""Random changes of training images that leave their class alone, inside the jitted training step.

Rotation, scale and shift together are one affine map, sampled once, bilinearly; what comes from outside the image is
zero. A shift alone is by whole pixels and costs a copy. For 128 images of 32x32x3 on two cores of a CPU: 0.5 ms, and
0.2 ms for a shift alone (`benchmarks/choices.py`).
"""

from dataclasses import dataclass, fields
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed; each change is drawn uniformly for each image.

    Attributes:
        shift: by up to this fraction of the height and the width, in both directions.
        rotation: by up to this many degrees, in both directions.
        scale: by a factor between 1 - scale and 1 + scale.
        flip: left to right, for half of the images.
        cutout: a square with sides of this fraction of the image is set to zero, anywhere, partly outside too.
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
    """What fits a data set; for one that is not known no more than a small shift, since a flip may change the class."""
    return DEFAULTS.get(name.removeprefix("tfds:"), Augmentation(shift=1 / 16))


@partial(jax.jit, static_argnames="augmentation")
def augment(key: Array, images: ArrayLike, augmentation: Augmentation) -> Array:
    """Change every image in its own random way.

    Args:
        key: of the draw.
        images: floating-point [b, h, w, c], before `normalise`: zero is taken for the background.
        augmentation: how far.

    Returns:
        [b, h, w, c], in the type of the images.

    Raises:
        TypeError: if the images are not floating-point.
    """
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images: expected a floating-point type, got {images.dtype}")
    b, h, w, _ = images.shape
    shift_key, angle_key, scale_key, flip_key, cut_key = jax.random.split(key, 5)
    extent = jnp.array([[h, w]])
    if augmentation.rotation or augmentation.scale:
        shift = augmentation.shift * extent * _balanced(shift_key, (b, 2))
        angle = jnp.deg2rad(augmentation.rotation) * _balanced(angle_key, (b,))
        factor = 1 + augmentation.scale * _balanced(scale_key, (b,))
        images = _affine(images, angle, factor, shift)
    elif augmentation.shift:
        reach = round(augmentation.shift * h), round(augmentation.shift * w)
        most = jnp.array([reach])
        images = _shifted(images, jax.random.randint(shift_key, (b, 2), -most, most + 1), reach)
    if augmentation.flip:
        flipped = jax.random.bernoulli(flip_key, shape=(b, 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    if augmentation.cutout:
        centre = jax.random.uniform(cut_key, (b, 2)) * extent
        images = _cut(images, centre, augmentation.cutout)
    return images


def _balanced(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _shifted(images: Array, shift: Array, reach: tuple[int, int]) -> Array:
    """Images moved down and right by whole pixels, int [b, 2], of at most `reach`."""
    padded = jnp.pad(images, ((0, 0), (reach[0], reach[0]), (reach[1], reach[1]), (0, 0)))

    def window(image: Array, moved: Array) -> Array:
        return jax.lax.dynamic_slice(image, (reach[0] - moved[0], reach[1] - moved[1], 0), images.shape[1:])

    return jax.vmap(window)(padded, shift)


def _affine(images: Array, angle: Array, factor: Array, shift: Array) -> Array:
    """Images turned anticlockwise about their centre, made larger, and moved down and right.

    Args:
        images: [b, h, w, c].
        angle: in radians, [b].
        factor: [b].
        shift: in pixels, [b, 2].
    """
    b, h, w, c = images.shape
    # Where each pixel of the result comes from: the inverse map, about the centre.
    centre = jnp.array([h - 1, w - 1]) / 2
    down, right = jnp.meshgrid(jnp.arange(h) - centre[0], jnp.arange(w) - centre[1], indexing="ij")
    down, right = (axis[None] - shift[:, i, None, None] for i, axis in enumerate((down, right)))  # [b, h, w]
    cosine, sine = (f(angle)[:, None, None] / factor[:, None, None] for f in (jnp.cos, jnp.sin))
    y = cosine * down + sine * right + centre[0]
    x = cosine * right - sine * down + centre[1]
    # One frame of zeros, and two behind, give every place outside four neighbours of its own without a test.
    padded = jnp.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(-1, c)
    y, x = jnp.clip(y, -1, h) + 1, jnp.clip(x, -1, w) + 1
    top, left = jnp.floor(y), jnp.floor(x)
    beyond_y, beyond_x = (y - top)[..., None].astype(images.dtype), (x - left)[..., None].astype(images.dtype)
    row = w + 3
    corner = (jnp.arange(b)[:, None, None] * (h + 3) + top.astype(int)) * row + left.astype(int)

    def neighbour(offset: int) -> Array:
        return padded.at[corner + offset].get(mode="promise_in_bounds")

    upper = neighbour(0) * (1 - beyond_x) + neighbour(1) * beyond_x
    lower = neighbour(row) * (1 - beyond_x) + neighbour(row + 1) * beyond_x
    return upper * (1 - beyond_y) + lower * beyond_y


def _cut(images: Array, centre: Array, side: float) -> Array:
    """Images with a rectangle of `side` times their extent set to zero around `centre`, in pixels, [b, 2]."""
    _, h, w, _ = images.shape
    in_rows = jnp.abs(jnp.arange(h)[None] + 0.5 - centre[:, :1]) < side * h / 2  # [b, h]
    in_columns = jnp.abs(jnp.arange(w)[None] + 0.5 - centre[:, 1:]) < side * w / 2  # [b, w]
    return jnp.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 0, images)
