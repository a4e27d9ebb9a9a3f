"""Comparison of trained networks: their representations, robustness and cost.

The layers of a network are those of `Encoder.encode(images, layers=True)`. `evaluate.error_consistency` compares the
errors of two networks, and `explain.mean_attention_distance` the heads of vision transformers.
"""

from simjax.study._corruptions import CORRUPTIONS, corrupt
from simjax.study._flops import forward_flops, training_flops
from simjax.study._probes import linear_probes
from simjax.study._representations import INDICES, layer_similarity, shuffle_images

__all__ = [
    "CORRUPTIONS",
    "INDICES",
    "corrupt",
    "forward_flops",
    "layer_similarity",
    "linear_probes",
    "shuffle_images",
    "training_flops",
]
