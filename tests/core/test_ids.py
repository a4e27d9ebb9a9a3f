"""Integers beyond int32, compared with NumPy: JAX alone keeps the low 32 bits of wider integers."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simjax import attention, core, pairs, similarity
from simjax.core import InputError
from tests.similarity.arrays import float32
from tests.slow import mostly_slow

SECOND = 1_700_000_000_000  # milliseconds since 1970, beyond int32


@jax.jit
def mask_of_tile(mask, i, j):
    return mask(i, j)


def matrix(mask, n, m):
    return mask_of_tile(mask, *np.ogrid[:n, :m])


@jax.jit
def masks_of_tile(relation, i, j):
    return relation.masks(i, j)


def masks(relation):
    """Return the matrices of the positive and the negative pairs."""
    n, m = relation.shape
    return masks_of_tile(relation, *np.ogrid[:n, :m])


interesting = st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 2**32, -(2**32), 2**53 + 1, 2**63, 2**64 - 1, -(2**63)])


def ids(n):
    return st.lists(interesting | st.integers(-3, 3), min_size=n, max_size=n)


@settings(max_examples=50, deadline=None)
@given(rows=ids(5), columns=ids(4), ignore=st.sets(interesting, max_size=2))
@pytest.mark.usefixtures("unchecked")
def test_ids_are_equal_exactly_if_the_python_integers_are(rows, columns, ignore):
    relation = pairs.by_class(rows, columns, ignore=tuple(ignore))
    known = np.array([[a not in ignore and b not in ignore for b in columns] for a in rows])
    same = np.array([[a == b for b in columns] for a in rows])
    positive, negative = masks(relation)
    np.testing.assert_array_equal(positive, same & known)
    np.testing.assert_array_equal(negative, ~same & known)
    assert relation.classes is not None
    for found, given_ids in zip(map(np.asarray, relation.classes), (rows, columns), strict=True):
        # small ids are unchanged
        unchanged = [i for i, a in enumerate(given_ids) if -(2**31) < a < 2**31 and a not in ignore]
        assert found[unchanged].tolist() == [given_ids[i] for i in unchanged]
        assert all(found[i] == core.NO_CLASS for i, a in enumerate(given_ids) if a in ignore)
        assert all(found[i] < 0 for i, a in enumerate(given_ids) if abs(a) >= 2**31)


@pytest.mark.parametrize("x64", [False, True])
def test_masks_of_labels_of_every_type(x64):
    cases = [
        (np.array([0, 2**32]), None),
        (np.array([2**64 - 1, 3], np.uint64), np.array([-1, 3])),
        (np.array([2**32 - 1, 3], np.uint32), np.array([-1, 3], np.int32)),
        (np.array([2.0**24, 2**24 + 1]), np.array([2**24, 2**24 + 1])),
        (np.array([0.5, np.nan]), np.array([0.5, np.nan])),
        (np.array([7, 255], np.uint8), np.array([7, -1], np.int8)),
    ]
    with jax.enable_x64(x64):
        for rows, columns in cases:
            other = rows if columns is None else columns
            equal = [[a == b for b in other.tolist()] for a in rows.tolist()]
            np.testing.assert_array_equal(matrix(similarity.same_label(rows, columns), 2, 2), equal)
            np.testing.assert_array_equal(
                matrix(similarity.different_label(rows, columns), 2, 2), np.logical_not(equal)
            )


def test_wide_ids_are_not_compared_with_traced_ones():
    def positive(labels, ref):
        return masks(pairs.by_class(labels, ref))[0]

    np.testing.assert_array_equal(jax.jit(lambda a: positive(a, np.array([0, 7])))(np.array([7, 1])), [[0, 1], [0, 0]])
    with pytest.raises(InputError, match="ref_labels: expected ids that int32 holds"):
        jax.jit(lambda a: positive(a, np.array([0, 2**32])))(np.array([0, 1]))
    with jax.enable_x64(True):
        found = jax.jit(lambda a: positive(a, np.array([0, 2**32])))(np.array([2**32, 1]))
        np.testing.assert_array_equal(found, [[0, 1], [0, 0]])


@pytest.mark.usefixtures("unchecked")
def test_attributes_grades_and_sets_beyond_int32():
    times = SECOND + np.array([0, 50, 2**32])
    near = lambda a, b: abs(a - b) <= 60  # noqa: E731
    with pytest.raises(
        InputError, match=f"attributes: expected integers that int32 holds, got {SECOND} to .*; subtract the smallest"
    ):
        pairs.by_function(near, times)
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    with jax.enable_x64(True):
        np.testing.assert_array_equal(masks(pairs.by_function(near, times))[0], expected)
    with pytest.raises(InputError, match=r"attributes: expected arrays of one length, got \[2, 3\]"):
        pairs.by_function(near, (times[:2] - SECOND, np.arange(3)))
    grades = np.array([[2**32, -(2**32)], [0, 1]])
    np.testing.assert_array_equal(masks(pairs.by_grade(grades))[0], grades > 0.5)
    sets = np.array([[2**32, 0], [1, 1]])
    np.testing.assert_array_equal(masks(pairs.by_shared_label(sets))[0], [[1, 1], [1, 1]])
    with pytest.raises(TypeError, match=r"attributes: .*np.unique\(attributes, return_inverse=True\)\[1\]"):
        pairs.by_function(near, np.array(["a", "b"]))
    with pytest.raises(InputError, match="rows: expected integers that int32 holds"):
        similarity.reduce_rows(lambda s, i, j, a: a, np.eye(3), rows=(times,))


SIGNED = np.array([[3_000_000_000, -(2**40)], [5, 2**32]])
UNSIGNED = np.array([[2**63, 7], [5, 2**32]], np.uint64)
FEATURES = {
    "pairwise": lambda x: similarity.pairwise(x, measure="manhattan"),
    "pair": lambda x: similarity.euclidean_distance(x, 0 * x),
    "parameter": lambda x: similarity.standardized_euclidean_distance(x, 0 * x, variance=x[1]),
    "parameter of a measure": lambda x: similarity.pairwise(x, measure=similarity.measure("mahalanobis", matrix=x)),
    "top_k": lambda x: similarity.top_k(x, x, 2, "manhattan")[0],
    "unit vectors": similarity.unit_vectors,
    "reduction": lambda x: similarity.max(x, measure="manhattan")[0],
    "dot products": lambda x: core.dot_products(x, x),
    "dense": lambda x: core.dense(x, x.T, x[:, 0]),
    "convolution": lambda x: core.convolution(x[None, :, :, None], x[:1, :, None, None]),
    "patches": lambda x: core.patches(x[None, :, :, None], (1, 1)),
    "attention": lambda x: attention.dot_product_attention(x[:, None], x[:, None], x[:, None]),
}


@pytest.mark.parametrize("name", mostly_slow(FEATURES, "pairwise"))
def test_integer_features_are_rounded_to_floats(name):
    for x in (SIGNED, UNSIGNED):
        np.testing.assert_array_equal(FEATURES[name](x), FEATURES[name](x.astype(np.float32)))
    with jax.enable_x64(True):
        x = SIGNED + 1  # more digits than float32 has
        np.testing.assert_array_equal(FEATURES[name](x), FEATURES[name](x.astype(np.float64)))


@pytest.mark.usefixtures("unchecked")
def test_lists_numbers_and_text():
    lists: Any = [[3_000_000_000]], [[0]]
    np.testing.assert_array_equal(similarity.pairwise(lists[0], lists[1], "manhattan"), [[3e9]])
    assert core.as_float_array("x", 2**40) == 2.0**40
    assert (2 * core.as_float_array("x", 3)).weak_type  # as any Python number, it does not determine the dtype
    as_float_array: Any = core.as_float_array
    traced = jax.jit(lambda a: as_float_array("x", [a, 1.0]))(2.0)
    np.testing.assert_array_equal(traced, [2, 1])
    for wrong in ([["a"]], np.array([["1.5"]]), np.array([[None]]), 10**400):
        with pytest.raises((TypeError, OverflowError)):
            as_float_array("x", wrong)


@pytest.mark.usefixtures("unchecked")
def test_rows_to_exclude_and_lengths_of_sequences():
    x = float32(np.random.default_rng(0).normal(size=(3, 2)))
    with pytest.raises(InputError, match="exclude: expected integers that int32 holds"):
        similarity.top_k(x, x, 1, exclude=np.array([0, 1, 2**32 + 2]))
    with pytest.raises(InputError, match=r"exclude: expected one integer for each of 3 queries, got int32 \(1,\)"):
        similarity.top_k(x, x, 1, exclude=np.array([0], np.int32))
    for wrong in ([0, 1, 3], [0, -1, 1]):
        with pytest.raises(InputError, match="exclude: expected rows 0 to 2 of the gallery, got"):
            similarity.top_k(x, x, 1, exclude=np.array(wrong))
    for argument in ("query_seq_lengths", "key_value_seq_lengths"):
        with pytest.raises(InputError, match=f"{argument}: expected integers that int32 holds"):
            attention.dot_product_attention(*[x[None, :, None]] * 3, **{argument: np.array([2**32])})
