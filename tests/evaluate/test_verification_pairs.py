"""Pairs for verification: balanced, distinct, uniform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simjax.core import InputError
from simjax.evaluate import sample_pairs_for_verification


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 60), st.integers(0, 9))
def test_pairs_are_distinct_and_balanced_and_as_many_as_possible(labels, n_pairs, seed):
    i, j, same = sample_pairs_for_verification(np.array(labels, int), n_pairs, seed)
    labels = np.array(labels)
    alike = labels[:, None] == labels
    upper = np.triu(np.ones_like(alike), 1)
    assert len(i) == len(j) == len(same) == 2 * min(n_pairs // 2, (alike & upper).sum(), (~alike & upper).sum())
    assert len({frozenset(pair) for pair in zip(i.tolist(), j.tolist(), strict=True)}) == len(i)
    assert not np.any(i == j)
    if len(i):
        np.testing.assert_array_equal(labels[i] == labels[j], same)
        np.testing.assert_array_equal(same, np.arange(len(i)) % 2 == 0)


def test_pairs_of_a_kind_are_equally_likely():
    labels = [7, 2, 2, 7, 2, 5]  # 4 pairs of one class, 11 of two
    counts = np.zeros((6, 6))
    for seed in range(2000):
        i, j, _ = sample_pairs_for_verification(labels, 4, seed)
        np.add.at(counts, (np.minimum(i, j), np.maximum(i, j)), 1)
    alike = np.equal.outer(labels, labels)
    upper = np.triu(np.ones((6, 6), bool), 1)
    assert np.abs(counts[alike & upper] / 2000 - 2 / 4).max() < 0.05
    assert np.abs(counts[~alike & upper] / 2000 - 2 / 11).max() < 0.05


def test_pairs_depend_on_the_seed():
    labels = np.random.default_rng(0).integers(0, 10, 1009)
    first, again, other = (np.stack(sample_pairs_for_verification(labels, 100, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1], [1, 2, 3]])
def test_there_are_no_pairs_if_one_kind_is_missing(labels):
    i, j, same = sample_pairs_for_verification(labels, 10, 0)
    assert (i.tolist(), j.tolist(), same.tolist()) == ([], [], [])
    assert (i.dtype, same.dtype) == (np.int32, bool)


def test_wrong_arguments_are_errors():
    with pytest.raises(InputError, match="n_pairs: expected at least 0, got -2"):
        sample_pairs_for_verification([0, 1], -2, 0)
    with pytest.raises(InputError, match="labels: expected 4 labels, one for each row"):
        sample_pairs_for_verification([[0, 1], [2, 3]], 2, 0)
