"""Decode and resize images of any format to uint8 pixels, in threads.

- The EXIF orientation is applied. Transparent pixels become white. Only the first frame of an animation is read.
- Pixels of 1 bit become 0 and 255. Integers of 16 and 32 bits are mapped from 0..65535 and floating-point pixels from
  0..1. If an input range is given, both are mapped from this range, and values outside are clipped. Otherwise a warning
  is given if all images together use less than half of the assumed range.
- Images are resized by antialiased bicubic resampling. An image of another aspect ratio is padded by repeating its
  border pixels, cropped at its centre, or stretched.
- One channel becomes three by repetition; three become one by luminance (ITU-R 601, 0.299 R + 0.587 G + 0.114 B).
"""

import contextlib
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, Union

import numpy as np

from simjax._reading import open_image
from simjax.core import InputError
from simjax.data._dataset import Dataset, Progress

if TYPE_CHECKING:
    from PIL import Image

# An image: a file, the content of a file, pixels [h, w] or [h, w, c], or a Pillow image.
Source: TypeAlias = Union[Path, bytes, np.ndarray, "Image.Image"]

MAX_UNCHANGED_SIDE = 64  # images of one common size up to this height and width are not resized
DEFAULT_SIDE = 32  # other images are resized to about as many pixels as a square of this side
MAX_ASPECT_RATIO = 4.0  # limit of the aspect ratio of a default size
IMAGES_PER_TASK = 16  # decoding a tiny PNG takes less time than scheduling a task
CACHE_GIGABYTES = 4.0

Aspect = Literal["pad", "crop", "stretch"]


class ReadOptions(NamedTuple):
    """How images are read. See `load`; here `image_size` is (height, width)."""

    image_size: tuple[int, int] | None = None
    channels: int | None = None
    aspect: Aspect = "pad"
    input_range: tuple[float, float] | None = None
    max_pixels: int | None = None
    skip_unreadable: bool = False
    needs_classes: bool = True
    cache_gigabytes: float = CACHE_GIGABYTES
    progress: Progress | None = None


class Format(NamedTuple):
    """The size (height, width) and channels (1 or 3) of decoded images, and how images are converted; see `load`."""

    size: tuple[int, int]
    channels: int
    aspect: Aspect = "pad"
    input_range: tuple[float, float] | None = None
    max_pixels: int | None = None


class PixelRange(NamedTuple):
    """Lowest and highest pixel of an image with more than 8 bits, and the highest value assumed for its type."""

    low: float
    high: float
    assumed: float


class UnreadableImageError(Exception):
    """An image cannot be decoded.

    Attributes:
        index: Position of the image among the sources.
        reason: The message without advice about arguments of `load`, which an encoder does not have.
    """

    def __init__(self, index: int, reason: str, advice: str = ""):
        super().__init__(reason + advice)
        self.index, self.reason = index, reason


class PixelRangeError(ValueError):
    """Pixels are outside the range that is assumed for their type; `range` is theirs."""

    def __init__(self, message: str, range: PixelRange):
        super().__init__(message)
        self.range = range


def resize(dataset: Dataset, size: tuple[int, int], channels: int, aspect: Aspect = "pad") -> Dataset:
    """Resize the images of a data set and convert their channels; images that have this shape already are not copied.

    Args:
        dataset: Images [n, h, w, c].
        size: Height and width in pixels.
        channels: 1 or 3.
        aspect: See `load`.
    """
    check_format(size, channels)
    images = dataset.images
    if images.shape[1:] == (*size, channels):
        return dataset
    wanted = Format(size, min(channels, images.shape[3]), aspect)
    if images.shape[1:] != (*wanted.size, wanted.channels):
        images = decode_images(images, wanted)
    return dataset._replace(images=np.repeat(images, channels // wanted.channels, axis=3))


def check_format(size: tuple[int, int] | None, channels: int | None) -> None:
    """Raise an InputError for an impossible size or number of channels; None is accepted."""
    if size is not None and not (len(size) == 2 and all(isinstance(s, int | np.integer) and s > 0 for s in size)):
        raise InputError(f"image_size: expected a height and a width of at least 1 pixel, got {size}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels: expected 1 or 3, got {channels}")


def decode_images(sources: Sequence[Source] | np.ndarray, wanted: Format, name: str = "images") -> np.ndarray:
    """Decode images to one format, uint8 [n, h, w, c]. `name` is the name of the images in a warning.

    Raises:
        UnreadableImageError: For the first source that is truncated, corrupt or not an image.
    """
    images, ranges = decode_with_ranges(sources, wanted)
    if wanted.input_range is None:
        for found, text in narrow_ranges(ranges):
            warnings.warn(f"{name}: {text}{_range_advice(found)}", stacklevel=2)
    elif not ranges:
        warnings.warn(f"{name}: no image has more than 8 bits, so `input_range` changes nothing", stacklevel=2)
    return images


def decode_with_ranges(sources: Sequence[Source] | np.ndarray, wanted: Format) -> tuple[np.ndarray, list[PixelRange]]:
    """Decode images without a warning; also return the range of pixels of each image with more than 8 bits."""
    images = np.empty((len(sources), *wanted.size, wanted.channels), np.uint8)
    ranges: list[PixelRange] = []

    def decode(index: int) -> None:
        images[index] = _decode(sources[index], wanted, ranges)

    if failures := _run_in_threads(decode, len(sources), wanted.max_pixels):
        raise failures[0]
    return images, ranges


def narrow_ranges(ranges: Sequence[PixelRange]) -> Iterator[tuple[PixelRange, str]]:
    """Yield the joint range of all images with the same assumed range, if it is less than half of that, and a text."""
    for assumed in sorted({r.assumed for r in ranges}):
        lows, highs, _ = zip(*(r for r in ranges if r.assumed == assumed), strict=True)
        low, high = min(lows), max(highs)
        if high - low < assumed / 2:
            read_as = f"pixels from {low:g} to {high:g} were read as if they could be from 0 to {assumed:g}"
            yield PixelRange(low, high, assumed), f"{read_as}, so the images are dark or have little contrast"


def _range_advice(found: PixelRange) -> str:
    """Return the argument of `load` that maps a range to 0..255, or "" if it does not accept the range."""
    low, high = f"{found.low:g}", f"{found.high:g}"
    is_valid = -math.inf < float(low) < float(high) < math.inf
    return f"; `input_range=({low}, {high})` maps them to 0..255" if is_valid else ""


def unreadable_images(sources: Sequence[Source], options: ReadOptions | None = None) -> list[UnreadableImageError]:
    """Return an error for every image that cannot be decoded."""
    options = options or ReadOptions()
    small = Format((DEFAULT_SIDE, DEFAULT_SIDE), 1, input_range=options.input_range, max_pixels=options.max_pixels)
    return _run_in_threads(lambda index: _decode(sources[index], small, []), len(sources), options.max_pixels)


def common_format(sources: Sequence[Source], options: ReadOptions) -> tuple[Format, str | None]:
    """Choose one format for images: the size and channels of the options, or defaults that depend on the images.

    If all images have one size of at most 64x64, this is the default size. Otherwise the default size has about 32 * 32
    pixels and the median aspect ratio of the images, at most 4:1. By default there is one channel if every image is
    greyscale, else three.

    Returns:
        The format, and a sentence about resizing if some image has another size. If the options have both size and
        channels, no image is opened and there is no sentence.
    """
    size, channels, rest = options.image_size, options.channels, options[2:5]  # rest: aspect to max_pixels
    if size is not None and channels is not None:
        return Format(size, channels, *rest), None
    headers: list[tuple[tuple[int, int], bool]] = [((1, 1), False)] * len(sources)

    def read_header(index: int) -> None:
        headers[index] = _header(sources[index])

    if failures := _run_in_threads(read_header, len(sources), options.max_pixels):
        raise failures[0]
    channels = channels or (1 if all(is_grey for _, is_grey in headers) else 3)
    sizes = [size for size, _ in headers]
    size = size or _default_size(sizes)
    resizing = _describe_resizing(sizes, size, options.aspect) if any(other != size for other in sizes) else None
    return Format(size, channels, *rest), resizing


def _default_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    if len(set(sizes)) == 1 and max(sizes[0]) <= MAX_UNCHANGED_SIDE:
        return sizes[0]
    ratio = math.exp(float(np.median([math.log(height / width) for height, width in sizes])))
    ratio = min(max(ratio, 1 / MAX_ASPECT_RATIO), MAX_ASPECT_RATIO)
    return round(DEFAULT_SIDE * ratio**0.5), round(DEFAULT_SIDE / ratio**0.5)


def _describe_resizing(sizes: Sequence[tuple[int, int]], size: tuple[int, int], aspect: Aspect) -> str:
    smallest, largest = (f"{h}x{w}" for h, w in (min(sizes, key=math.prod), max(sizes, key=math.prod)))
    between = smallest if len(set(sizes)) == 1 else f"{smallest} to {largest}"
    how = {"pad": "padded", "crop": "cropped at the centre", "stretch": "stretched"}[aspect]
    return (
        f"images of {between} pixels (height x width) are resized to {size[0]}x{size[1]}; those of another aspect "
        f"ratio are {how}"
    )


def _run_in_threads(work: Callable[[int], object], n: int, max_pixels: int | None) -> list[UnreadableImageError]:
    """Call work(0) .. work(n - 1) in threads, and return an error for each image that cannot be read, in order."""
    from PIL import Image, UnidentifiedImageError

    def run_task(start: int) -> list[UnreadableImageError]:
        failures = []
        for index in range(start, min(start + IMAGES_PER_TASK, n)):
            try:
                work(index)
            except UnidentifiedImageError:
                failures.append(UnreadableImageError(index, "no image format that Pillow knows"))
            except Image.DecompressionBombError as error:
                pixels, limit = (int(float(number)) for number in re.findall(r"\d+(?:\.\d+)?", str(error))[:2])
                reason, advice = f"it has {pixels:,} pixels, more than {limit:,}", f"; `max_pixels={pixels}` allows it"
                failures.append(UnreadableImageError(index, reason, advice))
            except PixelRangeError as error:
                failures.append(UnreadableImageError(index, str(error), _range_advice(error.range)))
            except Exception as error:  # a decoder can raise any error for a damaged file
                failures.append(UnreadableImageError(index, _reason(error)))
        return failures

    with _pixel_limit(max_pixels), ThreadPoolExecutor(os.cpu_count()) as pool:
        return [failure for failures in pool.map(run_task, range(0, n, IMAGES_PER_TASK)) for failure in failures]


def _reason(error: Exception) -> str:
    """Return the reason of an error as text: for an error of a file without its path, which the message has already."""
    if isinstance(error, MemoryError):
        return "it is too large to be decoded"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@contextlib.contextmanager
def _pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Make Pillow reject images of more than `max_pixels` pixels by setting the global variable of its module."""
    from PIL import Image

    if max_pixels is None:
        yield
        return
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels / 2  # Pillow warns above its limit, and raises above twice its limit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _open(source: Source) -> "Image.Image":
    from PIL import Image

    if isinstance(source, np.ndarray):
        return Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    if isinstance(source, Image.Image):
        return source.copy()  # the caller closes the result
    return open_image(source)


def _header(source: Source) -> tuple[tuple[int, int], bool]:
    """Return the upright size (height, width), and whether the image is stored as greyscale."""
    from PIL import ExifTags, Image

    with _open(source) as image:
        is_grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
        if image.mode in ("P", "PA"):
            palette = np.reshape(image.getpalette() or [], (-1, 3))
            is_grey = bool((palette == palette[:, :1]).all())
        if max(image.size) <= MAX_UNCHANGED_SIDE:
            image.load()  # a PNG may store its orientation after the pixels; large images are not read only for this
        width, height = image.size
        # Not image.getexif(), which reads all pixels of a PNG.
        is_sideways = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) >= 5
        return (width, height) if is_sideways else (height, width), is_grey


def _decode(source: Source, wanted: Format, ranges: list[PixelRange]) -> np.ndarray:
    from PIL import ImageOps

    with _open(source) as image:
        # Pillow decodes a JPEG much faster at 1/2, 1/4 or 1/8 of its size, here at least at twice the wanted size.
        image.draft(image.mode, (2 * max(wanted.size), 2 * max(wanted.size)))
        low_bytes = _low_bytes(source, image)
        upright = image if isinstance(source, np.ndarray) else ImageOps.exif_transpose(image)
        if low_bytes is not None:
            low_bytes = ImageOps.exif_transpose(low_bytes)
        opaque = _opaque_8_bit(upright, low_bytes, wanted, ranges)
        pixels = _resize_image(opaque.convert("L" if wanted.channels == 1 else "RGB"), wanted.size, wanted.aspect)
        return pixels.reshape(*wanted.size, wanted.channels)


def _resize_image(image: "Image.Image", size: tuple[int, int], aspect: Aspect) -> np.ndarray:
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
    """Return the low bytes of an image with several channels of 16 bits, and None for other images.

    Pillow reads only the high bytes of such an image, and only the low bytes if the opposite byte order is given.
    """
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    raw_mode = args if isinstance(args, str) else args[0] if args else ""
    match = re.fullmatch(r"(RGBA?|RGBX);16([BLN])", str(raw_mode))
    if match is None:
        return None
    is_little = match[2] == "L" or (match[2] == "N" and sys.byteorder == "little")
    swapped = f"{match[1]};16{'B' if is_little else 'L'}"
    second: Any = _open(source)  # Any: Pillow has no public type for images with tiles
    second.tile = [
        tile._replace(args=swapped if isinstance(args, str) else (swapped, *tile.args[1:])) for tile in second.tile
    ]
    return second


def _opaque_8_bit(
    image: "Image.Image", low_bytes: "Image.Image | None", wanted: Format, ranges: list[PixelRange]
) -> "Image.Image":
    """Convert an image to 8 bits a channel, with white behind transparent pixels."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image).astype(np.float64)
        assumed = 1.0 if image.mode == "F" else 65535.0
        image = Image.fromarray(_map_to_bytes(pixels, assumed, image.mode, wanted.input_range, ranges))
    elif low_bytes is not None:
        pixels = np.asarray(image).astype(np.float64) * 256 + np.asarray(low_bytes)
        colours = _map_to_bytes(pixels[..., :3], 65535.0, image.mode, wanted.input_range, ranges)
        opacity = np.asarray(image)[..., 3:]
        image = Image.fromarray(np.concatenate([colours, opacity], axis=2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _map_to_bytes(
    pixels: np.ndarray, assumed: float, mode: str, input_range: tuple[float, float] | None, ranges: list[PixelRange]
) -> np.ndarray:
    """Map pixels from `input_range`, or from 0..assumed, to uint8 0..255, and append their range to `ranges`."""
    low, high = float(pixels.min()), float(pixels.max())
    if math.isnan(low):
        raise ValueError(f"NaN among the pixels of an image of mode {mode}")
    if input_range is None and not (low >= 0 and high <= assumed):
        raise PixelRangeError(
            f"pixels from {low:g} to {high:g}, outside 0..{assumed:g}, in an image of mode {mode}",
            PixelRange(low, high, assumed),
        )
    ranges.append(PixelRange(low, high, assumed))
    first, last = input_range or (0.0, assumed)
    return np.rint((np.clip(pixels, first, last) - first) * (255 / (last - first))).astype(np.uint8)
