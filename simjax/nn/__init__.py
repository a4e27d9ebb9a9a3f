"""Flax NNX modules on the dot-product core: layers, encoders of images, heads, loss parameters, learned measures.

A module with random parameters takes `rngs` to initialize them. Unknown names, numbers out of range and sizes that do
not match raise an `InputError`.
"""

from simjax.nn._efficientnet import EfficientNetLite0
from simjax.nn._heads import HEADS, CosinePrototypes, LinearHead, Predictor
from simjax.nn._layers import (
    BatchNorm,
    Convolution,
    Dense,
    Residual,
    average_pool,
    count_parameters,
    flatten,
    global_average_pool,
    max_pool,
)
from simjax.nn._loss_parameters import Beta, Proxies, ScaleAndBias, Temperature
from simjax.nn._measures import LowRankMahalanobis, PairNetwork, TunedMeasure
from simjax.nn._networks import DenseNetwork, IdentityNetwork, SiameseCNN, SpatialNetwork
from simjax.nn._responses import NETWORK_MEASURES
from simjax.nn._transformer import MultiHeadAttention, TransformerBlock, VisionTransformer

LEARNED_MEASURES = {"low_rank_mahalanobis": LowRankMahalanobis, "pair_network": PairNetwork}
"""Learned measures by name. They take the number of features, their size (rank or hidden neurons) and `rngs`."""

NETWORKS = {
    "cnn": SiameseCNN,
    "vit": VisionTransformer,
    "dnn": DenseNetwork,
    "logistic": IdentityNetwork,
    "efficientnet-lite0": EfficientNetLite0,
}
"""Encoder networks by the name of a model. They take the image shape, `embedding_size`, `rngs` and their own options.
"""

__all__ = [
    "BatchNorm",
    "Beta",
    "Proxies",
    "Convolution",
    "CosinePrototypes",
    "Dense",
    "DenseNetwork",
    "EfficientNetLite0",
    "HEADS",
    "IdentityNetwork",
    "LinearHead",
    "LowRankMahalanobis",
    "LEARNED_MEASURES",
    "MultiHeadAttention",
    "NETWORKS",
    "NETWORK_MEASURES",
    "PairNetwork",
    "Predictor",
    "Residual",
    "ScaleAndBias",
    "SiameseCNN",
    "SpatialNetwork",
    "Temperature",
    "TransformerBlock",
    "TunedMeasure",
    "VisionTransformer",
    "average_pool",
    "count_parameters",
    "flatten",
    "global_average_pool",
    "max_pool",
]
