"""Multinomial logistic regression.

References:
    Hastie, Tibshirani, Friedman (2009), The Elements of Statistical Learning, section 4.4.
    Liu, Nocedal (1989), On the limited memory BFGS method for large scale optimization.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from simjax.classical._classifier import Classifier, class_indices, query_rows, training_rows
from simjax.core import InputError, check_positive
from simjax.similarity import pairwise

TOLERANCE = 1e-10  # of the norm of the gradient, relative to that at weights 0
MAX_STEPS = 100_000
MEMORY = 100  # earlier steps that L-BFGS remembers; with 20 it takes 1.3 to 2.6 times as many steps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogisticRegression(Classifier):
    """A linear classifier with probabilities, see `fit_logistic_regression`.

    Attributes:
        classes: See `Classifier`.
        weights: Weight vector of each class, [c, d].
        intercept: [c], with sum 0.
    """

    classes: Array
    weights: Array
    intercept: Array

    def scores(self, x: Num[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Compute the logits, x . w_c + b_c."""
        return pairwise(query_rows(x, self.weights.shape[1]), self.weights, "dot") + self.intercept

    def probabilities(self, x: Num[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Compute the probability of each class, the softmax of the scores."""
        return jax.nn.softmax(self.scores(x), axis=1)


def fit_logistic_regression(
    x: Num[ArrayLike, "m d"], labels: Int[ArrayLike, " m"], *, penalty: float = 1.0
) -> LogisticRegression:
    """Return a multinomial logistic regression with an L2 penalty, trained by L-BFGS until it has converged.

        minimum over w, b of  -sum_i log p(label_i | x_i) + penalty / 2 sum_c |w_c|^2,
        p(c | x) = exp(x . w_c + b_c) / sum_k exp(x . w_k + b_k)

    The intercepts b are not penalized. Computed in float64, also without `jax_enable_x64`.

    Args:
        x: Training rows, [m, d].
        labels: Class ids, integers [m], of at least two classes.
        penalty: Above 0; 1 / `C` of scikit-learn's `LogisticRegression`. With two classes scikit-learn has a single
            weight vector, w_1 - w_0, and the same penalty is C = 2 / penalty.

    Raises:
        InputError: If shapes do not match, a number is not finite, there is a single class, the penalty is not above
            0, or the training does not converge.

    Example:
        >>> model = fit_logistic_regression(np.arange(4.0)[:, None], np.array([3, 3, 8, 8]))
        >>> print(model.predict(np.array([[0.5], [2.5]])), model.probabilities(np.array([[1.5]])).round(3))
        [3 8] [[0.5 0.5]]
    """
    check_positive("penalty", penalty)
    rows = training_rows(x)
    classes, indices = class_indices(labels, len(rows), minimum=2)
    with jax.enable_x64(True):
        # An argument: for zeros made inside, JAX 0.10.2 compiled a gradient of NaN in 2 of 6 attempts on a CPU.
        start = np.zeros((len(classes), rows.shape[1])), np.zeros(len(classes))
        fitted = _minimize(rows, np.eye(len(classes))[indices], float(penalty), start)
        weights, intercept, steps = map(np.asarray, fitted)
    if steps >= MAX_STEPS:
        raise InputError(f"penalty: expected a fit that converges in {MAX_STEPS:,} steps, got {penalty}; raise it")
    return LogisticRegression(classes, jnp.asarray(weights), jnp.asarray(intercept))


@jax.jit
def _minimize(x: Array, targets: Array, penalty: Array, start: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """Return the weights [c, d], the intercepts [c] and the number of steps, from those at the start.

    The optimizer sees centered features, divided by the square root of the curvature of the objective at weights 0.
    """
    m, c = targets.shape
    mean = jnp.mean(x, axis=0)
    centered = x - mean
    scale = jnp.sqrt(jnp.sum(centered**2, axis=0) / c + penalty)
    z = centered / scale

    def objective(params: tuple[Array, Array]) -> Array:
        u, b = params
        loss = optax.softmax_cross_entropy(z @ u.T + b, targets).sum()
        return (loss + penalty / 2 * jnp.sum((u / scale) ** 2)) / m

    optimizer = optax.lbfgs(memory_size=MEMORY)
    value_and_grad = optax.value_and_grad_from_state(objective)
    limit = TOLERANCE * optax.tree.norm(jax.grad(objective)(start))

    def is_unfinished(carry: tuple) -> Array:
        _, state, step = carry
        return (step == 0) | ((optax.tree.norm(optax.tree.get(state, "grad")) > limit) & (step < MAX_STEPS))

    def take_step(carry: tuple) -> tuple:
        params, state, step = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=objective)
        return optax.apply_updates(params, updates), state, step + 1

    carry: Any = (start, optimizer.init(start), 0)
    (u, b), _, steps = jax.lax.while_loop(is_unfinished, take_step, carry)
    weights = u / scale
    b = b - weights @ mean
    return weights, b - jnp.mean(b), steps
