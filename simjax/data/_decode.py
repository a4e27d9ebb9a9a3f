"""Any image file to uint8 pixels, in threads.

What becomes of what a file may hold:

- orientation from EXIF is applied;
- 1-bit images give 0 and 255; 16-bit and 32-bit integers are mapped from 0..65535, floating-point pixels from 0..1, or
  both from the given input range, in which case values outside are clipped; images that use less than half of the
  assumed range are reported in a warning;
- transparent pixels show white behind them; of an animation the first frame is taken;
- another size is reached by antialiased (bicubic) resampling. An image of another aspect ratio is padded by repeating
  its border pixels, or cropped at the centre, or stretched.
"""

import contextlib
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Source = Path | bytes | np.ndarray
"""An image: a file, a file's content, or pixels [h, w] or [h, w, c]."""

KEPT_SIZE = 64  # images of one common size up to this height and width keep it
DEFAULT_SIDE = 32  # images of other sizes get about as many pixels as a square of this side
LARGEST_ASPECT = 4.0  # of a chosen size; longer images are padded
CHUNK = 16  # images in one task of a thread: tiny PNGs cost less than a task does

Aspect = Literal["pad", "crop", "stretch"]


class ReadOptions(NamedTuple):
    """How image files are read.

    Attributes:
        image_size: (height, width), or None to choose one, see `common_format`.
        channels: 1 or 3, or None to choose.
        aspect: How an image of another aspect ratio is brought to the size.
        input_range: Lowest and highest value of pixels with more than 8 bits, or None for that of the type.
        max_pixels: Largest number of pixels of one image, or None for Pillow's limit.
        skip_unreadable: Whether images of a folder that cannot be read are left out with a warning.
    """

    image_size: tuple[int, int] | None = None
    channels: int | None = None
    aspect: Aspect = "pad"
    input_range: tuple[float, float] | None = None
    max_pixels: int | None = None
    skip_unreadable: bool = False


class Format(NamedTuple):
    """The size (height, width) and the channels (1 or 3) that images are brought to, and how; see `ReadOptions`."""

    size: tuple[int, int]
    channels: int
    aspect: Aspect = "pad"
    input_range: tuple[float, float] | None = None
    max_pixels: int | None = None


class UnreadableImageError(Exception):
    """An image that cannot be decoded: which of the sources, and why."""

    def __init__(self, index: int, reason: Exception):
        super().__init__(str(reason))
        self.index = index


def decode_images(sources: Sequence[Source] | np.ndarray, wanted: Format, name: str = "images") -> np.ndarray:
    """Decode images to one size and number of channels.

    Args:
        sources: n images, or the pixels of n images in one array.
        wanted: what to bring them to.
        name: Name of the images in a warning.

    Returns:
        uint8 [n, h, w, c].

    Raises:
        UnreadableImageError: for the first image that is truncated, corrupt or no image.
    """
    images = np.empty((len(sources), *wanted.size, wanted.channels), np.uint8)
    ranges: list[PixelRange] = []

    def fill(index: int) -> None:
        images[index] = _decode(sources[index], wanted, ranges)

    failures = _in_threads(fill, len(sources), wanted.max_pixels)
    if failures:
        raise failures[0]
    _warn_of_range(ranges, wanted.input_range, name)
    return images


def unreadable_images(sources: Sequence[Source], options: ReadOptions | None = None) -> list[UnreadableImageError]:
    """Decode every image for no other purpose than to see which ones fail."""
    options = options or ReadOptions()
    small = Format((DEFAULT_SIDE, DEFAULT_SIDE), 1, input_range=options.input_range, max_pixels=options.max_pixels)
    return _in_threads(lambda index: _decode(sources[index], small, []), len(sources), options.max_pixels)


def common_format(sources: Sequence[Source], options: ReadOptions) -> tuple[Format, str | None]:
    """Choose what a set of images is brought to: what the options impose, otherwise what suits the images.

    One size that all images share is kept if it is at most 64x64. Otherwise the size has about 32 * 32 pixels and the
    median aspect ratio of the images, at most 4. One channel is enough if every image is stored as greyscale.

    Returns:
        The format, and where a size was chosen that differs from that of some image, a sentence that says so.

    Raises:
        UnreadableImageError: for the first file whose header cannot be read.
    """
    size, channels, how = options.image_size, options.channels, options[2:5]
    if size is not None and channels is not None:
        return Format(size, channels, *how), None
    headers: list[tuple[tuple[int, int], bool]] = [((1, 1), False)] * len(sources)

    def fill(index: int) -> None:
        headers[index] = _header(sources[index])

    failures = _in_threads(fill, len(sources), options.max_pixels)
    if failures:
        raise failures[0]
    channels = channels or (1 if all(grey for _, grey in headers) else 3)
    if size is not None:
        return Format(size, channels, *how), None
    sizes = [size for size, _ in headers]
    size = _chosen_size(sizes)
    others = sum(other != size for other in sizes)
    return Format(size, channels, *how), _resizing(sizes, size, options.aspect) if others else None


def _chosen_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    if len(set(sizes)) == 1 and max(sizes[0]) <= KEPT_SIZE:
        return sizes[0]
    ratio = math.exp(float(np.median([math.log(height / width) for height, width in sizes])))
    ratio = min(max(ratio, 1 / LARGEST_ASPECT), LARGEST_ASPECT)
    return round(DEFAULT_SIDE * ratio**0.5), round(DEFAULT_SIDE / ratio**0.5)


def _resizing(sizes: Sequence[tuple[int, int]], size: tuple[int, int], aspect: Aspect) -> str:
    smallest, largest = min(sizes, key=math.prod), max(sizes, key=math.prod)
    between = f"{smallest[0]}x{smallest[1]}"
    if len(set(sizes)) > 1:
        between += f" to {largest[0]}x{largest[1]}"
    how = {"pad": "padded", "crop": "cropped at the centre", "stretch": "stretched"}[aspect]
    return (
        f"images of {between} pixels (height x width) are resized to {size[0]}x{size[1]}; those of another aspect "
        f"ratio are {how}"
    )


def _in_threads(work: Callable[[int], object], n: int, max_pixels: int | None) -> list[UnreadableImageError]:
    """work(0) .. work(n - 1), and what failed, in order."""
    from PIL import Image, UnidentifiedImageError

    # What Pillow's decoders raise for broken files of their many formats.
    broken = (OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError)

    def chunk(start: int) -> list[UnreadableImageError]:
        failures = []
        for index in range(start, min(start + CHUNK, n)):
            try:
                work(index)
            except UnidentifiedImageError:
                failures.append(UnreadableImageError(index, ValueError("no image format that Pillow knows")))
            except Image.DecompressionBombError as error:
                failures.append(UnreadableImageError(index, _too_large(error)))
            except broken as error:
                failures.append(UnreadableImageError(index, error))
        return failures

    with _pixel_limit(max_pixels), ThreadPoolExecutor(os.cpu_count()) as pool:
        return [failure for failures in pool.map(chunk, range(0, n, CHUNK)) for failure in failures]


@contextlib.contextmanager
def _pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Make Pillow refuse images of more than `max_pixels` pixels; its own limit is a global of its module."""
    from PIL import Image

    if max_pixels is None:
        yield
        return
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels / 2  # Pillow warns from its limit on, and refuses from twice its limit on
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _too_large(error: Exception) -> ValueError:
    """Pillow's error for an image of too many pixels, with the argument that allows it."""
    pixels, limit = (int(float(number)) for number in re.findall(r"\d+(?:\.\d+)?", str(error))[:2])
    return ValueError(f"it has {pixels:,} pixels, more than {limit:,}; `max_pixels={pixels}` allows it")


def _open(source: Source) -> "Image.Image":
    from PIL import Image

    if isinstance(source, np.ndarray):
        return Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source)


def _header(source: Source) -> tuple[tuple[int, int], bool]:
    """The upright size (height, width), and whether the image is stored as greyscale."""
    from PIL import ExifTags, Image

    with _open(source) as image:
        grey = _is_grey(image)
        if max(image.size) <= KEPT_SIZE:
            image.load()  # the orientation of a PNG may stand behind its pixels; large images are not read for that
        width, height = image.size
        # Not image.getexif(), which for a PNG reads all pixels.
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) >= 5
        return (width, height) if turned else (height, width), grey


def _is_grey(image: "Image.Image") -> bool:
    if image.mode in ("P", "PA"):
        palette = np.reshape(image.getpalette() or [], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


class PixelRange(NamedTuple):
    """Lowest and highest pixel of an image with more than 8 bits, and the range that its type is mapped from."""

    low: float
    high: float
    assumed: float


def _decode(source: Source, wanted: Format, ranges: list[PixelRange]) -> np.ndarray:
    from PIL import ImageOps

    with _open(source) as image:
        # A JPEG decodes at a half, a quarter or an eighth at a fraction of the cost; twice the wanted size is left.
        image.draft(image.mode, (2 * max(wanted.size), 2 * max(wanted.size)))
        low_bytes = _low_bytes(source, image)
        upright = image if isinstance(source, np.ndarray) else ImageOps.exif_transpose(image)
        if low_bytes is not None:
            low_bytes = ImageOps.exif_transpose(low_bytes)
        plain = _eight_bit(upright, low_bytes, wanted.input_range, ranges)
        plain = plain.convert("L" if wanted.channels == 1 else "RGB")
        pixels = _resized(plain, wanted.size, wanted.aspect)
        return pixels.reshape(*wanted.size, wanted.channels)


def _resized(image: "Image.Image", size: tuple[int, int], aspect: Aspect) -> np.ndarray:
    from PIL import Image, ImageOps

    height, width = size
    if image.size == (width, height):
        return np.asarray(image)
    if aspect == "crop":
        return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))
    inner_height, inner_width = height, width
    if aspect == "pad":
        factor = min(width / image.width, height / image.height)
        inner_width, inner_height = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    pixels = np.asarray(image.resize((inner_width, inner_height), Image.Resampling.BICUBIC))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    margins = ((top, height - inner_height - top), (left, width - inner_width - left), (0, 0))
    return np.pad(pixels, margins[: pixels.ndim], mode="edge")


def _low_bytes(source: Source, image: "Image.Image") -> "Image.Image | None":
    """The low bytes of an image with 16 bits in each of several channels, of which Pillow keeps the high bytes."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    raw_mode = args if isinstance(args, str) else args[0] if args else ""
    match = re.fullmatch(r"(RGBA?|RGBX);16([BLN])", str(raw_mode))
    if match is None:
        return None
    # Read as numbers of the other byte order, the low byte is the one that Pillow keeps.
    is_little = match[2] == "L" or (match[2] == "N" and sys.byteorder == "little")
    swapped = f"{match[1]};16{'B' if is_little else 'L'}"
    again: Any = _open(source)
    again.tile = [
        tile._replace(args=swapped if isinstance(args, str) else (swapped, *tile.args[1:])) for tile in again.tile
    ]
    return again


def _eight_bit(
    image: "Image.Image",
    low_bytes: "Image.Image | None",
    input_range: tuple[float, float] | None,
    ranges: list[PixelRange],
) -> "Image.Image":
    """An opaque image with 8 bits a channel."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image).astype(np.float64)
        image = Image.fromarray(_mapped(pixels, 1.0 if image.mode == "F" else 65535.0, image.mode, input_range, ranges))
    elif low_bytes is not None:
        pixels = np.asarray(image).astype(np.float64) * 256 + np.asarray(low_bytes)
        colours = _mapped(pixels[..., :3], 65535.0, image.mode, input_range, ranges)
        opacity = np.asarray(image)[..., 3:]
        image = Image.fromarray(np.concatenate([colours, opacity], axis=2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _mapped(
    pixels: np.ndarray, top: float, mode: str, input_range: tuple[float, float] | None, ranges: list[PixelRange]
) -> np.ndarray:
    """Pixels of more than 8 bits as 0..255: of the given range, or of 0..top."""
    low, high = float(pixels.min()), float(pixels.max())
    if math.isnan(low):
        raise ValueError(f"NaN among the pixels of an image of mode {mode}")
    if input_range is None and not (low >= 0 and high <= top):
        raise ValueError(
            f"pixels from {low:g} to {high:g}, outside 0..{top:g}, in an image of mode {mode}; "
            f"`input_range=({low:g}, {high:g})` maps them"
        )
    ranges.append(PixelRange(low, high, top))
    first, last = input_range or (0.0, top)
    return np.rint((np.clip(pixels, first, last) - first) * (255 / (last - first))).astype(np.uint8)


def _warn_of_range(ranges: Sequence[PixelRange], input_range: tuple[float, float] | None, name: str) -> None:
    """Warn where images with more than 8 bits use less than half of the range that they are mapped from."""
    if input_range is not None:
        if not ranges:
            warnings.warn(f"{name}: no image has more than 8 bits, so `input_range` changes nothing", stacklevel=3)
        return
    for assumed in sorted({r.assumed for r in ranges}):
        low = min(r.low for r in ranges if r.assumed == assumed)
        high = max(r.high for r in ranges if r.assumed == assumed)
        if high - low < assumed / 2:
            warnings.warn(
                f"{name}: pixels from {low:g} to {high:g} were read as if they could be from 0 to {assumed:g}, so the "
                f"images are dark or have little contrast; `input_range=({low:g}, {high:g})` uses what they hold",
                stacklevel=3,
            )
