import itertools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax.core import InputError
from simjax.losses import contrastive_loss, contrastive_terms

FORMS = {
    "squared": (lambda d, m: d**2, lambda d, m: max(0.0, m**2 - d**2)),
    "hadsell": (lambda d, m: d**2, lambda d, m: max(0.0, m - d) ** 2),
    "linear": (lambda d, m: d, lambda d, m: max(0.0, m - d)),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_by_its_formula(form):
    same, different = FORMS[form]
    for d, margin in itertools.product((0.0, 0.5, 1.0, 3.0), (1.0, 5.0)):
        found = contrastive_terms(jnp.array([d, d]), jnp.array([True, False]), margin=margin, form=form)
        np.testing.assert_allclose(found, [same(d, margin), different(d, margin)], rtol=1e-6)


def by_loops(x, labels, margin, form):
    """Mean of the similar pairs' losses above 0, plus the same of the different pairs."""
    sums = {True: [], False: []}
    for i, j in itertools.permutations(range(len(x)), 2):
        alike = bool(labels[i] == labels[j])
        loss = FORMS[form][0 if alike else 1](float(np.linalg.norm(x[i] - x[j])), margin)
        if loss > 0:
            sums[alike].append(loss)
    return sum(np.mean(values) for values in sums.values() if values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [None, 3])
def test_all_pairs_of_a_batch_equal_loops(random, form, block_size):
    x, labels = random.normal(size=(11, 5)), random.integers(0, 3, 11)
    found = contrastive_loss(jnp.float32(x), labels, margin=3.0, form=form, measure="euclidean", block_size=block_size)
    np.testing.assert_allclose(found, by_loops(x, labels, 3.0, form), rtol=1e-4)


@pytest.mark.slow
def test_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        random = np.random.default_rng(3)
        x, labels = jnp.asarray(random.normal(size=(7, 3))), jnp.asarray(random.integers(0, 2, 7))
        for form in FORMS:
            jax.test_util.check_grads(
                lambda x, form=form: contrastive_loss(
                    jnp.asarray(x), labels, margin=9.0, form=form, measure="euclidean", block_size=2
                ),
                (x,),
                order=1,
                modes=["rev"],
            )


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        (np.zeros((4, 3)), [0, 0, 1, 1]),  # all at one point
        (np.eye(3), [0, 1, 2]),  # no similar pair
        (np.eye(3), [1, 1, 1]),  # no different pair
        (np.ones((1, 3)), [0]),  # no pair at all
        (np.full((4, 3), 1e15), [0, 0, 1, 1]),
    ],
)
def test_no_nan_at_degenerate_batches(x, labels):
    value, gradient = jax.value_and_grad(contrastive_loss)(jnp.float32(x), jnp.array(labels))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if len(labels) == 1:
        assert float(value) == 0


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
    with pytest.raises(InputError, match="did you mean hadsell"):
        contrastive_loss(x, labels, form="hadsel")
    with pytest.raises(InputError, match="expected a distance, got cosine"):
        contrastive_loss(x, labels, measure="cosine")
