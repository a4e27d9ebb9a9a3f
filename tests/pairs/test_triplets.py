import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import similarity
from simjax.pairs._triplets import fold_positives, sum_over_positives, take_columns
from tests.similarity.arrays import float32
from tests.slow import mostly_slow


def all_triplets(x, labels, margin, block_size):
    """Compute the triplet loss with coefficients from a loop over positives."""

    def block_function(s, i, j):
        same = (labels[i] == labels[j]) & (i != j)
        other = labels[i] != labels[j]

        def step(carry, column, valid):
            coefficient, count = carry
            active = other & valid & (take_columns(s, column)[:, 0] - s + margin > 0)
            each = jnp.sum(active, axis=1, keepdims=True, dtype=jnp.int32)
            return coefficient - active + (j == column) * each, count + each[:, 0]

        start = (jnp.zeros_like(s), jnp.zeros(s.shape[0], jnp.int32))
        coefficient, count = fold_positives(step, start, same)
        return jnp.sum(coefficient * s, axis=1) + margin * count, count

    totals, counts = similarity.reduce_rows(block_function, x, measure="euclidean", block_size=block_size)
    return jnp.sum(totals) / jnp.maximum(jnp.sum(counts), 1)


def brute_force(x, labels, margin):
    n = len(labels)
    d = similarity.measure("euclidean")(x[:, None], x[None])
    triplets = [
        (a, p, o)
        for a, p, o in itertools.product(range(n), repeat=3)
        if a != p and labels[a] == labels[p] and labels[a] != labels[o]
    ]
    a, p, o = (np.array(t) for t in zip(*triplets, strict=True))
    terms = jax.nn.relu(d[a, p] - d[a, o] + margin)
    return jnp.sum(terms) / jnp.maximum(jnp.sum(terms > 0), 1)


@pytest.mark.parametrize("block_size", mostly_slow([1, 4, 11], 4))
def test_the_loss_of_all_triplets_equals_enumeration(random, block_size):
    with jax.enable_x64(True):
        x, labels = random.normal(size=(11, 3)), np.array([0, 1, 0, 2, 0, 1, 3, 2, 0, 1, 1])
        found = jax.jit(lambda x: jax.value_and_grad(all_triplets)(x, jnp.asarray(labels), 0.7, block_size))(x)
        expected = jax.jit(lambda x: jax.value_and_grad(brute_force)(x, labels, 0.7))(x)
        jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-10, atol=1e-12), found, expected)


def test_other_numbers_of_positives_do_not_compile_again(random, caplog):
    x = float32(random.normal(size=(11, 3)))
    step = jax.jit(jax.grad(lambda x, labels: all_triplets(x, labels, 0.7, 4)))
    with jax.log_compiles():
        for classes in (1, 2, 5, 11):
            labels = random.integers(0, classes, 11).astype(np.int32)
            np.testing.assert_allclose(step(x, labels).shape, (11, 3))
            assert np.isfinite(step(x, labels)).all()
    assert sum("Finished XLA compilation of jit(<lambda>)" in r.getMessage() for r in caplog.records) == 1


def softly(c, positive, negative, scale):
    """Sum a function of each positive and all negatives of its row, with a loop over positives."""

    def terms_of(columns, valid, negative, c, scale):
        violations = scale * (c[:, None] - take_columns(c, columns))
        terms = jnp.log1p(jnp.sum(jnp.where(negative[:, None], jnp.exp(violations), 0), axis=2))
        return jnp.sum(jnp.where(valid, terms, 0), axis=1)

    return sum_over_positives(terms_of, jnp.ones(c.shape[0]), positive, (negative,), c, scale)


def softly_enumerated(c, positive, negative, scale):
    terms = jnp.log1p(jnp.sum(jnp.where(negative[:, None], jnp.exp(scale * (c[:, None] - c[:, :, None])), 0), axis=2))
    return 1 + jnp.sum(jnp.where(positive, terms, 0), axis=1)


@pytest.mark.slow
def test_a_sum_over_positives_has_derivatives_of_any_order(random):
    with jax.enable_x64(True):
        c, weights = random.normal(size=(5, 7)), random.normal(size=5)
        positive = random.random((5, 7)) < 0.4
        positive[0] = False
        negative = ~positive & (random.random((5, 7)) < 0.7)

        @jax.jit
        def derivatives(c, scale, positive, negative):
            found = []
            for route in (softly, softly_enumerated):
                f = lambda c, scale, route=route: jnp.sum(weights * route(c, positive, negative, scale))  # noqa: E731
                gradient = jax.grad(f, argnums=(0, 1))
                third = jax.grad(jax.grad(jax.grad(f, argnums=1), argnums=1), argnums=1)
                mapped = jax.vmap(jax.grad(f), in_axes=(0, None))(jnp.stack([c, -c]), scale)
                second = jax.jacrev(gradient, argnums=(0, 1))(c, scale)
                found.append((f(c, scale), gradient(c, scale), second, third(c, scale), mapped))
            return found

        found, expected = derivatives(c, 0.7, positive, negative)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)
        with pytest.raises(TypeError, match="forward-mode"):
            forward(c, positive, negative)


@jax.jit
def forward(c, positive, negative):
    return jax.jvp(lambda c: softly(c, positive, negative, jnp.ones(())), (c,), (c,))


def test_a_sum_over_no_columns_is_its_start():
    empty = np.zeros((2, 0), np.float32)
    found = jax.jit(softly)(empty, empty > 0, empty > 0, 1.0)
    np.testing.assert_array_equal(found, [1, 1])


def test_memory_does_not_grow_with_the_number_of_positives():
    c, positive = np.zeros((64, 512), np.float32), np.zeros((64, 512), bool)
    gradient = jax.jit(jax.grad(lambda c, positive: jnp.sum(softly(c, positive, ~positive, jnp.float32(1)))))
    memory = gradient.lower(c, positive).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 12 * c.nbytes  # saved iterations would need 512 tiles
