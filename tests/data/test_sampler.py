import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import Augmentation, augment, class_table, epoch_order, sample_m_per_class, sample_pairs
from simjax.data._sampler import _floyd

COUNTS = [7, 0, 3, 11, 1]
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), COUNTS))


@pytest.fixture
def table():
    return class_table(LABELS, 5)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_class_table(table):
    assert table.counts.tolist() == COUNTS
    for label, count in enumerate(COUNTS):
        row = table.rows[label].tolist()
        assert row[:count] == np.flatnonzero(label == LABELS).tolist()
        if count:
            assert row == [row[i % count] for i in range(11)]
    assert (table.rows.dtype, table.counts.dtype) == (jnp.int32, jnp.int32)
    assert class_table(np.zeros(0, int), 3).counts.tolist() == [0, 0, 0]
    with pytest.raises(InputError, match=r"expected 0 \.\. 3, got 0 \.\. 4"):
        class_table(LABELS, 4)


def test_epoch_order_is_a_permutation_of_the_key():
    first = epoch_order(jax.random.key(0), 101)
    assert first.dtype == jnp.int32
    assert sorted(first.tolist()) == list(range(101))
    assert first.tolist() == epoch_order(jax.random.key(0), 101).tolist()
    assert first.tolist() != epoch_order(jax.random.key(1), 101).tolist()


def test_m_per_class_draws_distinct_classes_and_distinct_images(table):
    for key in keys(30):
        drawn = sample_m_per_class(key, table, 4, 3).reshape(4, 3)
        labels = LABELS[np.asarray(drawn)]
        assert (labels == labels[:, :1]).all()
        assert sorted(labels[:, 0]) == [0, 2, 3, 4]  # never the empty class 1
        for label, row in zip(labels[:, 0], drawn.tolist(), strict=True):
            assert len(set(row)) == min(3, COUNTS[label])


def test_images_come_again_only_when_each_was_there(table):
    for key in keys(20):
        drawn = np.asarray(sample_m_per_class(key, table, 4, 9)).reshape(4, 9)
        for row in drawn:
            assert len(set(row.tolist())) == min(9, COUNTS[LABELS[row[0]]])


def test_every_image_of_a_class_is_equally_likely_at_every_place(table):
    draw = jax.jit(jax.vmap(lambda key: sample_m_per_class(key, table, 4, 3)))
    drawn = np.asarray(draw(keys(6000))).reshape(-1, 3)
    for label in (0, 3):
        rows = drawn[LABELS[drawn[:, 0]] == label]
        for place in range(3):
            share = np.bincount(rows[:, place], minlength=len(LABELS))[label == LABELS] / len(rows)
            # 6,000 draws: a standard error of 0.0045 or less
            np.testing.assert_allclose(share, 1 / COUNTS[label], atol=0.02)


def test_every_subset_is_equally_likely():
    draw = jax.jit(jax.vmap(lambda key: _floyd(key, jnp.array([4]), 2)[0]))
    pairs, seen = np.unique(np.sort(draw(keys(6000)), axis=1), axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    np.testing.assert_allclose(seen / 6000, 1 / 6, atol=0.02)


def test_every_class_is_equally_likely(table):
    drawn = jax.jit(jax.vmap(lambda key: sample_m_per_class(key, table, 2, 1)))(keys(4000))
    share = np.bincount(LABELS[np.asarray(drawn).ravel()], minlength=5) / 4000
    np.testing.assert_allclose(share, [0.5, 0, 0.5, 0.5, 0.5], atol=0.04)


def test_more_classes_than_have_images_come_again(table):
    drawn = sample_m_per_class(jax.random.key(3), table, 5, 2)
    assert set(LABELS[np.asarray(drawn)]) == {0, 2, 3, 4}
    with pytest.raises(InputError, match=r"expected 1 \.\. 5 classes, got 6"):
        sample_m_per_class(jax.random.key(0), table, 6, 2)


def test_uniform_pairs_are_of_two_images():
    i, j = sample_pairs(jax.random.key(0), 5, 10_000)
    assert (i != j).all()
    seen = np.bincount(5 * np.asarray(i) + np.asarray(j), minlength=25).reshape(5, 5) / 10_000
    np.testing.assert_allclose(seen, (1 - np.eye(5)) / 20, atol=0.01)


def test_a_fraction_of_pairs_is_alike(table):
    i, j = (np.asarray(x) for x in sample_pairs(jax.random.key(0), len(LABELS), 9000, table=table, same_fraction=1 / 3))
    same = LABELS[i] == LABELS[j]
    assert same[:3000].all()
    assert not same[3000:].any()
    assert (i != j).all()
    # Of 7*6 + 3*2 + 11*10 = 158 ordered pairs that are alike, and 22^2 - 7^2 - 3^2 - 11^2 - 1 = 304 that are not:
    np.testing.assert_allclose(np.bincount(LABELS[i[:3000]], minlength=5) / 3000 * 21, [7, 0, 3, 11, 0], atol=0.7)
    np.testing.assert_allclose(np.bincount(LABELS[i[3000:]], minlength=5) / 6000 * 22, COUNTS, atol=0.7)
    other = LABELS[j[3000:]][LABELS[i[3000:]] == 3]
    np.testing.assert_allclose(np.bincount(other, minlength=5) / len(other) * 11, [7, 0, 3, 0, 1], atol=0.7)


def test_pairs_where_no_class_has_two_images():
    i, j = sample_pairs(jax.random.key(0), 3, 20, table=class_table(np.arange(3), 3), same_fraction=0.5)
    assert (i[:10] == j[:10]).all()
    assert (i[10:] != j[10:]).all()


def test_arguments_of_pairs(table):
    with pytest.raises(InputError, match="same_fraction"):
        sample_pairs(jax.random.key(0), 22, 4, table=table, same_fraction=1.5)
    with pytest.raises(InputError, match="table"):
        sample_pairs(jax.random.key(0), 22, 4, same_fraction=0.5)


def test_ten_calls_compile_once(caplog):
    three = class_table(np.array([0, 1, 0, 1, 2, 2, 2]), 3)  # shapes that no other test has
    calls = (
        lambda key: sample_m_per_class(key, three, 3, 2),
        lambda key: sample_pairs(key, 7, 6, table=three, same_fraction=0.5),
        lambda key: epoch_order(key, 23),
        lambda key: augment(key, jnp.ones((3, 5, 5, 1)), Augmentation(shift=0.2, rotation=9.0)),
    )
    draws = keys(10, seed=7)
    with jax.log_compiles():
        for call, name in zip(calls, ("sample_m_per_class", "sample_pairs", "epoch_order", "augment"), strict=True):
            caplog.clear()
            for key in draws:
                call(key)
            messages = [record.getMessage() for record in caplog.records]
            assert sum(f"Finished XLA compilation of jit({name})" in message for message in messages) == 1
