"""Samplers of independent batches. Tests share compiled draws: tables and scores are arguments of equal shapes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import (
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
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), COUNTS))
SCORES = np.array([0.5, 0, 2, 1, 0, 4], np.float32)

draw_classes = jax.jit(jax.vmap(lambda key, table: sample_m_per_class(key, table, 2, 9), (0, None)))
draw_by_score = jax.jit(jax.vmap(lambda step, scores: sample_by_score(KEY, step, scores, 6), (0, None)))
draw_unique = jax.jit(jax.vmap(lambda step, table: sample_unique_labels(KEY, step, table, 4), (0, None)))


@pytest.fixture(scope="module")
def table():
    return class_table(LABELS, 5)


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 6000)


@pytest.fixture(scope="module")
def drawn_classes(table, keys) -> np.ndarray:
    """Two classes with 9 images each, 6,000 times: [6000, 2, 9]."""
    return np.asarray(draw_classes(keys, table)).reshape(-1, 2, 9)


def compilations_of(name: str, caplog: pytest.LogCaptureFixture) -> int:
    messages = [record.getMessage() for record in caplog.records]
    return sum(f"Finished XLA compilation of jit({name})" in message for message in messages)


def test_a_class_table_has_the_images_of_each_class(table):
    assert table.counts.tolist() == COUNTS.tolist()
    for label, (count, row) in enumerate(zip(COUNTS, table.rows.tolist(), strict=True)):
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


def test_m_per_class_draws_distinct_classes_that_are_equally_likely(drawn_classes):
    labels = LABELS[drawn_classes]
    assert (labels == labels[:, :, :1]).all()
    assert (labels[:, 0, 0] != labels[:, 1, 0]).all()
    share = np.bincount(labels[:, :, 0].ravel(), minlength=5) / 6000
    np.testing.assert_allclose(share, [0.5, 0, 0.5, 0.5, 0.5], atol=0.03)  # never the empty class 1


def test_images_repeat_only_after_all_of_the_class_are_drawn(drawn_classes):
    for row in drawn_classes[:30].reshape(-1, 9):
        assert len(set(row.tolist())) == min(9, COUNTS[LABELS[row[0]]])


def test_every_image_of_a_class_is_equally_likely_at_every_position(drawn_classes):
    drawn = drawn_classes.reshape(-1, 9)
    for label in (0, 3):
        rows = drawn[LABELS[drawn[:, 0]] == label]
        for position in range(9):
            share = np.bincount(rows[:, position], minlength=len(LABELS))[label == LABELS] / len(rows)
            # 3,000 draws: a standard error of 0.0064 or less
            np.testing.assert_allclose(share, 1 / COUNTS[label], atol=0.025)


def test_every_subset_is_equally_likely(keys):
    draw = jax.jit(jax.vmap(lambda key: _floyd(key, jnp.array([4]), 2)[0]))
    pairs, seen = np.unique(np.sort(draw(keys), axis=1), axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    np.testing.assert_allclose(seen / 6000, 1 / 6, atol=0.02)


def test_classes_repeat_if_too_few_have_images(table, keys):
    one = class_table(np.repeat(3, 11), 5)
    assert one.rows.shape == table.rows.shape
    assert np.asarray(draw_classes(keys, one)).max() == 10
    with pytest.raises(InputError, match=r"expected 1 \.\. 5 classes, got 6"):
        sample_m_per_class(KEY, table, 6, 2)


def test_uniform_pairs_have_two_different_images():
    i, j = (np.asarray(x) for x in sample_pairs(jax.random.key(0), 5, 10_000))
    assert (i != j).all()
    seen = np.bincount(5 * i + j, minlength=25).reshape(5, 5) / 10_000
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


def test_pairs_if_no_class_has_two_images_with_one_compilation_for_all_keys(caplog):
    singles = class_table(np.arange(3), 3)
    with jax.log_compiles():
        for seed in range(10):
            i, j = sample_pairs(jax.random.key(seed), 3, 20, table=singles, same_fraction=0.5)
            same = np.asarray(i) == np.asarray(j)
            assert same[:10].all()
            assert not same[10:].any()
    assert compilations_of("sample_pairs", caplog) == 1


def test_wrong_arguments_of_pairs_are_errors(table):
    with pytest.raises(InputError, match="same_fraction"):
        sample_pairs(KEY, 22, 4, table=table, same_fraction=1.5)
    with pytest.raises(InputError, match="table"):
        sample_pairs(KEY, 22, 4, same_fraction=0.5)


def test_all_keys_and_orders_compile_once(caplog, table, drawn_classes, keys):
    with jax.log_compiles():
        for i, key in enumerate(list(keys[:4])):
            assert sample_m_per_class(key, table, 2, 9).tolist() == drawn_classes[i].ravel().tolist()
            epoch_order(key, 23)
    assert compilations_of("sample_m_per_class", caplog) == compilations_of("epoch_order", caplog) == 1


def test_each_image_is_drawn_in_proportion_to_its_score_among_the_remaining():
    drawn = np.asarray(draw_by_score(np.arange(20_000), SCORES))
    seen = np.bincount(drawn[:, 0] * 6 + drawn[:, 1], minlength=36).reshape(6, 6) / 20_000
    total = SCORES.sum()
    expected = SCORES[:, None] / total * SCORES[None] / (total - SCORES[:, None])
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(seen, expected, atol=0.015)  # a standard error of 0.0035 or less
    assert (seen[expected == 0] == 0).all()
    # Images repeat only if too few scores are positive.
    assert (np.sort(drawn[:, :4]) == [0, 2, 3, 5]).all()
    assert np.isin(drawn, [0, 2, 3, 5]).all()


def test_scores_of_every_magnitude_and_no_positive_score():
    def draws(*scores: float) -> np.ndarray:
        return np.asarray(draw_by_score(np.arange(20_000), np.array(scores, np.float32)))

    assert (np.sort(draws(0, 0, 0, 0, 0, 0)) == np.arange(6)).all()
    assert (np.sort(draws(1e-30, 0, 1e30, 3e-38, 0, 0)[:, :3]) == [0, 2, 3]).all()
    assert (draws(1, np.inf, 0, 0, 0, 0)[:, 0] == 1).all()
    assert (np.sort(draws(np.nan, 1, -1, 2, 0, 0)[:, :2]) == [1, 3]).all()  # traced scores, which are not checked


def test_scores_of_every_dtype_and_of_many_images():
    for dtype in (np.int64, jnp.bfloat16):
        assert sample_by_score(KEY, 0, np.array([0, 3, 0]).astype(dtype), 1).tolist() == [1]
    many = np.asarray(sample_by_score(KEY, 0, np.ones(5000), 50))  # top_k searches groups of columns first
    assert len(set(many.tolist())) == 50


def test_unique_labels_draws_at_most_one_image_of_each_class(table):
    drawn = np.asarray(draw_unique(np.arange(12_000), table))
    labels = LABELS[drawn]
    assert (np.sort(labels, axis=1) == [0, 2, 3, 4]).all()
    first = np.bincount(labels[:, 0], minlength=5) / 12_000
    np.testing.assert_allclose(first, COUNTS / 22, atol=0.02)  # as if one image were drawn
    third = COUNTS[2] / 22 + sum(COUNTS[c] / 22 * COUNTS[2] / (22 - COUNTS[c]) for c in (0, 3, 4))
    np.testing.assert_allclose((labels[:, :2] == 2).any(1).mean(), third, atol=0.02)
    images = np.bincount(drawn[labels == 3], minlength=22)[LABELS == 3]
    np.testing.assert_allclose(images / images.sum(), 1 / 11, atol=0.01)


@pytest.mark.slow
def test_unique_labels_of_a_single_class():
    assert set(sample_unique_labels(KEY, 0, class_table(np.zeros(3, int), 1), 1).tolist()) <= {0, 1, 2}


def test_a_batch_depends_on_key_and_step_only_and_all_steps_and_scores_compile_once(caplog, table):
    draws: list[tuple[Any, Any, str]] = [
        (
            lambda key, step: sample_by_score(key, step, SCORES, 6),
            partial(draw_by_score, np.arange(20_000), SCORES),
            "_sample_by_score",
        ),
        (
            lambda key, step: sample_unique_labels(key, step, table, 4),
            partial(draw_unique, np.arange(12_000), table),
            "_sample_unique_labels",
        ),
    ]
    for draw, traced, name in draws:
        caplog.clear()
        expected = np.asarray(traced())
        with jax.log_compiles():
            found = [draw(KEY, step) for step in (7, 7, 0, 1, 2, 3)]
            others = [draw(jax.random.key(seed), 7).tolist() for seed in range(4)]
        assert compilations_of(name, caplog) == 1
        assert found[0].dtype == jnp.int32
        np.testing.assert_array_equal(found, expected[[7, 7, 0, 1, 2, 3]])
        assert any(drawn.tolist() != found[0].tolist() for drawn in found)
        assert any(other != found[0].tolist() for other in others)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_of_scores_and_unique_labels_are_errors(table):
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
        jax.eval_shape(lambda t: sample_unique_labels(KEY, 0, t, 6), table)


@pytest.mark.usefixtures("unchecked")
def test_class_ids_of_64_bits_are_exact_or_errors():
    given: list[Any] = [np.array([1, 0, 1], np.uint64), [1, 0, 1]]
    for labels in given:
        assert class_table(labels, 2).rows.tolist() == [[1, 1], [0, 2]]
    with pytest.raises(InputError, match=r"labels: expected 0 \.\. 1, got 0 \.\. 4294967297"):
        class_table(np.array([0, 2**32 + 1]), 2)
    names: Any = ["cat", "dog"]
    with pytest.raises(TypeError, match=r"labels: .*pass np.unique\(labels, return_inverse=True\)\[1\]"):
        class_table(names, 2)
    with pytest.raises(TypeError, match=r"labels: expected integer class ids, got float64; pass labels.astype\(int\)"):
        class_table(np.array([0.0, 1.0]), 2)
