import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from simjax.data import (
    class_table,
    fixed_triplets,
    hierarchy,
    permutation_at,
    sample_balanced,
    sample_hierarchical,
    sample_triplets,
)
from simjax.data._balanced_sampler import _draw
from tests.slow import mostly_slow

COUNTS = np.array([6, 0, 3, 12, 1, 7, 2, 9])
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(8), COUNTS))
PRESENT = np.flatnonzero(COUNTS)  # 7 classes
KEY = jax.random.key(11)
TRIPLET_LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), [7, 0, 3, 11, 1]))
SUPER = np.array([0, 0, 0, 1, 1, 2, 2, 2])  # of each class; class 1 has no images


@pytest.fixture
def table():
    return class_table(LABELS, 8)


def batches(table, steps, k, m):
    """Return the batches of the first steps, [steps, k, m]."""
    draw = jax.vmap(lambda step: sample_balanced(KEY, step, table, k, m))
    return np.asarray(draw(jnp.arange(steps))).reshape(steps, k, m)


@pytest.mark.parametrize("k", mostly_slow([1, 2, 3, 7], 3))
def test_an_epoch_has_every_class_before_any_repeats(table, k):
    length = -(-7 // k)
    drawn = batches(table, 4 * length, k, 3)
    labels = LABELS[drawn]
    assert (labels == labels[:, :, :1]).all()  # m images of one class next to each other
    for batch in labels[:, :, 0]:
        assert len(set(batch.tolist())) == k
    for epoch in labels[:, :, 0].reshape(4, length * k):
        assert sorted(epoch[:7].tolist()) == PRESENT.tolist()
        assert len(set(epoch[7:].tolist())) == len(epoch) - 7
    assert len({tuple(epoch) for epoch in labels[:, :, 0].reshape(4, -1)}) == 4  # in different orders


def test_the_images_of_a_class_are_distinct_if_it_has_enough(table):
    for batch in batches(table, 12, 3, 5):
        for row in batch.tolist():
            count = COUNTS[LABELS[row[0]]]
            times = np.unique(row, return_counts=True)[1]
            assert len(times) == min(5, count)
            assert times.max() - times.min() <= 1


def test_the_images_of_a_class_are_drawn_without_replacement(table):
    """With one class in a batch, every epoch draws every class once, and ceil(count / 3) draws have all its images."""
    drawn = batches(table, 7 * 12, 1, 3).reshape(-1, 3)
    label = LABELS[drawn[:, 0]]
    for c in PRESENT:
        draws = -(-COUNTS[c] // 3)
        rounds = drawn[label == c].reshape(12 // draws, -1) if 12 % draws == 0 else drawn[label == c][None, :draws]
        for images in rounds.reshape(len(rounds), -1):
            first = images[: COUNTS[c]]
            assert sorted(first) == np.flatnonzero(c == LABELS).tolist()
            times = np.unique(images, return_counts=True)[1]
            assert times.max() - times.min() <= 1


def test_all_classes_pad_the_last_batch_equally_often(table):
    """An epoch of 7 classes, 2 in a batch, has 8 positions, of which one is padded: 100 times by each class in 700."""
    label = LABELS[batches(table, 2800, 2, 1)[:, :, 0]].ravel()
    seen = np.bincount(label, minlength=8)[PRESENT] - 700
    assert seen.sum() == 700
    np.testing.assert_allclose(seen, 100, atol=45)  # a standard error of 9


def test_a_batch_depends_on_key_and_step_only(table):
    resumed = [sample_balanced(KEY, step, table, 3, 2) for step in (5, 6)]
    np.testing.assert_array_equal(batches(table, 7, 3, 2)[5:].reshape(2, -1), resumed)
    other = sample_balanced(jax.random.key(12), 5, table, 3, 2)
    assert other.tolist() != resumed[0].tolist()
    assert resumed[0].dtype == jnp.int32


def test_one_class_and_too_few_classes():
    one = class_table(np.zeros(4, int), 1)
    drawn = [sample_balanced(KEY, step, one, 1, 2).tolist() for step in range(2)]
    assert sorted(drawn[0] + drawn[1]) == [0, 1, 2, 3]
    sparse = class_table(np.array([1, 1, 4]), 6)
    labels = np.array([1, 1, 4])[np.asarray(sample_balanced(KEY, 0, sparse, 5, 1))]
    assert sorted(np.bincount(labels)[[1, 4]]) == [2, 3]


def test_super_classes_and_their_classes_are_drawn_without_replacement():
    table = hierarchy(LABELS, SUPER[LABELS])
    assert table.super_classes.counts.tolist() == [2, 2, 3]
    draw = jax.jit(jax.vmap(lambda step: sample_hierarchical(KEY, step, table, 2, 2, 3)))
    drawn = np.asarray(draw(jnp.arange(24))).reshape(12, 2, 2, 2, 3)  # epoch, batch, super-class, class, image
    label = LABELS[drawn]
    assert (label == label[..., :1]).all()
    classes = label[..., 0]
    above = SUPER[classes]
    assert (above == above[..., :1]).all()
    for epoch in above[..., 0]:
        assert all(len(set(batch)) == 2 for batch in epoch.tolist())
        assert sorted(epoch.ravel()[:3]) == [0, 1, 2]
    assert all(len(set(pair)) == 2 for pair in classes.reshape(-1, 2).tolist())
    assert set(classes.ravel().tolist()) == set(PRESENT.tolist())
    for row in drawn.reshape(-1, 3).tolist():
        assert len(set(row)) == min(3, COUNTS[LABELS[row[0]]])
    # In the first draw of super-class 2 in each epoch, its 3 classes are drawn without replacement, 2 at a time.
    drawn_super_classes = above[..., 0].reshape(12, 4)
    first = [classes.reshape(12, 4, 2)[epoch, np.argmax(drawn_super_classes[epoch] == 2)] for epoch in range(12)]
    for pair in np.array(first).reshape(6, 4):
        assert sorted(pair[:3].tolist()) == [5, 6, 7]


def test_a_class_that_repeats_in_a_batch_has_different_images():
    """Two classes of 9 and 4 images are drawn 5 times in a batch, 2 images each time."""
    labels = np.repeat([0, 1], [9, 4])
    table = hierarchy(labels, np.zeros(13, int))
    draw = jax.vmap(lambda step: sample_hierarchical(KEY, step, table, 1, 5, 2))
    for drawn in np.asarray(draw(jnp.arange(8))):
        times = np.bincount(drawn, minlength=13)
        per_class = times[:9].sum(), times[9:].sum()
        assert sorted(per_class) == [4, 6]
        assert times[:9].max() == 1  # enough images
        assert times[9:].min() == 1  # each is drawn before any repeats
        assert times[9:].max() <= 2


@pytest.mark.slow
def test_a_super_class_of_one_class_and_one_super_class():
    table = hierarchy(np.array([0, 0, 2]), np.array([0, 0, 0]))
    drawn = sample_hierarchical(KEY, 0, table, 1, 2, 2).tolist()
    assert sorted(drawn) == [0, 1, 2, 2]
    table = hierarchy(np.array([0, 0]), np.array([1, 1]))  # super-class 0 has no images
    assert sorted(sample_hierarchical(KEY, 0, table, 1, 2, 1).tolist()) == [0, 1]


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_errors(table):
    for k in (0, 9):
        with pytest.raises(InputError, match=rf"classes_per_batch: expected 1 \.\. 8 classes, got {k}"):
            sample_balanced(KEY, 0, table, k, 2)
    with pytest.raises(InputError, match="m: expected at least 1, got 0"):
        sample_balanced(KEY, 0, table, 2, 0)
    tree = hierarchy(LABELS, SUPER[LABELS])
    with pytest.raises(InputError, match=r"super_classes_per_batch: expected 1 \.\. 3 super-classes, got 4"):
        sample_hierarchical(KEY, 0, tree, 4, 2, 2)
    with pytest.raises(InputError, match="classes_per_super_class: expected at least 1"):
        sample_hierarchical(KEY, 0, tree, 2, 0, 2)
    with pytest.raises(InputError, match="m: expected at least 1"):
        sample_hierarchical(KEY, 0, tree, 2, 2, 0)
    with pytest.raises(InputError, match=r"one super-class for each class, got several for \[1\]"):
        hierarchy(np.array([0, 1, 1]), np.array([0, 0, 1]))
    with pytest.raises(InputError, match="super_labels: expected one for each label"):
        hierarchy(np.array([0, 1, 1]), np.array([0, 0]))
    with pytest.raises(InputError, match="labels: expected"):
        hierarchy(np.array([0, -1]), np.array([0, 0]))


def test_all_steps_compile_once(caplog):
    labels = np.array([0, 1, 0, 1, 2, 2, 2])  # shapes of no other test
    tables = class_table(labels, 3), hierarchy(labels, np.minimum(labels, 1))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for step in range(6):
            sample_balanced(jax.random.key(step), step, tables[0], 3, 2)
            sample_hierarchical(jax.random.key(step), step, tables[1], 1, 2, 2)
    messages = [record.getMessage() for record in caplog.records]
    for name in ("sample_balanced", "sample_hierarchical"):
        assert sum(f"Finished XLA compilation of jit({name})" in message for message in messages) == 1


@pytest.mark.parametrize("n", [1, 2, 7, 64, 997])
def test_different_positions_have_different_elements_that_depend_on_the_key(n):
    orders = [permutation_at(jax.random.key(seed), jnp.arange(n), n).tolist() for seed in (0, 0, 1)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert orders[0] == orders[1]
    assert n < 7 or orders[0] != orders[2]


def test_one_position_of_a_long_permutation_and_a_traced_length():
    key = jax.random.key(3)
    order = permutation_at(key, jnp.arange(10_000_000 - 4, 10_000_000), 10_000_000)
    alone = jax.jit(permutation_at)(key, 9_999_998, 10_000_000)
    assert (alone.shape, alone.dtype) == ((), jnp.int32)
    assert int(alone) == int(order[2])
    assert permutation_at(key, jnp.arange(6).reshape(2, 3), 6).shape == (2, 3)


def random_orders(n, seed, count):
    """Return the permutations of n elements for many keys, [count, n]."""
    draw = jax.vmap(lambda key: permutation_at(key, jnp.arange(n), n))
    return np.asarray(draw(jax.random.split(jax.random.key(seed), count)))


def test_every_order_is_equally_likely():
    seen, count = np.unique(random_orders(4, 0, 24_000), axis=0, return_counts=True)
    assert seen.tolist() == sorted(map(list, itertools.permutations(range(4))))
    np.testing.assert_allclose(count, 1000, atol=4.5 * np.sqrt(1000))


def test_the_first_two_elements_and_the_distances_of_neighbours_are_uniform():
    orders = random_orders(31, 1, 20_000)
    pairs = np.bincount(orders[:, 0] * 31 + orders[:, 1], minlength=31 * 31).reshape(31, 31)[~np.eye(31, dtype=bool)]
    distances = np.bincount((np.diff(orders, axis=1) % 31).ravel())[1:]
    for count in (pairs, distances):
        chi_squared = np.sum((count - count.mean()) ** 2 / count.mean())
        degrees = len(count) - 1
        assert abs(chi_squared - degrees) < 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(("n", "k"), [(6, 2), (7, 3), (5, 5), (3, 7), (1, 2)])
def test_an_epoch_has_every_member_before_any_repeats(n, k):
    draws = -(-n // k)
    draw = jax.jit(lambda number: _draw(jax.random.key(5), number, jnp.asarray(n), k))
    orders = set()
    for epoch in range(4):
        found = [draw(epoch * draws + number) for number in range(draws)]
        members = np.concatenate([np.asarray(f.indices) for f in found])
        assert all((np.asarray(f.draws) == epoch).all() for f in found)
        for start in range(0, len(members), n):
            part = members[start : start + n].tolist()
            assert len(set(part)) == len(part)
        assert set(members.tolist()) == set(range(n))
        assert all(len(set(np.asarray(f.indices).tolist())) == min(n, k) for f in found)
        keys = np.concatenate([jax.random.key_data(f.keys) for f in found])
        repeats = np.concatenate([np.stack([f.repeat, f.repeats], axis=1) for f in found])
        seen = {(*key, *repeat) for key, repeat in zip(keys.tolist(), repeats.tolist(), strict=True)}
        assert len(seen) == len(members)  # no two draws within members are the same
        assert n < k or (repeats == [0, 1]).all()
        orders.add(tuple(members.tolist()))
    assert n < 5 or len(orders) == 4


def test_fixed_triplets_are_drawn_from_classes():
    drawn = fixed_triplets(KEY, class_table(TRIPLET_LABELS, 5), 12_000)
    assert drawn.dtype == jnp.int32
    a, p, n = np.asarray(drawn).T
    assert (TRIPLET_LABELS[a] == TRIPLET_LABELS[p]).all()
    assert (TRIPLET_LABELS[a] != TRIPLET_LABELS[n]).all()
    assert (a != p).all()
    own = np.bincount(TRIPLET_LABELS[a], minlength=5) / 12_000
    np.testing.assert_allclose(own, [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.02)  # the classes with two images
    other = np.bincount(TRIPLET_LABELS[n][TRIPLET_LABELS[a] == 2], minlength=5) / (TRIPLET_LABELS[a] == 2).sum()
    np.testing.assert_allclose(other, [1 / 3, 0, 0, 1 / 3, 1 / 3], atol=0.03)
    drawn_pairs = np.bincount(22 * a + p, minlength=22 * 22).reshape(22, 22)[
        np.ix_(TRIPLET_LABELS == 2, TRIPLET_LABELS == 2)
    ]
    np.testing.assert_allclose(drawn_pairs / drawn_pairs.sum(), (1 - np.eye(3)) / 6, atol=0.03)
    assert drawn.tolist() == fixed_triplets(KEY, class_table(TRIPLET_LABELS, 5), 12_000).tolist()


@pytest.mark.parametrize(("t", "batch"), [(6, 3), (7, 3), (5, 5), (1, 1)])
def test_an_epoch_has_every_triplet_before_any_repeats(t, batch):
    triplets = np.arange(3 * t).reshape(t, 3)
    length = -(-t // batch)
    drawn = [np.stack(sample_triplets(KEY, step, triplets, batch), axis=1) for step in range(3 * length)]
    assert all((d == triplets[d[:, 0] // 3]).all() for d in drawn)
    assert all(len(set(d[:, 0].tolist())) == batch for d in drawn)
    for epoch in np.stack(drawn)[:, :, 0].reshape(3, -1):
        assert sorted((epoch[:t] // 3).tolist()) == list(range(t))
    traced = jax.jit(sample_triplets, static_argnums=3)(KEY, 2 * length, triplets, batch)
    np.testing.assert_array_equal(np.stack(traced, axis=1), drawn[2 * length])


def test_the_loss_of_a_batch_of_triplets(random):
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
def test_wrong_arguments_of_triplets_are_errors():
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


def test_all_steps_of_triplets_compile_once(caplog):
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for step in range(6):
            triplets = np.random.default_rng(step).integers(0, 50, (11, 3))
            sample_triplets(jax.random.key(step), step, triplets, 4)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("Finished XLA compilation of jit(_sample_triplets)" in message for message in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_hierarchies_and_triplets_of_64_bits_are_exact_or_errors():
    labels, super_labels = np.array([0, 1, 1], np.uint64), np.array([0, 1, 1])
    assert hierarchy(labels, super_labels).super_classes.rows.tolist() == [[0], [1]]
    for argument, given in (
        ("labels", (labels + 2**33, super_labels)),
        ("super_labels", (labels, super_labels + 2**33)),
    ):
        with pytest.raises(InputError, match=f"^{argument}: expected integers that int32 holds"):
            hierarchy(*given)
    with pytest.raises(InputError, match="triplets: expected integers that int32 holds, got 0 to 4294967298"):
        sample_triplets(jax.random.key(0), 0, np.array([[0, 1, 2**32 + 2]]), 1)
    with pytest.raises(TypeError, match="triplets: expected integer"):
        sample_triplets(jax.random.key(0), 0, np.array([[0.0, 1.0, 2.0]]), 1)
