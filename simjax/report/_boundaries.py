"""The regions of the plane in which a classifier predicts each class."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.12  # around the points, as a share of their range
TINT = 0.3  # opacity of the regions
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")  # one more than colours: 56 distinct pairs


def draw_regions(
    axes: "Axes", predict: Callable[[np.ndarray], ArrayLike], points: ArrayLike, labels: ArrayLike, *, size: int = 200
) -> None:
    """Draw the regions of a classifier of two features, and points whose marker and colour is their class.

    Args:
        axes: Axes of Matplotlib.
        predict: Function from rows float32 [n, 2] to classes [n], such as the method of a model of `simjax.classical`,
            or, for an encoder with 2-d embeddings and a classifier, `lambda e: encoder.logits(e).argmax(axis=1)`.
        points: [n, 2].
        labels: Classes of the points, integers [n].
        size: The classifier is evaluated at size x size places.

    Raises:
        InputError: If the shapes of points or labels do not match, or are empty, or a point is not finite.
    """
    from matplotlib.colors import ListedColormap

    from simjax.report import _style as style

    xy, ids = np.asarray(points, np.float32), np.asarray(labels)
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy) or not np.isfinite(xy).all():
        raise InputError(f"points: expected one or more finite rows of 2 numbers, got shape {xy.shape}")
    if ids.shape != xy.shape[:1]:
        raise InputError(f"labels: expected one for each of {len(xy)} points, got shape {ids.shape}")
    check_at_least("size", size, 2)
    low, high = xy.min(axis=0), xy.max(axis=0)
    space = MARGIN * np.where(high > low, high - low, 1)
    ticks = np.linspace(low - space, high + space, size, dtype=np.float32)
    rows = np.stack(np.meshgrid(ticks[:, 0], ticks[:, 1]), axis=-1).reshape(-1, 2)
    predicted = np.asarray(predict(rows)).reshape(size, size)

    classes = np.union1d(ids, predicted)
    colours = [style.PALETTE[i % len(style.PALETTE)] for i in range(len(classes))]
    extent = (ticks[0, 0], ticks[-1, 0], ticks[0, 1], ticks[-1, 1])
    axes.imshow(
        np.searchsorted(classes, predicted),
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(classes) - 0.5,
        alpha=TINT,
        extent=extent,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    for i, colour in enumerate(colours):
        x, y = xy[ids == classes[i]].T
        axes.scatter(x, y, s=14, marker=MARKERS[i % len(MARKERS)], color=colour, edgecolors="white", linewidths=0.4)
