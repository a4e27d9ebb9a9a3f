"""Heads: from an embedding to one score for each class, or to a prediction of another embedding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax.core import dot_products
from simjax.nn._batch_norm import BatchNorm
from simjax.nn._bounded import LOG_LIMIT, MAX_SCALE, bounded, check_scale, log_limit
from simjax.nn._class_vectors import random_directions
from simjax.nn._layers import Dense
from simjax.similarity import unit_vectors


class LinearHead(nnx.Module):
    """Dot product of the embedding with one vector for each class, plus a bias."""

    def __init__(self, embedding_size: int, classes: int, *, rngs: nnx.Rngs):
        self.dense = Dense(embedding_size, classes, init="lecun_normal", rngs=rngs)

    def __call__(self, embeddings: Array) -> Array:
        """Embeddings [b, e] to logits [b, classes]."""
        return self.dense(embeddings)


class CosinePrototypes(nnx.Module):
    """Cosine similarity of the embedding with one prototype for each class, times a learned scale.

    Args:
        embedding_size: of the embeddings.
        classes: how many there are.
        scale: where it begins.
        max_scale: largest scale, with the gradient of `Temperature` there; None is the largest with finite gradients.
        rngs: initialises the prototypes.

    Raises:
        InputError: if the scale is not above 0 or is above max_scale.

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
        """Embeddings [b, e] to logits [b, classes]."""
        cosine = dot_products(unit_vectors(embeddings), unit_vectors(self.prototypes[...]))
        return jnp.exp(bounded(self.log_scale[...], -LOG_LIMIT, log_limit(self.max_scale))) * cosine


class Predictor(nnx.Module):
    """From the embedding of one view to that of another, for `simsiam_loss`: dense, batch norm, ReLU, dense.

    Args:
        embedding_size: of both.
        width: neurons between them; None is a quarter, the paper's bottleneck.
        rngs: initialises the parameters.

    References:
        Chen, He (2021), Exploring Simple Siamese Representation Learning.
    """

    def __init__(self, embedding_size: int, *, width: int | None = None, rngs: nnx.Rngs):
        width = max(1, embedding_size // 4) if width is None else width
        self.first = Dense(embedding_size, width, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(width)
        self.second = Dense(width, embedding_size, init="lecun_normal", rngs=rngs)

    def __call__(self, embeddings: Array) -> Array:
        """Embeddings [b, e] to predictions [b, e]."""
        return self.second(jax.nn.relu(self.norm(self.first(embeddings))))


HEADS = {"linear": LinearHead, "cosine": CosinePrototypes}
