"""Convolution as dot products of every filter with every patch of an image.

A convolution is a dense layer whose matrix is sparse and repeats the weights of the filters; `convolution_matrix`
returns that matrix. On a CPU, XLA's convolution uses a single thread inside `lax.scan` and `lax.while_loop`, so matrix
products of image rows are computed instead (docs/performance.md); other devices use XLA's convolution.

Shapes: b images of h x w pixels with c channels, k filters of kh x kw pixels, and h' x w' patches of each image.
"""

import jax
import jax.numpy as jnp
import numpy as np  # noqa: F401 (in doctests)
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._arrays import as_float_array, as_number_array
from simjax.core._blocks import map_rows, rows_per_block
from simjax.core._checks import InputError
from simjax.core._dot_product import dense

SHORT_PATCH = 64
"""Largest kh kw c for which whole patches are extracted; a larger patch is extracted one row at a time."""


def patches(
    x: Num[ArrayLike, "b h w c"], size: tuple[int, int], *, stride: int = 1, padding: int = 0
) -> Num[Array, "b _h _w _d"]:
    """Extract the patches of images, [b, h', w', kh * kw * c], each flattened in the order row, column, channel.

    h' = (h + 2 padding - kh) // stride + 1, and w' likewise.

    Args:
        x: [b, h, w, c].
        size: Height kh and width kw of a patch.
        stride: Step between patches, in pixels.
        padding: Zeros added on every side.

    Raises:
        InputError: If the padded image is smaller than a patch.
    """
    x = as_number_array("x", x)
    padded = _pad(x, padding, padding)
    _check_size(x, size, padding)
    return _extract(padded, size, (stride, stride))


def convolution(
    x: Num[ArrayLike, "b h w c"],
    kernel: Num[ArrayLike, "kh kw c k"],
    bias: Num[ArrayLike, " k"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> Num[Array, "b _h _w k"]:
    """Compute the dot product of every filter with every patch of every image, [b, h', w', k].

    Args:
        x: [b, h, w, c].
        kernel: k filters, [kh, kw, c, k].
        bias: [k]. Default: no bias.
        stride, padding: See `patches`.
    """
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    if kernel.ndim != 4:
        raise InputError(f"kernel: expected [kh, kw, c, k], got {kernel.shape}")
    kh, kw, c, _ = kernel.shape
    if x.ndim != 4 or x.shape[-1] != c:
        raise InputError(f"x: expected [b, h, w, {c}] to match the filters, got {x.shape}")
    _check_size(x, (kh, kw), padding)
    compute = _by_products if jax.default_backend() == "cpu" else _by_xla
    out = compute(x, kernel, stride, padding)
    return out if bias is None else out + as_float_array("bias", bias)


def depthwise_convolution(
    x: Num[ArrayLike, "b h w c"], kernel: Num[ArrayLike, "kh kw c"], *, stride: int = 1
) -> Num[Array, "b _h _w c"]:
    """Compute the dot product of one filter for each channel with every patch of this channel, [b, h', w', c].

    h' = ceil(h / stride), and w' likewise: zeros are added at both ends, one more at the end if their number is odd
    ("SAME" padding).

    Args:
        x: [b, h, w, c].
        kernel: A filter for each channel, [kh, kw, c].
        stride: Step between patches, in pixels.
    """
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    if x.ndim != 4 or kernel.ndim != 3 or x.shape[-1] != kernel.shape[-1]:
        raise InputError(f"x, kernel: expected [b, h, w, c] and [kh, kw, c], got {x.shape} and {kernel.shape}")
    (kh, kw, c), strides = kernel.shape, (stride, stride)
    if jax.default_backend() != "cpu":
        kernel, names = kernel[:, :, None], ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=names, feature_group_count=c)
    # On a CPU, XLA's convolution of single channels takes 4 to 20 times as long (`python benchmarks/choices.py`).
    padded = pad_same(x, (kh, kw), stride)
    rows, columns = padded.shape[1] - kh + 1, padded.shape[2] - kw + 1
    products = [
        padded[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j] for i in range(kh) for j in range(kw)
    ]
    return sum(products[1:], products[0])


def pad_same(x: Num[ArrayLike, "b h w c"], size: tuple[int, int], stride: int) -> Num[Array, "b _h _w c"]:
    """Add zeros around images so that ceil(h / stride) x ceil(w / stride) patches of a size fit, as "SAME" padding."""
    x = as_number_array("x", x)
    missing = [
        max((-(-extent // stride) - 1) * stride + length - extent, 0)
        for extent, length in zip(x.shape[1:3], size, strict=True)
    ]
    return jnp.pad(x, ((0, 0), *((total // 2, total - total // 2) for total in missing), (0, 0)))


def convolution_matrix(
    kernel: Num[ArrayLike, "kh kw c k"], shape: tuple[int, int, int], *, stride: int = 1, padding: int = 0
) -> Num[Array, "_i _o"]:
    """Return the matrix of the dense layer that equals a convolution, [h w c, h' w' k].

    `x.reshape(b, -1) @ matrix` is the flattened convolution.

    Args:
        kernel: [kh, kw, c, k].
        shape: Shape of one image, (h, w, c).
        stride, padding: See `patches`.

    Example:
        A 3x3 filter on a 28x28 image gives each neuron at most 9 of its 784 possible inputs:

        >>> m = np.asarray(convolution_matrix(np.ones((3, 3, 1, 1)), (28, 28, 1), padding=1))
        >>> m.size, int(m.sum(0).max()), int((m != 0).sum())
        (614656, 9, 6724)
    """
    pixels = shape[0] * shape[1] * shape[2]
    # Row i of the matrix of a linear map is the map's result for unit vector i.
    units = jnp.eye(pixels, dtype=jnp.result_type(kernel)).reshape(pixels, *shape)
    with jax.default_matmul_precision("highest"):
        return convolution(units, kernel, stride=stride, padding=padding).reshape(pixels, -1)


def _by_products(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Compute a convolution by matrix products, in blocks of images whose patches stay in the cache."""
    kh, kw, c, k = kernel.shape
    if kh * kw * c <= SHORT_PATCH or kh == kw == stride:  # short patches, or patches that do not overlap
        x = _pad(x, padding, padding)
        return dense(_extract(x, (kh, kw), (stride, stride)), kernel.reshape(-1, k))
    row_stop = x.shape[1] + 2 * padding - kh + 1  # end of the range of the first rows of patches

    def convolve(x: Array) -> Array:
        rows = _extract(_pad(x, 0, padding), (1, kw), (1, stride))  # rows of patches, [b, h, w', kw c]
        if padding:
            # One product of all rows of the filters with the rows of the image, padded afterwards: rows of padding need
            # no product.
            kernel_matrix = jnp.moveaxis(kernel, 0, 2).reshape(kw * c, kh * k)
            products = jnp.split(dense(rows, kernel_matrix), kh, axis=-1)
            products = [_pad(p, padding, 0)[:, i : i + row_stop : stride] for i, p in enumerate(products)]
        else:
            # Without padding, each row of a filter is multiplied with only h' of the h rows of the image.
            products = [dense(rows[:, i : i + row_stop : stride], kernel[i].reshape(-1, k)) for i in range(kh)]
        return sum(products[1:], products[0])

    positions = x.shape[1] * ((x.shape[2] + 2 * padding - kw) // stride + 1)
    image_bytes = positions * max(kw * c, kh * k) * x.dtype.itemsize
    # The rows of `map_rows` are whole images here, so even a single one is enough work for a block.
    return map_rows(convolve, x, block_size=rows_per_block(len(x), image_bytes, min_rows=1))


def _by_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pad(x: Array, rows: int, columns: int) -> Array:
    """Add rows of zeros above and below images [b, h, w, c], and columns of zeros left and right."""
    return jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def _check_size(x: Array, size: tuple[int, int], padding: int) -> None:
    kh, kw = size
    if min(x.shape[1] - kh, x.shape[2] - kw) + 2 * padding < 0:
        raise InputError(
            f"x: expected images of at least {kh}x{kw}, padding included, got {x.shape} with padding {padding}"
        )


def _extract(x: Array, size: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Return the patches of images [b, h, w, c], without padding, as [b, h', w', kh * kw * c]."""
    kh, kw = size
    # Ends of the ranges of the first rows and of the first columns of patches.
    row_stop, column_stop = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    pixels = [
        x[:, i : i + row_stop : strides[0], j : j + column_stop : strides[1]] for i in range(kh) for j in range(kw)
    ]
    return jnp.concatenate(pixels, axis=-1)
