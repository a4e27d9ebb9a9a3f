"""What a batch is compared with beyond itself: a memory of earlier batches, hard negatives of a whole data set."""

from simjax.mining._cross_batch_memory import CrossBatchMemory as CrossBatchMemory
from simjax.mining._cross_batch_memory import against as against
from simjax.mining._cross_batch_memory import cross_batch_memory as cross_batch_memory
from simjax.mining._cross_batch_memory import push as push
from simjax.mining._hard_negatives import hard_negatives as hard_negatives
