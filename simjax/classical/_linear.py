"""Models that are linear in the features or in the similarities to the training rows, fitted in closed form.

Fits are computed in float64, also without `jax_enable_x64`: features of very different scales cost a least-squares
problem most of the digits of float32.

References:
    Hoerl, Kennard (1970), Ridge Regression: Biased Estimation for Nonorthogonal Problems.
    Saunders, Gammerman, Vovk (1998), Ridge Regression Learning Algorithm in Dual Variables (kernel ridge).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from simjax.classical._classifier import Classifier, class_indices, query_rows, training_rows
from simjax.core import InputError, check_at_least, check_positive
from simjax.evaluate._checks import as_finite
from simjax.similarity import Measure, pairwise
from simjax.similarity import measure as as_measure


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearRegression:
    """A linear function of the features, see `fit_linear_regression`.

    Attributes:
        weights: [d], or [t, d] for t targets.
        intercept: [] or [t].
    """

    weights: Array
    intercept: Array

    def predict(self, x: Num[ArrayLike, "n d"]) -> Float[Array, " n *targets"]:
        """Compute x . w + b for each row, [n] or [n, t]."""
        rows = query_rows(x, self.weights.shape[-1])
        products = pairwise(rows, jnp.atleast_2d(self.weights), "dot")
        return (products if self.weights.ndim == 2 else products[:, 0]) + self.intercept


def fit_linear_regression(
    x: Num[ArrayLike, "m d"], y: Num[ArrayLike, " m *targets"], *, penalty: float = 0.0
) -> LinearRegression:
    """Return the linear function with the least sum of squared vertical residuals: ridge regression, or least squares.

        minimum over w, b of  sum_i (y_i - x_i . w - b)^2 + penalty |w|^2

    The intercept b is not penalized. Without a penalty, the shortest of several solutions w is taken.

    Args:
        x: Training rows, [m, d].
        y: Targets [m], or [m, t] for t functions.
        penalty: At least 0; `alpha` of scikit-learn's `Ridge`.

    Raises:
        InputError: If shapes do not match, a number is not finite, or the penalty is negative.

    Example:
        >>> model = fit_linear_regression(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0]))
        >>> print(model.weights.round(4), model.intercept.round(4), model.predict(np.array([[10.0]])))
        [2.] 1.0 [21.]
    """
    check_at_least("penalty", penalty, 0)
    rows, targets = training_rows(x), as_finite("y", y, np.float64)
    if targets.ndim not in (1, 2) or len(targets) != len(rows):
        raise InputError(f"y: expected targets of {len(rows)} rows, [m] or [m, t], got shape {targets.shape}")
    with jax.enable_x64(True):
        weights, intercept = map(np.asarray, _least_squares(rows, targets.reshape(len(rows), -1), float(penalty)))
    shape = targets.shape[1:]
    return LinearRegression(jnp.asarray(weights.T.reshape(*shape, -1)), jnp.asarray(intercept.reshape(shape)))


@jax.jit
def _least_squares(x: Array, y: Array, penalty: Array) -> tuple[Array, Array]:
    """Return the weights [d, t] and intercepts [t] of centered rows; the penalty is d more rows with targets 0."""
    x_mean, y_mean = jnp.mean(x, axis=0), jnp.mean(y, axis=0)
    d, t = x.shape[1], y.shape[1]
    rows = jnp.concatenate([x - x_mean, jnp.sqrt(penalty) * jnp.eye(d)])
    weights = jnp.linalg.lstsq(rows, jnp.concatenate([y - y_mean, jnp.zeros((d, t))]))[0]
    return weights, y_mean - x_mean @ weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KernelRidgeClassifier(Classifier):
    """Kernel ridge regression on the classes, see `fit_kernel_ridge_classifier`.

    Attributes:
        classes: See `Classifier`.
        x: Training rows, [m, d].
        weights: Weight of each training row for each class, [m, c].
        measure: The kernel.
    """

    classes: Array
    x: Array
    weights: Array
    measure: Measure

    def scores(self, x: Num[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Compute the weighted sum of the similarities to the training rows for each class."""
        return pairwise(query_rows(x, self.x.shape[1]), self.x, self.measure) @ self.weights


def fit_kernel_ridge_classifier(
    x: Num[ArrayLike, "m d"],
    labels: Int[ArrayLike, " m"],
    *,
    penalty: float = 1.0,
    measure: str | Measure = "rbf",
) -> KernelRidgeClassifier:
    """Return a kernel ridge regression on indicators of the classes, also called regularized least-squares classifier.

        score of class c for x  =  sum_j measure(x, x_j) A_jc,    A = (K + penalty I)^-1 Y,    K_ij = measure(x_i, x_j)

    Y_jc is 1 if row j has class c, else 0. With the measure "rbf" it is a network of radial basis functions, one at
    each training row. Takes O(m^3) time and O(m^2) memory.

    Args:
        x: Training rows, [m, d].
        labels: Class ids, integers [m].
        penalty: Above 0; `alpha` of scikit-learn's `KernelRidge`.
        measure: A positive definite kernel: its name, such as "rbf" or "laplacian", or a `Measure` with parameters,
            such as `similarity.measure("rbf", gamma=0.5)`.

    Raises:
        InputError: If shapes do not match, a number is not finite, the penalty is not above 0, or the matrix of the
            training rows is not positive definite.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0]])
        >>> print(fit_kernel_ridge_classifier(x, np.array([3, 8, 3]), penalty=0.1).predict(x))
        [3 8 3]
    """
    check_positive("penalty", penalty)
    rows, kernel = training_rows(x), as_measure(measure)
    classes, indices = class_indices(labels, len(rows))
    with jax.enable_x64(True):
        weights = np.asarray(_kernel_weights(rows, np.eye(len(classes))[indices], float(penalty), kernel))
    if not np.isfinite(weights).all():
        raise InputError(f"measure: expected a positive definite kernel, such as rbf, got {kernel.name}")
    return KernelRidgeClassifier(classes, jnp.asarray(rows), jnp.asarray(weights), kernel)


@jax.jit
def _kernel_weights(x: Array, targets: Array, penalty: Array, kernel: Measure) -> Array:
    matrix = pairwise(x, measure=kernel) + penalty * jnp.eye(len(x))
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), targets)
