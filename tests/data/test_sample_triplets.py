import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from simjax.data import class_table, fixed_triplets, sample_triplets

KEY = jax.random.key(2)
COUNTS = np.array([7, 0, 3, 11, 1])
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), COUNTS))


def test_a_set_of_triplets_drawn_from_classes():
    drawn = fixed_triplets(KEY, class_table(LABELS, 5), 12_000)
    assert drawn.dtype == jnp.int32
    a, p, n = np.asarray(drawn).T
    assert (LABELS[a] == LABELS[p]).all()
    assert (LABELS[a] != LABELS[n]).all()
    assert (a != p).all()
    own = np.bincount(LABELS[a], minlength=5) / 12_000
    np.testing.assert_allclose(own, [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.02)  # the classes with two images
    other = np.bincount(LABELS[n][LABELS[a] == 2], minlength=5) / (LABELS[a] == 2).sum()
    np.testing.assert_allclose(other, [1 / 3, 0, 0, 1 / 3, 1 / 3], atol=0.03)
    pairs = np.bincount(22 * a + p, minlength=22 * 22).reshape(22, 22)[np.ix_(LABELS == 2, LABELS == 2)]
    np.testing.assert_allclose(pairs / pairs.sum(), (1 - np.eye(3)) / 6, atol=0.03)
    assert drawn.tolist() == fixed_triplets(KEY, class_table(LABELS, 5), 12_000).tolist()


@pytest.mark.parametrize(("t", "batch"), [(6, 3), (7, 3), (5, 5), (1, 1)])
def test_an_epoch_has_every_triplet_before_any_comes_again(t, batch):
    triplets = np.arange(3 * t).reshape(t, 3)
    length = -(-t // batch)
    drawn = [np.stack(sample_triplets(KEY, step, triplets, batch), axis=1) for step in range(3 * length)]
    assert all((d == triplets[d[:, 0] // 3]).all() for d in drawn)
    assert all(len(set(d[:, 0].tolist())) == batch for d in drawn)
    for epoch in np.stack(drawn)[:, :, 0].reshape(3, -1):
        assert sorted((epoch[:t] // 3).tolist()) == list(range(t))
    traced = jax.jit(sample_triplets, static_argnums=3)(KEY, 2 * length, triplets, batch)
    np.testing.assert_array_equal(np.stack(traced, axis=1), drawn[2 * length])


def test_the_loss_of_these_triplets_alone(random):
    x, triplets = random.normal(size=(9, 4)), random.permutation(9).reshape(3, 3)
    anchor, positive, negative = sample_triplets(KEY, 0, triplets, 3)
    relation = pairs.by_matrix(jnp.eye(3, 6, dtype=bool), jnp.eye(3, 6, k=3, dtype=bool))
    others = jnp.float32(x[jnp.concatenate([positive, negative])])
    found = losses.triplet_margin_loss(
        jnp.float32(x[anchor]), relation, ref_embeddings=others, margin=2.0, measure="euclidean", reducer="mean"
    )
    a, p, n = (x[triplets[:, i]] for i in range(3))
    expected = np.maximum(0, np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 2.0).mean()
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    for labels in ([0, 0, 0], [0, 1, 2], []):
        with pytest.raises(InputError, match="table: expected two classes with images, one of them with two"):
            fixed_triplets(KEY, class_table(np.array(labels, int), 3), 4)
    with pytest.raises(InputError, match="n_triplets: expected at least 1"):
        fixed_triplets(KEY, class_table(np.array([0, 0, 1]), 2), 0)
    with pytest.raises(InputError, match=r"triplets: expected shape \[t, 3\], got \(4, 2\)"):
        sample_triplets(KEY, 0, np.zeros((4, 2), int), 2)
    for batch in (0, 5):
        with pytest.raises(InputError, match=rf"batch: expected 1 \.\. 4, the number of triplets, got {batch}"):
            sample_triplets(KEY, 0, np.zeros((4, 3), int), batch)


def test_all_steps_compile_once(caplog):
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for step in range(6):
            triplets = np.random.default_rng(step).integers(0, 50, (11, 3))
            sample_triplets(jax.random.key(step), step, triplets, 4)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("Finished XLA compilation of jit(_sample_triplets)" in message for message in messages) == 1
