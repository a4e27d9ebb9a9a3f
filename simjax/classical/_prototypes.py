"""Classifiers that store rows: k nearest neighbours, and the nearest class mean.

References:
    Cover, Hart (1967), Nearest Neighbor Pattern Classification.
    Tibshirani, Hastie, Narasimhan, Chu (2002), Diagnosis of multiple cancer types by shrunken centroids of gene
    expression (the nearest centroid, without the shrinkage).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from simjax.classical._classifier import Classifier, class_indices, query_rows, training_rows
from simjax.core import InputError
from simjax.evaluate._knn import nearest_of_most_frequent
from simjax.similarity import Measure, pairwise, top_k
from simjax.similarity import measure as as_measure


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KNearestNeighbors(Classifier):
    """The k nearest neighbours, see `fit_k_nearest_neighbors`.

    Attributes:
        classes: See `Classifier`.
        x: Training rows, [m, d].
        indices: Index of the class of each training row, int32 [m].
        measure: Compares rows.
        k: Number of neighbours.
    """

    classes: Array
    x: Array
    indices: Array
    measure: Measure
    k: int = dataclasses.field(metadata={"static": True})

    def scores(self, x: Num[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Compute the share of the k nearest training rows that each class has; `probabilities` is the same."""
        return jnp.mean(jax.nn.one_hot(self._neighbors(x), len(self.classes)), axis=1)

    probabilities = scores

    def predict(self, x: Num[ArrayLike, "n d"]) -> Int[Array, " n"]:
        """Return the most frequent class of the neighbours of each row; of tied classes, that of the nearest one."""
        neighbors = self._neighbors(x)
        winner = nearest_of_most_frequent(neighbors)
        return self.classes[jnp.take_along_axis(neighbors, winner[:, None], axis=1)[:, 0]]

    def _neighbors(self, x: ArrayLike) -> Array:
        """Return the index of the class of each neighbour, nearest first, [n, k]."""
        return self.indices[top_k(query_rows(x, self.x.shape[1]), self.x, self.k, self.measure)[1]]


def fit_k_nearest_neighbors(
    x: Num[ArrayLike, "m d"], labels: Int[ArrayLike, " m"], *, k: int = 5, measure: str | Measure = "euclidean"
) -> KNearestNeighbors:
    """Return a classifier by the k nearest training rows, which stores all of them.

        score of class c for x  =  share of class c among the k closest entries of the row S_j = measure(x, x_j)

    Args:
        x: Training rows, [m, d].
        labels: Class ids, integers [m].
        k: Number of neighbours, 1 to m.
        measure: Name of a measure, or a `Measure`; its direction is respected.

    Raises:
        InputError: If shapes do not match, a number is not finite, or k is out of range.

    Example:
        >>> model = fit_k_nearest_neighbors(np.array([[0.0], [1.0], [5.0]]), np.array([3, 3, 8]), k=1)
        >>> print(model.predict(np.array([[0.4], [9.0]])))
        [3 8]
    """
    rows = training_rows(x)
    if not isinstance(k, int | np.integer) or not 1 <= k <= len(rows):
        raise InputError(f"k: expected 1 to {len(rows)}, the number of training rows, got {k}")
    classes, indices = class_indices(labels, len(rows))
    return KNearestNeighbors(classes, jnp.asarray(rows), jnp.asarray(indices, jnp.int32), as_measure(measure), int(k))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NearestPrototype(Classifier):
    """The nearest class mean, see `fit_nearest_prototype`.

    Attributes:
        classes: See `Classifier`.
        prototypes: Mean of the training rows of each class, [c, d].
        measure: Compares rows with prototypes.
    """

    classes: Array
    prototypes: Array
    measure: Measure

    def scores(self, x: Num[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Compute the similarity of each row and each prototype; distances are negated."""
        rows = query_rows(x, self.prototypes.shape[1])
        return self.measure.as_score(pairwise(rows, self.prototypes, self.measure))


def fit_nearest_prototype(
    x: Num[ArrayLike, "m d"], labels: Int[ArrayLike, " m"], *, measure: str | Measure = "euclidean"
) -> NearestPrototype:
    """Return a classifier by the nearest class mean.

        score of class c for x  =  S_c = measure(x, mean of the training rows of class c)

    Args:
        x: Training rows, [m, d].
        labels: Class ids, integers [m].
        measure: Name of a measure, or a `Measure`; its direction is respected.

    Raises:
        InputError: If shapes do not match, or a number is not finite.

    Example:
        >>> model = fit_nearest_prototype(np.array([[0.0], [1.0], [5.0]]), np.array([3, 3, 8]))
        >>> print(model.prototypes.tolist(), model.predict(np.array([[2.0], [4.0]])))
        [[0.5], [5.0]] [3 8]
    """
    rows = training_rows(x)
    classes, indices = class_indices(labels, len(rows))
    means = np.stack([rows[indices == c].mean(axis=0) for c in range(len(classes))])
    return NearestPrototype(classes, jnp.asarray(means), as_measure(measure))
