import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.similarity import Measure
from simjax.similarity._max_similarity import maxsim_matrix, maxsim_similarity
from tests.similarity.arrays import float32, temporary_bytes
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless

TOKENS = {
    "dot": (lambda a, b: a @ b, max),
    "cosine": (lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b), max),
    "euclidean": (lambda a, b: np.linalg.norm(a - b), min),
    "manhattan": (lambda a, b: np.abs(a - b).sum(), min),
}


def by_loops(x, y, x_mask, y_mask, measure, reduce):
    """Compute MaxSim of every query and document; 0 without valid tokens."""
    compare, closest = TOKENS[measure]
    scores = np.zeros((len(x), len(y)))
    for i, j in np.ndindex(scores.shape):
        words = [b for b, counts in zip(y[j], y_mask[j], strict=True) if counts]
        found = [
            closest(compare(a, b) for b in words) for a, counts in zip(x[i], x_mask[i], strict=True) if counts and words
        ]
        if found:
            scores[i, j] = np.sum(found) if reduce == "sum" else np.mean(found)
    return scores


def sets(random, queries=5, documents=7, kind: Any = np.float32):
    """Return queries of 3 tokens and documents of 11; one of each has no valid token."""
    x, y = random.normal(size=(queries, 3, 13)).astype(kind), random.normal(size=(documents, 11, 13)).astype(kind)
    x_mask, y_mask = random.random((queries, 3)) < 0.7, random.random((documents, 11)) < 0.5
    x_mask[1] = False
    y_mask[2] = False
    return x, y, x_mask, y_mask


@pytest.mark.parametrize("measure", ["dot", *(slow_unless(False, m) for m in TOKENS if m != "dot")])
def test_equals_loops(random, measure):
    x, y, x_mask, y_mask = sets(random)

    @jax.jit
    def forms(x, y, x_mask, y_mask):
        masks = {"x_mask": x_mask, "y_mask": y_mask}
        paired = {"x_mask": x_mask[:, None], "y_mask": y_mask[None]}
        found = {}
        for reduce in ("sum", "mean"):
            options = {"measure": measure, "reduce": reduce}
            matrices = [maxsim_matrix(x, y, **masks, **options, block_size=block_size) for block_size in (None, 2)]
            found[reduce] = [*matrices, maxsim_similarity(x[:, None], y[None], **paired, **options)]
        return found

    for reduce, matrices in forms(x, y, x_mask, y_mask).items():
        expected = by_loops(x, y, x_mask, y_mask, measure, reduce)
        for found in matrices:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_documents_are_split_if_a_query_exceeds_the_budget(random, monkeypatch):
    x, y, x_mask, y_mask = sets(random)
    whole = maxsim_matrix(x, y, x_mask=x_mask, y_mask=y_mask)
    for limit in ("TILE_BYTES", "LARGEST_TILE_BYTES"):
        monkeypatch.setattr(f"simjax.core._blocks.{limit}", 3 * 11 * 4 * 20)  # about three documents
    jax.clear_caches()
    np.testing.assert_allclose(maxsim_matrix(x, y, x_mask=x_mask, y_mask=y_mask), whole, rtol=1e-5)


def test_a_users_own_measure(random):
    x, y, x_mask, y_mask = sets(random)
    own = Measure.from_pair(lambda a, b: jnp.sum(jnp.abs(a - b), -1), higher_is_closer=False)
    found = maxsim_matrix(x, y, x_mask=x_mask, y_mask=y_mask, measure=own)
    np.testing.assert_allclose(found, by_loops(x, y, x_mask, y_mask, "manhattan", "sum"), rtol=1e-5)


def test_padding_has_no_influence(random):
    x, y, x_mask, y_mask = sets(random)
    padded = np.where(x_mask[..., None], x, float32(np.inf)), np.where(y_mask[..., None], y, float32(np.nan))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def score(x, y):
        return maxsim_matrix(x, y, x_mask=x_mask, y_mask=y_mask, measure="euclidean").sum()

    value, gradients = score(*padded)
    expected = score(x, y)
    np.testing.assert_array_equal(value, expected[0])
    jax.tree.map(np.testing.assert_array_equal, gradients, expected[1])
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_array_equal(np.asarray(gradients[1])[~y_mask], 0)


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["euclidean", "dot"])
def test_derivatives_in_float64(random, measure):
    x, y, x_mask, y_mask = sets(random, 3, 5, np.float64)

    def scores(x, y):
        return maxsim_matrix(x, y, x_mask=x_mask, y_mask=y_mask, measure=measure, block_size=2)

    assert_derivatives(scores, x, y, order=1)


def test_ties_send_the_gradient_to_the_first_token():
    document = float32([[0.5, 0.0], [1.0, 0.0], [1.0, 0.0]])
    gradient = jax.jit(jax.grad(lambda y: maxsim_similarity(float32([[2, 0]]), y)))(document)
    np.testing.assert_array_equal(gradient, [[0, 0], [2, 0], [0, 0]])


def test_empty_sets_have_score_zero():
    for t, s in ((0, 2), (3, 0)):
        x, y = np.ones((2, t, 5), np.float32), np.ones((3, s, 5), np.float32)
        np.testing.assert_array_equal(maxsim_matrix(x, y), np.zeros((2, 3)))
    assert maxsim_matrix(np.ones((0, 2, 5), np.float32), np.ones((3, 2, 5), np.float32)).shape == (0, 3)


@pytest.mark.slow
def test_vmap_and_half_precision(random):
    x, y, x_mask, _ = sets(random, 5, 5)

    @jax.jit
    def forms(x, y, mask):
        mapped = jax.vmap(lambda x, y, mask: maxsim_similarity(x, y, x_mask=mask))(x, y, mask)
        return maxsim_matrix(x, y, x_mask=mask), maxsim_similarity(x, y, x_mask=mask), mapped

    matrix, paired, mapped = forms(x, y, x_mask)
    np.testing.assert_allclose(np.diagonal(matrix), paired, rtol=1e-5)
    np.testing.assert_allclose(mapped, paired, rtol=1e-5)
    half = tuple(a.astype(jnp.dtype(jnp.bfloat16)) for a in (x, y))
    exact = forms(*map(float32, half), x_mask)
    for found, expected in zip(forms(*half, x_mask), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found, np.asarray(expected).astype(found.dtype))  # rounded once, at the end


@pytest.mark.slow
def test_memory_of_a_gradient_has_no_array_of_all_tokens():
    x, y = jax.ShapeDtypeStruct((128, 32, 16), jnp.float32), jax.ShapeDtypeStruct((128, 64, 16), jnp.float32)

    def temporary(block_size):
        return temporary_bytes(jax.grad(lambda x, y: maxsim_matrix(x, y, block_size=block_size).sum()), x, y)

    assert temporary(128) > 128 * 128 * 32 * 64 * 4  # [n, m, t, s]
    assert temporary(4) < temporary(128) / 8


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x, y = np.ones((2, 3, 5), np.float32), np.ones((4, 7, 5), np.float32)
    with pytest.raises(InputError, match="y: expected tokens of 5 features"):
        maxsim_matrix(x, np.ones((4, 7, 6), np.float32))
    with pytest.raises(InputError, match=r"x: expected sets of tokens \[n, t, d\], got shape \(3, 5\)"):
        maxsim_matrix(x[0], y)
    with pytest.raises(InputError, match="y: expected as many sets as in x"):
        maxsim_similarity(x, y)
    with pytest.raises(InputError, match=r"y_mask: expected one boolean a token, \(4, 7\)"):
        maxsim_matrix(x, y, y_mask=np.ones((4, 6), bool))
    with pytest.raises(TypeError, match="x_mask: expected booleans"):
        maxsim_matrix(x, y, x_mask=np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match="unknown reduce 'max'"):
        maxsim_matrix(x, y, reduce="max")
