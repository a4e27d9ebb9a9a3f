"""Losses with a learned vector for each class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import cosine, unit
from tests.slow import mostly_slow

N, D, CLASSES = 11, 5, 4


def cross_entropy(logits, labels):
    return np.mean([np.log(np.exp(row).sum()) - row[k] for row, k in zip(logits, labels, strict=True)])


def normalized_softmax(s, labels, t=0.05):
    return cross_entropy(s / t, labels)


def cosface(s, labels, margin=0.35, scale=64.0):
    logits = s.copy()
    logits[np.arange(len(s)), labels] -= margin
    return cross_entropy(scale * logits, labels)


def arcface(s, labels, margin=28.6, scale=64.0):
    logits, m = s.copy(), np.deg2rad(margin)
    for i, k in enumerate(labels):
        angle = np.arccos(np.clip(s[i, k], -1, 1))
        logits[i, k] = np.cos(angle + m) if angle + m < np.pi else s[i, k] - m * np.sin(m)
    return cross_entropy(scale * logits, labels)


def proxy_nca(s, labels):
    return cross_entropy(-(2 - 2 * s), labels)


def proxy_anchor(s, labels, margin=0.1, alpha=32.0):
    near, far = [], []
    for k in range(CLASSES):
        own = labels == k
        if own.any():
            near.append(np.log1p(np.exp(-alpha * (s[own, k] - margin)).sum()))
        far.append(np.log1p(np.exp(alpha * (s[~own, k] + margin)).sum()))
    return np.mean(near) + np.mean(far)


ORACLES = {
    "normalized_softmax": normalized_softmax,
    "cosface": cosface,
    "arcface": arcface,
    "proxy_nca": proxy_nca,
    "proxy_anchor": proxy_anchor,
}


@pytest.mark.parametrize("name", ORACLES)
def test_equals_loops(random, name):
    x, proxies = random.normal(size=(N, D)), random.normal(size=(CLASSES, D))
    labels = random.integers(0, CLASSES - 1, N)  # the last class has no row
    x[0] = -proxies[labels[0]]  # the angle to the own class is as large as can be
    found = getattr(losses, f"{name}_loss")(jnp.float32(x), labels, proxies=jnp.float32(proxies), block_size=3)
    np.testing.assert_allclose(found, ORACLES[name](cosine(x, proxies), labels), rtol=1e-4)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "proxy_anchor", "arcface"))
def test_proxies_are_learned(random, name):
    x, labels = jnp.float32(unit(random.normal(size=(N, D)))), random.integers(0, CLASSES, N)
    loss = getattr(losses, f"{name}_loss")
    proxies = jnp.float32(random.normal(size=(CLASSES, D)))
    before = loss(x, labels, proxies=proxies)
    step = jax.grad(lambda proxies: loss(x, labels, proxies=proxies))(proxies)
    assert loss(x, labels, proxies=proxies - 1e-3 * step) < before


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "proxy_anchor", "arcface"))
def test_no_nan(name):
    for x in (np.zeros((3, 4)), np.eye(4)[:3], -np.eye(4)[:3], np.full((3, 4), 1e15)):
        both = jax.value_and_grad(
            lambda x, proxies: getattr(losses, f"{name}_loss")(x, jnp.arange(3), proxies=proxies), argnums=(0, 1)
        )(jnp.float32(x), jnp.eye(4))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(both))


@pytest.mark.parametrize("name", ORACLES)
def test_more_classes_than_proxies(name):
    with pytest.raises(InputError, match="expected class ids below 2, the number of proxies, got 2"):
        getattr(losses, f"{name}_loss")(jnp.eye(3), jnp.arange(3), proxies=jnp.ones((2, 3)))
