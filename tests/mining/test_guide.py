"""A guide takes false negatives out of any loss, against loops."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from simjax.core import InputError
from tests.losses.cases import DEGENERATE, D, M, N, cosine, kind, related, rows
from tests.losses.test_pair_losses import multi_similarity, nt_xent

E = 3  # features of the guide


def kept(s, positive, negative, margin=0.0):
    """Negatives that are no closer to the guide than the row's nearest positive."""
    left = np.zeros_like(negative)
    for i, (p, q) in enumerate(rows(positive, negative)):
        for k in q:
            left[i, k] = not len(p) or s[i, k] <= max(s[i, a] for a in p) - margin
    return left


@pytest.mark.parametrize(
    "kind", [kind(name) for name in ("classes, some ignored", "shared labels", "grades", "reference")]
)
def test_equals_loops(random, kind):
    labels, ref_labels, positive, negative = related(kind, random)
    x, guide = random.normal(size=(N, D)), random.normal(size=(N, E))
    y, ref_guide, options = x, guide, {}
    others = ~np.eye(N, dtype=bool)
    sides = {}
    if ref_labels is None:
        positive, negative = positive & others, negative & others
    else:
        y, ref_guide = random.normal(size=(M, D)), random.normal(size=(M, E))
        sides, options = (
            {"ref_guide": jnp.float32(ref_guide), "ref_labels": ref_labels},
            {"ref_embeddings": jnp.float32(y)},
        )

    @jax.jit
    def loss(x, margin):
        relation = mining.guided(jnp.float32(guide), labels, margin=margin, **sides)
        return losses.multi_similarity_loss(x, relation, block_size=4, **options)

    for margin in (0.0, 0.2):
        left = kept(cosine(guide, ref_guide), positive, negative, margin)
        assert 0 < left.sum() < negative.sum()
        expected = multi_similarity(cosine(x, y), positive, left)
        np.testing.assert_allclose(loss(jnp.float32(x), margin), expected, rtol=2e-5)


def test_a_distance_guides_as_well(random):
    labels, guide = random.integers(0, 3, N), random.normal(size=(N, E))
    same = labels[:, None] == labels

    @jax.jit
    def negatives(i, j):
        return mining.guided(jnp.float32(guide), labels, measure="euclidean", margin=0.1).masks(i, j)[1]

    d = np.linalg.norm(guide[:, None] - guide, axis=2)
    expected = kept(-d, same & ~np.eye(N, dtype=bool), ~same, 0.1)
    some = np.array([1, 4, 9])  # a relation may be asked for a part of its rows
    np.testing.assert_array_equal(negatives(some[:, None], np.arange(N)[None]), expected[some])
    with pytest.raises(InputError, match="needs all 11 columns"):
        negatives(some[:, None], some[None])


def test_gist_of_questions_and_answers(random):
    """The loss of GISTEmbed where questions are compared with answers: a masked softmax."""
    x, y, gx, gy = (random.normal(size=(N, k)) for k in (D, D, E, E))
    s, of_guide = cosine(x, y) / 0.1, cosine(gx, gy)
    terms = []
    for i in range(N):
        candidates = [k for k in range(N) if k == i or of_guide[i, k] <= of_guide[i, i]]
        terms.append(np.log(np.exp(s[i, candidates]).sum()) - s[i, i])

    @jax.jit
    def loss(x, y, gx, gy):
        relation = mining.guided(gx, pairs.by_position(N), ref_guide=gy)
        return losses.nt_xent_loss(x, relation, ref_embeddings=y, temperature=0.1)

    found = loss(*map(jnp.float32, (x, y, gx, gy)))
    np.testing.assert_allclose(found, np.mean(terms), rtol=2e-5)


def test_a_guide_that_knows_the_classes_changes_nothing(random):
    """Its positives are all nearer than its negatives. And no gradient flows into it."""
    x, labels = jnp.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    guide = jnp.eye(3)[labels]
    both = jax.value_and_grad(lambda guide: losses.nt_xent_loss(x, mining.guided(guide, labels)))
    found, gradient = jax.jit(both)(guide)
    same = labels[:, None] == labels
    expected = nt_xent(cosine(x, x), same & ~np.eye(N, dtype=bool), ~same)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert not np.any(gradient)


def test_no_nan_at_degenerate_batches():
    def loss(x, labels, guide):
        return losses.nt_xent_loss(x, mining.guided(guide, labels))

    both = jax.jit(jax.value_and_grad(loss))
    for case, (x, labels) in DEGENERATE.items():
        x, ids = jnp.float32(x), jnp.asarray(labels, jnp.int32)
        value, gradient = both(x, ids, x)
        assert np.isfinite(value), case
        assert np.isfinite(gradient).all(), case


def test_a_row_without_a_positive_keeps_its_negatives():
    negatives = jax.jit(lambda i, j: mining.guided(jnp.eye(4), jnp.arange(4)).masks(i, j)[1])
    assert int(np.sum(negatives(np.arange(4)[:, None], np.arange(4)[None]))) == 12


def test_other_guides_compile_nothing(random, caplog):
    x = jnp.float32(random.normal(size=(37, D)))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for _ in range(5):
            guide = jnp.float32(random.normal(size=(37, E)))
            losses.nt_xent_loss(x, mining.guided(guide, random.integers(0, 4, 37)))
    messages = [r.getMessage() for r in caplog.records]
    assert sum("Finished XLA compilation of jit(_pair_terms)" in m for m in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_errors():
    guide = jnp.ones((3, 2))
    with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
        mining.guided(guide, jnp.arange(2))
    with pytest.raises(InputError, match="one without the other"):
        mining.guided(guide, jnp.arange(3), ref_guide=guide)
    with pytest.raises(InputError, match="ref_guide: expected rows of 2 features as in guide"):
        mining.guided(guide, pairs.by_position(3), ref_guide=jnp.ones((3, 4)))
