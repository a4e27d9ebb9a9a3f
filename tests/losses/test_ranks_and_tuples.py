"""Ranking and triplet losses against loops."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from tests.losses.cases import (
    DEGENERATE,
    RELATIONS,
    D,
    M,
    N,
    cosine,
    euclidean,
    kind,
    mean,
    related,
    rows,
    unit,
)
from tests.slow import mostly_slow


def sigmoid(z):
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def with_own_row(found, reference):
    """Return the index, the positives with the row itself, and the negatives of each row with positives."""
    return [(i, p if reference else np.sort([*p, i]), q) for i, (p, q) in enumerate(found) if len(p)]


def smooth_ap(x, y, positive, negative, reference, t=0.01):
    s, terms = cosine(x, y), []
    for i, near, far in with_own_row(rows(positive, negative), reference):
        precision = []
        for p in near:
            positives = 1 + sum(sigmoid((s[i, k] - s[i, p]) / t) for k in near if k != p)
            precision.append(positives / (positives + sum(sigmoid((s[i, k] - s[i, p]) / t) for k in far)))
        terms.append(1 - np.mean(precision))
    return mean(terms)


def pnp(x, y, positive, negative, reference, penalty=lambda r: r, t=0.01):
    s, terms = cosine(x, y), []
    for i, near, far in with_own_row(rows(positive, negative), reference):
        terms.append(np.mean([penalty(sum(sigmoid((s[i, k] - s[i, p]) / t) for k in far)) for p in near]))
    return mean(terms)


def angular(x, y, positive, negative, reference, alpha=40.0):
    a, b, tangent, terms = unit(x), unit(y), np.tan(np.deg2rad(alpha)) ** 2, []
    for i, (near, far) in enumerate(rows(positive, negative)):
        for p in near:
            bounds = [4 * tangent * (a[i] + b[p]) @ b[k] - 2 * (1 + tangent) * a[i] @ b[p] for k in far]
            terms.append(np.log(1 + sum(np.exp(bounds))))
    return mean(terms)


def ranked_list(x, y, positive, negative, reference, margin=0.4, alpha=1.2, near_t=0.0, far_t=10.0):
    d, terms = euclidean(x, y), []
    for i, (near, far) in enumerate(rows(positive, negative)):
        too_far = [d[i, p] - (alpha - margin) for p in near if d[i, p] > alpha - margin]
        too_near = [alpha - d[i, k] for k in far if d[i, k] < alpha]
        both = []
        for violations, t in ((too_far, near_t), (too_near, far_t)):
            weights = [np.exp(t * v) for v in violations]
            both.append(sum(w * v for w, v in zip(weights, violations, strict=True)) / (sum(weights) + 1e-5 * len(y)))
        if len(near) or len(far):
            terms.append(0.5 * both[0] + 0.5 * both[1])
    return mean(terms)


def histogram(x, y, positive, negative, reference, bins=100):
    s, edges = cosine(x, y), np.linspace(-1, 1, bins + 1)

    def density(pairs):
        found = np.zeros(bins + 1)
        for value in s[pairs]:
            found += np.maximum(0, 1 - abs(value - edges) / (2 / bins))
        return found / max(len(s[pairs]), 1)

    return sum(density(negative) * np.cumsum(density(positive)))


def differences(x, y, positive, negative):
    d = euclidean(x, y)
    return np.array(
        [d[i, p] - d[i, k] for i, (near, far) in enumerate(rows(positive, negative)) for p in near for k in far]
    )


def batch_histogram(found, bins=10, spread=2.0):
    shares = np.zeros(bins)
    for place in np.minimum((found + spread) / (2 * spread / bins), bins - 1):
        below = int(place)
        shares[below] += 1 - (place - below)
        if place > below:
            shares[below + 1] += place - below
    return shares / shares.sum()


def dynamic_soft_margin(x, y, positive, negative, reference):
    found = differences(x, y, positive, negative)
    weights = np.cumsum(batch_histogram(found))[np.int32(np.minimum(found + 2, 3.6) / 0.4)]
    return mean(weights * found)


ORACLES = {
    "ranked_list": ranked_list,
    "histogram": histogram,
    "dynamic_soft_margin": dynamic_soft_margin,
    "pnp": pnp,
    "smooth_ap": smooth_ap,
    "angular": angular,
}


EVERY_LOSS = ("classes", "shared labels", "grades", "reference")


def loss_named(name):
    return getattr(losses, f"{name}_loss")


def case(kind, random):
    """Embeddings, reference embeddings, their labels, and the pairs as matrices."""
    labels, ref_labels, positive, negative = related(kind, random)
    x = random.normal(size=(N, D))
    if ref_labels is not None:
        y = random.normal(size=(M, D))
        return x, y, labels, {"ref_embeddings": jnp.float32(y), "ref_labels": ref_labels}, positive, negative
    others = ~np.eye(N, dtype=bool)
    return x, x, labels, {}, positive & others, negative & others


@pytest.mark.parametrize(
    ("name", "kind"),
    [kind(which, name) for name in ORACLES for which in RELATIONS if which in EVERY_LOSS or name == "pnp"],
)
def test_equals_loops(random, name, kind):
    x, y, labels, options, positive, negative = case(kind, random)
    found = loss_named(name)(jnp.float32(x), labels, block_size=4, **options)
    expected = ORACLES[name](x, y, positive, negative, bool(options))
    np.testing.assert_allclose(found, expected, rtol=2e-5)


PENALTIES = {
    "Iu": lambda r: (1 + r) * np.log(1 + r),
    "Ib": lambda r: (3 * r - np.log(1 + 3 * r)) / 9,
    "Ds": lambda r: np.log(1 + r),
    "Dq": lambda r: 1 - 1 / (1 + r) ** 0.5,
}


@pytest.mark.parametrize("variant", PENALTIES)
def test_variants_of_pnp(random, variant):
    x, y, labels, _, positive, negative = case("classes", random)
    found = losses.pnp_loss(jnp.float32(x), labels, variant=variant, alpha=0.5, b=3)
    np.testing.assert_allclose(found, pnp(x, y, positive, negative, False, PENALTIES[variant]), rtol=2e-5)


SMOOTH = {
    "ranked_list": losses.ranked_list_loss,
    "histogram": partial(losses.histogram_loss, bins=5),
    "dynamic_soft_margin": partial(losses.dynamic_soft_margin_loss, histogram=np.arange(10) / 45),
    "pnp": partial(losses.pnp_loss, temperature=0.1, variant="Ib"),
    "smooth_ap": partial(losses.smooth_ap_loss, temperature=0.1),
    "angular": losses.angular_loss,
}


@pytest.mark.parametrize("name", mostly_slow(SMOOTH, "angular"))
def test_gradient_equals_finite_differences(name):
    random = np.random.default_rng(5)
    with jax.enable_x64(True):
        x, y = (jnp.asarray(random.normal(size=(n, 3))) for n in (7, 5))
        labels, ref_labels = jnp.arange(7) % 2, jnp.arange(5) % 2

        @jax.jit
        def loss(x, y):
            return SMOOTH[name](x, labels, ref_embeddings=y, ref_labels=ref_labels, block_size=3)

        jax.test_util.check_grads(loss, (x, y), order=1, modes=["rev"])


def test_gradient_by_hyper_parameters(random):
    labels = random.integers(0, 3, N)
    with jax.enable_x64(True):
        x = jnp.asarray(random.normal(size=(N, D)))
        for at, point in (
            (lambda t: losses.smooth_ap_loss(x, labels, temperature=t), 0.1),
            (lambda b: losses.pnp_loss(x, labels, variant="Ib", b=b), 2.0),
            (lambda a: losses.angular_loss(x, labels, alpha=a), 40.0),
        ):
            expected = (at(point + 1e-6) - at(point - 1e-6)) / 2e-6
            np.testing.assert_allclose(jax.grad(at)(point), expected, rtol=1e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "smooth_ap"))
@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(t, marks=pytest.mark.slow) for t in ("bfloat16", "float16"))]
)
def test_no_nan_at_degenerate_batches(name, dtype):
    both = jax.jit(jax.value_and_grad(loss_named(name)))
    for batch, (x, labels) in DEGENERATE.items():
        with np.errstate(over="ignore"):
            x = jnp.asarray(np.clip(x, -6e4, 6e4) if dtype == "float16" else x, dtype)
        value, gradient = both(x, jnp.asarray(labels, jnp.int32))
        assert np.isfinite(value), batch
        assert np.isfinite(np.float32(gradient)).all(), batch
        if "row" in batch:
            assert float(value) == 0, batch
            assert not np.any(gradient), batch


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "smooth_ap", "angular"))
def test_without_positive_pairs_no_term_is_active(name):
    x, labels = jnp.eye(3), jnp.arange(3)
    terms = losses.unreduced(loss_named(name))(x, labels)
    assert terms.total.shape == terms.count.shape == (3,)
    if name != "ranked_list":  # has terms of negative pairs alone
        assert not np.any(terms.total)
        assert not np.any(terms.count)
    reference = {"ref_embeddings": jnp.zeros((0, 3)), "ref_labels": jnp.zeros(0, int)}
    empty = losses.unreduced(loss_named(name))(x, labels, **reference)
    assert not np.any(empty.total)
    assert not np.any(empty.count)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "smooth_ap", "angular"))
def test_weights_are_factors_of_rows(random, name):
    x, labels, weights = (
        jnp.float32(random.normal(size=(N, D))),
        random.integers(0, 3, N),
        jnp.float32(random.random(N)),
    )
    plain, weighted = (losses.unreduced(loss_named(name))(x, labels, weights=w, block_size=4) for w in (None, weights))
    np.testing.assert_allclose(weighted.total, plain.total * weights, rtol=1e-5)
    np.testing.assert_array_equal(weighted.count, plain.count)
    mean = plain.total.sum() / plain.count.sum()
    np.testing.assert_allclose(loss_named(name)(x, labels, block_size=4), mean, rtol=1e-5)


def test_extreme_temperatures_are_finite(random):
    x, labels = jnp.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    for loss in (partial(losses.pnp_loss, variant="Iu"), losses.smooth_ap_loss):
        both = jax.jit(jax.value_and_grad(loss))
        for temperature in (1e-8, 1e3):
            value, gradient = both(x, labels, temperature=jnp.float32(temperature))
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()


def test_ranked_list_at_a_large_temperature_has_the_worst_pair():
    x, labels = jnp.array([[0.0], [1e6], [5e5], [1e5]]), jnp.array([0, 0, 0, 1])
    terms = losses.unreduced(losses.ranked_list_loss)(
        x, labels, measure="euclidean", positive_temperature=1e3, imbalance=0.0
    )
    np.testing.assert_allclose(terms.total, [1e6, 1e6, 5e5, 0], rtol=1e-5)


@pytest.mark.parametrize("alpha", [20.0, 63.0, 64.0, 80.0])
def test_angular_terms_of_each_row_at_any_angle(random, alpha):
    x, labels = random.normal(size=(N, D)), random.integers(0, 4, N)
    found = losses.unreduced(losses.angular_loss)(jnp.float32(x), labels, alpha=alpha, block_size=4)
    same = labels[:, None] == labels
    positive = same & ~np.eye(N, dtype=bool)
    for i in range(N):
        only = positive & (np.arange(N) == i)[:, None]
        assert found.count[i] == only.sum()
        expected = angular(x, x, only, ~same, False, alpha=alpha) * only.sum()
        np.testing.assert_allclose(found.total[i], expected, rtol=1e-5, atol=1e-6)
    opposite = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    for labels in ([0, 0, 1, 1], [0, 1, 0, 1]):
        gradient = jax.grad(losses.angular_loss)(opposite, jnp.array(labels), alpha=alpha)
        assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_angular_gradient_if_exponentials_overflow(random):
    with jax.enable_x64(True):
        x = jnp.asarray(random.normal(size=(7, 3)))
        check = partial(losses.angular_loss, labels=jnp.arange(7) % 3, alpha=85.0, block_size=3)
        jax.test_util.check_grads(jax.jit(check), (x,), order=1, modes=["rev"])


def test_the_direction_of_the_histogram_loss():
    x, labels = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.1]]), jnp.array([0, 0, 1, 1])
    assert float(losses.histogram_loss(x, labels, measure="angular")) < 0.5
    assert float(losses.histogram_loss(x, jnp.array([0, 1, 1, 0]), measure="angular")) > 0.5


def test_the_histogram_is_a_moving_average(random):
    """The first histogram is that of the batch; later batches have the weight `momentum`."""
    xs, labels = [random.normal(size=(N, D)) for _ in range(3)], random.integers(0, 3, N)
    same = labels[:, None] == labels
    found = expected = np.zeros(10)
    for x in xs:
        found = losses.dynamic_soft_margin_histogram(
            jnp.float32(x), labels, previous=found, momentum=0.25, block_size=4
        )
        own = batch_histogram(differences(x, x, same & ~np.eye(N, dtype=bool), ~same))
        expected = own if not expected.any() else 0.75 * expected + 0.25 * own
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    unchanged = losses.dynamic_soft_margin_histogram(jnp.eye(3), jnp.arange(3), previous=found)
    np.testing.assert_array_equal(unchanged, found)


def test_the_weights_of_the_dynamic_soft_margin_are_constants(random):
    with jax.enable_x64(True):  # two programs agree up to rounding
        x, labels = jnp.asarray(random.normal(size=(N, D))), random.integers(0, 3, N)
        own = losses.dynamic_soft_margin_histogram(x, labels, block_size=4)
        gradient = jax.jit(jax.grad(partial(losses.dynamic_soft_margin_loss, block_size=4)))
        np.testing.assert_allclose(gradient(x, labels), gradient(x, labels, histogram=own), rtol=1e-10, atol=1e-15)


@pytest.mark.slow
def test_second_derivatives_of_several_blocks(random):
    labels = jnp.arange(5) % 2
    with jax.enable_x64(True):
        x, direction = (jnp.asarray(random.normal(size=(5, 2))) for _ in range(2))

        @jax.jit
        def gradient(x):
            return jax.grad(lambda x: losses.smooth_ap_loss(x, labels, temperature=0.3, block_size=2))(x)

        expected = (gradient(x + 1e-5 * direction) - gradient(x - 1e-5 * direction)) / 2e-5
        found = jax.grad(lambda x: jnp.sum(gradient(x) * direction))(x)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_other_labels_do_not_recompile(random, caplog):
    x = jnp.float32(random.normal(size=(N, D)))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for classes in (3, 1, 2, N):
            batch = random.integers(0, classes, N)
            for name in ORACLES:
                loss_named(name)(x, batch, block_size=4)
            if classes == 3:
                caplog.clear()
    assert [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()] == []


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, labels = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
    for name in ORACLES:
        with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
            loss_named(name)(x, labels[:2])
        with pytest.raises(InputError, match="one without the other"):
            loss_named(name)(x, labels, ref_embeddings=x)
        with pytest.raises(TypeError, match="integer class ids, got float32"):
            loss_named(name)(x, jnp.zeros(3))
    for wrong in (0.0, -1.0, float("nan")):
        for name in ("smooth_ap", "pnp"):
            with pytest.raises(InputError, match="temperature: expected more than 0"):
                loss_named(name)(x, labels, temperature=wrong)
        with pytest.raises(InputError, match="alpha: expected a number between 0 and 90"):
            losses.angular_loss(x, labels, alpha=wrong)
        with pytest.raises(InputError, match="spread: expected more than 0"):
            losses.dynamic_soft_margin_loss(x, labels, spread=wrong, histogram=jnp.ones(3))
        with pytest.raises(InputError, match="b: expected more than 0"):
            losses.pnp_loss(x, labels, b=wrong)
    with pytest.raises(InputError, match="did you mean Ib"):
        losses.pnp_loss(x, labels, variant="Ibb")
    with pytest.raises(InputError, match="imbalance: expected a number from 0 to 1, got 1.5"):
        losses.ranked_list_loss(x, labels, imbalance=1.5)
    with pytest.raises(InputError, match="negative_temperature: expected at least 0"):
        losses.ranked_list_loss(x, labels, negative_temperature=-1.0)
    with pytest.raises(InputError, match="momentum: expected a number from 0 to 1"):
        losses.dynamic_soft_margin_histogram(x, labels, momentum=2.0)
    with pytest.raises(InputError, match="bounded range, got euclidean"):
        losses.histogram_loss(x, labels, measure="euclidean")
    for name in ("histogram", "dynamic_soft_margin"):
        with pytest.raises(InputError, match="bins: expected at least 1"):
            loss_named(name)(x, labels, bins=0)
        with pytest.raises(InputError, match="does not know how many of its terms are above 0"):
            loss_named(name)(x, labels, reducer="mean_active")
    with pytest.raises(InputError, match="need class ids"):
        losses.pnp_loss(x, pairs.by_matrix(np.eye(3, dtype=bool)), reducer=losses.Reducer(class_weights=jnp.ones(2)))
