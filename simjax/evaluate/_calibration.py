"""From a distance to a probability: logistic regression of "different" on the score (Platt scaling).

    dissimilarity(d) = 1 / (1 + exp(-(a d + b)))    near 0 for the same, near 1 for different

a and b minimise the cross-entropy against targets moved in from 0 and 1 as if each kind of pair had been seen once
more and come out either way: 1 / (S + 2) for the S same pairs, (D + 1) / (D + 2) for the D different ones. So the
minimum is finite even where a threshold separates the two without an error.

References:
    Platt: Probabilistic Outputs for Support Vector Machines, 1999.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike as JaxArrayLike
from numpy.typing import ArrayLike

from simjax.evaluate._checks import as_scored_pairs, finite

STEPS = 100
"""Newton steps at most; about ten are needed."""


def dissimilarity_probability(distance: JaxArrayLike, a: JaxArrayLike, b: JaxArrayLike) -> Array:
    """The predicted dissimilarity of a pair from its distance, 1 / (1 + exp(-(a distance + b))).

    Args:
        distance: [...], or a similarity where a is negative.
        a: slope, from `fit_dissimilarity`.
        b: intercept.

    Returns:
        [...] in [0, 1].

    Raises:
        InputError: for a known distance that is not finite.

    Example:
        >>> [round(float(dissimilarity_probability(d, 4.0, -4.0)), 2) for d in (0.0, 1.0, 2.0)]
        [0.02, 0.5, 0.98]
    """
    known = distance if isinstance(distance, Tracer) else finite("distance", distance)
    return jax.nn.sigmoid(a * jnp.asarray(known) + b)


def fit_dissimilarity(scores: ArrayLike, same: ArrayLike) -> tuple[float, float]:
    """The slope and the intercept of `dissimilarity_probability`, from pairs that are known.

    Args:
        scores: distance or similarity of each pair, finite, [n].
        same: booleans [n], True for a pair of one class.

    Returns:
        a, positive for a distance that tells anything and negative for a similarity, and b. Scores that are all equal
        give a = 0 and the share of different pairs; no pairs at all give 0, 0: everywhere one half.

    Raises:
        InputError: for lengths that differ or scores that are not finite.

    Example:
        >>> a, b = fit_dissimilarity([0.1, 0.2, 0.3, 0.8, 0.9, 1.0], [True, True, True, False, False, False])
        >>> [round(float(dissimilarity_probability(d, a, b)), 2) for d in (0.1, 0.55, 1.0)]
        [0.15, 0.5, 0.85]
    """
    values, alike = as_scored_pairs(scores, same)
    if not values.size:
        return 0.0, 0.0
    ones, others = np.count_nonzero(alike), np.count_nonzero(~alike)
    target = np.where(alike, 1 / (ones + 2), (others + 1) / (others + 2))
    centre, spread = np.mean(values), np.std(values)
    spread = spread if spread > 0 else 1.0
    inputs = np.stack([(values - centre) / spread, np.ones_like(values)], axis=1)

    def loss(weights: np.ndarray) -> float:
        logits = inputs @ weights
        return float(np.mean(np.logaddexp(0, logits) - target * logits))

    weights = np.array([0.0, np.log((others + 1) / (ones + 1))])
    for _ in range(STEPS):
        p = 1 / 2 + np.tanh(inputs @ weights / 2) / 2  # the sigmoid, without overflow
        downhill = inputs.T @ (target - p) / len(values)
        if np.max(np.abs(downhill)) < 1e-9:  # of a mean, so about as small as rounding lets it be
            break
        curvature = inputs.T @ (inputs * (p * (1 - p))[:, None]) / len(values)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), downhill)  # constant scores leave the slope open
        length = 1.0
        while loss(weights + length * step) > loss(weights) and length > 1e-8:
            length /= 2
        weights = weights + length * step
    slope = weights[0] / spread
    return float(slope), float(weights[1] - slope * centre)
