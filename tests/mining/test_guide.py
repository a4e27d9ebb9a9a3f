"""A guide excludes false negatives from losses. Mined pairs are compared with loops in test_miners.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from simjax.core import InputError
from tests.losses.cases import D, N, cosine
from tests.losses.oracles import nt_xent

E = 3  # features of the guide


def test_gist_of_questions_and_answers(random):
    """The loss of GISTEmbed where questions are compared with answers: a masked softmax."""
    x, y, gx, gy = (np.float32(random.normal(size=(N, k))) for k in (D, D, E, E))
    s, of_guide = cosine(x, y) / 0.1, cosine(gx, gy)
    terms = []
    for i in range(N):
        candidates = [k for k in range(N) if k == i or of_guide[i, k] <= of_guide[i, i]]
        terms.append(np.log(np.exp(s[i, candidates]).sum()) - s[i, i])

    @jax.jit
    def loss(x, y, gx, gy):
        relation = mining.guided(gx, pairs.by_position(N), ref_guide=gy)
        return losses.nt_xent_loss(x, relation, ref_embeddings=y, temperature=0.1)

    found = loss(x, y, gx, gy)
    np.testing.assert_allclose(found, np.mean(terms), rtol=2e-5)


def test_a_guide_that_knows_the_classes_changes_nothing(random):
    """Its positives are all nearer than its negatives. And no gradient flows into it."""
    x, labels = np.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    guide = np.eye(3, dtype=np.float32)[labels]
    both = jax.value_and_grad(lambda guide: losses.nt_xent_loss(x, mining.guided(guide, labels)))
    found, gradient = jax.jit(both)(guide)
    same = labels[:, None] == labels
    expected = nt_xent(x, x, same & ~np.eye(N, dtype=bool), ~same)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert not np.any(gradient)


def test_a_part_of_the_rows_needs_all_columns():
    @jax.jit
    def negatives(i, j):
        return mining.guided(jnp.eye(4), jnp.arange(4)).masks(i, j)[1]

    some = np.array([[1], [3]])
    expected = some != np.arange(4)[None]  # rows without a positive keep all negatives
    np.testing.assert_array_equal(negatives(some, np.arange(4)[None]), expected)
    with pytest.raises(InputError, match="needs all 4 columns"):
        negatives(some, some.T)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    guide = jnp.ones((3, 2))
    with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
        mining.guided(guide, jnp.arange(2))
    with pytest.raises(InputError, match="one without the other"):
        mining.guided(guide, jnp.arange(3), ref_guide=guide)
    with pytest.raises(InputError, match="ref_guide: expected rows of 2 features as in guide"):
        mining.guided(guide, pairs.by_position(3), ref_guide=jnp.ones((3, 4)))
