"""Any image file to uint8 pixels, in threads.

What becomes of what a file may hold:

- orientation from EXIF is applied;
- 1-bit images give 0 and 255, 16-bit ones are divided by 257, floating-point ones in [0, 1] multiplied by 255;
- transparent pixels show white behind them; of an animation the first frame is taken;
- another size is reached by cutting the centre to the wanted aspect and antialiased (bicubic) resampling.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Source = Path | bytes | np.ndarray
"""An image: a file, a file's content, or pixels [h, w] or [h, w, c]."""

KEPT_SIZE = 64  # images of one common size up to this height and width keep it
DEFAULT_SIZE = (32, 32)
CHUNK = 16  # images in one task of a thread: tiny PNGs cost less than a task does


class Format(NamedTuple):
    """The size (height, width) and the channels (1 or 3) that the images of a set are brought to."""

    size: tuple[int, int]
    channels: int


class UnreadableImageError(Exception):
    """An image that cannot be decoded: which of the sources, and why."""

    def __init__(self, index: int, reason: Exception):
        super().__init__(str(reason))
        self.index = index


def decode_images(sources: Sequence[Source] | np.ndarray, wanted: Format) -> np.ndarray:
    """Decode images to one size and number of channels.

    Args:
        sources: n images, or the pixels of n images in one array.
        wanted: what to bring them to.

    Returns:
        uint8 [n, h, w, c].

    Raises:
        UnreadableImageError: for the first image that is truncated, corrupt or no image.
    """
    images = np.empty((len(sources), *wanted.size, wanted.channels), np.uint8)

    def fill(index: int) -> None:
        images[index] = _decode(sources[index], wanted)

    failures = _in_threads(fill, len(sources))
    if failures:
        raise failures[0]
    return images


def unreadable_images(sources: Sequence[Source]) -> list[UnreadableImageError]:
    """Decode every image for no other purpose than to see which ones fail."""
    small = Format(DEFAULT_SIZE, 1)
    return _in_threads(lambda index: _decode(sources[index], small), len(sources))


def common_format(sources: Sequence[Source], image_size: tuple[int, int] | None, channels: int | None) -> Format:
    """What a set of images is best brought to: what is imposed, else what the images themselves say.

    The size is kept if all have the same and it is at most 64x64, else it is 32x32; one channel is enough if every
    image is stored as greyscale.

    Raises:
        UnreadableImageError: for the first file whose header cannot be read.
    """
    if image_size is not None and channels is not None:
        return Format(image_size, channels)
    headers: list[tuple[tuple[int, int] | None, bool]] = [(None, False)] * len(sources)

    def fill(index: int) -> None:
        headers[index] = _header(sources[index])

    failures = _in_threads(fill, len(sources))
    if failures:
        raise failures[0]
    sizes = {size for size, _ in headers}
    kept = sizes.pop() if len(sizes) == 1 else None
    return Format(image_size or kept or DEFAULT_SIZE, channels or (1 if all(grey for _, grey in headers) else 3))


def _in_threads(work: Callable[[int], object], n: int) -> list[UnreadableImageError]:
    """work(0) .. work(n - 1), and what failed, in order."""
    from PIL import Image, UnidentifiedImageError

    # What Pillow's decoders raise for broken files of their many formats.
    broken = (OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, Image.DecompressionBombError)

    def chunk(start: int) -> list[UnreadableImageError]:
        failures = []
        for index in range(start, min(start + CHUNK, n)):
            try:
                work(index)
            except UnidentifiedImageError:
                failures.append(UnreadableImageError(index, ValueError("no image format that Pillow knows")))
            except broken as error:
                failures.append(UnreadableImageError(index, error))
        return failures

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [failure for failures in pool.map(chunk, range(0, n, CHUNK)) for failure in failures]


def _open(source: Source) -> "Image.Image":
    from PIL import Image

    if isinstance(source, np.ndarray):
        return Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source)


def _header(source: Source) -> tuple[tuple[int, int] | None, bool]:
    """The size (height, width), None if larger than what is ever kept, and whether it is stored as greyscale."""
    from PIL import ImageOps

    with _open(source) as image:
        grey = _is_grey(image)
        if max(image.size) > KEPT_SIZE:
            return None, grey
        # The orientation of a PNG may stand behind its pixels, so the image is loaded: it is a small one.
        width, height = ImageOps.exif_transpose(image).size
        return (height, width), grey


def _is_grey(image: "Image.Image") -> bool:
    if image.mode in ("P", "PA"):
        palette = np.reshape(image.getpalette() or [], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _decode(source: Source, wanted: Format) -> np.ndarray:
    from PIL import Image, ImageOps

    with _open(source) as image:
        # A JPEG decodes at a half, a quarter or an eighth at a fraction of the cost; twice the wanted size is left.
        image.draft(image.mode, (2 * max(wanted.size), 2 * max(wanted.size)))
        upright = image if isinstance(source, np.ndarray) else ImageOps.exif_transpose(image)
        plain = _eight_bit(upright).convert("L" if wanted.channels == 1 else "RGB")
        width_height = wanted.size[1], wanted.size[0]
        if plain.size != width_height:
            plain = ImageOps.fit(plain, width_height, Image.Resampling.BICUBIC)
        return np.asarray(plain).reshape(*wanted.size, wanted.channels)


def _eight_bit(image: "Image.Image") -> "Image.Image":
    """An opaque image with 8 bits a channel."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image).astype(np.float64)
        top = 1.0 if image.mode == "F" else 65535.0
        if not (pixels.min() >= 0 and pixels.max() <= top):  # a NaN is neither
            raise ValueError(f"pixels outside 0..{top:g} in an image of mode {image.mode}")
        return Image.fromarray(np.rint(pixels * (255 / top)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
