"""Losses of embeddings and proxies, one or several per class, against loops."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import (
    D,
    N,
    assert_gradient_equals_slope,
    cosine,
    degenerate_batches,
    float32,
    loss_named,
    unit,
)
from tests.slow import mostly_slow

C, K = 4, 3


def cross_entropy(logits, labels):
    return np.mean([np.log(np.exp(row).sum()) - row[k] for row, k in zip(logits, labels, strict=True)])


def normalized_softmax(x, labels, proxies, temperature=0.05):
    return cross_entropy(cosine(x, proxies) / temperature, labels)


def cosface(x, labels, proxies, margin=0.35, scale=64.0):
    s = cosine(x, proxies)
    s[np.arange(len(s)), labels] -= margin
    return cross_entropy(scale * s, labels)


def arcface(x, labels, proxies, margin=28.6, scale=64.0):
    return arcface_of_cosines(cosine(x, proxies), labels, margin, scale)


def sub_center_arcface(x, labels, proxies, margin=28.6, scale=64.0):
    return arcface_of_cosines(np.stack([cosine(x, own).max(1) for own in proxies], axis=1), labels, margin, scale)


def arcface_of_cosines(s, labels, margin, scale):
    m = np.deg2rad(margin)
    for i, k in enumerate(labels):
        angle = np.arccos(np.clip(s[i, k], -1, 1))
        s[i, k] = np.cos(angle + m) if angle + m < np.pi else s[i, k] - m * np.sin(m)
    return cross_entropy(scale * s, labels)


def soft_triple(x, labels, proxies, scale=20.0, gamma=0.1, margin=0.01, tau=0.0):
    s = np.zeros((len(x), len(proxies)))
    for k, own in enumerate(proxies):
        c = cosine(x, own)
        s[:, k] = (np.exp(c / gamma) * c).sum(1) / np.exp(c / gamma).sum(1)
    s[np.arange(len(x)), labels] -= margin
    distances = [np.linalg.norm(unit(own)[i] - unit(own)[j]) for own in proxies for i in range(K) for j in range(i)]
    return cross_entropy(scale * s, labels) + tau * sum(distances) / (len(proxies) * K * (K - 1))


def large_margin_softmax(x, labels, proxies, margin=4, scale=1.0):
    s = cosine(x, proxies)
    for i, k in enumerate(labels):
        angle = np.arccos(np.clip(s[i, k], -1, 1))
        j = min(int(angle * margin / np.pi), margin - 1)
        s[i, k] = (-1) ** j * np.cos(margin * angle) - 2 * j
    return cross_entropy(scale * np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(proxies, axis=1) * s, labels)


def sphereface(x, labels, proxies, **parameters):
    return large_margin_softmax(x, labels, unit(proxies), **parameters)


def p2s_grad(x, labels, proxies):
    return np.mean(np.square(cosine(x, proxies) - np.eye(len(proxies))[labels]))


def proxy_nca(x, labels, proxies):
    return cross_entropy(-(2 - 2 * cosine(x, proxies)), labels)


def proxy_anchor(x, labels, proxies, margin=0.1, alpha=32.0):
    s, positives, negatives = cosine(x, proxies), [], []
    for k in range(len(proxies)):
        own = labels == k
        if own.any():
            positives.append(np.log1p(np.exp(-alpha * (s[own, k] - margin)).sum()))
        negatives.append(np.log1p(np.exp(alpha * (s[~own, k] + margin)).sum()))
    return np.mean(positives) + np.mean(negatives)


ORACLES = {
    "normalized_softmax": normalized_softmax,
    "cosface": cosface,
    "arcface": arcface,
    "sub_center_arcface": sub_center_arcface,
    "soft_triple": soft_triple,
    "large_margin_softmax": large_margin_softmax,
    "sphereface": sphereface,
    "p2s_grad": p2s_grad,
    "proxy_nca": proxy_nca,
    "proxy_anchor": proxy_anchor,
}
SEVERAL_PROXIES = ("sub_center_arcface", "soft_triple")
MULTIPLIED_ANGLES = ("large_margin_softmax", "sphereface")


def shape(name, d=D):
    return (C, K, d) if name in SEVERAL_PROXIES else (C, d)


PARAMETERS = {  # the defaults, and other values
    "normalized_softmax": ({"temperature": 0.05}, {"temperature": 0.7}),
    "cosface": ({"margin": 0.35, "scale": 64.0}, {"margin": 0.1, "scale": 3.0}),
    "arcface": ({"margin": 28.6, "scale": 64.0}, {"margin": 10.0, "scale": 3.0}),
    "sub_center_arcface": ({"margin": 28.6, "scale": 64.0}, {"margin": 10.0, "scale": 3.0}),
    "soft_triple": (
        {"scale": 20.0, "gamma": 0.1, "margin": 0.01, "tau": 0.0},
        {"scale": 5.0, "gamma": 0.3, "margin": 0.2, "tau": 0.7},
    ),
    "large_margin_softmax": ({"scale": 1.0}, {"scale": 0.5}),
    "sphereface": ({"scale": 1.0}, {"scale": 0.5}),
    "p2s_grad": ({},),
    "proxy_nca": ({},),
    "proxy_anchor": ({"margin": 0.1, "alpha": 32.0}, {"margin": 0.3, "alpha": 4.0}),
}


FAST = ("normalized_softmax", "arcface", "sphereface", "proxy_anchor")


@pytest.mark.parametrize("name", mostly_slow(ORACLES, *FAST))
def test_value_equals_loops_and_gradient_equals_finite_differences(random, name):
    x, proxies = random.normal(size=(N, D)), random.normal(size=shape(name))
    labels = random.integers(0, C - 1, N)  # the last class has no row
    opposite = x.copy()  # the largest possible angle
    opposite[0] = -(proxies[labels[0], 0] if name in SEVERAL_PROXIES else proxies[labels[0]])
    known = np.arange(N) % 4 != 3  # the other rows have an id without a proxy
    some_ids = np.where(known, labels, -1)
    with jax.enable_x64(True):

        @jax.jit
        def compute(x, labels, proxies, parameters):
            def loss(x, proxies):
                return loss_named(name)(x, labels, proxies=proxies, **parameters)

            return jax.value_and_grad(loss, argnums=(0, 1))(x, proxies)

        for parameters in PARAMETERS[name]:
            found = compute(opposite, some_ids, proxies, parameters)[0]
            np.testing.assert_allclose(
                found, ORACLES[name](opposite[known], labels[known], proxies, **parameters), rtol=2e-5
            )
            for k in (0, 1):

                def of_one(a, k=k, parameters=parameters):
                    value, gradients = compute(*((a, labels, proxies) if k == 0 else (x, labels, a)), parameters)
                    return value, gradients[k]

                assert_gradient_equals_slope(of_one, (x, proxies)[k], random)
        without_regularizer = PARAMETERS[name][0]
        assert float(compute(x, np.full(N, -1), proxies, without_regularizer)[0]) == 0


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "arcface"))
def test_blocks_of_float32_equal_loops_for_default_parameters(random, name):
    x, labels, proxies = random.normal(size=(N, D)), random.integers(0, C, N), random.normal(size=shape(name))
    found = loss_named(name)(float32(x), labels, proxies=float32(proxies), block_size=4)
    np.testing.assert_allclose(found, ORACLES[name](x, labels, proxies), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MULTIPLIED_ANGLES)
@pytest.mark.parametrize("margin", [1, 3])
def test_other_factors_of_the_angle_equal_loops(random, name, margin):
    x, labels, proxies = random.normal(size=(N, D)), random.integers(0, C, N), random.normal(size=shape(name))
    found = loss_named(name)(float32(x), labels, proxies=float32(proxies), margin=margin, scale=0.5)
    np.testing.assert_allclose(found, ORACLES[name](x, labels, proxies, margin=margin, scale=0.5), rtol=2e-5)


@pytest.mark.parametrize("margin", mostly_slow([4, 5], 4))
def test_the_loss_increases_with_the_multiplied_angle(margin):
    angles = np.linspace(0, np.pi, 61)
    x, proxies = float32(np.stack([np.cos(angles), np.sin(angles)], axis=1)), float32([[1.0, 0.0], [0.0, 0.0]])
    terms = losses.unreduced(losses.sphereface_loss)(x, np.zeros(61, int), proxies=proxies, margin=margin)
    total = np.asarray(terms.total)
    assert np.all(np.diff(total) > 0)
    np.testing.assert_allclose(total[-1], np.log1p(np.exp(2 * margin - 1)), rtol=1e-5)  # psi(pi) = 1 - 2 m


def test_only_the_first_nearest_proxy_of_a_class_has_a_gradient():
    proxies = float32([[[0.0, 1.0], [1.0, 0.1], [1.0, 0.1]], [[-1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]])
    x = float32([[1.0, 0.0]])
    loss = jax.jit(jax.grad(lambda p: losses.sub_center_arcface_loss(x, np.array([0]), proxies=p, scale=2.0)))
    gradient = loss(proxies)
    np.testing.assert_array_equal(np.any(gradient, axis=2), [[False, True, False], [False, False, True]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_nan_at_degenerate_batches(name, dtype):
    of_classes = np.array([1.0, 0, 1e3, -1]).reshape(C, *(1,) * (len(shape(name)) - 1))  # the second one is zero
    proxies = jnp.asarray(np.broadcast_to(of_classes, shape(name, 4)), dtype)
    both = jax.jit(
        jax.value_and_grad(lambda x, p, labels: loss_named(name)(x, labels, proxies=p, reducer="sum"), argnums=(0, 1))
    )
    for case, x, labels in degenerate_batches(dtype):
        # If logits depend on lengths, gradients are several times as long as the rows and must not overflow.
        x = jnp.clip(x, -1e3, 1e3) if dtype == "float16" else x
        for shift in (0, 1):
            value, gradients = both(x, proxies, labels + shift)
            assert np.isfinite(value), case
            assert all(np.isfinite(float32(g)).all() for g in gradients), case
            if case == "no row":
                assert float(value) == 0


@pytest.mark.slow
def test_lengths_whose_product_overflows_float32():
    x, proxies = np.full((2, 2), 1e30, np.float32), np.eye(2, dtype=np.float32) * 1e30
    loss = jax.value_and_grad(
        lambda x, p, s: losses.large_margin_softmax_loss(x, np.arange(2), proxies=p, scale=s), argnums=(0, 1, 2)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(loss)(x, proxies, 1.0)))


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "arcface"))
def test_other_labels_do_not_recompile(random, caplog, name):
    x, proxies = float32(random.normal(size=(N, D))), float32(random.normal(size=shape(name)))
    loss_named(name)(x, random.integers(0, C, N), proxies=proxies, block_size=4)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for classes in range(1, C):
            loss_named(name)(x, random.integers(-1, classes, N), proxies=proxies, block_size=4)
    assert [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()] == []


def test_outliers_equal_loops(random):
    x, labels, proxies = random.normal(size=(N, D)), random.integers(-1, C - 1, N), random.normal(size=(C, K, D))
    dominant, outliers = np.zeros(C, int), np.zeros(N, bool)
    for k in range(C):
        own = np.flatnonzero(labels == k)
        nearest = cosine(x[own], proxies[k]).argmax(1)
        dominant[k] = np.bincount(nearest, minlength=K).argmax()
        outliers[own] = cosine(x[own], proxies[k])[:, dominant[k]] < np.cos(np.deg2rad(60))
    found = losses.sub_center_outliers(float32(x), labels, proxies=float32(proxies), threshold=60.0, block_size=4)
    np.testing.assert_array_equal(found.outlier, outliers)
    np.testing.assert_array_equal(found.dominant, dominant)
    np.testing.assert_array_equal(found.proxies, np.asarray(proxies, np.float32)[np.arange(C), dominant])
    assert outliers.any()
    assert not np.all(outliers[labels >= 0])


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments(random):
    x, labels = np.ones((3, 2)), np.array([0, 1, 2])
    for name in SEVERAL_PROXIES:
        with pytest.raises(InputError, match=r"k proxies of each class, \[c, k, d\], got shape \(3, 2\)"):
            loss_named(name)(x, labels, proxies=np.ones((3, 2)))
        with pytest.raises(InputError, match=r"got shape \(3, 0, 2\)"):
            loss_named(name)(x, labels, proxies=np.ones((3, 0, 2)))
    for name in ORACLES:
        with pytest.raises(InputError, match="expected class ids below 2, the number of proxies, got 2"):
            loss_named(name)(x, labels, proxies=np.ones((2, 1, 2) if name in SEVERAL_PROXIES else (2, 2)))
    for name in MULTIPLIED_ANGLES:
        for margin in (0, 1.5, None):
            with pytest.raises(InputError, match=f"margin: expected an integer of at least 1, got {margin}"):
                loss_named(name)(x, labels, proxies=np.ones((3, 2)), margin=margin)
    for name in ("sub_center_arcface", "soft_triple", *MULTIPLIED_ANGLES):
        with pytest.raises(InputError, match="scale: expected more than 0, got -1"):
            loss_named(name)(x, labels, proxies=np.ones((3, 1, 2) if name in SEVERAL_PROXIES else (3, 2)), scale=-1.0)
    several = np.ones((3, 2, 2))
    with pytest.raises(InputError, match="gamma: expected more than 0, got 0"):
        losses.soft_triple_loss(x, labels, proxies=several, gamma=0.0)
    with pytest.raises(InputError, match=r"rows of 2 features as in proxies, got shape \(3, 1\)"):
        losses.sub_center_outliers(x[:, :1], labels, proxies=several)
    with pytest.raises(InputError, match=r"one for each of 3 rows, got shape \(2,\)"):
        losses.sub_center_outliers(x, labels[:2], proxies=several)
