"""Flax NNX modules on the dot-product core: layers, encoders of images, heads, parameters of losses."""

from simjax.nn._batch_norm import BatchNorm as BatchNorm
from simjax.nn._class_vectors import ClassVectors as ClassVectors
from simjax.nn._dense_network import DenseNetwork as DenseNetwork
from simjax.nn._heads import HEADS as HEADS
from simjax.nn._heads import CosinePrototypes as CosinePrototypes
from simjax.nn._heads import LinearHead as LinearHead
from simjax.nn._heads import Predictor as Predictor
from simjax.nn._layers import Convolution as Convolution
from simjax.nn._layers import Dense as Dense
from simjax.nn._layers import Residual as Residual
from simjax.nn._layers import average_pool as average_pool
from simjax.nn._layers import count_parameters as count_parameters
from simjax.nn._layers import flatten as flatten
from simjax.nn._layers import global_average_pool as global_average_pool
from simjax.nn._layers import max_pool as max_pool
from simjax.nn._loss_parameters import Boundary as Boundary
from simjax.nn._loss_parameters import ScaleAndBias as ScaleAndBias
from simjax.nn._loss_parameters import Temperature as Temperature
from simjax.nn._measures import LowRankMahalanobis as LowRankMahalanobis
from simjax.nn._measures import PairNetwork as PairNetwork
from simjax.nn._measures import TunedMeasure as TunedMeasure
from simjax.nn._siamese_cnn import SiameseCNN as SiameseCNN
from simjax.nn._transformer import MultiHeadAttention as MultiHeadAttention
from simjax.nn._transformer import TransformerBlock as TransformerBlock
from simjax.nn._vision_transformer import VisionTransformer as VisionTransformer
