"""Miners: select the pairs and triplets of a batch that are worth learning from.

A miner returns a `pairs.Relation`, which every pair loss takes in place of labels:

    loss = triplet_margin_loss(embeddings, mining.semi_hard(embeddings, labels))

If the relation consists of triplets, a pair loss uses each of their pairs once. A score is larger for closer pairs: a
similarity, or a negated distance. Among equal scores the lowest column is selected.

Miners share these arguments:

    embeddings: [n, d].
    labels: Class ids [n] or a `pairs.Relation`.
    ref_embeddings: Columns to compare the rows with, [m, d]. Default: the embeddings; a row is not paired with itself.
    ref_labels: Class ids [m], if `labels` are class ids and there are reference embeddings.
    measure: Name of a measure or a `Measure`, a similarity or a distance.
    block_size: Rows per block. Default: chosen from a memory budget.

They raise an `InputError` if shapes do not match, a measure or an option is unknown, or a number is out of range, and a
`TypeError` if labels are not integers. A `margin` or another hyperparameter of type `ArrayLike` may be traced.
"""

from simjax.mining._batch_hard import batch_easy_hard, batch_hard, cluster_hard, n_hard
from simjax.mining._cross_batch_memory import CrossBatchMemory, against, cross_batch_memory, push
from simjax.mining._hard_negatives import hard_negatives
from simjax.mining._pairs import curriculum, guided, hard_aware, multi_similarity, pair_margin, uniform_histogram
from simjax.mining._statistics import MiningStatistics, statistics
from simjax.mining._triplets import angular, distance_weighted, semi_hard, triplet_margin

__all__ = [
    "CrossBatchMemory",
    "MiningStatistics",
    "against",
    "angular",
    "batch_easy_hard",
    "batch_hard",
    "cluster_hard",
    "cross_batch_memory",
    "curriculum",
    "distance_weighted",
    "guided",
    "hard_aware",
    "hard_negatives",
    "multi_similarity",
    "n_hard",
    "pair_margin",
    "push",
    "semi_hard",
    "statistics",
    "triplet_margin",
    "uniform_histogram",
]
