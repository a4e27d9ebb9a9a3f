"""Convolution as dot products: every filter against every patch of an image.

It is also a dense layer whose matrix is mostly zero and whose weights are shared: `convolution_matrix` writes that
matrix out. Which lowering runs inside is a matter of speed alone (docs/performance.md): on a CPU matrix products
of strips cut out of the images, with the gradient that follows from them; elsewhere XLA's own convolution.
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

SHORT_PATCH = 64  # entries up to which whole patches are cut out; longer ones are cut along the width only


def patches(
    x: Num[ArrayLike, "b h w c"], size: tuple[int, int], *, stride: int = 1, padding: int = 0
) -> Num[Array, "b _h _w _d"]:
    """The patches of images, one row each.

    Args:
        x: [b, h, w, c].
        size: height and width of a patch.
        stride: step between patches, in pixels.
        padding: zeros added on every side.

    Returns:
        [b, h', w', size[0] * size[1] * c], with h' = (h + 2 padding - size[0]) // stride + 1; a patch is flattened
        in the order row, column, channel.

    Raises:
        InputError: if the image is smaller than a patch.
    """
    x = _pad(as_number_array("x", x), padding, padding)
    if x.shape[1] < size[0] or x.shape[2] < size[1]:
        raise InputError(f"x: expected images of at least {size[0]}x{size[1]}, padding included, got {x.shape}")
    return _cut(x, size, (stride, stride))


def _pad(x: Array, rows: int, columns: int) -> Array:
    """So many zeros above and below, left and right, of images [b, h, w, c]."""
    return jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def _cut(x: Array, size: tuple[int, int], strides: tuple[int, int]) -> Array:
    """The patches of images [b, h, w, c] as [b, h', w', size[0] * size[1] * c]."""
    height, width = x.shape[1] - size[0] + 1, x.shape[2] - size[1] + 1
    places = [(i, j) for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate([x[:, i : i + height : strides[0], j : j + width : strides[1]] for i, j in places], axis=-1)


def convolution(
    x: Num[ArrayLike, "b h w c"],
    kernel: Num[ArrayLike, "kh kw c k"],
    bias: Num[ArrayLike, " k"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> Num[Array, "b _h _w k"]:
    """Every filter against every patch of every image.

    Args:
        x: [b, h, w, c].
        kernel: k filters, [kh, kw, c, k].
        bias: [k] or None.
        stride: step between patches, in pixels.
        padding: zeros added on every side.

    Returns:
        [b, h', w', k], with h' = (h + 2 padding - kh) // stride + 1.

    Raises:
        InputError: if the channels disagree or the image is smaller than a filter.
    """
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    kh, kw, c, k = kernel.shape
    if x.ndim != 4 or x.shape[-1] != c:
        raise InputError(f"x: expected [b, h, w, {c}] to match the filters, got {x.shape}")
    if min(x.shape[1] - kh, x.shape[2] - kw) + 2 * padding < 0:
        raise InputError(f"x: expected images of at least {kh}x{kw}, padding included, got {x.shape}")
    lower = _products if jax.default_backend() == "cpu" else _xla
    out = lower(x, kernel, stride, padding)
    return out if bias is None else out + as_float_array("bias", bias)


def _products(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """By matrix products in blocks of images, so that what is cut out of them stays in the cache."""
    kh, kw, c, k = kernel.shape
    if kh * kw * c <= SHORT_PATCH or kh == kw == stride:
        x = _pad(x, padding, padding)
        return dense(_cut(x, (kh, kw), (stride, stride)), kernel.reshape(-1, k))
    last = x.shape[1] + 2 * padding - kh + 1

    def convolve(x: Array) -> Array:
        strips = _cut(_pad(x, 0, padding), (1, kw), (1, stride))  # [b, h, w', kw c]
        if padding:  # one product of every row of the filters with every strip, and a sum of shifted parts
            columns = jnp.moveaxis(kernel, 0, 2).reshape(kw * c, kh * k)  # a filter's rows side by side
            parts = jnp.split(dense(strips, columns), kh, axis=-1)
            parts = [_pad(part, padding, 0)[:, i : i + last : stride] for i, part in enumerate(parts)]
        else:  # the shifts first: of 7 rows of strips a 3x3 filter uses 5
            parts = [dense(strips[:, i : i + last : stride], kernel[i].reshape(-1, k)) for i in range(kh)]
        return sum(parts[1:], parts[0])

    places = x.shape[1] * ((x.shape[2] + 2 * padding - kw) // stride + 1)
    image_bytes = places * max(kw * c, kh * k) * x.dtype.itemsize
    return map_rows(convolve, x, block_size=rows_per_block(len(x), image_bytes, min_rows=1))


def _xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """By XLA's convolution, which hands over to the vendor's library."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolution_matrix(
    kernel: Num[ArrayLike, "kh kw c k"], shape: tuple[int, int, int], *, stride: int = 1, padding: int = 0
) -> Num[Array, "_i _o"]:
    """The dense layer that a convolution is: its whole matrix, mostly zero, with shared weights.

    Args:
        kernel: [kh, kw, c, k].
        shape: of one image, (h, w, c).
        stride: as in `convolution`.
        padding: as in `convolution`.

    Returns:
        [h w c, h' w' k]: `x.reshape(b, -1) @ matrix` is the flattened convolution.

    Example:
        A 3x3 filter on a 28x28 image keeps 9 of a neuron's 784 inputs, fewer at the border:

        >>> m = convolution_matrix(jnp.ones((3, 3, 1, 1)), (28, 28, 1), padding=1)
        >>> m.size, int(m.sum(0).max()), int((m != 0).sum())
        (614656, 9, 6724)
    """
    pixels = shape[0] * shape[1] * shape[2]
    # A linear map's matrix is what it makes of the unit vectors; gathering through indices would do it too,
    # but so it is the map itself, and cannot disagree with it.
    units = jnp.eye(pixels, dtype=jnp.result_type(kernel)).reshape(pixels, *shape)
    with jax.default_matmul_precision("highest"):
        return convolution(units, kernel, stride=stride, padding=padding).reshape(pixels, -1)
