"""Every miner equals loops over pairs and triplets, for several kinds of relation; losses accept every miner.

All miners are compiled in one program for each kind of relation, whose results the tests share.
"""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs, similarity
from simjax.core import InputError
from tests.losses.cases import DEGENERATE, D, M, N, cosine, euclidean, related
from tests.slow import mostly_slow

pytestmark = pytest.mark.usefixtures("compile_faster")

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


def guided(d, positive, negative):
    """Exclude negatives that are closer than the nearest positive of the row, or less than 0.1 farther."""
    left = [
        (i, k)
        for i, p, q in columns_of_rows(positive, negative)
        for k in q
        if not len(p) or d[i, k] >= min(d[i, p]) + 0.1
    ]
    return positive, as_mask(d.shape, left)


def mine_guided(x, labels, ref_embeddings=None, ref_labels=None, **settings):
    return mining.guided(x, labels, ref_guide=ref_embeddings, ref_labels=ref_labels, **settings)


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
    "guided": (mine_guided, {"margin": 0.1, "measure": "normalized_euclidean"}, euclidean, guided),
}


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


MINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{name: (miner, settings) for name, (miner, settings, *_) in (OF_PAIRS | OF_TRIPLETS).items()},
    "distance_weighted": (mining.distance_weighted, {"key": jax.random.key(0)}),
    "uniform_histogram": (mining.uniform_histogram, {"key": jax.random.key(0), "bins": 4}),
}


def batch(kind):
    """Return embeddings, reference embeddings, labels, options of a miner, and the masks of pairs."""
    random = np.random.default_rng(0)
    labels, ref_labels, positive, negative = related(kind, random)
    x = np.float32(random.normal(size=(N, D)))
    if ref_labels is None:
        away = ~np.eye(N, dtype=bool)
        return x, x, labels, {}, positive & away, negative & away
    y = np.float32(random.normal(size=(M, D)))
    return x, y, labels, {"ref_embeddings": y, "ref_labels": ref_labels}, positive, negative


@functools.partial(jax.jit, static_argnames="block_size")
def masks(relation, block_size=4):
    """Return the masks of a relation, computed tile by tile as in a loss."""
    n, m = relation.shape
    j = jnp.arange(m, dtype=jnp.int32)[None]
    rows = jnp.minimum(jnp.arange(-(-n // block_size) * block_size, dtype=jnp.int32), n - 1)
    tiles = jax.lax.map(lambda i: relation.masks(i[:, None], j), rows.reshape(-1, block_size))
    return tuple(tile.reshape(-1, m)[:n] for tile in tiles)


@jax.jit
def triplets(relation):
    """Return whether row i, positive a and negative b are a triplet of the relation, [n, m, m]."""
    n, m = relation.shape
    i, j = jnp.arange(n, dtype=jnp.int32)[:, None], jnp.arange(m, dtype=jnp.int32)[None]
    positive, negatives_of = relation.triplets_of(i, j)
    return negatives_of(jnp.broadcast_to(j, (n, m))) & positive[:, :, None]


def triplet_set(relation):
    """Return the set of all triplets of a relation."""
    return {tuple(triplet) for triplet in np.argwhere(triplets(relation)).tolist()}


@functools.cache
def selected(kind):
    """Return the masks that every miner selects, and the triplets of miners of triplets."""
    x, _, labels, options, _, _ = batch(kind)

    @jax.jit
    def mine(x, labels, options):
        mined = {name: miner(x, labels, **settings, **options) for name, (miner, settings) in MINERS.items()}
        as_pairs = {name: masks(mined[name]) for name in (*OF_PAIRS, "semi-hard", "angular")}
        return as_pairs, {name: triplets(mined[name]) for name in OF_TRIPLETS}

    return jax.tree.map(np.asarray, mine(x, labels, options))


@pytest.mark.parametrize("kind", mostly_slow(RELATIONS, "classes"))
@pytest.mark.parametrize("name", OF_PAIRS)
def test_pairs_equal_loops(name, kind):
    *_, compare, oracle = OF_PAIRS[name]
    x, y, _, _, positive, negative = batch(kind)
    for mask, expected in zip(selected(kind)[0][name], oracle(compare(x, y), positive, negative), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("kind", mostly_slow(RELATIONS, "classes"))
@pytest.mark.parametrize("name", OF_TRIPLETS)
def test_triplets_equal_loops(name, kind):
    x, y, _, _, positive, negative = batch(kind)
    as_pairs, found = selected(kind)
    expected = OF_TRIPLETS[name][-1](x, y, positive, negative)
    assert {tuple(triplet) for triplet in np.argwhere(found[name]).tolist()} == expected
    if name in as_pairs:
        for mask, k in zip(as_pairs[name], (1, 2), strict=True):
            np.testing.assert_array_equal(mask, as_mask(mask.shape, [(t[0], t[k]) for t in expected]))


RELATIONS_OF_LOSSES = [("semi-hard", "classes"), ("semi-hard", "grades"), ("batch_hard", "classes")]


@pytest.mark.parametrize(("name", "kind"), mostly_slow(RELATIONS_OF_LOSSES))
def test_a_triplet_loss_of_a_mined_relation_is_that_of_its_triplets(name, kind):
    x, _, labels, _, _, _ = batch(kind)
    as_pairs, found = selected(kind)
    positive, negative = as_pairs[name]
    a, p, q = np.argwhere(found.get(name, positive[:, :, None] & negative[:, None])).T

    def of_enumerated_triplets(x):
        d = similarity.normalized_euclidean_distance(x[:, None], x[None])
        terms = jax.nn.relu(d[a, p] - d[a, q] + 0.5)
        return jnp.sum(terms) / jnp.maximum(jnp.sum(terms > 0), 1)

    def of_mined_triplets(x, labels):
        miner, settings = MINERS[name]
        return losses.triplet_margin_loss(x, miner(x, labels, **settings), margin=0.5, block_size=4)

    assert_same_gradient(of_mined_triplets, lambda x, labels: of_enumerated_triplets(x), x, labels)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [*RELATIONS_OF_LOSSES, ("hard_aware", "classes")])
def test_a_pair_loss_of_a_mined_relation_is_that_of_its_pairs(name, kind):
    x, _, labels, _, _, _ = batch(kind)
    positive, negative = selected(kind)[0][name]

    def of_mined_pairs(x, labels):
        miner, settings = MINERS[name]
        return losses.contrastive_loss(x, miner(x, labels, **settings), block_size=4)

    def of_enumerated_pairs(x, labels):
        return losses.contrastive_loss(x, pairs.by_matrix(positive, negative))

    assert_same_gradient(of_mined_pairs, of_enumerated_pairs, x, labels)


def assert_same_gradient(found, expected, x, labels):
    """Compare value and gradient; no gradient flows through the selection."""
    both = jax.jit(lambda x, labels: [jax.value_and_grad(loss)(x, labels) for loss in (found, expected)])
    (value, gradient), (wanted, slope) = both(x, labels)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_statistics_equal_loops():
    x, _, labels, _, _, _ = batch("classes")
    of_mined = jax.jit(lambda x, labels: mining.statistics(x, mining.multi_similarity(x, labels), block_size=4))
    found, d = of_mined(x, labels), euclidean(x, x)
    found = {name: np.asarray(a) for name, a in vars(found).items()}
    for which, mask in enumerate(selected("classes")[0]["multi_similarity"]):
        assert found["pairs"][which] == mask.sum()
        assert found["rows"][which] == mask.any(1).sum()
        expected = (d[mask].min(), d[mask].mean(), d[mask].max())
        got = (found["nearest"][which], found["mean"][which], found["farthest"][which])
        np.testing.assert_allclose(got, expected, rtol=1e-4)


@jax.jit
def of_degenerate(x, labels):
    """Return the masks of every miner, [miners, n, n] each, and losses of these pairs with their gradients."""
    mined = [miner(x, labels, **settings) for miner, settings in MINERS.values()]
    j = jnp.arange(len(x), dtype=jnp.int32)
    positive, negative = map(jnp.stack, zip(*(relation.masks(j[:, None], j[None]) for relation in mined), strict=True))

    def loss(x, positive, negative):
        relation = pairs.by_matrix(positive, negative)
        return losses.triplet_margin_loss(x, relation) + losses.contrastive_loss(x, relation)

    return positive, negative, jax.vmap(jax.value_and_grad(loss), (None, 0, 0))(x, positive, negative)


@pytest.mark.slow
@pytest.mark.parametrize("case", DEGENERATE)
def test_every_miner_of_a_degenerate_batch_has_finite_losses_and_gradients(case):
    x, labels = (np.asarray(a) for a in DEGENERATE[case])
    x, labels = x.astype(np.float32), labels.astype(np.int32)
    positive, negative, (values, gradients) = jax.tree.map(np.asarray, of_degenerate(x, labels))
    same = labels[:, None] == labels
    assert not (positive & ~(same & ~np.eye(len(x), dtype=bool))).any()
    assert not (negative & same).any()
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    if "row" in case:
        np.testing.assert_array_equal(values, 0)


def test_other_labels_do_not_compile_again(random, caplog):
    x = np.float32(random.normal(size=(29, D)))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for seed in range(5):
            labels = np.random.default_rng(seed).integers(0, 1 + seed, 29)
            losses.contrastive_loss(x, mining.curriculum(x, labels, hardness=seed / 10))
    messages = [r.getMessage() for r in caplog.records]
    assert sum("Finished XLA compilation of jit(_pair_terms)" in m for m in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_raise_errors():
    x, labels, key = jnp.zeros((3, 2)), jnp.array([0, 1, 1]), jax.random.key(0)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (mining.batch_easy_hard, {"positive": "semihard"}, "did you mean semi_hard"),
        (mining.batch_easy_hard, {"positive": "semi_hard", "negative": "all"}, "expected semi_hard together with hard"),
        (mining.batch_easy_hard, {"positive_range": (2.0, 1.0)}, "expected the smallest value first"),
        (mining.triplet_margin, {"kind": "soft"}, "unknown kind 'soft'"),
        (mining.n_hard, {"n_negative": 0}, "n_negative: expected at least 1"),
        (mining.hard_aware, {"share": 0.0}, "share: expected above 0"),
        (mining.uniform_histogram, {"key": key, "bins": 0}, "bins: expected at least 1"),
        (mining.distance_weighted, {"key": key, "cutoff": 2.0}, "cutoff: expected"),
        (mining.batch_hard, {"labels": labels[:2]}, r"relation of \(3, 3\) rows and columns, got \(2, 2\)"),
        (mining.multi_similarity, {"labels": mining.batch_hard(x, labels)}, "got triplets that a miner selected"),
    ]
    for miner, options, message in cases:
        with pytest.raises(InputError, match=message):
            miner(x, **{"labels": labels, **options})


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
@pytest.mark.parametrize("name", ["semi-hard", "batch_hard"])  # a relation of triplets, and one of indices
def test_losses_of_mined_degenerate_batches_are_finite(name):
    miner, settings = MINERS[name]

    @jax.jit
    def every(x, labels):
        def of(loss):
            return jax.value_and_grad(lambda x: loss(x, miner(x, labels, **settings)))(x)

        return {loss: of(getattr(losses, f"{loss}_loss")) for loss in LOSSES}

    for case, (x, labels) in DEGENERATE.items():
        if len(x) == 4:
            for loss, (value, gradient) in every(np.float32(x), np.int32(labels)).items():
                assert np.isfinite(value), (case, loss)
                assert np.isfinite(gradient).all(), (case, loss)
