"""Every miner equals loops over pairs and triplets, for several kinds of relation; losses accept every miner."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs, similarity
from simjax.core import InputError
from tests.losses.cases import DEGENERATE, D, M, N, cosine, euclidean, kind, related
from tests.slow import mostly_slow

RELATIONS = ("classes", "classes, some ignored", "shared labels", "function", "grades", "reference")


def columns_of_rows(positive, negative):
    return [(i, np.flatnonzero(p), np.flatnonzero(q)) for i, (p, q) in enumerate(zip(positive, negative, strict=True))]


def as_mask(shape, pairs):
    mask = np.zeros(shape, bool)
    for i, j in pairs:
        mask[i, j] = True
    return mask


def batch_hard(d, positive, negative):
    rows = [(i, p, q) for i, p, q in columns_of_rows(positive, negative) if len(p) and len(q)]
    near = as_mask(d.shape, [(i, p[np.argmax(d[i, p])]) for i, p, _ in rows])
    return near, as_mask(d.shape, [(i, q[np.argmin(d[i, q])]) for i, _, q in rows])


def easy_semi_hard(d, positive, negative, low=0.0, high=9.0):
    near, far = [], []
    for i, p, q in columns_of_rows(positive, negative):
        if len(p):
            a = p[np.argmin(d[i, p])]
            farther = [k for k in q if d[i, k] > d[i, a] and low <= d[i, k] <= high]
            if farther:
                near.append((i, a))
                far.append((i, min(farther, key=lambda k, i=i: d[i, k])))
    return as_mask(d.shape, near), as_mask(d.shape, far)


def easiest_of_all(d, positive, negative):
    near = [(i, p[np.argmin(d[i, p])]) for i, p, _ in columns_of_rows(positive, negative) if len(p)]
    return as_mask(d.shape, near), negative


def pair_margin(d, positive, negative):
    return positive & (d > 1.1), negative & (d < 1.3)


def multi_similarity(s, positive, negative):
    near, far = [], []
    for i, p, q in columns_of_rows(positive, negative):
        if len(p) and len(q):
            near += [(i, k) for k in p if s[i, k] - 0.1 < max(s[i, q])]
            far += [(i, k) for k in q if s[i, k] + 0.1 > min(s[i, p])]
    return as_mask(s.shape, near), as_mask(s.shape, far)


def two_and_three_hardest(d, positive, negative):
    near, far = [], []
    for i, p, q in columns_of_rows(positive, negative):
        near += [(i, k) for k in sorted(p, key=lambda k, i=i: -d[i, k])[:2]]
        far += [(i, k) for k in sorted(q, key=lambda k, i=i: d[i, k])[:3]]
    return as_mask(d.shape, near), as_mask(d.shape, far)


def hard_aware(d, positive, negative):
    masks = []
    for mask, hard in ((positive, d), (negative, -d)):
        values = sorted(hard[mask], reverse=True)
        masks.append(mask & (hard >= values[int(np.ceil(0.3 * len(values))) - 1]))
    return tuple(masks)


def curriculum(d, positive, negative):
    masks = []
    for mask, hard in ((positive, d), (negative, -d)):
        kept = [
            (i, k)
            for i in range(len(d))
            for k in np.flatnonzero(mask[i])
            if hard[i, k] <= hard[i, mask[i]].min() + 0.6 * np.ptp(hard[i, mask[i]])
        ]
        masks.append(as_mask(d.shape, kept))
    return tuple(masks)


OF_PAIRS = {
    "batch_hard": (mining.batch_hard, {}, euclidean, batch_hard),
    "easy, semi-hard": (mining.batch_easy_hard, {}, euclidean, easy_semi_hard),
    "easy, semi-hard in a range": (
        mining.batch_easy_hard,
        {"negative_range": (0.9, 1.5)},
        euclidean,
        lambda *a: easy_semi_hard(*a, low=0.9, high=1.5),
    ),
    "easy of all": (mining.batch_easy_hard, {"negative": "all"}, euclidean, easiest_of_all),
    "pair_margin": (mining.pair_margin, {"positive_margin": 1.1, "negative_margin": 1.3}, euclidean, pair_margin),
    "multi_similarity": (mining.multi_similarity, {}, cosine, multi_similarity),
    "n_hard": (mining.n_hard, {"n_positive": 2, "n_negative": 3}, euclidean, two_and_three_hardest),
    "hard_aware": (mining.hard_aware, {"share": 0.3}, euclidean, hard_aware),
    "curriculum": (mining.curriculum, {"hardness": 0.6}, euclidean, curriculum),
}


def batch(kind, random):
    """Return embeddings, reference embeddings, options of a miner, and the masks of pairs."""
    labels, ref_labels, positive, negative = related(kind, random)
    x = np.float32(random.normal(size=(N, D)))
    if ref_labels is None:
        away = ~np.eye(N, dtype=bool)
        return x, x, labels, {}, positive & away, negative & away
    y = np.float32(random.normal(size=(M, D)))
    return x, y, labels, {"ref_embeddings": y, "ref_labels": ref_labels}, positive, negative


def masks(relation, block_size=4):
    """Return the masks of a relation, computed tile by tile as in a loss."""
    n, m = relation.shape

    @jax.jit
    def masks_of_rows(relation, i):
        return relation.masks(i[:, None], jnp.arange(m, dtype=jnp.int32)[None])

    parts = [
        masks_of_rows(relation, jnp.arange(i, min(i + block_size, n), dtype=jnp.int32)) for i in range(0, n, block_size)
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("kind", mostly_slow(RELATIONS, "classes"))
@pytest.mark.parametrize("name", OF_PAIRS)
def test_pairs_equal_loops(random, name, kind):
    miner, settings, compare, oracle = OF_PAIRS[name]
    x, y, labels, options, positive, negative = batch(kind, random)
    found = masks(miner(x, labels, **settings, **options))
    for mask, expected in zip(found, oracle(compare(x, y), positive, negative), strict=True):
        np.testing.assert_array_equal(mask, expected)


def triplet_set(relation):
    """Return the set of all triplets of a relation."""
    n, m = relation.shape
    i, j = jnp.arange(n, dtype=jnp.int32)[:, None], jnp.arange(m, dtype=jnp.int32)[None]
    positive, negatives_of = relation.triplets_of(i, j)
    selected = np.asarray(negatives_of(jnp.broadcast_to(j, (n, m)))) & np.asarray(positive)[:, :, None]
    return {(int(a), int(p), int(q)) for a, p, q in zip(*np.nonzero(selected), strict=True)}


def every_triplet(positive, negative):
    return [(i, a, b) for i, p, q in columns_of_rows(positive, negative) for a in p for b in q]


def by_difference(condition):
    def oracle(x, y, positive, negative):
        d = euclidean(x, y)
        return {(i, a, b) for i, a, b in every_triplet(positive, negative) if condition(d[i, b] - d[i, a])}

    return oracle


def semi_hard(x, y, positive, negative):
    d, found = euclidean(x, y), set()
    for i, p, q in columns_of_rows(positive, negative):
        for a in p:
            farther = [b for b in q if d[i, b] > d[i, a]]
            if len(q):
                found.add((i, a, min(farther, key=lambda b, i=i: d[i, b]) if farther else q[np.argmax(d[i, q])]))
    return found


def angular(x, y, positive, negative):
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    found = set()
    for i, a, b in every_triplet(positive, negative):
        middle = (u[i] + v[a]) / 2
        angle = np.arctan(np.linalg.norm(u[i] - v[a]) / (2 * np.linalg.norm(v[b] - middle)))
        if np.degrees(angle) > 30:
            found.add((i, a, b))
    return found


OF_TRIPLETS = {
    "all": (mining.triplet_margin, {}, by_difference(lambda difference: difference <= 0.2)),
    "hard": (mining.triplet_margin, {"kind": "hard"}, by_difference(lambda difference: difference <= 0)),
    "semi-hard by margin": (
        mining.triplet_margin,
        {"kind": "semi_hard"},
        by_difference(lambda difference: 0 < difference <= 0.2),
    ),
    "easy": (mining.triplet_margin, {"kind": "easy"}, by_difference(lambda difference: difference > 0.2)),
    "semi-hard": (mining.semi_hard, {}, semi_hard),
    "angular": (mining.angular, {"angle": 30.0}, angular),
}


@pytest.mark.parametrize("kind", mostly_slow(RELATIONS, "classes"))
@pytest.mark.parametrize("name", OF_TRIPLETS)
def test_triplets_equal_loops(random, name, kind):
    miner, settings, oracle = OF_TRIPLETS[name]
    x, y, labels, options, positive, negative = batch(kind, random)
    relation = miner(x, labels, **settings, **options)
    expected = oracle(x, y, positive, negative)
    assert triplet_set(relation) == expected
    as_pairs = masks(relation)
    np.testing.assert_array_equal(as_pairs[0], as_mask(relation.shape, [(i, a) for i, a, _ in expected]))
    np.testing.assert_array_equal(as_pairs[1], as_mask(relation.shape, [(i, b) for i, _, b in expected]))


@pytest.mark.parametrize("kind", [kind(name) for name in ("classes", "shared labels", "grades")])
@pytest.mark.parametrize(
    "name", mostly_slow(["batch_hard", "semi-hard", "multi_similarity", "hard_aware", "angular"], "semi-hard")
)
def test_losses_of_mined_relations_equal_losses_of_enumerated_pairs(random, name, kind):
    """Value and gradient are those of the same pairs or triplets, enumerated."""
    miner, settings = (OF_PAIRS | OF_TRIPLETS)[name][:2]
    x, y, labels, options, _, _ = batch(kind, random)
    relation = miner(x, labels, **settings, **options)
    refs: dict[str, Any] = {"ref_embeddings": jnp.asarray(y)} if options else {}

    def distances(x):
        return similarity.normalized_euclidean_distance(x[:, None], jnp.asarray(y)[None] if refs else x[None])

    def of_enumerated_triplets(x):
        a, p, q = (jnp.array(t) for t in zip(*sorted(triplet_set(relation)), strict=True))
        terms = jax.nn.relu(distances(x)[a, p] - distances(x)[a, q] + 0.5)
        return jnp.sum(terms) / jnp.maximum(jnp.sum(terms > 0), 1)

    def of_enumerated_pairs(x):
        positive, negative = masks(relation)
        return losses.contrastive_loss(x, pairs.by_matrix(positive, negative), **refs)

    for ours, enumerated in (
        (lambda x: losses.triplet_margin_loss(x, relation, margin=0.5, block_size=4, **refs), of_enumerated_triplets),
        (lambda x: losses.contrastive_loss(x, relation, block_size=4, **refs), of_enumerated_pairs),
    ):
        found, expected = jax.value_and_grad(ours)(x), jax.value_and_grad(enumerated)(x)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)


def test_statistics_equal_loops(random):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    relation = mining.multi_similarity(jnp.float32(x), labels)
    found, d = mining.statistics(jnp.float32(x), relation, block_size=4), euclidean(x, x)
    for which, mask in enumerate(masks(relation)):
        assert float(found.pairs[which]) == mask.sum()
        assert int(found.rows[which]) == mask.any(1).sum()
        expected = (d[mask].min(), d[mask].mean(), d[mask].max())
        got = (found.nearest[which], found.mean[which], found.farthest[which])
        np.testing.assert_allclose(got, expected, rtol=1e-4)


MINERS = {
    **{name: (miner, settings) for name, (miner, settings, *_) in (OF_PAIRS | OF_TRIPLETS).items()},
    "distance_weighted": (mining.distance_weighted, {"key": jax.random.key(0)}),
    "uniform_histogram": (mining.uniform_histogram, {"key": jax.random.key(0), "bins": 4}),
}


@pytest.mark.parametrize("name", mostly_slow(MINERS, "semi-hard"))
def test_degenerate_batches_have_finite_losses_and_gradients(name):
    miner, settings = MINERS[name]

    @jax.jit
    def both(x, labels):
        def loss(x):
            relation = miner(x, labels, **settings)
            return losses.triplet_margin_loss(x, relation) + losses.contrastive_loss(x, relation)

        return jax.value_and_grad(loss)(x)

    for case, (x, labels) in DEGENERATE.items():
        with np.errstate(over="ignore"):
            value, gradient = both(jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32))
        assert np.isfinite(value), case
        assert np.isfinite(gradient).all(), case
        if "row" in case:
            assert float(value) == 0, case


def test_other_labels_do_not_compile_again(random, caplog):
    import logging

    x = jnp.float32(random.normal(size=(29, D)))

    @jax.jit
    def step(x, labels, hardness):
        total = losses.contrastive_loss(x, mining.curriculum(x, labels, hardness=hardness))
        for name in ("batch_hard", "multi_similarity", "semi-hard"):
            miner, settings = MINERS[name]
            total += losses.triplet_margin_loss(x, miner(x, labels, **settings))
        return total

    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for seed in range(10):
            labels = np.random.default_rng(seed).integers(0, 1 + seed, 29)
            step(x, labels, seed / 10)
            losses.contrastive_loss(x, mining.multi_similarity(x, labels))  # and outside of jit
    messages = [r.getMessage() for r in caplog.records]
    for function in ("step", "_pair_terms"):
        assert sum(f"Finished XLA compilation of jit({function})" in m for m in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_raise_errors():
    x, labels = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
    for call, message in (
        (lambda: mining.batch_easy_hard(x, labels, positive="semihard"), "did you mean semi_hard"),
        (
            lambda: mining.batch_easy_hard(x, labels, positive="semi_hard", negative="all"),
            "expected semi_hard together with hard or easy",
        ),
        (lambda: mining.batch_easy_hard(x, labels, positive_range=(2.0, 1.0)), "expected the smallest value first"),
        (lambda: mining.triplet_margin(x, labels, kind="soft"), "unknown value 'soft'|kind"),
        (lambda: mining.n_hard(x, labels, n_negative=0), "n_negative: expected at least 1"),
        (lambda: mining.hard_aware(x, labels, share=0.0), "share: expected above 0"),
        (lambda: mining.uniform_histogram(x, labels, key=jax.random.key(0), bins=0), "bins: expected at least 1"),
        (lambda: mining.distance_weighted(x, labels, key=jax.random.key(0), cutoff=2.0), "cutoff: expected"),
        (lambda: mining.batch_hard(x, labels[:2]), r"relation of \(3, 3\) rows and columns, got \(2, 2\)"),
        (lambda: mining.multi_similarity(x, mining.batch_hard(x, labels)), "got triplets that a miner selected"),
    ):
        with pytest.raises(InputError, match=message):
            call()


LOSSES = (
    *(
        "angular",
        "circle",
        "contrastive",
        "dynamic_soft_margin",
        "fast_ap",
        "generalized_lifted_structure",
        "histogram",
    ),
    *("intra_pair_variance", "lifted_structure", "margin", "multi_similarity", "n_pairs", "nca", "nt_xent", "pnp"),
    *("ranked_list", "signal_to_noise_contrastive", "smooth_ap", "supervised_contrastive"),
    *("threshold_consistent_margin", "triplet_margin", "tuplet_margin"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", MINERS)
def test_every_loss_of_every_miner_is_finite_for_degenerate_batches(name):
    miner, settings = MINERS[name]

    @jax.jit
    def every(x, labels):
        def of(loss):
            return jax.value_and_grad(lambda x: loss(x, miner(x, labels, **settings)))(x)

        return {loss: of(getattr(losses, f"{loss}_loss")) for loss in LOSSES}

    for case, (x, labels) in DEGENERATE.items():
        for loss, (value, gradient) in every(jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32)).items():
            assert np.isfinite(value), (case, loss)
            assert np.isfinite(gradient).all(), (case, loss)
