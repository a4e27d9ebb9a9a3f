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
def test_terms_equal_formulas(form):
    positive, negative = FORMS[form]
    for d, margin in itertools.product((0.0, 0.5, 1.0, 3.0), (1.0, 5.0)):
        found = contrastive_terms(jnp.array([d, d]), jnp.array([True, False]), margin=margin, form=form)
        np.testing.assert_allclose(found, [positive(d, margin), negative(d, margin)], rtol=1e-6)


def by_loops(x, labels, margin, form):
    """Mean of the positive terms above 0 plus mean of the negative terms above 0."""
    sums = {True: [], False: []}
    for i, j in itertools.permutations(range(len(x)), 2):
        is_positive = bool(labels[i] == labels[j])
        loss = FORMS[form][0 if is_positive else 1](float(np.linalg.norm(x[i] - x[j])), margin)
        if loss > 0:
            sums[is_positive].append(loss)
    return sum(np.mean(values) for values in sums.values() if values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [None, 3])
def test_equals_loops(random, form, block_size):
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
        (np.eye(3), [0, 1, 2]),  # no positive pair
        (np.eye(3), [1, 1, 1]),  # no negative pair
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
