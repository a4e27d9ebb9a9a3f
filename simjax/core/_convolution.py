"""Convolution as dot products of every filter with every patch of an image.

A convolution is a dense layer whose matrix is sparse and shares its weights; `convolution_matrix` returns that matrix.
XLA on a CPU cannot thread its own convolution inside a loop, so a CPU computes matrix products of image rows
(docs/performance.md); other devices use XLA's convolution.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._arrays import as_float_array, as_number_array
from simjax.core._blocks import map_rows, rows_per_block
from simjax.core._checks import InputError
from simjax.core._dot_product import dense

SHORT_PATCH = 64
"""Numbers in a patch up to which whole patches are extracted; longer patches are extracted row by row."""


def patches(
    x: Num[ArrayLike, "b h w c"], size: tuple[int, int], *, stride: int = 1, padding: int = 0
) -> Num[Array, "b _h _w _d"]:
    """Extract the patches of images.

    Args:
        x: [b, h, w, c].
        size: Height and width of a patch.
        stride: Step between patches, in pixels.
        padding: Zeros added on every side.

    Returns:
        [b, h', w', size[0] * size[1] * c], with h' = (h + 2 padding - size[0]) // stride + 1. A patch is flattened in
        the order row, column, channel.

    Raises:
        InputError: If the image is smaller than a patch.
    """
    x = _pad(as_number_array("x", x), padding, padding)
    if x.shape[1] < size[0] or x.shape[2] < size[1]:
        raise InputError(f"x: expected images of at least {size[0]}x{size[1]}, padding included, got {x.shape}")
    return _extract(x, size, (stride, stride))


def convolution(
    x: Num[ArrayLike, "b h w c"],
    kernel: Num[ArrayLike, "kh kw c k"],
    bias: Num[ArrayLike, " k"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> Num[Array, "b _h _w k"]:
    """Compute the dot product of every filter with every patch of every image.

    Args:
        x: [b, h, w, c].
        kernel: k filters, [kh, kw, c, k].
        bias: [k]. Default: no bias.
        stride: Step between patches, in pixels.
        padding: Zeros added on every side.

    Returns:
        [b, h', w', k], with h' = (h + 2 padding - kh) // stride + 1.

    Raises:
        InputError: If the channels differ, or the image is smaller than a filter.
    """
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    kh, kw, c, _ = kernel.shape
    if x.ndim != 4 or x.shape[-1] != c:
        raise InputError(f"x: expected [b, h, w, {c}] to match the filters, got {x.shape}")
    if min(x.shape[1] - kh, x.shape[2] - kw) + 2 * padding < 0:
        raise InputError(f"x: expected images of at least {kh}x{kw}, padding included, got {x.shape}")
    compute = _by_products if jax.default_backend() == "cpu" else _by_xla
    out = compute(x, kernel, stride, padding)
    return out if bias is None else out + as_float_array("bias", bias)


def convolution_matrix(
    kernel: Num[ArrayLike, "kh kw c k"], shape: tuple[int, int, int], *, stride: int = 1, padding: int = 0
) -> Num[Array, "_i _o"]:
    """Return the matrix of the dense layer that equals a convolution.

    Args:
        kernel: [kh, kw, c, k].
        shape: Shape of one image, (h, w, c).
        stride: As in `convolution`.
        padding: As in `convolution`.

    Returns:
        [h w c, h' w' k]: `x.reshape(b, -1) @ matrix` is the flattened convolution.

    Example:
        A 3x3 filter on a 28x28 image gives each neuron at most 9 of its 784 possible inputs:

        >>> m = convolution_matrix(jnp.ones((3, 3, 1, 1)), (28, 28, 1), padding=1)
        >>> m.size, int(m.sum(0).max()), int((m != 0).sum())
        (614656, 9, 6724)
    """
    pixels = shape[0] * shape[1] * shape[2]
    # The matrix of a linear map consists of the images of the unit vectors.
    units = jnp.eye(pixels, dtype=jnp.result_type(kernel)).reshape(pixels, *shape)
    with jax.default_matmul_precision("highest"):
        return convolution(units, kernel, stride=stride, padding=padding).reshape(pixels, -1)


def _by_products(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Convolve by matrix products, in blocks of images whose patches stay in the cache."""
    kh, kw, c, k = kernel.shape
    if kh * kw * c <= SHORT_PATCH or kh == kw == stride:
        x = _pad(x, padding, padding)
        return dense(_extract(x, (kh, kw), (stride, stride)), kernel.reshape(-1, k))
    last = x.shape[1] + 2 * padding - kh + 1

    def convolve(x: Array) -> Array:
        rows = _extract(_pad(x, 0, padding), (1, kw), (1, stride))  # rows of patches, [b, h, w', kw c]
        if padding:  # the product of every row of a filter with every row of a patch, then a sum of shifted products
            columns = jnp.moveaxis(kernel, 0, 2).reshape(kw * c, kh * k)
            products = jnp.split(dense(rows, columns), kh, axis=-1)
            products = [_pad(p, padding, 0)[:, i : i + last : stride] for i, p in enumerate(products)]
        else:  # shifts before products, because a row of a filter meets fewer rows of the image
            products = [dense(rows[:, i : i + last : stride], kernel[i].reshape(-1, k)) for i in range(kh)]
        return sum(products[1:], products[0])

    positions = x.shape[1] * ((x.shape[2] + 2 * padding - kw) // stride + 1)
    image_bytes = positions * max(kw * c, kh * k) * x.dtype.itemsize
    return map_rows(convolve, x, block_size=rows_per_block(len(x), image_bytes, min_rows=1))


def _by_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pad(x: Array, rows: int, columns: int) -> Array:
    """Add rows of zeros above and below images [b, h, w, c], and columns of zeros left and right."""
    return jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def _extract(x: Array, size: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Extract the patches of images [b, h, w, c] without padding, [b, h', w', size[0] * size[1] * c]."""
    height, width = x.shape[1] - size[0] + 1, x.shape[2] - size[1] + 1
    offsets = [(i, j) for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate([x[:, i : i + height : strides[0], j : j + width : strides[1]] for i, j in offsets], axis=-1)
