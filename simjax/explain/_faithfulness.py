"""How faithful heat maps are: the score of an image while the most important patches are removed or added."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least
from simjax.encoder import Encoder
from simjax.encoder._images import Images
from simjax.explain._patches import Fill, filling, patch_ids
from simjax.explain._targets import Target, check_target


class Faithfulness(NamedTuple):
    """Deletion and insertion curves of n heat maps.

    Attributes:
        share: Share of the patches that are removed or added, from 0 to 1, [s].
        deletion: Scores of the images after the most important patches were removed, [n, s].
        insertion: Scores of the images of which only the most important patches are not removed, [n, s].
    """

    share: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> np.ndarray:
        """Area under each deletion curve, [n]: the lower, the more faithful is the heat map."""
        return np.trapezoid(self.deletion, self.share, axis=1)

    @property
    def insertion_area(self) -> np.ndarray:
        """Area under each insertion curve, [n]: the higher, the more faithful is the heat map."""
        return np.trapezoid(self.insertion, self.share, axis=1)


def faithfulness(
    encoder: Encoder,
    images: Images,
    target: Target,
    heat_maps: ArrayLike,
    *,
    patch_size: int | None = None,
    fill: Fill = "mean",
    steps: int = 10,
    seed: int = 0,
) -> Faithfulness:
    """Compute the scores of images while patches are removed or added, the most important ones first.

    The importance of a patch is the mean of the heat map over its pixels, so that maps of any resolution are compared
    by the same patches; equal patches have a random order. Compare areas with those of `random_regions`.

    Args:
        encoder: Embeds the images.
        images: n images, see `simjax.explain`.
        target: The scores that the heat maps explain.
        heat_maps: [n, h, w].
        patch_size, fill: See `occlusion`.
        steps: Number of steps between no patch and all patches.
        seed: Seed of the random order of equal patches.

    Returns:
        `Faithfulness`, with s = `steps` + 1 shares, or as many as there are patches.

    Raises:
        InputError: If the shape of `heat_maps` is not [n, h, w], a value is not finite, `steps` is below 1, or an image
            cannot be read.

    References:
        Petsiuk, Das, Saenko (2018), RISE: Randomized Input Sampling for Explanation of Black-box Models.
    """
    check_at_least("steps", steps, 1)
    ids = patch_ids(encoder, patch_size)
    pixels = check_target(encoder, images, target)
    maps = np.asarray(heat_maps)
    if maps.shape != pixels.shape[:3]:
        raise InputError(f"heat_maps: expected shape {pixels.shape[:3]}, got {maps.shape}")
    if not np.isfinite(maps).all():
        first = int(np.argmin(np.isfinite(maps).all(axis=(1, 2))))
        raise InputError(f"heat_maps: expected finite numbers, got NaN or infinity in map {first}")
    filled = filling(encoder, pixels, fill, ids)
    patches = ids[-1, -1] + 1
    counts = np.unique(np.rint(np.linspace(0, patches, steps + 1)).astype(int))
    random = np.random.default_rng(seed)
    curves = np.zeros((2, len(maps), len(counts)), np.float32)
    for i, image in enumerate(pixels):
        importance = np.bincount(ids.ravel(), maps[i].ravel()) / np.bincount(ids.ravel())
        rank = np.empty(patches, int)
        rank[np.lexsort((random.random(patches), -importance))] = np.arange(patches)
        is_important = (rank[ids] < counts[:, None, None])[..., None]  # [s, h, w, 1]
        deleted = np.where(is_important, filled[i], image)
        inserted = np.where(is_important, image, filled[i])
        curves[:, i] = target.score(encoder.encode(np.concatenate([deleted, inserted])), i).reshape(2, -1)
    return Faithfulness(counts / patches, curves[0], curves[1])
