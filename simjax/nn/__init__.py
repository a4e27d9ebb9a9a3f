"""Flax NNX modules on the dot-product core: layers, encoders of images, heads, parameters of losses."""

from simjax.nn._batch_norm import BatchNorm
from simjax.nn._class_vectors import ClassVectors
from simjax.nn._dense_network import DenseNetwork
from simjax.nn._heads import HEADS, CosinePrototypes, LinearHead, Predictor
from simjax.nn._layers import (
    Convolution,
    Dense,
    Residual,
    average_pool,
    count_parameters,
    flatten,
    global_average_pool,
    max_pool,
)
from simjax.nn._loss_parameters import Boundary, ScaleAndBias, Temperature
from simjax.nn._measures import LowRankMahalanobis, PairNetwork, TunedMeasure
from simjax.nn._siamese_cnn import SiameseCNN
from simjax.nn._transformer import MultiHeadAttention, TransformerBlock
from simjax.nn._vision_transformer import VisionTransformer

__all__ = [
    "BatchNorm",
    "Boundary",
    "ClassVectors",
    "Convolution",
    "CosinePrototypes",
    "Dense",
    "DenseNetwork",
    "HEADS",
    "LinearHead",
    "LowRankMahalanobis",
    "MultiHeadAttention",
    "PairNetwork",
    "Predictor",
    "Residual",
    "ScaleAndBias",
    "SiameseCNN",
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
