"""Few-shot accuracy: new classes, known from a few images each, without training.

An episode draws some classes, some images of each to know it by (support) and others to classify (queries). A class
is its prototype, the mean of its support; a query belongs to the closest prototype. For the cosine measures the mean
is that of unit vectors, so that each image counts alike; otherwise that of the embeddings as they are.

References:
    Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, 2017.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from simjax.core import InputError, map_rows
from simjax.evaluate._checks import as_labels, as_rows
from simjax.similarity import Measure, unit_vectors
from simjax.similarity import measure as as_measure

DIRECTIONS = ("cosine", "cosine_distance", "angular", "normalized_euclidean")
"""Measures for which a vector's length means nothing."""


def few_shot_accuracy(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    measure: str | Measure = "cosine",
) -> dict[str, Any]:
    """Accuracy of the nearest prototype over random episodes.

    Args:
        embeddings: [n, d].
        labels: integers [n].
        ways: classes in an episode; fewer where fewer have more than `shots` images.
        shots: support images of each class.
        queries: query images of each class, none of them its support; a class with fewer left gives those.
        episodes: how many are drawn.
        seed: the same seed gives the same episodes.
        measure: a name or a `Measure`.

    Returns:
        `mean`, the average over episodes of the share of queries classified rightly; `confidence_95`, half the width of
        its 95% interval, 1.96 standard errors over the episodes, None for one episode; `ways`, the classes really used
        in an episode. With fewer than two classes to choose between both are None.

    Raises:
        InputError: for shapes that do not fit, embeddings that are not finite, `ways` below 2, or `shots`, `queries`
            or `episodes` below 1.

    Example:
        >>> found = few_shot_accuracy(np.eye(4).repeat(3, axis=0), np.arange(4).repeat(3), episodes=10)
        >>> found["mean"], found["confidence_95"], found["ways"]
        (1.0, 0.0, 4)
    """
    for argument, got, least in (("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1)):
        if got < least:
            raise InputError(f"{argument}: expected a number from {least}, got {got}")
    if episodes < 1:
        raise InputError(f"episodes: expected a number from 1, got {episodes}")
    rows = as_rows("embeddings", embeddings)
    classes = as_labels("labels", labels, len(rows))
    m = as_measure(measure)

    _, class_of, size = np.unique(classes, return_inverse=True, return_counts=True)
    members, start = np.argsort(class_of, kind="stable"), np.cumsum(size) - size
    large = np.flatnonzero(size > shots)
    ways = min(ways, large.size)
    if ways < 2:
        return {"mean": None, "confidence_95": None, "ways": ways}
    rng = np.random.default_rng(seed)
    drawn = large[_draw(rng, np.full(episodes, large.size), ways)]  # [e, w]
    number = _draw(rng, size[drawn.ravel()], shots + queries).reshape(episodes, ways, -1)
    there = np.arange(shots + queries) < size[drawn][..., None]  # [e, w, s + q]
    images = members[np.where(there, start[drawn][..., None] + number, 0)]
    x = jnp.asarray(rows)
    x = unit_vectors(x) if m.name in DIRECTIONS else x
    share = np.asarray(_episodes(x, images, there, m, shots=shots), np.float64)
    half = 1.96 * float(np.std(share, ddof=1)) / episodes**0.5 if episodes > 1 else None
    return {"mean": float(np.mean(share)), "confidence_95": half, "ways": ways}


def _draw(rng: np.random.Generator, size: np.ndarray, count: int) -> np.ndarray:
    """In each row different numbers below its size, in random order.

    Args:
        rng: where chance comes from.
        size: integers [m].
        count: numbers in a row; those past a row's size mean nothing.

    Returns:
        int64 [m, count].
    """
    drawn = np.empty((len(size), count), np.int64)
    for i in range(count):
        new = rng.integers(0, np.maximum(size - i, 1))  # the how-manieth of those not drawn yet
        for earlier in np.sort(drawn[:, :i], axis=1).T:
            new += new >= earlier
        drawn[:, i] = new
    return drawn


@partial(jax.jit, static_argnames=("shots",))
def _episodes(x: Array, images: Array, there: Array, measure: Measure, *, shots: int) -> Array:
    """The share of an episode's queries whose prototype is the closest: images, there [e, w, s + q] to [e]."""
    (_, ways, drawn), width = images.shape, x.shape[1]

    def some(images: Array, there: Array) -> Array:
        z = x[images]  # [r, w, s + q, d]
        prototypes = jnp.mean(z[:, :, :shots], axis=2)  # [r, w, d]
        queries = z[:, :, shots:].reshape(z.shape[0], -1, width)  # [r, w q, d]
        closeness = measure.as_score(jax.vmap(measure.all_pairs)(queries, prototypes))  # [r, w q, w]
        predicted = jnp.argmax(closeness, axis=-1).reshape(-1, ways, drawn - shots)
        right = (predicted == jnp.arange(ways)[None, :, None]) & there[:, :, shots:]
        return jnp.sum(right, axis=(1, 2)) / jnp.sum(there[:, :, shots:], axis=(1, 2))

    entries = ways * drawn * (width if measure.matrix is not None else ways * width)
    return map_rows(some, images, there, row_bytes=entries * x.dtype.itemsize)
