"""Diagnostics of embeddings, against loops over pairs, NumPy and closed forms."""

import itertools

import numpy as np
import pytest
from sklearn.decomposition import PCA

from simjax.core import InputError
from simjax.evaluate import (
    alignment,
    effective_rank,
    embedding_diagnostics,
    largest_variance_share,
    spread,
    uniformity,
)
from simjax.similarity import default_block_size


def known(value):
    assert value is not None
    return value


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(("alpha", "t"), [(2.0, 2.0), (1.0, 0.5)])
def test_alignment_and_uniformity_equal_a_loop_over_pairs(alpha, t, random):
    x, labels = random.normal(size=(43, 5)), random.integers(0, 7, 43) * 10**10
    u, within, all_pairs = unit(x), [], []
    for i, j in itertools.combinations(range(43), 2):
        squared = np.sum((u[i] - u[j]) ** 2)
        all_pairs.append(np.exp(-t * squared))
        if labels[i] == labels[j]:
            within.append(squared ** (alpha / 2))
    assert alignment(x, labels, alpha=alpha) == pytest.approx(np.mean(within), rel=1e-5)
    assert uniformity(x, t=t) == pytest.approx(np.log(np.mean(all_pairs)), rel=1e-5)


def test_the_values_of_several_tiles_are_those_of_the_whole_matrix(random):
    x, labels = random.normal(size=(1409, 3)).astype(np.float32), np.arange(1409) % 2
    assert default_block_size(x, measure="squared_euclidean") < 1409
    u = unit(x.astype(np.float64))
    squared = 2 - 2 * u @ u.T
    off_diagonal = ~np.eye(1409, dtype=bool)
    within = squared[(labels[:, None] == labels) & off_diagonal]
    assert alignment(x, labels) == pytest.approx(within.mean(), rel=1e-5)
    assert uniformity(x) == pytest.approx(np.log(np.exp(-2 * squared[off_diagonal]).mean()), rel=1e-5)
    # Evenly distributed directions in space: the cosine of two is evenly distributed in [-1, 1].
    assert uniformity(x) == pytest.approx(np.log(np.exp(-4) * np.sinh(4) / 4), abs=0.02)
    assert known(uniformity(np.abs(x))) > known(uniformity(x)) + 0.5


def test_the_effective_rank_is_the_entropy_of_the_singular_values(random):
    x = random.normal(size=(31, 7)) * 2.0 ** -np.arange(7)
    for rows, center in ((x, False), (x - x.mean(axis=0), True)):
        eigenvalues = np.linalg.eigvalsh(rows.T @ rows)  # squares of the singular values
        p = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
        assert effective_rank(x, center=center) == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-5)
    assert effective_rank(np.eye(9)[:6]) == pytest.approx(6)
    assert effective_rank(10 * np.eye(9)[:6]) == pytest.approx(6)
    for factor in (1e-30, 1e30):  # whose squares no float32 holds
        assert effective_rank(factor * x) == pytest.approx(known(effective_rank(x)), rel=1e-5)
        assert spread(factor * x) == pytest.approx(known(spread(x)), rel=1e-5)
    two = np.outer(random.normal(size=40), np.ones(8)) + np.outer(random.normal(size=40), [1, -1] * 4)
    assert 1.5 < known(effective_rank(two)) <= 2.000001


def test_a_common_vector_hides_the_dimensions_in_which_embeddings_differ(random):
    x = random.normal(size=(100, 6))
    moved = x + 1000
    assert known(effective_rank(moved)) < 1.1
    assert effective_rank(moved, center=True) == pytest.approx(effective_rank(x, center=True), rel=1e-3)
    assert spread(moved) == pytest.approx(np.sum(np.var(x, axis=0)) / np.mean(np.sum(moved**2, axis=1)), rel=1e-2)


def test_the_spread_of_unit_vectors_is_half_of_their_mean_squared_distance(random):
    u = unit(random.normal(size=(29, 4)) + 1)
    squared = np.sum((u[:, None] - u[None]) ** 2, axis=-1)
    assert spread(u) == pytest.approx(np.mean(squared) / 2, rel=1e-5)
    assert spread(np.concatenate([u, -u])) == pytest.approx(1, rel=1e-5)


def test_the_largest_variance_share_is_that_of_the_first_principal_component(random):
    x = random.normal(size=(43, 6)) * np.arange(1, 7) + 10
    for rows in (x, x[:5]):
        expected = PCA().fit(rows).explained_variance_ratio_[0]
        assert largest_variance_share(rows) == pytest.approx(expected, rel=1e-6)


def test_rounding_leaves_no_value_outside_of_its_range(random):
    for _ in range(200):
        n, d = random.integers(2, 30), random.integers(2, 6)
        line = np.outer(random.normal(size=n), random.normal(size=d))
        assert known(largest_variance_share(line)) <= 1
        assert known(effective_rank(line)) >= 1
        assert known(effective_rank(np.linalg.qr(random.normal(size=(d, d)))[0])) <= d
        for rows in (line, random.normal(size=(n, d))):
            assert known(spread(np.concatenate([rows, -rows]))) <= 1
    assert uniformity([[1.0, 0.0], [-1.0, 0.0]], t=0.1) == -0.4  # the float32 next to 0.1 is larger


def test_together_they_are_the_single_values(random):
    x, labels = random.normal(size=(43, 5)), np.arange(43) % 3
    assert embedding_diagnostics(x, labels) == {
        "alignment": alignment(x, labels),
        "uniformity": uniformity(x),
        "effective_rank": effective_rank(x),
        "effective_rank_centered": effective_rank(x, center=True),
        "largest_variance_share": largest_variance_share(x),
        "spread": spread(x),
        "embedding_size": 5,
    }


def test_values_that_do_not_exist_are_none():
    values = ("alignment", "uniformity", "effective_rank", "effective_rank_centered", "spread")
    for rows in (np.zeros((0, 5)), [[0.1, 0.7]], [[0.1, 0.7, 0.2]] * 43):
        assert largest_variance_share(rows) is None
    for x, expected in (
        (np.zeros((0, 5)), [None] * 5),
        ([[0.1, 0.7]], [None, None, 1.0, None, 0.0]),
        ([[0.1, 0.7, 0.2, 0.3, 0.4]] * 43, [0, 0, 1.0, None, 0.0]),
        (np.zeros((43, 5)), [0, 0, None, None, None]),
    ):
        found = embedding_diagnostics(x, np.zeros(len(x), int))
        assert [found[name] for name in values] == [None if e is None else pytest.approx(e, abs=1e-6) for e in expected]
    assert alignment(np.eye(3), [0, 1, 2]) is None
    with pytest.raises(InputError, match="^alpha: expected more than 0, got 0.0$"):
        alignment(np.eye(3), [0, 0, 2], alpha=0.0)
    with pytest.raises(InputError, match="^t: expected more than 0, got -1.0$"):
        uniformity(np.eye(3), t=-1.0)
