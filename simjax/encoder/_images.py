"""Images in any form as uint8 pixels of one size: paths, folders, Pillow images, arrays, encoded bytes, binary
files, iterators."""

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from simjax._reading import check_regular_file
from simjax.core import InputError
from simjax.data import Format, UnreadableImageError, list_classes, list_images
from simjax.data._decode import PixelRange, decode_with_ranges, narrow_ranges
from simjax.encoder._config import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

OneImage: TypeAlias = Union[str, os.PathLike[str], bytes, IO[bytes], np.ndarray, "Image.Image"]
Images: TypeAlias = OneImage | Iterable[OneImage]
"""One image, an array of images [n, h, w, c] or [n, h, w], a folder, or an iterable of images.

Arrays are uint8 with values 0..255 or floating-point with values 0..1. A three-dimensional array is one image
[h, w, c] if it has at most 4 channels, otherwise grey images [n, h, w].
"""

MAX_CHANNELS = 4
FORMS = "paths, Pillow images, arrays, encoded bytes or binary files"


def find_images(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return image files: files as they are given, and the images in folders at any depth, in alphabetical order.

    Raises:
        InputError: If there are no paths, a path does not exist or is a pipe or a device, or a folder has no images.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    if not given:
        raise InputError("expected images or folders of images, got none")
    found: list[Path] = []
    for path in map(Path, given):
        files = list_images(path) if os.path.isdir(path) else [_regular_file(path)]
        if not files:
            raise InputError(f"{path}: has no images")
        found += files
    return found


def _regular_file(path: Path) -> Path:
    """Return the path of a file that exists."""
    try:
        check_regular_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return path


def find_identities(folder: str | os.PathLike[str]) -> tuple[list[Path], list[str]]:
    """Return the images in a folder with one sub-folder for each identity, and the identity of each image.

    Raises:
        InputError: If the folder does not exist, or has no sub-folder with images.
    """
    root = Path(folder)
    if not os.path.isdir(root):  # unlike `root.is_dir()`, it takes a name of any length
        raise InputError(f"{root}: {'it is a file, not a folder' if os.path.exists(root) else 'no such folder'}")
    files = list_classes(root)
    if not files:
        raise InputError(f"{root}: expected one sub-folder with images for each identity, got none")
    return [f for group in files.values() for f in group], [name for name, group in files.items() for _ in group]


def as_images(images: Any) -> Any:
    """Return images in any form as an array [n, h, w] or [n, h, w, c], or as an iterable of single images."""
    # A Pillow image is recognized by its method `getexif`, without importing Pillow.
    if hasattr(images, "getexif") or hasattr(images, "read") or isinstance(images, bytes):
        return [images]
    if isinstance(images, str | os.PathLike):
        return find_images(images)
    if hasattr(images, "__array__"):  # of NumPy, JAX or another library
        array = np.asarray(images)
        if array.dtype.kind in "OU" and array.ndim < 2:  # paths
            return as_images(array.tolist())
        return _as_stack(array)
    if not isinstance(images, Iterable):
        raise InputError(f"images: expected {FORMS}, got {type(images).__name__}")
    return images


def batches_of_pixels(images: Any, preprocessing: Preprocessing, batch_size: int) -> Iterator[np.ndarray]:
    """Yield uint8 pixels [b, h, w, c] in the order of the images, at most `batch_size` at a time.

    Args:
        images: See `as_images`, which returned them.
        preprocessing: That of the encoder.
        batch_size: At least 1.

    Raises:
        InputError: If an image cannot be read. The message has its path or its position.
    """
    height, width, channels = preprocessing.image_shape
    wanted = Format(
        (height, width), channels, preprocessing.aspect, preprocessing.input_range, preprocessing.max_pixels
    )
    start = 0
    ranges: list[PixelRange] = []
    for batch in _batches(images, batch_size):
        if isinstance(batch, np.ndarray) and batch.shape[1:] == preprocessing.image_shape and batch.dtype == np.uint8:
            yield batch
        else:
            try:
                pixels, found = decode_with_ranges([_as_source(image) for image in batch], wanted)
            except UnreadableImageError as error:
                image = batch[error.index]
                name = str(image) if isinstance(image, str | os.PathLike) else f"image {start + error.index}"
                raise InputError(f"{name}: cannot be read ({error.reason})") from error
            ranges += found
            yield pixels
        start += len(batch)
    if preprocessing.input_range is None:  # of all batches, so that the batch size does not matter
        for _, text in narrow_ranges(ranges):
            warnings.warn(f"{text}; convert them first, unless the encoder was trained on such images", stacklevel=2)


def _batches(images: Any, batch_size: int) -> Iterator[Any]:
    """Yield the images in parts of at most `batch_size`: parts of an array, or lists of single images."""
    if isinstance(images, np.ndarray):
        yield from (images[i : i + batch_size] for i in range(0, len(images), batch_size))
        return
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, batch_size)):
        yield batch


def _as_stack(array: np.ndarray) -> np.ndarray:
    """Return images [n, h, w] or [n, h, w, c] from an array that may be a single image."""
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] <= MAX_CHANNELS):
        return array[None]
    if array.ndim not in (3, 4):
        raise InputError(f"images: expected an array [n, h, w, c], [n, h, w], [h, w, c] or [h, w], got {array.shape}")
    return array


def _as_source(image: Any) -> Any:
    """Return an image in a form that `decode_with_ranges` takes."""
    if hasattr(image, "read"):
        image = image.read()
    elif isinstance(image, str):
        return Path(image)
    if not hasattr(image, "getexif") and hasattr(image, "__array__"):
        image = np.asarray(image)
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise InputError(
                f"images: expected an image [h, w] or [h, w, c] with 1, 3 or 4 channels, got {image.shape}"
            )
        return _as_uint8(image)
    if not (isinstance(image, os.PathLike | bytes) or hasattr(image, "getexif")):
        raise InputError(f"images: expected {FORMS}, got {type(image).__name__}")
    return image


def _as_uint8(image: np.ndarray) -> np.ndarray:
    """Return uint8 pixels; floating-point pixels are from 0 to 1."""
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"images: expected uint8 pixels 0..255 or floating-point pixels 0..1, got {image.dtype}")
    if not np.isfinite(image).all():
        raise InputError("images: expected floating-point pixels from 0 to 1, got NaN or infinite pixels")
    low, high = float(np.min(image, initial=0)), float(np.max(image, initial=0))
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"images: expected floating-point pixels from 0 to 1, got {low:g} to {high:g}; convert them to uint8"
        )
    return np.rint(image * 255).astype(np.uint8)
