"""Comparison of trained networks: their representations, robustness and cost."""

from simjax.study._flops import forward_flops, training_flops
from simjax.study._representations import INDICES, layer_similarity, shuffle_images

__all__ = [
    "INDICES",
    "forward_flops",
    "layer_similarity",
    "shuffle_images",
    "training_flops",
]
