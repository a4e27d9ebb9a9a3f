import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import class_table, sample_by_score, sample_unique_labels

KEY = jax.random.key(4)
SCORES = np.array([0.5, 0.0, 2.0, 1.0, 0.0, 4.0])
COUNTS = np.array([7, 0, 3, 11, 1])
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), COUNTS))


def test_the_next_image_is_drawn_in_proportion_among_those_left():
    draw = jax.jit(jax.vmap(lambda step: sample_by_score(KEY, step, SCORES, 2)))
    drawn = np.asarray(draw(jnp.arange(20_000)))
    seen = np.bincount(drawn[:, 0] * 6 + drawn[:, 1], minlength=36).reshape(6, 6) / 20_000
    total = SCORES.sum()
    expected = SCORES[:, None] / total * SCORES[None] / (total - SCORES[:, None])
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(seen, expected, atol=0.015)  # a standard error of 0.0035 or less
    assert (seen[expected == 0] == 0).all()


def test_images_are_distinct_while_enough_have_a_score():
    for step in range(10):
        assert sorted(sample_by_score(KEY, step, SCORES, 4).tolist()) == [0, 2, 3, 5]
        assert set(sample_by_score(KEY, step, SCORES, 6).tolist()) == {0, 2, 3, 5}  # two come again
        assert sorted(sample_by_score(KEY, step, np.zeros(6), 6).tolist()) == list(range(6))
    many = np.asarray(sample_by_score(KEY, 0, np.ones(5000), 50))  # where groups of columns are searched first
    assert len(set(many.tolist())) == 50


def test_scores_of_every_size_and_type():
    assert sorted(sample_by_score(KEY, 0, jnp.array([1e-30, 0.0, 1e30, 3e-38]), 3).tolist()) == [0, 2, 3]
    assert sample_by_score(KEY, 0, np.array([0, 3, 0]), 1).tolist() == [1]
    assert sample_by_score(KEY, 0, jnp.array([0, 3, 0], jnp.bfloat16), 1).tolist() == [1]
    assert sample_by_score(KEY, 0, jnp.array([1.0, jnp.inf]), 1).tolist() == [1]
    wrong = jax.jit(lambda s: sample_by_score(KEY, 0, s, 2))(jnp.array([jnp.nan, 1.0, -1.0, 2.0]))
    assert sorted(wrong.tolist()) == [1, 3]


def test_at_most_one_image_of_each_class():
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


def test_a_batch_is_a_function_of_key_and_step():
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
def test_errors():
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
            sample_by_score(jax.random.key(step), step, np.arange(13.0) + step, 5)  # a shape that no other test has
            labels = np.random.default_rng(step).permutation(np.repeat(np.arange(4), [9, 2, 1, 1]))
            sample_unique_labels(jax.random.key(step), step, class_table(labels, 4), 3)
    messages = [record.getMessage() for record in caplog.records]
    for name in ("_sample_by_score", "_sample_unique_labels"):
        assert sum(f"Finished XLA compilation of jit({name})" in message for message in messages) == 1
