"""Miners: which pairs and triplets are worth learning from, as relations that every loss takes.

Those of a batch; of a batch and a memory of earlier ones; and hard negatives of a whole data set, as row numbers.
"""

from simjax.mining._angular import angular
from simjax.mining._batch_hard import batch_easy_hard, batch_hard
from simjax.mining._cluster_hard import cluster_hard
from simjax.mining._cross_batch_memory import CrossBatchMemory, against, cross_batch_memory, push
from simjax.mining._curriculum import curriculum
from simjax.mining._distance_weighted import distance_weighted
from simjax.mining._guide import guided
from simjax.mining._hard_aware import hard_aware
from simjax.mining._hard_negatives import hard_negatives
from simjax.mining._margins import pair_margin, semi_hard, triplet_margin
from simjax.mining._multi_similarity import multi_similarity
from simjax.mining._n_hard import n_hard
from simjax.mining._statistics import MiningStatistics, statistics
from simjax.mining._uniform_histogram import uniform_histogram

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
