"""Miners: which pairs and triplets are worth learning from, as relations that every loss takes.

Those of a batch; of a batch and a memory of earlier ones; and hard negatives of a whole data set, as row numbers.
"""

from simjax.mining._angular import angular as angular
from simjax.mining._batch_hard import batch_easy_hard as batch_easy_hard
from simjax.mining._batch_hard import batch_hard as batch_hard
from simjax.mining._cluster_hard import cluster_hard as cluster_hard
from simjax.mining._cross_batch_memory import CrossBatchMemory as CrossBatchMemory
from simjax.mining._cross_batch_memory import against as against
from simjax.mining._cross_batch_memory import cross_batch_memory as cross_batch_memory
from simjax.mining._cross_batch_memory import push as push
from simjax.mining._curriculum import curriculum as curriculum
from simjax.mining._distance_weighted import distance_weighted as distance_weighted
from simjax.mining._guide import guided as guided
from simjax.mining._hard_aware import hard_aware as hard_aware
from simjax.mining._hard_negatives import hard_negatives as hard_negatives
from simjax.mining._margins import pair_margin as pair_margin
from simjax.mining._margins import semi_hard as semi_hard
from simjax.mining._margins import triplet_margin as triplet_margin
from simjax.mining._multi_similarity import multi_similarity as multi_similarity
from simjax.mining._n_hard import n_hard as n_hard
from simjax.mining._statistics import MiningStatistics as MiningStatistics
from simjax.mining._statistics import statistics as statistics
from simjax.mining._uniform_histogram import uniform_histogram as uniform_histogram
