"""Convolution as dot products: every filter against every patch of an image.

It is also a dense layer whose matrix is mostly zero and whose weights are shared: `convolution_matrix` writes that
matrix out. Which lowering runs inside is a matter of speed alone (`benchmarks/choices.py`; a CPU of 2 cores, forward
and backward): with one input channel XLA's convolution takes 24 ms for 256 images of 28x28 and 32 filters, one matrix
product over patches 7 ms; from 32 channels on XLA's convolution is 1.4 to 2 times as fast as patches or as products of
shifted images. So patches are taken where they are short.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._checks import InputError
from simjax.core._dot_product import dot_products

SHORT_PATCH = 64  # entries in a patch up to which one matrix product over patches is the faster lowering


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
    x = jnp.pad(jnp.asarray(x), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((extent - s) // stride + 1 for extent, s in zip(x.shape[1:3], size, strict=True))
    if rows < 1 or columns < 1:
        raise InputError(f"x: expected images of at least {size[0]}x{size[1]}, padding included, got {x.shape}")
    cut = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.concatenate(cut, axis=-1)  # [b, h', w', size * c]


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
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    kh, kw, c, k = kernel.shape
    if x.ndim != 4 or x.shape[-1] != c:
        raise InputError(f"x: expected [b, h, w, {c}] to match the filters, got {x.shape}")
    if min(x.shape[1] - kh, x.shape[2] - kw) + 2 * padding < 0:
        raise InputError(f"x: expected images of at least {kh}x{kw}, padding included, got {x.shape}")
    if kh * kw * c <= SHORT_PATCH or (kh == kw == stride and padding == 0):
        rows = patches(x, (kh, kw), stride=stride, padding=padding)  # [b, h', w', kh kw c]
        out = dot_products(rows.reshape(-1, kh * kw * c), kernel.reshape(-1, k).T)
        out = out.reshape(*rows.shape[:3], k)
    else:
        out = lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return out if bias is None else out + jnp.asarray(bias)


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
