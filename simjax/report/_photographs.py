"""Pictures of a page: images as data URIs, heat maps on images, one picture of many images.

Images are uint8 [h, w, c] with one, three or four channels.
"""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from simjax.report._page import Points

SMALL = 64  # pixels; smaller images are stored without loss
LARGEST = 256  # pixels of the longer side of a picture on a page
ORANGE, BLUE = np.array([230, 159, 0]), np.array([0, 114, 178])
OPACITY = 0.8  # of the largest value of a heat map


def source(image: np.ndarray) -> str:
    """Return an image as a data URI: PNG if it is small, otherwise WebP of at most `LARGEST` pixels per side."""
    return source_of(_picture(image))


def source_of(picture: Image.Image) -> str:
    """Return a picture of Pillow as a data URI, see `source`."""
    is_small = max(picture.size) < SMALL
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST))
    with io.BytesIO() as buffer:
        if is_small:
            picture.save(buffer, format="png", optimize=True)
        else:
            picture.save(buffer, format="webp", quality=80)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{'png' if is_small else 'webp'};base64,{data}"


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., :3] if image.shape[-1] >= 3 else image[..., 0])


def heat_map(image: np.ndarray, values: np.ndarray, scale: float, patch_size: int | None = None) -> str:
    """Return an image under a heat map as a data URI, see `blend`."""
    return source_of(Image.fromarray(blend(image, values, scale, patch_size)))


def blend(image: np.ndarray, values: np.ndarray, scale: float, patch_size: int | None = None) -> np.ndarray:
    """Return a grey copy of an image under a heat map, enlarged to at least 128 pixels, uint8 [h, w, 3].

    Args:
        image: [h, w, c].
        values: [h', w']. Positive values are orange, negative ones blue.
        scale: Value of full colour.
        patch_size: Side of the patches whose grid is drawn, in pixels of the image. Default: no grid.
    """
    height, width = image.shape[:2]
    zoom = max(1, math.ceil(2 * SMALL / max(height, width)))
    size = (width * zoom, height * zoom)
    # The colours of a photograph could be taken for those of the map.
    pixels = np.asarray(_picture(image).convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST), np.float32)
    relative = np.asarray(values, np.float32) / max(scale, float(np.finfo(np.float32).tiny))
    relative = np.asarray(Image.fromarray(relative).resize(size, Image.Resampling.BILINEAR))[..., None]
    opacity = OPACITY * np.abs(relative).clip(0, 1)
    pixels = (1 - opacity) * pixels + opacity * np.where(relative < 0, BLUE, ORANGE)
    if patch_size is not None:
        step = patch_size * zoom
        for lines in (pixels[step::step], pixels[:, step::step]):
            lines[...] = 0.6 * lines + 50
    return pixels.round().astype(np.uint8)


def signed_picture(weights: np.ndarray) -> np.ndarray:
    """Return weights [h, w, c] as an image, with 0 in grey and the largest absolute weight in white or black."""
    largest = np.abs(weights).max() or 1.0
    return (127.5 * (1 + weights / largest)).round().astype(np.uint8)


def points_of(images: np.ndarray, labels: Sequence[str], position: Sequence[int]) -> Points:
    """Return images [n, h, w, c] as one picture for the points of a scatter plot, see `Points`."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    grid = np.zeros((columns * -(-n // columns), height, width, channels), np.uint8)
    grid[:n] = images
    grid = grid.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    picture = _picture(grid.reshape(-1, columns * width, channels))
    with io.BytesIO() as buffer:
        picture.save(buffer, format="webp", quality=75)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Points(f"data:image/webp;base64,{data}", columns, (width, height), list(labels), list(position))
