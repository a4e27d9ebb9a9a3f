"""Miners select the same pairs and triplets as pytorch-metric-learning, if it is installed (`.[bench]`).

Random miners are tested in test_draws.py. There are three differences: a relation has a pair once, even if the pair is
in several triplets; the hard-aware miner selects all pairs that are equally hard; the angular miner normalizes rows.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining
from tests.mining.test_miners import masks, triplet_set
from tests.slow import mostly_slow

theirs = pytest.importorskip("pytorch_metric_learning.miners", reason="pytorch-metric-learning is not installed")
their_losses = pytest.importorskip("pytorch_metric_learning.losses")
torch = pytest.importorskip("torch")

PAIRS = {
    "multi_similarity": (mining.multi_similarity, {}, lambda: theirs.MultiSimilarityMiner()),
    "pair_margin": (mining.pair_margin, {}, lambda: theirs.PairMarginMiner()),
    "hard_aware": (mining.hard_aware, {}, lambda: theirs.HDCMiner()),
    "easy_semi_hard": (mining.batch_easy_hard, {}, lambda: theirs.BatchEasyHardMiner()),
    "semi_hard_hard": (
        mining.batch_easy_hard,
        {"positive": "semi_hard", "negative": "hard"},
        lambda: theirs.BatchEasyHardMiner(pos_strategy="semihard", neg_strategy="hard"),
    ),
    "easy_of_all": (
        mining.batch_easy_hard,
        {"positive": "all", "negative": "easy"},
        lambda: theirs.BatchEasyHardMiner(pos_strategy="all", neg_strategy="easy"),
    ),
    "in_ranges": (
        mining.batch_easy_hard,
        {"positive": "hard", "negative": "hard", "positive_range": (0.5, 1.4), "negative_range": (0.9, 1.6)},
        lambda: theirs.BatchEasyHardMiner("hard", "hard", allowed_pos_range=(0.5, 1.4), allowed_neg_range=(0.9, 1.6)),
    ),
}
TRIPLETS = {
    "batch_hard": (mining.batch_hard, {}, lambda: theirs.BatchHardMiner()),
    "all": (mining.triplet_margin, {}, lambda: theirs.TripletMarginMiner()),
    "hard": (mining.triplet_margin, {"kind": "hard"}, lambda: theirs.TripletMarginMiner(type_of_triplets="hard")),
    "semi_hard": (
        mining.triplet_margin,
        {"kind": "semi_hard"},
        lambda: theirs.TripletMarginMiner(type_of_triplets="semihard"),
    ),
    "easy": (mining.triplet_margin, {"kind": "easy"}, lambda: theirs.TripletMarginMiner(type_of_triplets="easy")),
    "angular": (mining.angular, {}, lambda: theirs.AngularMiner()),
}


@pytest.fixture
def batch(random):
    return np.float32(random.normal(size=(23, 7))), random.permutation(23) % 4


def as_mask(rows, columns):
    mask = np.zeros((23, 23), bool)
    mask[rows.numpy(), columns.numpy()] = True
    return mask


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_equal_pytorch_metric_learning(batch, name):
    miner, settings, make = PAIRS[name]
    x, labels = batch
    a1, p, a2, n = make()(torch.tensor(x), torch.tensor(labels))
    found = masks(miner(x, labels, **settings))
    for mask, expected in zip(found, (as_mask(a1, p), as_mask(a2, n)), strict=True):
        if name == "hard_aware":  # the last pair may be selected in one row only; ours selects both
            expected |= mask & expected.T
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRIPLETS)
def test_triplets_equal_pytorch_metric_learning(batch, name):
    miner, settings, make = TRIPLETS[name]
    x, labels = batch
    if name == "angular":  # theirs does not normalize
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = make()(torch.tensor(x), torch.tensor(labels))
    assert triplet_set(miner(x, labels, **settings)) == set(zip(*(t.tolist() for t in expected), strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["batch_hard", "semi_hard"])
def test_triplet_loss_of_mined_triplets_equals_pytorch_metric_learning(batch, name):
    miner, settings, make = TRIPLETS[name]
    x, labels = batch
    found = losses.triplet_margin_loss(jnp.asarray(x), miner(x, labels, **settings))
    selected = make()(torch.tensor(x), torch.tensor(labels))
    expected = their_losses.TripletMarginLoss()(torch.tensor(x), torch.tensor(labels), selected)
    np.testing.assert_allclose(found, expected.item(), rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (losses.multi_similarity_loss, lambda: their_losses.MultiSimilarityLoss()),
        (losses.contrastive_loss, lambda: their_losses.ContrastiveLoss()),
        (losses.nt_xent_loss, lambda: their_losses.NTXentLoss()),
        (losses.circle_loss, lambda: their_losses.CircleLoss()),
    ],
)
def test_losses_of_mined_pairs_equal_pytorch_metric_learning(batch, ours, make):
    x, labels = batch
    found = ours(jnp.asarray(x), mining.multi_similarity(x, labels))
    embeddings, ids = torch.tensor(x), torch.tensor(labels)
    expected = make()(embeddings, ids, theirs.MultiSimilarityMiner()(embeddings, ids))
    np.testing.assert_allclose(found, expected.item(), rtol=1e-4)


@pytest.mark.parametrize(("swap", "smooth"), mostly_slow([(True, False), (False, True), (True, True)], (True, True)))
def test_swapped_and_smooth_triplet_losses_equal_pytorch_metric_learning(batch, swap, smooth):
    x, labels = batch
    found = losses.triplet_margin_loss(jnp.asarray(x), labels, swap=swap, smooth=smooth)
    loss = their_losses.TripletMarginLoss(swap=swap, smooth_loss=smooth)
    np.testing.assert_allclose(found, loss(torch.tensor(x), torch.tensor(labels)).item(), rtol=1e-4)
