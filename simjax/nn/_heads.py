"""Heads that map embeddings [b, e] to logits [b, classes], or to predictions [b, e] of other embeddings."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax.core import dot_products
from simjax.nn._layers import BatchNorm, Dense
from simjax.nn._loss_parameters import MAX_SCALE, check_scale, clip_logarithm, random_directions
from simjax.similarity import unit_vectors


class LinearHead(nnx.Module):
    """The dot products of the embedding with a learned vector for each of `classes` classes, plus a bias.

    Another measure, a name in `NETWORK_MEASURES`, replaces the dot product.
    """

    def __init__(self, embedding_size: int, classes: int, *, measure: str = "dot", rngs: nnx.Rngs):
        self.dense = Dense(embedding_size, classes, init="lecun_normal", measure=measure, rngs=rngs)  # no ReLU follows

    def __call__(self, embeddings: Array) -> Array:
        return self.dense(embeddings)


class CosinePrototypes(nnx.Module):
    """The cosine similarities of the embedding with a learned prototype for each class, times a learned scale.

    Args:
        embedding_size: Size of the embeddings.
        classes: Number of classes.
        scale: Initial factor of the cosine similarities.
        max_scale: Larger factors are clipped to this one. None: exp(40), so that gradients do not overflow float32.

    References:
        Zhai, Wu (2019), Classification is a Strong Baseline for Deep Metric Learning.
    """

    def __init__(
        self,
        embedding_size: int,
        classes: int,
        *,
        scale: float = 16.0,
        max_scale: float | None = MAX_SCALE,
        rngs: nnx.Rngs,
    ):
        check_scale("scale", scale, max_scale)
        self.max_scale = max_scale
        self.prototypes = nnx.Param(random_directions(rngs.params(), (classes, embedding_size)))
        self.log_scale = nnx.Param(jnp.log(jnp.float32(scale)))

    def __call__(self, embeddings: Array) -> Array:
        cosine = dot_products(unit_vectors(embeddings), unit_vectors(self.prototypes[...]))
        return jnp.exp(clip_logarithm(self.log_scale[...], self.max_scale)) * cosine


class Predictor(nnx.Module):
    """Predict the embedding of one view from that of the other, for `simsiam_loss`: dense, batch norm, ReLU, dense.

    Args:
        embedding_size: Size of both embeddings.
        width: Number of hidden neurons. Default: a quarter of the embedding size, as in the paper.

    References:
        Chen, He (2021), Exploring Simple Siamese Representation Learning.
    """

    def __init__(self, embedding_size: int, *, width: int | None = None, rngs: nnx.Rngs):
        width = max(1, embedding_size // 4) if width is None else width
        self.first = Dense(embedding_size, width, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(width)
        self.second = Dense(width, embedding_size, init="lecun_normal", rngs=rngs)  # no ReLU follows

    def __call__(self, embeddings: Array) -> Array:
        return self.second(jax.nn.relu(self.norm(self.first(embeddings))))


HEADS = {"linear": LinearHead, "cosine": CosinePrototypes}
