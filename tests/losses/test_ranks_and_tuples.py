"""Ranking and triplet losses: what test_pair_losses.py does not test for all losses."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import (
    D,
    N,
    assert_gradient_equals_slope,
    float32,
    loss_named,
)
from tests.losses.oracles import angular, batch_histogram, differences, pnp
from tests.slow import mostly_slow


@pytest.fixture
def batch(random):
    """Embeddings, labels, and the masks of positive and of negative pairs."""
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    same = labels[:, None] == labels
    return x, labels, same & ~np.eye(N, dtype=bool), ~same


PENALTIES: dict[Literal["Iu", "Ib", "Ds", "Dq"], Callable[[float], float]] = {
    "Iu": lambda r: (1 + r) * np.log(1 + r),
    "Ib": lambda r: (3 * r - np.log(1 + 3 * r)) / 9,
    "Ds": lambda r: np.log(1 + r),
    "Dq": lambda r: 1 - 1 / (1 + r) ** 0.5,
}


def test_variants_of_pnp(batch):
    x, labels, positive, negative = batch

    @jax.jit
    def compute(x, labels):
        return {variant: losses.pnp_loss(x, labels, variant=variant, alpha=0.5, b=3) for variant in PENALTIES}

    found = compute(float32(x), labels)
    for variant, penalty in PENALTIES.items():
        np.testing.assert_allclose(found[variant], pnp(x, x, positive, negative, penalty), rtol=2e-5, err_msg=variant)


HYPER_PARAMETERS = {
    "smooth_ap": (lambda x, labels, t: losses.smooth_ap_loss(x, labels, temperature=t), 0.1),
    "pnp": (lambda x, labels, b: losses.pnp_loss(x, labels, variant="Ib", b=b), 2.0),
    "angular": (lambda x, labels, a: losses.angular_loss(x, labels, alpha=a), 40.0),
}


@pytest.mark.parametrize("name", mostly_slow(HYPER_PARAMETERS, "pnp"))
def test_gradient_by_a_hyper_parameter(random, batch, name):
    x, labels, *_ = batch
    loss, point = HYPER_PARAMETERS[name]
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(lambda value: loss(x, labels, value)))
        assert_gradient_equals_slope(both, np.float64(point), random)


@pytest.mark.slow
def test_extreme_temperatures_are_finite(batch):
    @jax.jit
    @jax.value_and_grad
    def both(x, labels, temperature):
        of_pnp = losses.pnp_loss(x, labels, variant="Iu", temperature=temperature)
        return of_pnp + losses.smooth_ap_loss(x, labels, temperature=temperature)

    for temperature in (1e-8, 1e3):
        value, gradient = both(float32(batch[0]), batch[1], float32(temperature))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_ranked_list_at_a_large_temperature_has_the_worst_pair():
    x, labels = float32([[0.0], [1e6], [5e5], [1e5]]), np.array([0, 0, 0, 1])
    terms = losses.unreduced(losses.ranked_list_loss)(
        x, labels, measure="euclidean", positive_temperature=1e3, imbalance=0.0
    )
    np.testing.assert_allclose(terms.total, [1e6, 1e6, 5e5, 0], rtol=1e-5)


def test_angular_terms_of_each_row_at_any_angle(random):
    """An angle of 63 degrees or more takes the other branch of the same program."""
    x, labels = random.normal(size=(N, D)), random.integers(0, 4, N)
    same = labels[:, None] == labels
    positive = same & ~np.eye(N, dtype=bool)
    compute = jax.jit(partial(losses.unreduced(losses.angular_loss), block_size=4))
    for alpha in (20.0, 63.0, 64.0, 80.0):
        found = compute(float32(x), labels, alpha=alpha)
        count, total = np.asarray(found.count), np.asarray(found.total)
        for i in range(N):
            only = positive & (np.arange(N) == i)[:, None]
            assert count[i] == only.sum()
            expected = angular(x, x, only, ~same, alpha=alpha) * only.sum()
            np.testing.assert_allclose(total[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_angular_gradient_of_opposite_rows_is_finite_at_any_angle():
    gradient_of = jax.jit(jax.grad(losses.angular_loss))
    opposite = float32([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    for alpha in (20.0, 63.0, 64.0, 80.0):
        for ids in ([0, 0, 1, 1], [0, 1, 0, 1]):
            assert np.isfinite(gradient_of(opposite, np.array(ids), alpha=alpha)).all()


@pytest.mark.slow
def test_angular_gradient_if_exponentials_overflow(random):
    with jax.enable_x64(True):
        x = random.normal(size=(7, 3))
        loss = partial(losses.angular_loss, labels=np.arange(7) % 3, alpha=85.0, block_size=3)
        assert_gradient_equals_slope(jax.jit(jax.value_and_grad(loss)), x, random)


def test_the_direction_of_the_histogram_loss():
    x = float32([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.1]])
    assert float(losses.histogram_loss(x, np.array([0, 0, 1, 1]), measure="angular")) < 0.5
    assert float(losses.histogram_loss(x, np.array([0, 1, 1, 0]), measure="angular")) > 0.5


def test_the_histogram_is_a_moving_average(random):
    """The first histogram is that of the batch; later batches have the weight `momentum`."""
    xs, labels = [random.normal(size=(N, D)) for _ in range(3)], random.integers(0, 3, N)
    same = labels[:, None] == labels
    update = jax.jit(partial(losses.dynamic_soft_margin_histogram, momentum=0.25, block_size=4))
    found = expected = np.zeros(10, np.float32)
    for x in xs:
        found = update(float32(x), labels, previous=found)
        own = batch_histogram(differences(x, x, same & ~np.eye(N, dtype=bool), ~same))
        expected = own if not expected.any() else 0.75 * expected + 0.25 * own
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.sum(found), 1, rtol=1e-5)
    np.testing.assert_array_equal(update(float32(xs[0]), np.arange(N), previous=found), found)


@pytest.mark.slow
def test_the_weights_of_the_dynamic_soft_margin_are_constants(random, batch):
    """The histogram of the batch has no gradient, and the weights are constant between two bins."""
    x, labels, *_ = batch
    with jax.enable_x64(True):

        @jax.jit
        def compute(x, histogram):
            both = jax.value_and_grad(losses.dynamic_soft_margin_loss)
            given = both(x, labels, histogram=histogram, block_size=4)
            own = losses.dynamic_soft_margin_histogram(x, labels, block_size=4)
            return given, own, jax.grad(losses.dynamic_soft_margin_loss)(x, labels, block_size=4)

        own = compute(x, np.arange(10) / 45)[1]
        given, _, gradient = compute(x, own)
        np.testing.assert_allclose(gradient, given[1], rtol=1e-10, atol=1e-15)
        assert_gradient_equals_slope(lambda x: compute(x, np.arange(10) / 45)[0], x, random)


@pytest.mark.slow
def test_second_derivatives_of_several_blocks(random):
    labels = np.arange(5) % 2
    with jax.enable_x64(True):
        x, direction = random.normal(size=(2, 5, 2))

        def slope(x):
            gradient = jax.grad(lambda x: losses.smooth_ap_loss(x, labels, temperature=0.3, block_size=2))(x)
            return jnp.sum(gradient * direction)

        assert_gradient_equals_slope(jax.jit(jax.value_and_grad(slope)), x, random)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    for wrong in (0.0, -1.0, float("nan")):
        for name in ("smooth_ap", "pnp"):
            with pytest.raises(InputError, match="temperature: expected more than 0"):
                loss_named(name)(x, labels, temperature=wrong)
        with pytest.raises(InputError, match="alpha: expected a number between 0 and 90"):
            losses.angular_loss(x, labels, alpha=wrong)
        with pytest.raises(InputError, match="spread: expected more than 0"):
            losses.dynamic_soft_margin_loss(x, labels, spread=wrong, histogram=np.ones(3))
        with pytest.raises(InputError, match="b: expected more than 0"):
            losses.pnp_loss(x, labels, b=wrong)
    unknown: Any = "Ibb"
    with pytest.raises(InputError, match="did you mean Ib"):
        losses.pnp_loss(x, labels, variant=unknown)
    with pytest.raises(InputError, match="imbalance: expected a number from 0 to 1, got 1.5"):
        losses.ranked_list_loss(x, labels, imbalance=1.5)
    with pytest.raises(InputError, match="negative_temperature: expected at least 0"):
        losses.ranked_list_loss(x, labels, negative_temperature=-1.0)
    with pytest.raises(InputError, match="momentum: expected a number from 0 to 1"):
        losses.dynamic_soft_margin_histogram(x, labels, momentum=2.0)
    with pytest.raises(InputError, match="bounded range, got euclidean"):
        losses.histogram_loss(x, labels, measure="euclidean")
    for name in ("fast_ap", "histogram", "dynamic_soft_margin"):
        with pytest.raises(InputError, match="bins: expected at least 1"):
            loss_named(name)(x, labels, bins=0)
    for name in ("histogram", "dynamic_soft_margin"):
        with pytest.raises(InputError, match="does not know how many of its terms are above 0"):
            loss_named(name)(x, labels, reducer="mean_active")
