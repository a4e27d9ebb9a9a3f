"""Few-shot accuracy: classification of new classes from a few images each, without training.

An episode draws some classes, and for each class some support images and some query images. A class is represented by
its prototype, the mean of its support embeddings; a query is assigned to the closest prototype. For measures that
ignore the length of vectors, prototypes are means of unit vectors (centered ones for the correlation), so that all
support images have equal weight.

References:
    Snell, Swersky, Zemel (2017), Prototypical Networks for Few-shot Learning.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from simjax.core import check_at_least, map_rows
from simjax.evaluate._checks import as_labels, as_rows
from simjax.similarity import Measure, unit_vectors
from simjax.similarity import measure as as_measure

LENGTH_INVARIANT = ("cosine", "cosine_distance", "angular", "normalized_euclidean", "correlation")


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
    """Compute the accuracy of the nearest prototype over random episodes.

    Args:
        embeddings: [n, d].
        labels: Integers [n].
        ways: Classes in an episode, at least 2; fewer if fewer classes have more than `shots` images.
        shots: Support images of each class.
        queries: Query images of each class, none of them a support image; fewer if a class has fewer images left.
        episodes: The number of episodes.
        seed: Seed of the episodes.
        measure: Name of a measure, or a `Measure`.

    Returns:
        `mean`, the mean over episodes of the fraction of correctly classified queries; `interval`, its ends for other
        episodes of these images with 95% confidence, None for one episode; `ways`, the actual number of classes in an
        episode. With fewer than two classes `mean` and `interval` are None.

        The interval is Student's, or mean +- 3 / e for equal accuracies of all e episodes (rule of 3).

    Example:
        >>> found = few_shot_accuracy(np.eye(4).repeat(3, axis=0), np.arange(4).repeat(3), episodes=10)
        >>> found["mean"], tuple(np.round(found["interval"], 2).tolist()), found["ways"]
        (1.0, (0.7, 1.0), 4)
    """
    check_at_least("ways", ways, 2)
    for argument, got in (("shots", shots), ("queries", queries), ("episodes", episodes)):
        check_at_least(argument, got, 1)
    rows = as_rows("embeddings", embeddings)
    classes = as_labels("labels", labels, len(rows))
    m = as_measure(measure)

    _, class_of, size = np.unique(classes, return_inverse=True, return_counts=True)
    members, start = np.argsort(class_of, kind="stable"), np.cumsum(size) - size
    large = np.flatnonzero(size > shots)
    ways = min(ways, large.size)
    if ways < 2:
        return {"mean": None, "interval": None, "ways": ways}
    rng = np.random.default_rng(seed)
    drawn = large[_draw_distinct(rng, np.full(episodes, large.size), ways)]  # classes [e, w]
    # Positions in the list of images of a class, [e, w, s + q], and whether the class has that many images.
    position = _draw_distinct(rng, size[drawn.ravel()], shots + queries).reshape(episodes, ways, -1)
    valid = np.arange(shots + queries) < size[drawn][..., None]
    images = members[np.where(valid, start[drawn][..., None] + position, 0)]
    accuracy = np.asarray(_episode_accuracy(rows, images, valid, m, shots=shots), np.float64)
    mean, interval = float(np.mean(accuracy)), None
    if episodes > 1:
        from scipy.stats import t

        if np.ptp(accuracy) > 0:
            margin = float(t.ppf(0.975, episodes - 1) * np.std(accuracy, ddof=1)) / episodes**0.5
        else:
            margin = -float(np.log(0.05)) / episodes
        interval = (max(mean - margin, 0.0), min(mean + margin, 1.0))
    return {"mean": mean, "interval": interval, "ways": ways}


def _draw_distinct(rng: np.random.Generator, size: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` distinct integers below each size [m], in random order, int64 [m, count].

    In the row of a size below `count`, the integers after the first `size` are not valid.
    """
    drawn = np.empty((len(size), count), np.int64)
    for i in range(count):
        new = rng.integers(0, np.maximum(size - i, 1))  # rank among the integers that are not drawn yet
        for earlier in np.sort(drawn[:, :i], axis=1).T:
            new += new >= earlier
        drawn[:, i] = new
    return drawn


@partial(jax.jit, static_argnames=("shots",))
def _episode_accuracy(x: Array, images: Array, valid: Array, measure: Measure, *, shots: int) -> Array:
    """Compute the fraction of correctly classified queries in each episode, [e].

    `images` are indices of s support and q query images of each class, `valid` is their mask, both [e, w, s + q].
    """
    (_, ways, per_class), width = images.shape, x.shape[1]
    if measure.name == "correlation":
        x = x - jnp.mean(x, axis=1, keepdims=True)
    x = unit_vectors(x) if measure.name in LENGTH_INVARIANT else x

    def accuracy_of(images: Array, valid: Array) -> Array:
        z = x[images]  # [r, w, s + q, d]
        prototypes = jnp.mean(z[:, :, :shots], axis=2)  # [r, w, d]
        queries = z[:, :, shots:].reshape(z.shape[0], -1, width)  # [r, w q, d]
        scores = measure.as_score(jax.vmap(measure.all_pairs)(queries, prototypes))  # [r, w q, w]
        predicted = jnp.argmax(scores, axis=-1).reshape(-1, ways, per_class - shots)
        correct = (predicted == jnp.arange(ways)[None, :, None]) & valid[:, :, shots:]
        return jnp.sum(correct, axis=(1, 2)) / jnp.sum(valid[:, :, shots:], axis=(1, 2))

    # Without a matrix form, a measure computes features of every pair of a query and a prototype.
    entries = ways * per_class * (width if measure.matrix is not None else ways * width)
    return map_rows(accuracy_of, images, valid, row_bytes=entries * x.dtype.itemsize)
