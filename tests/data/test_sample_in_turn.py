import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import class_table, hierarchy, sample_classes_in_turn, sample_hierarchical
from tests.slow import mostly_slow

COUNTS = np.array([6, 0, 3, 12, 1, 7, 2, 9])
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(8), COUNTS))
PRESENT = np.flatnonzero(COUNTS)  # 7 classes
KEY = jax.random.key(11)
SUPER = np.array([0, 0, 0, 1, 1, 2, 2, 2])  # of each class; class 1 has no images


@pytest.fixture
def table():
    return class_table(LABELS, 8)


def batches(table, steps, k, m):
    """[steps, k, m]."""
    draw = jax.vmap(lambda step: sample_classes_in_turn(KEY, step, table, k, m))
    return np.asarray(draw(jnp.arange(steps))).reshape(steps, k, m)


@pytest.mark.parametrize("k", mostly_slow([1, 2, 3, 7], 3))
def test_an_epoch_covers_every_class_before_any_comes_again(table, k):
    length = -(-7 // k)
    drawn = batches(table, 4 * length, k, 3)
    labels = LABELS[drawn]
    assert (labels == labels[:, :, :1]).all()  # m images of one class next to each other
    for batch in labels[:, :, 0]:
        assert len(set(batch.tolist())) == k
    for epoch in labels[:, :, 0].reshape(4, length * k):
        assert sorted(epoch[:7].tolist()) == PRESENT.tolist()
        assert len(set(epoch[7:].tolist())) == len(epoch) - 7
    assert len({tuple(epoch) for epoch in labels[:, :, 0].reshape(4, -1)}) == 4  # each in an order of its own


def test_images_of_a_class_are_distinct_while_it_has_enough(table):
    for batch in batches(table, 12, 3, 5):
        for row in batch.tolist():
            count = COUNTS[LABELS[row[0]]]
            times = np.unique(row, return_counts=True)[1]
            assert len(times) == min(5, count)
            assert times.max() - times.min() <= 1


def test_images_take_turns_within_their_class(table):
    """With 1 class a batch every epoch visits every class once, and ceil(count / 3) visits have all its images."""
    drawn = batches(table, 7 * 12, 1, 3).reshape(-1, 3)
    label = LABELS[drawn[:, 0]]
    for c in PRESENT:
        visits = -(-COUNTS[c] // 3)
        passes = drawn[label == c].reshape(12 // visits, -1) if 12 % visits == 0 else drawn[label == c][None, :visits]
        for images in passes.reshape(len(passes), -1):
            first = images[: COUNTS[c]]
            assert sorted(first) == np.flatnonzero(c == LABELS).tolist()
            times = np.unique(images, return_counts=True)[1]
            assert times.max() - times.min() <= 1


def test_the_longest_epochs_count_the_same(table):
    """Of 7 classes 2 at a time, 8 places an epoch: over 700 epochs every class fills the last place equally often."""
    label = LABELS[batches(table, 2800, 2, 1)[:, :, 0]].ravel()
    seen = np.bincount(label, minlength=8)[PRESENT] - 700
    assert seen.sum() == 700
    np.testing.assert_allclose(seen, 100, atol=45)  # a standard error of 9


def test_a_batch_is_a_function_of_key_and_step(table):
    resumed = [sample_classes_in_turn(KEY, step, table, 3, 2) for step in (5, 6)]
    np.testing.assert_array_equal(batches(table, 7, 3, 2)[5:].reshape(2, -1), resumed)
    other = sample_classes_in_turn(jax.random.key(12), 5, table, 3, 2)
    assert other.tolist() != resumed[0].tolist()
    assert resumed[0].dtype == jnp.int32


def test_one_class_and_too_few_classes():
    one = class_table(np.zeros(4, int), 1)
    drawn = [sample_classes_in_turn(KEY, step, one, 1, 2).tolist() for step in range(2)]
    assert sorted(drawn[0] + drawn[1]) == [0, 1, 2, 3]
    sparse = class_table(np.array([1, 1, 4]), 6)
    labels = np.array([1, 1, 4])[np.asarray(sample_classes_in_turn(KEY, 0, sparse, 5, 1))]
    assert sorted(np.bincount(labels)[[1, 4]]) == [2, 3]


def test_super_classes_take_turns_and_so_do_their_classes():
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
    # The first time in each epoch that super-class 2 comes, its 3 classes take turns, 2 at a time.
    turns = above[..., 0].reshape(12, 4)
    first = [classes.reshape(12, 4, 2)[epoch, np.argmax(turns[epoch] == 2)] for epoch in range(12)]
    for pair in np.array(first).reshape(6, 4):
        assert sorted(pair[:3].tolist()) == [5, 6, 7]


def test_a_class_that_is_drawn_several_times_has_other_images_each_time():
    """A super-class of 2 classes gives 5 places: 3 and 2 times 2 images, from 9 and 4."""
    labels = np.repeat([0, 1], [9, 4])
    table = hierarchy(labels, np.zeros(13, int))
    draw = jax.vmap(lambda step: sample_hierarchical(KEY, step, table, 1, 5, 2))
    for drawn in np.asarray(draw(jnp.arange(8))):
        times = np.bincount(drawn, minlength=13)
        per_class = times[:9].sum(), times[9:].sum()
        assert sorted(per_class) == [4, 6]
        assert times[:9].max() == 1  # enough images
        assert times[9:].min() == 1  # each is there before any comes again
        assert times[9:].max() <= 2


@pytest.mark.slow
def test_a_super_class_of_one_class_and_one_super_class():
    table = hierarchy(np.array([0, 0, 2]), np.array([0, 0, 0]))
    drawn = sample_hierarchical(KEY, 0, table, 1, 2, 2).tolist()
    assert sorted(drawn) == [0, 1, 2, 2]
    table = hierarchy(np.array([0, 0]), np.array([1, 1]))  # super-class 0 has no images
    assert sorted(sample_hierarchical(KEY, 0, table, 1, 2, 1).tolist()) == [0, 1]


@pytest.mark.usefixtures("unchecked")
def test_errors(table):
    for k in (0, 9):
        with pytest.raises(InputError, match=rf"classes_per_batch: expected 1 \.\. 8 classes, got {k}"):
            sample_classes_in_turn(KEY, 0, table, k, 2)
    with pytest.raises(InputError, match="m: expected at least 1, got 0"):
        sample_classes_in_turn(KEY, 0, table, 2, 0)
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
    labels = np.array([0, 1, 0, 1, 2, 2, 2])  # shapes that no other test has
    tables = class_table(labels, 3), hierarchy(labels, np.minimum(labels, 1))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for step in range(6):
            sample_classes_in_turn(jax.random.key(step), step, tables[0], 3, 2)
            sample_hierarchical(jax.random.key(step), step, tables[1], 1, 2, 2)
    messages = [record.getMessage() for record in caplog.records]
    for name in ("sample_classes_in_turn", "sample_hierarchical"):
        assert sum(f"Finished XLA compilation of jit({name})" in message for message in messages) == 1
