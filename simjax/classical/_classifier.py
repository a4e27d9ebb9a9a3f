"""The interface of the classifiers, and the checks of their arguments."""

import abc

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from simjax.core import InputError, as_exact_array, as_float_array
from simjax.evaluate._checks import as_labels, as_rows


class Classifier(abc.ABC):
    """A fitted classifier: a pytree whose methods can be transformed by `jax.jit`.

    Attributes:
        classes: The classes of the training rows in ascending order, [c].
    """

    classes: Array

    @abc.abstractmethod
    def scores(self, x: Num[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Compute the score of each class, a reduction of the similarities of the rows x."""

    def predict(self, x: Num[ArrayLike, "n d"]) -> Int[Array, " n"]:
        """Return the class with the largest score for each row, the lowest of equal ones."""
        return self.classes[jnp.argmax(self.scores(x), axis=1)]


def training_rows(x: ArrayLike) -> np.ndarray:
    """Return training rows [n, d] with n, d >= 1 and finite numbers as float64."""
    rows = as_rows("x", x, np.float64)
    if 0 in rows.shape:
        raise InputError(f"x: expected at least one row and one feature, got shape {rows.shape}")
    return rows


def class_indices(labels: ArrayLike, n: int, *, minimum: int = 1) -> tuple[Array, np.ndarray]:
    """Return the classes [c] in ascending order, at least `minimum`, and the index int [n] of the class of each row."""
    as_labels("labels", labels, n)  # a check only, because it may change the dtype
    classes, indices = np.unique(np.asarray(labels), return_inverse=True)
    if len(classes) < minimum:
        raise InputError(f"labels: expected at least {minimum} classes, got {len(classes)}")
    return as_exact_array("labels", classes), indices


def query_rows(x: ArrayLike, features: int) -> Array:
    """Return the rows [n, d] of a prediction as a floating-point array."""
    rows = as_float_array("x", x)
    if rows.ndim != 2 or rows.shape[1] != features:
        raise InputError(f"x: expected rows of {features} features, as in the fit, got shape {rows.shape}")
    return rows
