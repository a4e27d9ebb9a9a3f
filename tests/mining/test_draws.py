"""Frequencies of pairs and triplets that miners draw at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import mining
from tests.losses.cases import D, N, euclidean
from tests.mining.test_miners import masks, triplets


def test_distance_weighted_draws_by_the_inverse_of_the_density():
    """One anchor, one positive, and negatives at known distances: relative frequencies over many keys."""
    wanted = np.array([0.3, 0.7, 1.0, 1.2, 1.5])
    cosines = np.concatenate([[1.0, 0.8], 1 - wanted**2 / 2])
    x = np.stack([cosines, np.sqrt(1 - cosines**2), 0 * cosines, 0 * cosines], axis=1)  # four features
    x = x.astype(np.float32)
    labels = np.array([0, 0, 1, 2, 3, 4, 5])
    d = np.maximum(wanted, 0.5)
    weights = np.where(d < 1.4, d ** (2 - 4) * (1 - d**2 / 4) ** (-(4 - 3) / 2), 0)

    @jax.jit
    def drawn(key):
        relation = mining.distance_weighted(x, labels, key=key)
        _, negatives_of = relation.triplets_of(jnp.zeros((1, 1), jnp.int32), jnp.arange(7, dtype=jnp.int32)[None])
        return negatives_of(jnp.ones((1, 1), jnp.int32))[0, 0]

    found = np.asarray(jax.lax.map(drawn, jax.random.split(jax.random.key(0), 4000)))
    assert (found.sum(1) == 1).all()
    assert not found[:, [0, 1, 6]].any()
    share, expected = found.mean(0)[2:], weights / weights.sum()
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 4000))


@pytest.mark.slow
def test_distance_weighted_gives_one_negative_to_every_positive(random):
    x, labels = np.float32(random.normal(size=(N, D))), random.integers(0, 3, N)

    @jax.jit
    def draw(x, labels):
        relation = mining.distance_weighted(x, labels, key=jax.random.key(1), nonzero_loss_cutoff=2.0)
        return triplets(relation), masks(relation, 3)[1], masks(relation, N)[1]

    drawn, in_blocks, in_one_block = draw(x, labels)
    np.testing.assert_array_equal(in_blocks, in_one_block)
    found = np.argwhere(drawn).tolist()
    same = (labels[:, None] == labels) & ~np.eye(N, dtype=bool)
    assert sorted([i, a] for i, a, _ in found) == np.argwhere(same).tolist()
    assert all(labels[i] != labels[b] for i, _, b in found)


@pytest.mark.slow
def test_uniform_histogram_draws_equally_from_all_bins():
    random = np.random.default_rng(0)
    x, labels = np.float32(random.normal(size=(200, 16))), random.integers(0, 2, 200)

    @jax.jit
    def draw(x, labels):
        key = jax.random.key(0)
        return masks(
            mining.uniform_histogram(x, labels, key=key, bins=10, positives_per_bin=20, negatives_per_bin=40), 50
        )

    d, same = euclidean(x, x), labels[:, None] == labels
    for mask, labelled, wanted in zip(draw(x, labels), (same & ~np.eye(200, dtype=bool), ~same), (20, 40), strict=True):
        mask = np.asarray(mask)
        assert not (mask & ~labelled).any()
        edges = np.linspace(d[labelled].min(), d[labelled].max(), 11)
        available, drawn = (np.histogram(d[m], edges)[0] for m in (labelled, mask))
        expected = np.minimum(available, wanted)
        assert (np.abs(drawn - expected) <= 5 * np.sqrt(expected) + 1).all(), (available, drawn)
        assert (drawn[available <= wanted] == available[available <= wanted]).all()
        assert available.max() > 10 * wanted  # without mining, one bin would dominate
