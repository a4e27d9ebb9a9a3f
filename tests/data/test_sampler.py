import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import (
    Augmentation,
    augment,
    class_table,
    epoch_order,
    sample_by_score,
    sample_m_per_class,
    sample_pairs,
    sample_unique_labels,
)
from simjax.data._sampler import _floyd

KEY = jax.random.key(4)
COUNTS = np.array([7, 0, 3, 11, 1])
SCORES = np.array([0.5, 0.0, 2.0, 1.0, 0.0, 4.0])
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), COUNTS))


@pytest.fixture
def table():
    return class_table(LABELS, 5)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_a_class_table_has_the_images_of_each_class(table):
    assert table.counts.tolist() == COUNTS.tolist()
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


def test_images_repeat_only_after_all_of_the_class_are_drawn(table):
    for key in keys(20):
        drawn = np.asarray(sample_m_per_class(key, table, 4, 9)).reshape(4, 9)
        for row in drawn:
            assert len(set(row.tolist())) == min(9, COUNTS[LABELS[row[0]]])


def test_every_image_of_a_class_is_equally_likely_at_every_position(table):
    draw = jax.jit(jax.vmap(lambda key: sample_m_per_class(key, table, 4, 3)))
    drawn = np.asarray(draw(keys(6000))).reshape(-1, 3)
    for label in (0, 3):
        rows = drawn[LABELS[drawn[:, 0]] == label]
        for position in range(3):
            share = np.bincount(rows[:, position], minlength=len(LABELS))[label == LABELS] / len(rows)
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


def test_classes_repeat_if_too_few_have_images(table):
    drawn = sample_m_per_class(jax.random.key(3), table, 5, 2)
    assert set(LABELS[np.asarray(drawn)]) == {0, 2, 3, 4}
    with pytest.raises(InputError, match=r"expected 1 \.\. 5 classes, got 6"):
        sample_m_per_class(jax.random.key(0), table, 6, 2)


def test_uniform_pairs_have_two_different_images():
    i, j = sample_pairs(jax.random.key(0), 5, 10_000)
    assert (i != j).all()
    seen = np.bincount(5 * np.asarray(i) + np.asarray(j), minlength=25).reshape(5, 5) / 10_000
    np.testing.assert_allclose(seen, (1 - np.eye(5)) / 20, atol=0.01)


def test_a_fraction_of_pairs_has_one_class(table):
    i, j = (np.asarray(x) for x in sample_pairs(jax.random.key(0), len(LABELS), 9000, table=table, same_fraction=1 / 3))
    same = LABELS[i] == LABELS[j]
    assert same[:3000].all()
    assert not same[3000:].any()
    assert (i != j).all()
    # 7*6 + 3*2 + 11*10 = 158 ordered pairs have one class, and 22^2 - 7^2 - 3^2 - 11^2 - 1 = 304 have two:
    np.testing.assert_allclose(np.bincount(LABELS[i[:3000]], minlength=5) / 3000 * 21, [7, 0, 3, 11, 0], atol=0.7)
    np.testing.assert_allclose(np.bincount(LABELS[i[3000:]], minlength=5) / 6000 * 22, COUNTS, atol=0.7)
    other = LABELS[j[3000:]][LABELS[i[3000:]] == 3]
    np.testing.assert_allclose(np.bincount(other, minlength=5) / len(other) * 11, [7, 0, 3, 0, 1], atol=0.7)


def test_pairs_if_no_class_has_two_images():
    i, j = sample_pairs(jax.random.key(0), 3, 20, table=class_table(np.arange(3), 3), same_fraction=0.5)
    assert (i[:10] == j[:10]).all()
    assert (i[10:] != j[10:]).all()


def test_wrong_arguments_of_pairs_are_errors(table):
    with pytest.raises(InputError, match="same_fraction"):
        sample_pairs(jax.random.key(0), 22, 4, table=table, same_fraction=1.5)
    with pytest.raises(InputError, match="table"):
        sample_pairs(jax.random.key(0), 22, 4, same_fraction=0.5)


def test_ten_keys_compile_once(caplog):
    three = class_table(np.array([0, 1, 0, 1, 2, 2, 2]), 3)  # shapes of no other test
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


def test_each_image_is_drawn_in_proportion_to_its_score_among_the_remaining():
    draw = jax.jit(jax.vmap(lambda step: sample_by_score(KEY, step, SCORES, 2)))
    drawn = np.asarray(draw(jnp.arange(20_000)))
    seen = np.bincount(drawn[:, 0] * 6 + drawn[:, 1], minlength=36).reshape(6, 6) / 20_000
    total = SCORES.sum()
    expected = SCORES[:, None] / total * SCORES[None] / (total - SCORES[:, None])
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(seen, expected, atol=0.015)  # a standard error of 0.0035 or less
    assert (seen[expected == 0] == 0).all()


def test_images_repeat_only_if_too_few_scores_are_positive():
    for step in range(10):
        assert sorted(sample_by_score(KEY, step, SCORES, 4).tolist()) == [0, 2, 3, 5]
        assert set(sample_by_score(KEY, step, SCORES, 6).tolist()) == {0, 2, 3, 5}  # two images repeat
        assert sorted(sample_by_score(KEY, step, np.zeros(6), 6).tolist()) == list(range(6))
    many = np.asarray(sample_by_score(KEY, 0, np.ones(5000), 50))  # top_k searches groups of columns first
    assert len(set(many.tolist())) == 50


def test_scores_of_every_magnitude_and_dtype():
    assert sorted(sample_by_score(KEY, 0, jnp.array([1e-30, 0.0, 1e30, 3e-38]), 3).tolist()) == [0, 2, 3]
    assert sample_by_score(KEY, 0, np.array([0, 3, 0]), 1).tolist() == [1]
    assert sample_by_score(KEY, 0, jnp.array([0, 3, 0], jnp.bfloat16), 1).tolist() == [1]
    assert sample_by_score(KEY, 0, jnp.array([1.0, jnp.inf]), 1).tolist() == [1]
    drawn = jax.jit(lambda s: sample_by_score(KEY, 0, s, 2))(jnp.array([jnp.nan, 1.0, -1.0, 2.0]))
    assert sorted(drawn.tolist()) == [1, 3]


def test_unique_labels_draws_at_most_one_image_of_each_class():
    table = class_table(LABELS, 5)
    draw = jax.jit(jax.vmap(lambda step: sample_unique_labels(KEY, step, table, 3)))
    drawn = np.asarray(draw(jnp.arange(12_000)))
    labels = LABELS[drawn]
    assert (np.diff(np.sort(labels, axis=1)) > 0).all()
    first = np.bincount(labels[:, 0], minlength=5) / 12_000
    np.testing.assert_allclose(first, COUNTS / 22, atol=0.02)  # as if one image were drawn
    third = COUNTS[2] / 22 + sum(COUNTS[c] / 22 * COUNTS[2] / (22 - COUNTS[c]) for c in (0, 3, 4))
    np.testing.assert_allclose((labels[:, :2] == 2).any(1).mean(), third, atol=0.02)
    images = np.bincount(drawn[labels == 3], minlength=22)[LABELS == 3]
    np.testing.assert_allclose(images / images.sum(), 1 / 11, atol=0.01)
    assert set(LABELS[np.asarray(sample_unique_labels(KEY, 0, table, 4))]) == {0, 2, 3, 4}
    assert set(sample_unique_labels(KEY, 0, class_table(np.zeros(3, int), 1), 1).tolist()) <= {0, 1, 2}


def test_a_batch_depends_on_key_and_step_only():
    table = class_table(LABELS, 5)
    for draw in (
        lambda key, s: sample_by_score(key, s, SCORES, 3),
        lambda key, s: sample_unique_labels(key, s, table, 3),
    ):
        first, again, traced = draw(KEY, 7), draw(KEY, 7), jax.jit(draw)(KEY, 7)
        assert first.dtype == jnp.int32
        assert first.tolist() == again.tolist() == traced.tolist()
        assert any(draw(KEY, step).tolist() != first.tolist() for step in range(4))
        assert any(draw(jax.random.key(seed), 7).tolist() != first.tolist() for seed in range(4))


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_of_scores_and_unique_labels_are_errors():
    table = class_table(LABELS, 5)
    for batch in (0, 7):
        with pytest.raises(InputError, match=rf"batch: expected 1 \.\. 6, the number of scores, got {batch}"):
            sample_by_score(KEY, 0, SCORES, batch)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(InputError, match="scores: expected at least 0"):
            sample_by_score(KEY, 0, np.array([1.0, wrong]), 1)
    with pytest.raises(InputError, match=r"scores: expected one for each image, got shape \(2, 1\)"):
        sample_by_score(KEY, 0, np.ones((2, 1)), 1)
    with pytest.raises(InputError, match=r"batch: expected 1 \.\. 4, the number of classes with images, got 5"):
        sample_unique_labels(KEY, 0, table, 5)
    with pytest.raises(InputError, match=r"expected 1 \.\. 5"):
        jax.jit(lambda t: sample_unique_labels(KEY, 0, t, 6))(table)


def test_all_steps_and_scores_compile_once(caplog):
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for step in range(6):
            sample_by_score(jax.random.key(step), step, np.arange(13.0) + step, 5)  # a shape of no other test
            labels = np.random.default_rng(step).permutation(np.repeat(np.arange(4), [9, 2, 1, 1]))
            sample_unique_labels(jax.random.key(step), step, class_table(labels, 4), 3)
    messages = [record.getMessage() for record in caplog.records]
    for name in ("_sample_by_score", "_sample_unique_labels"):
        assert sum(f"Finished XLA compilation of jit({name})" in message for message in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_class_ids_of_64_bits_are_exact_or_errors():
    for labels in (np.array([1, 0, 1], np.uint64), [1, 0, 1]):
        assert class_table(labels, 2).rows.tolist() == [[1, 1], [0, 2]]
    with pytest.raises(InputError, match=r"labels: expected 0 \.\. 1, got 0 \.\. 4294967297"):
        class_table(np.array([0, 2**32 + 1]), 2)
    with pytest.raises(TypeError, match=r"labels: .*pass np.unique\(labels, return_inverse=True\)\[1\]"):
        class_table(["cat", "dog"], 2)
    with pytest.raises(TypeError, match=r"labels: expected integer class ids, got float64; pass labels.astype\(int\)"):
        class_table(np.array([0.0, 1.0]), 2)
