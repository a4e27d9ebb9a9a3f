"""Relations and their masks, degenerate batches, and checks of gradients, for tests of losses."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from simjax import losses, pairs
from tests.slow import slow_unless

N, M, D = 11, 7, 5


def loss_named(name):
    return getattr(losses, f"{name}_loss")


def float32(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float32)


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


def degenerate_batches(dtype):
    """Yield name, embeddings and labels. Dtypes other than float32 come without the cases of fewer than four rows."""
    for case, (x, labels) in DEGENERATE.items():
        if dtype == "float32" or len(x) == 4:
            x = np.clip(x, -6e4, 6e4) if dtype == "float16" else x
            yield case, jnp.asarray(x, dtype), np.asarray(labels, np.int32)


def assert_no_nan(loss, dtype, zero=()):
    """Compute a loss and its gradient for every degenerate batch; both are 0 in the cases `zero`."""
    both = jax.jit(jax.value_and_grad(loss))
    for case, x, labels in degenerate_batches(dtype):
        value, gradient = both(x, labels)
        assert np.isfinite(value), case
        assert np.isfinite(np.float32(gradient)).all(), case
        if case in zero:
            assert float(value) == 0, case
            np.testing.assert_array_equal(gradient, 0, err_msg=case)


def assert_gradient_equals_slope(value_and_gradient, x, random, step=1e-6):
    """Compare the derivative of a jitted function along one direction with finite differences."""
    direction = random.normal(size=np.shape(x))
    ahead, behind = (value_and_gradient(x + sign * step * direction)[0] for sign in (1, -1))
    slope = np.sum(np.asarray(value_and_gradient(x)[1]) * direction)
    assert abs(slope) > 1e-4
    np.testing.assert_allclose(slope, (float(ahead) - float(behind)) / (2 * step), rtol=1e-6)
