import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax import losses, mining
from tests.losses.cases import DEGENERATE, D, N


def by_loops(x, labels):
    """Return the mean, the farthest member and the nearest other mean of every class of at least two rows."""
    means = {c: x[labels == c].mean(0) for c in np.unique(labels)}
    found = []
    for c, mean in means.items():
        members = x[labels == c]
        others = [means[o] for o in means if o != c]
        if len(members) > 1 and others:
            farthest = members[np.argmax(cdist([mean], members)[0])]
            found.append((mean, farthest, others[np.argmin(cdist([mean], others)[0])]))
    return found


@jax.jit
def mine(x, labels):
    anchors, references, relation = mining.cluster_hard(x, labels, measure="euclidean", block_size=4)
    assert relation.indices is not None
    return anchors, references, relation.indices[0][:, 0], relation.indices[1][:, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_cluster_hard_equals_loops(seed):
    random = np.random.default_rng(seed)
    x, labels = np.float32(random.normal(size=(N, D))), random.integers(0, 5, N)
    anchors, references, positives, negatives = (np.asarray(a) for a in mine(x, labels))
    places = np.flatnonzero(positives >= 0)
    assert [labels[i] for i in places] == [labels[i] for i in sorted(places)]
    assert all(i == np.flatnonzero(labels == labels[i])[0] for i in places)
    found = {labels[i]: (anchors[i], references[positives[i]], references[negatives[i]]) for i in places}
    expected = by_loops(x, labels)
    assert len(found) == len(expected)
    for ours, theirs in zip([found[c] for c in sorted(found)], expected, strict=True):
        (mean, member, other), (its_mean, its_member, its_other) = ours, theirs
        np.testing.assert_allclose((mean, other), (its_mean, its_other), rtol=1e-5, atol=1e-6)
        distances = (np.linalg.norm(a - its_mean) for a in (member, its_member))  # two members are equally far
        np.testing.assert_allclose(*distances, rtol=1e-5)


@pytest.mark.slow
def test_gradients_flow_through_the_class_means(random):
    x, labels = np.float32(random.normal(size=(N, D))), random.integers(0, 3, N)

    @jax.jit
    def ours(x):
        anchors, references, relation = mining.cluster_hard(x, labels, measure="euclidean")
        return losses.triplet_margin_loss(
            anchors, relation, ref_embeddings=references, margin=5.0, measure="euclidean", reducer="sum"
        )

    value = sum(max(0, np.linalg.norm(a - p) - np.linalg.norm(a - n) + 5.0) for a, p, n in by_loops(x, labels))
    found, gradient = jax.jit(jax.value_and_grad(ours))(x)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    direction = random.normal(size=x.shape)
    with jax.enable_x64(True):
        steps = [float(ours(jnp.asarray(x + sign * 1e-5 * direction))) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * direction), (steps[0] - steps[1]) / 2e-5, rtol=1e-4)


@pytest.mark.slow
def test_degenerate_batches_have_finite_losses_and_gradients():
    @jax.jit
    def both(x, labels):
        def loss(x):
            anchors, references, relation = mining.cluster_hard(x, labels)
            return losses.triplet_margin_loss(anchors, relation, ref_embeddings=references)

        return jax.value_and_grad(loss)(x)

    for case, (x, labels) in DEGENERATE.items():
        value, gradient = both(np.float32(x), np.asarray(labels, np.int32))
        assert np.isfinite(value), case
        assert np.isfinite(gradient).all(), case
        if case in ("no positive pair", "no negative pair", "one row", "no row"):
            assert float(value) == 0, case
