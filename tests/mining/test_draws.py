"""Frequencies of pairs and triplets that miners draw at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import mining
from tests.losses.cases import D, N, euclidean
from tests.mining.test_miners import masks, triplet_set


def test_distance_weighted_draws_by_the_inverse_of_the_density():
    """One anchor, one positive, and negatives at known distances: relative frequencies over many keys."""
    wanted = np.array([0.3, 0.7, 1.0, 1.2, 1.5])
    cosines = np.concatenate([[1.0, 0.8], 1 - wanted**2 / 2])
    x = np.stack([cosines, np.sqrt(1 - cosines**2), 0 * cosines, 0 * cosines], axis=1)  # four features
    labels = np.array([0, 0, 1, 2, 3, 4, 5])
    d = np.maximum(wanted, 0.5)
    weights = np.where(d < 1.4, d ** (2 - 4) * (1 - d**2 / 4) ** (-(4 - 3) / 2), 0)

    @jax.jit
    def drawn(key):
        relation = mining.distance_weighted(jnp.float32(x), labels, key=key)
        _, negatives_of = relation.triplets_of(jnp.zeros((1, 1), jnp.int32), jnp.arange(7, dtype=jnp.int32)[None])
        return negatives_of(jnp.ones((1, 1), jnp.int32))[0, 0]

    found = np.asarray(jax.lax.map(drawn, jax.random.split(jax.random.key(0), 4000)))
    assert (found.sum(1) == 1).all()
    assert not found[:, [0, 1, 6]].any()
    share, expected = found.mean(0)[2:], weights / weights.sum()
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 4000))


@pytest.mark.slow
def test_distance_weighted_gives_one_negative_to_every_positive(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    relation = mining.distance_weighted(jnp.float32(x), labels, key=jax.random.key(1), nonzero_loss_cutoff=2.0)
    same = (labels[:, None] == labels) & ~np.eye(N, dtype=bool)
    found = triplet_set(relation)
    assert sorted((i, a) for i, a, _ in found) == sorted(zip(*np.nonzero(same), strict=True))
    assert all(labels[i] != labels[b] for i, _, b in found)
    for block_size in (3, N):  # a draw does not depend on the block
        np.testing.assert_array_equal(masks(relation, block_size)[1], masks(relation)[1])


def test_uniform_histogram_draws_equally_from_all_bins():
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(200, 16)), random.integers(0, 2, 200)
    relation = mining.uniform_histogram(
        jnp.float32(x), labels, key=jax.random.key(0), bins=10, positives_per_bin=20, negatives_per_bin=40
    )
    d = euclidean(x, x)
    for mask, labelled, wanted in zip(
        masks(relation, 50), (labels[:, None] == labels, labels[:, None] != labels), (20, 40), strict=True
    ):
        labelled = labelled & ~np.eye(200, dtype=bool)
        assert not (mask & ~labelled).any()
        edges = np.linspace(d[labelled].min(), d[labelled].max(), 11)
        available, drawn = (np.histogram(d[m], edges)[0] for m in (labelled, mask))
        expected = np.minimum(available, wanted)
        assert (np.abs(drawn - expected) <= 5 * np.sqrt(expected) + 1).all(), (available, drawn)
        assert (drawn[available <= wanted] == available[available <= wanted]).all()
        assert available.max() > 10 * wanted  # without mining, one bin would dominate
