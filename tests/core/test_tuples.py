import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import core


def all_triplets(x, labels, margin, block):
    """The triplet loss over all violated triplets: coefficients by a loop, then a weighted sum of distances."""

    def block_function(s, i, j):
        same = (labels[i] == labels[j]) & (i != j)
        other = labels[i] != labels[j]

        def step(carry, value, column, there):
            coefficient, count = carry
            active = other & there & (value - s + margin > 0)
            each = jnp.sum(active, axis=1, keepdims=True, dtype=jnp.int32)
            return coefficient - active + (j == column) * each, count + each[:, 0]

        start = (jnp.zeros_like(s), jnp.zeros(s.shape[0], jnp.int32))
        coefficient, count = core.for_each_marked(step, start, s, same)
        return jnp.sum(coefficient * s, axis=1) + margin * count, count

    totals, counts = core.reduce_rows(block_function, x, measure="euclidean", block=block)
    return jnp.sum(totals) / jnp.maximum(jnp.sum(counts), 1)


def brute_force(x, labels, margin):
    n = len(labels)
    d = core.measure("euclidean")(x[:, None], x[None])
    triplets = [
        (a, p, o)
        for a, p, o in itertools.product(range(n), repeat=3)
        if a != p and labels[a] == labels[p] and labels[a] != labels[o]
    ]
    a, p, o = (np.array(t) for t in zip(*triplets, strict=True))
    terms = jax.nn.relu(d[a, p] - d[a, o] + margin)
    return jnp.sum(terms) / jnp.maximum(jnp.sum(terms > 0), 1)


@pytest.mark.parametrize("block", [1, 4, 11])
def test_all_triplets_without_enumerating_them(random, block):
    with jax.enable_x64(True):
        x, labels = jnp.asarray(random.normal(size=(11, 3))), np.array([0, 1, 0, 2, 0, 1, 3, 2, 0, 1, 1])
        found = jax.value_and_grad(all_triplets)(x, jnp.asarray(labels), 0.7, block)
        expected = jax.value_and_grad(brute_force)(x, labels, 0.7)
        jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-10, atol=1e-12), found, expected)


def test_the_number_of_positives_is_no_shape(random, caplog):
    x = jnp.asarray(random.normal(size=(11, 3)), jnp.float32)
    step = jax.jit(jax.grad(lambda x, labels: all_triplets(x, labels, 0.7, 4)))
    with jax.log_compiles():
        for classes in (1, 2, 5, 11):
            labels = random.integers(0, classes, 11).astype(np.int32)
            np.testing.assert_allclose(step(x, labels).shape, (11, 3))
            assert np.isfinite(step(x, labels)).all()
    assert sum("Finished XLA compilation of jit(<lambda>)" in r.getMessage() for r in caplog.records) == 1
