"""Losses of embeddings and proxies, one or several per class, against loops."""

import logging

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import DEGENERATE, D, N, cosine, unit
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


def loss_named(name):
    return getattr(losses, f"{name}_loss")


def shape(name, d=D):
    return (C, K, d) if name in SEVERAL_PROXIES else (C, d)


@pytest.mark.parametrize("name", ORACLES)
def test_equals_loops(random, name):
    x, proxies = random.normal(size=(N, D)), random.normal(size=shape(name))
    labels = random.integers(0, C - 1, N)  # the last class has no row
    x[0] = -(proxies[labels[0], 0] if name in SEVERAL_PROXIES else proxies[labels[0]])  # the largest possible angle
    known = np.arange(N) % 4 != 3  # the other rows have an id without a proxy
    arguments = {"proxies": jnp.float32(proxies), "block_size": 4}
    found = loss_named(name)(jnp.float32(x), np.where(known, labels, -1), **arguments)
    np.testing.assert_allclose(found, ORACLES[name](x[known], labels[known], proxies), rtol=2e-5)
    assert float(loss_named(name)(jnp.float32(x), np.full(N, -1), **arguments)) == 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("normalized_softmax", {"temperature": 0.7}),
        ("cosface", {"margin": 0.1, "scale": 3.0}),
        *((name, {"margin": 10.0, "scale": 3.0}) for name in ("arcface", "sub_center_arcface")),
        ("proxy_anchor", {"margin": 0.3, "alpha": 4.0}),
        ("soft_triple", {"scale": 5.0, "gamma": 0.3, "margin": 0.2, "tau": 0.7}),
        *((name, {"margin": margin, "scale": 0.5}) for name in MULTIPLIED_ANGLES for margin in (1, 3)),
    ],
)
def test_equals_loops_with_other_parameters(random, name, parameters):
    x, labels, proxies = random.normal(size=(N, D)), random.integers(0, C, N), random.normal(size=shape(name))
    found = loss_named(name)(jnp.float32(x), labels, proxies=jnp.float32(proxies), block_size=4, **parameters)
    np.testing.assert_allclose(found, ORACLES[name](x, labels, proxies, **parameters), rtol=2e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "sub_center_arcface"))
def test_gradient_equals_finite_differences(random, name):
    parameters = {"tau": 0.3} if name == "soft_triple" else {}
    with jax.enable_x64(True):
        x, proxies = jnp.asarray(random.normal(size=(N, D))), jnp.asarray(random.normal(size=shape(name)))
        labels = jnp.asarray(random.integers(0, C, N))
        jax.test_util.check_grads(
            lambda x, p: loss_named(name)(x, labels, proxies=p, **parameters),
            (x, proxies),
            order=1,
            modes=["rev"],
        )


@pytest.mark.parametrize("margin", [4, 5])
def test_the_loss_increases_with_the_multiplied_angle(margin):
    angles = jnp.linspace(0, jnp.pi, 61)
    x, proxies = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1), jnp.array([[1.0, 0.0], [0.0, 0.0]])
    terms = losses.unreduced(losses.sphereface_loss)(x, jnp.zeros(61, int), proxies=proxies, margin=margin)
    assert np.all(np.diff(terms.total) > 0)
    np.testing.assert_allclose(terms.total[-1], np.log1p(np.exp(2 * margin - 1)), rtol=1e-5)  # psi(pi) = 1 - 2 m


def test_only_the_first_nearest_proxy_of_a_class_has_a_gradient():
    proxies = jnp.array([[[0.0, 1.0], [1.0, 0.1], [1.0, 0.1]], [[-1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]])
    gradient = jax.grad(
        lambda p: losses.sub_center_arcface_loss(jnp.array([[1.0, 0.0]]), jnp.array([0]), proxies=p, scale=2.0)
    )(proxies)
    np.testing.assert_array_equal(np.any(gradient, axis=2), [[False, True, False], [False, False, True]])


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "sub_center_arcface", "soft_triple"))
@pytest.mark.parametrize("dtype", mostly_slow(["float32", "bfloat16", "float16"], "float32"))
def test_no_nan_at_degenerate_batches(name, dtype):
    of_classes = np.array([1.0, 0, 1e3, -1]).reshape(C, *(1,) * (len(shape(name)) - 1))  # the second one is zero
    proxies = jnp.asarray(np.broadcast_to(of_classes, shape(name, 4)), dtype)
    both = jax.jit(
        jax.value_and_grad(lambda x, p, labels: loss_named(name)(x, labels, proxies=p, reducer="sum"), argnums=(0, 1))
    )
    for case, (x, labels) in DEGENERATE.items():
        # If logits depend on lengths, gradients are several times as long as the rows and must not overflow.
        x = jnp.asarray(np.clip(x, -1e3, 1e3) if dtype == "float16" else x, dtype)
        for shift in (0, 1):
            value, gradients = both(x, proxies, jnp.asarray(labels, jnp.int32) + shift)
            assert np.isfinite(value), case
            assert all(np.isfinite(np.float32(g)).all() for g in gradients), case
            if case == "no row":
                assert float(value) == 0


def test_lengths_whose_product_overflows_float32():
    x, proxies = jnp.full((2, 2), 1e30), jnp.eye(2) * 1e30
    found = jax.value_and_grad(
        lambda x, p, s: losses.large_margin_softmax_loss(x, jnp.arange(2), proxies=p, scale=s), argnums=(0, 1, 2)
    )(x, proxies, 1.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_other_labels_do_not_compile_again(random, caplog):
    x = jnp.float32(random.normal(size=(13, D)))
    vectors = {name: jnp.float32(random.normal(size=shape(name))) for name in ORACLES}
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for seed in range(4):
            labels = np.random.default_rng(seed).integers(-1, C - seed, 13)
            for name in ORACLES:
                loss_named(name)(x, labels, proxies=vectors[name])
    compiled = [r for r in caplog.records if "Finished XLA compilation of jit(_pair_terms)" in r.getMessage()]
    assert len(compiled) == len(ORACLES) - 1  # both losses of multiplied angles are one program


def test_outliers_equal_loops(random):
    x, labels, proxies = random.normal(size=(N, D)), random.integers(-1, C - 1, N), random.normal(size=(C, K, D))
    dominant, outliers = np.zeros(C, int), np.zeros(N, bool)
    for k in range(C):
        own = np.flatnonzero(labels == k)
        nearest = cosine(x[own], proxies[k]).argmax(1)
        dominant[k] = np.bincount(nearest, minlength=K).argmax()
        outliers[own] = cosine(x[own], proxies[k])[:, dominant[k]] < np.cos(np.deg2rad(60))
    found = losses.sub_center_outliers(
        jnp.float32(x), labels, proxies=jnp.float32(proxies), threshold=60.0, block_size=4
    )
    np.testing.assert_array_equal(found.outlier, outliers)
    np.testing.assert_array_equal(found.dominant, dominant)
    np.testing.assert_array_equal(found.proxies, np.asarray(proxies, np.float32)[np.arange(C), dominant])
    assert outliers.any()
    assert not np.all(outliers[labels >= 0])


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments(random):
    x, labels = jnp.ones((3, 2)), jnp.array([0, 1, 2])
    for name in SEVERAL_PROXIES:
        with pytest.raises(InputError, match=r"k proxies of each class, \[c, k, d\], got shape \(3, 2\)"):
            loss_named(name)(x, labels, proxies=jnp.ones((3, 2)))
        with pytest.raises(InputError, match=r"got shape \(3, 0, 2\)"):
            loss_named(name)(x, labels, proxies=jnp.ones((3, 0, 2)))
    for name in ORACLES:
        with pytest.raises(InputError, match="expected class ids below 2, the number of proxies, got 2"):
            loss_named(name)(x, labels, proxies=jnp.ones((2, 1, 2) if name in SEVERAL_PROXIES else (2, 2)))
    for name in MULTIPLIED_ANGLES:
        for margin in (0, 1.5, None):
            with pytest.raises(InputError, match=f"margin: expected an integer of at least 1, got {margin}"):
                loss_named(name)(x, labels, proxies=jnp.ones((3, 2)), margin=margin)
    for name in ("sub_center_arcface", "soft_triple", *MULTIPLIED_ANGLES):
        with pytest.raises(InputError, match="scale: expected more than 0, got -1"):
            loss_named(name)(x, labels, proxies=jnp.ones((3, 1, 2) if name in SEVERAL_PROXIES else (3, 2)), scale=-1.0)
    several = jnp.ones((3, 2, 2))
    with pytest.raises(InputError, match="gamma: expected more than 0, got 0"):
        losses.soft_triple_loss(x, labels, proxies=several, gamma=0.0)
    with pytest.raises(InputError, match=r"rows of 2 features as in proxies, got shape \(3, 1\)"):
        losses.sub_center_outliers(x[:, :1], labels, proxies=several)
    with pytest.raises(InputError, match=r"one for each of 3 rows, got shape \(2,\)"):
        losses.sub_center_outliers(x, labels[:2], proxies=several)
