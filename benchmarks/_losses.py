"""Contests of losses: value and gradient by the embeddings. Labels are arguments, never constants of a program."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._timing import CORES, OURS, Contest, Ready, compiled

PEER = "pytorch-metric-learning"
WIDTH = 128


def contests(cases: Any, names: Any = None, *, small: bool = False) -> Iterator[Contest]:
    """Every contest of the cases, in order."""
    makers = {"batch": batches, "large": large}
    for case in cases:
        for contest in makers[case](small):
            if names is None or contest.name in names:
                yield contest


def batches(small: bool) -> Iterator[Contest]:
    """Batches as they are trained on, beside the peer: its loss, and its miner if there is one."""
    for name, (rows, ours, theirs) in {
        "contrastive": (1024, _ours("contrastive"), _theirs("ContrastiveLoss")),
        "supervised_contrastive": (1024, _ours("supervised_contrastive"), _theirs("SupConLoss")),
        "multi_similarity": (1024, _ours("multi_similarity"), _theirs("MultiSimilarityLoss")),
        "multi_similarity, mined": (
            1024,
            _ours("multi_similarity", "multi_similarity"),
            _theirs("MultiSimilarityLoss", "MultiSimilarityMiner"),
        ),
        "circle": (1024, _ours("circle"), _theirs("CircleLoss")),
        "triplets, batch-hard": (
            1024,
            _ours("triplet_margin", "batch_hard"),
            _theirs("TripletMarginLoss", "BatchHardMiner"),
        ),
        "triplets, semi-hard": (
            1024,
            _ours("triplet_margin", "triplet_margin", kind="semi_hard"),
            _theirs("TripletMarginLoss", "TripletMarginMiner", type_of_triplets="semihard"),
        ),
        "triplets, all": (512, _ours("triplet_margin"), _theirs("TripletMarginLoss")),
        "nt_xent": (256, _ours("nt_xent"), _theirs("NTXentLoss")),
    }.items():
        n, classes = (32, 4) if small else (rows, 32)
        yield _contest("batch", name, n, classes, {OURS: ours, PEER: theirs})


def large(small: bool) -> Iterator[Contest]:
    """Batches in which an array of all pairs would be 4.3 GB: 4,096 classes of 8. Triplets: 32 classes of 256."""
    for name, options in PAIRS.items():
        n, classes = (64, 8) if small else (32_768, 4_096)
        yield _contest("large", name, n, classes, {OURS: _ours(name, **options)})
    for name, build in TRIPLETS.items():
        n, classes = (64, 4) if small else (8_192, 32)
        yield _contest("large", name, n, classes, {OURS: build})


def _contest(case: str, name: str, n: int, classes: int, contenders: dict[str, Callable[..., Ready]]) -> Contest:
    def inputs() -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        x = random.standard_normal((n, WIDTH)).astype(np.float32)
        return x, random.permutation(n).astype(np.int32) % classes

    size = f"{n:,} x {WIDTH}, {classes:,} classes"
    return Contest(case, name, size, inputs, contenders, "largest difference")


def _ours(loss: str, miner: str | None = None, **settings: Any) -> Callable[..., Ready]:
    """A loss of simjax with its defaults; the settings are the miner's, or the loss's where there is none."""

    def build(x: np.ndarray, labels: np.ndarray) -> Ready:
        import jax

        from simjax import losses, mining

        function = getattr(losses, f"{loss}_loss")

        def value(x: Any, labels: Any) -> Any:
            if miner is None:
                return function(x, labels, **settings)
            return function(x, getattr(mining, miner)(x, labels, **settings))

        return compiled(jax.value_and_grad(value), x, labels)

    return build


def _theirs(loss: str, miner: str | None = None, **settings: Any) -> Callable[..., Ready]:
    def build(x: np.ndarray, labels: np.ndarray) -> Ready:
        import torch
        from pytorch_metric_learning import losses, miners

        torch.set_num_threads(CORES)
        embeddings, ids = torch.tensor(x, requires_grad=True), torch.tensor(labels.astype(np.int64))
        function = getattr(losses, loss)()
        mine = getattr(miners, miner)(**settings) if miner else None

        def run() -> list[Any]:
            embeddings.grad = None
            value = function(embeddings, ids, mine(embeddings, ids) if mine else None)
            value.backward()
            return [value.detach(), embeddings.grad]

        return Ready(run)

    return build


PAIRS: dict[str, dict[str, Any]] = {
    name: {}
    for name in (
        "contrastive",
        "nt_xent",
        "supervised_contrastive",
        "multi_similarity",
        "circle",
        "nca",
        "tuplet_margin",
        "generalized_lifted_structure",
        "lifted_structure",
        "intra_pair_variance",
        "margin",
        "signal_to_noise_contrastive",
        "threshold_consistent_margin",
        "instance",
        "ranked_list",
        "fast_ap",
        "histogram",
        "smooth_ap",
        "pnp",
        "angular",
    )
}
TRIPLETS = {
    "triplets, all": _ours("triplet_margin"),
    "triplets, smooth": _ours("triplet_margin", smooth=True),
    "triplets, batch-hard": _ours("triplet_margin", "batch_hard"),
    "triplets, semi-hard": _ours("triplet_margin", "semi_hard"),
    "triplets, semi-hard by margin": _ours("triplet_margin", "triplet_margin", kind="semi_hard"),
}
