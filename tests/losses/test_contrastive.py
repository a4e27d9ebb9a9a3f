import itertools
from typing import Any

import jax
import numpy as np
import pytest

from simjax.core import InputError
from simjax.losses import contrastive_loss, contrastive_terms
from tests.losses.cases import (
    assert_gradient_equals_slope,
    float32,
)

VARIANTS = {
    "squared": (lambda d, m: d**2, lambda d, m: max(0.0, m**2 - d**2)),
    "hadsell": (lambda d, m: d**2, lambda d, m: max(0.0, m - d) ** 2),
    "linear": (lambda d, m: d, lambda d, m: max(0.0, m - d)),
}


def test_terms_equal_formulas():
    distances = (0.0, 0.5, 1.0, 3.0)

    @jax.jit
    def compute(distance, same, margin):
        return {variant: contrastive_terms(distance, same, margin=margin, variant=variant) for variant in VARIANTS}

    for margin in (1.0, 5.0):
        found = compute(float32(distances * 2), np.repeat([True, False], 4), float32(margin))
        for variant, (positive, negative) in VARIANTS.items():
            expected = [positive(d, margin) for d in distances] + [negative(d, margin) for d in distances]
            np.testing.assert_allclose(found[variant], expected, rtol=1e-6)


def by_loops(x, labels, margin, variant):
    """Mean of the positive terms above 0 plus mean of the negative terms above 0."""
    sums = {True: [], False: []}
    for i, j in itertools.permutations(range(len(x)), 2):
        is_positive = bool(labels[i] == labels[j])
        loss = VARIANTS[variant][0 if is_positive else 1](float(np.linalg.norm(x[i] - x[j])), margin)
        if loss > 0:
            sums[is_positive].append(loss)
    return sum(np.mean(values) for values in sums.values() if values)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_value_equals_loops_and_gradient_equals_finite_differences(random, variant):
    x, labels = random.normal(size=(11, 5)), random.integers(0, 3, 11)
    with jax.enable_x64(True):

        @jax.jit
        @jax.value_and_grad
        def value_and_gradient(x):
            return contrastive_loss(x, labels, margin=3.0, variant=variant, measure="euclidean", block_size=3)

        np.testing.assert_allclose(value_and_gradient(x)[0], by_loops(x, labels, 3.0, variant), rtol=1e-4)
        assert_gradient_equals_slope(value_and_gradient, x, random)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    wrong: Any = "hadsel"
    with pytest.raises(InputError, match="did you mean hadsell"):
        contrastive_loss(x, labels, variant=wrong)
    with pytest.raises(InputError, match="expected a distance, got cosine"):
        contrastive_loss(x, labels, measure="cosine")
