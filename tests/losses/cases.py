"""Relations and their masks, and degenerate batches, for tests of losses."""

import jax.numpy as jnp
import numpy as np

from simjax import pairs
from tests.slow import slow_unless

N, M, D = 11, 7, 5


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cosine(x, y):
    return unit(x) @ unit(y).T


def euclidean(x, y):
    return np.linalg.norm(unit(x)[:, None] - unit(y)[None], axis=2)


def mean(terms):
    return float(np.mean(terms)) if len(terms) else 0.0


def mean_above_zero(terms):
    return mean([t for t in terms if t > 0])


def rows(positive, negative):
    """Return the columns of the positives and of the negatives of each row."""
    return [(np.flatnonzero(p), np.flatnonzero(q)) for p, q in zip(positive, negative, strict=True)]


def related(kind, random):
    """Return labels or a relation, reference labels, and masks of the pairs [n, m], with the diagonal."""
    ids, ref = random.integers(0, 3, N), random.integers(0, 3, M)
    sets = random.integers(0, 2, (N, 4))
    matrix = random.random((N, N))
    same = ids[:, None] == ids
    cases = {
        "classes": (ids, None, same, ~same),
        "classes, some ignored": (
            pairs.by_class(ids, ignore=(2,)),
            None,
            same & (ids != 2) & (ids != 2)[:, None],
            ~same & (ids != 2) & (ids != 2)[:, None],
        ),
        "shared labels": (pairs.by_shared_label(sets), None, sets @ sets.T > 0, sets @ sets.T == 0),
        "function": (
            pairs.by_function(lambda a, b: jnp.abs(a - b) < 2, np.arange(N)),
            None,
            abs(np.arange(N)[:, None] - np.arange(N)) < 2,
            abs(np.arange(N)[:, None] - np.arange(N)) >= 2,
        ),
        "grades": (pairs.by_grade(matrix, above=0.7, below=0.4), None, matrix > 0.7, matrix <= 0.4),
        "matrices": (pairs.by_matrix(matrix > 0.5, matrix < 0.2), None, matrix > 0.5, matrix < 0.2),
        "reference": (ids, ref, ids[:, None] == ref, ids[:, None] != ref),
    }
    return cases[kind]


RELATIONS = ("classes", "classes, some ignored", "shared labels", "function", "grades", "matrices", "reference")

FAST = ("classes",)


def kind(name, *arguments):
    """Return a parameter of a test: slow tests try every relation, fast tests one."""
    return slow_unless(name in FAST, *arguments, name)


DEGENERATE = {
    "at one point": (np.zeros((4, 4)), [0, 0, 1, 1]),
    "equal": (np.ones((4, 4)), [0, 0, 1, 1]),
    "opposite": (np.array([[1.0], [-1], [1], [-1]]) * np.ones((1, 4)), [0, 0, 1, 1]),
    "no positive pair": (np.eye(4), [0, 1, 2, 3]),
    "no negative pair": (np.eye(4), [1, 1, 1, 1]),
    "one row": (np.ones((1, 4)), [0]),
    "no row": (np.ones((0, 4)), np.zeros(0, int)),
    "huge": (np.full((4, 4), 1e15), [0, 0, 1, 1]),
    "tiny": (np.eye(4) * 1e-30, [0, 0, 1, 1]),
}
