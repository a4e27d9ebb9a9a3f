"""Bring a data set to another image size or number of channels."""

import numpy as np

from simjax.core import InputError
from simjax.data._dataset import Dataset
from simjax.data._decode import Aspect, Format, decode_images


def resize(dataset: Dataset, size: tuple[int, int], channels: int, aspect: Aspect = "pad") -> Dataset:
    """The same images in another size and with another number of channels.

    Images are resampled (bicubic, antialiased). One channel becomes three by repetition, three become one by luminance
    (ITU-R 601, 0.299 R + 0.587 G + 0.114 B).

    Args:
        dataset: with images uint8 [n, h, w, c].
        size: (height, width).
        channels: 1 or 3.
        aspect: If the aspect ratio changes, "pad" repeats the border pixels, "crop" cuts to the centre, and "stretch"
            does not keep the ratio.

    Returns:
        A data set with images uint8 [n, *size, channels]; the same object if nothing changes.

    Raises:
        InputError: for a size or a number of channels that cannot be.
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
    """Raise an InputError for a size or a number of channels that images cannot have; None is any."""
    if size is not None and not (len(size) == 2 and all(isinstance(s, int | np.integer) and s > 0 for s in size)):
        raise InputError(f"image_size: expected a height and a width of at least 1 pixel, got {size}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels: expected 1 or 3, got {channels}")
