"""Classical models, each of which reduces the rows of one similarity matrix: pure functions to fit, pytrees to predict.

| model | matrix | reduction of a row |
|---|---|---|
| k nearest neighbours | measure(x_i, training row j) | vote of the k closest |
| nearest prototype | measure(x_i, class mean c) | the closest |
| linear regression | x_i . w | plus b |
| logistic regression | x_i . w_c | plus b_c, softmax |
| kernel ridge classifier | kernel(x_i, training row j) | weighted sum for each class |

A fit takes NumPy or JAX arrays with known values. `predict`, `scores` and `probabilities` can be compiled by `jax.jit`.
"""

from simjax.classical._classifier import Classifier
from simjax.classical._linear import (
    KernelRidgeClassifier,
    LinearRegression,
    fit_kernel_ridge_classifier,
    fit_linear_regression,
)
from simjax.classical._logistic import LogisticRegression, fit_logistic_regression
from simjax.classical._prototypes import (
    KNearestNeighbors,
    NearestPrototype,
    fit_k_nearest_neighbors,
    fit_nearest_prototype,
)

__all__ = [
    "Classifier",
    "KNearestNeighbors",
    "KernelRidgeClassifier",
    "LinearRegression",
    "LogisticRegression",
    "NearestPrototype",
    "fit_k_nearest_neighbors",
    "fit_kernel_ridge_classifier",
    "fit_linear_regression",
    "fit_logistic_regression",
    "fit_nearest_prototype",
]
