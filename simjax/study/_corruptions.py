"""Corruptions of test images in five strengths, to measure how robust a network is.

Sizes are fractions of the image, so that images of all sizes are corrupted alike:

    name        amount of strength 1 to 5
    noise       standard deviation of Gaussian noise, as a fraction of 255
    blur        standard deviation of a Gaussian, as a fraction of the shorter side; edges are not darkened
    shift       length of a shift in a random direction, as a fraction of the sides
    rotation    angle in degrees, in a random one of both directions
    occlusion   side of a black square at a random position within the image, as a fraction of the sides

Pixels from outside of a shifted or rotated image are black. The strengths are not those of ImageNet-C (Hendrycks,
Dietterich 2019, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import InputError, check_choice
from simjax.data._augment import affine, cut_out

CORRUPTIONS = {
    "noise": (0.05, 0.1, 0.15, 0.2, 0.25),
    "blur": (0.02, 0.04, 0.06, 0.08, 0.1),
    "shift": (0.05, 0.1, 0.15, 0.2, 0.25),
    "rotation": (10, 20, 30, 40, 50),
    "occlusion": (0.1, 0.2, 0.3, 0.4, 0.5),
}
"""Amounts of the five strengths of each corruption."""


def corrupt(key: Array, images: ArrayLike, name: str, strength: int) -> Array:
    """Corrupt images, each one at random; return images of the same shape and dtype.

    Args:
        key: PRNG key.
        images: Floating-point [b, h, w, c] in 0..255, before `data.normalize`.
        name: A name in `CORRUPTIONS`.
        strength: 1 to 5, or 0, which returns the images themselves.

    Returns:
        [b, h, w, c] in 0..255.

    Raises:
        InputError: If the name is unknown or the strength out of range.

    Example:
        >>> image = jnp.full((1, 8, 8, 1), 255.0)
        >>> black = corrupt(jax.random.key(0), image, "occlusion", 5) == 0
        >>> int(black.sum())  # a square of 4 x 4 pixels
        16
    """
    check_choice("name", name, CORRUPTIONS)
    if strength not in range(6):
        raise InputError(f"strength: expected an integer from 0 to 5, got {strength}")
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise InputError(f"images: expected [b, h, w, c], got shape {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images: expected a floating-point type, got {images.dtype}")
    return _corrupt(key, images, CORRUPTIONS[name][strength - 1], name) if strength else images


@partial(jax.jit, static_argnames="name")
def _corrupt(key: Array, images: Array, amount: ArrayLike, name: str) -> Array:
    functions = {"noise": _noise, "blur": _blur, "shift": _shift, "rotation": _rotate, "occlusion": _occlude}
    return jnp.clip(functions[name](key, images, amount), 0, 255).astype(images.dtype)


def _noise(key: Array, images: Array, amount: ArrayLike) -> Array:
    return images + 255 * amount * jax.random.normal(key, images.shape)


def _blur(key: Array, images: Array, amount: ArrayLike) -> Array:
    _, h, w, _ = images.shape

    def weights(n: int) -> Array:  # of all pixels of a row or column for each of them, [n, n]
        distance = jnp.arange(n)[:, None] - jnp.arange(n)[None]
        return jax.nn.softmax(-0.5 * (distance / (amount * min(h, w))) ** 2, axis=1)

    return jnp.einsum("ij,bjkc,lk->bilc", weights(h), images, weights(w), precision="highest")


def _shift(key: Array, images: Array, amount: ArrayLike) -> Array:
    b, h, w, _ = images.shape
    angle = jax.random.uniform(key, (b,), maxval=2 * jnp.pi)
    shift = jnp.stack([h * jnp.sin(angle), w * jnp.cos(angle)], axis=1)
    return affine(images, jnp.zeros(b), jnp.ones(b), jnp.asarray(amount) * shift)


def _rotate(key: Array, images: Array, amount: ArrayLike) -> Array:
    b = len(images)
    return affine(images, jnp.deg2rad(amount) * jax.random.rademacher(key, (b,)), jnp.ones(b), jnp.zeros((b, 2)))


def _occlude(key: Array, images: Array, amount: ArrayLike) -> Array:
    b, h, w, _ = images.shape
    centre = jax.random.uniform(key, (b, 2), minval=amount / 2, maxval=1 - amount / 2) * jnp.array([[h, w]])
    return cut_out(images, centre, amount)
