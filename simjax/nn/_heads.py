"""Heads: from an embedding to one score for each class."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax.core import dot_products
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

    References:
        Zhai, Wu (2019), Classification is a Strong Baseline for Deep Metric Learning.
    """

    def __init__(self, embedding_size: int, classes: int, *, scale: float = 16.0, rngs: nnx.Rngs):
        self.prototypes = nnx.Param(random_directions(rngs.params(), (classes, embedding_size)))
        self.log_scale = nnx.Param(jnp.log(jnp.float32(scale)))

    def __call__(self, embeddings: Array) -> Array:
        """Embeddings [b, e] to logits [b, classes]."""
        cosine = dot_products(unit_vectors(embeddings), unit_vectors(self.prototypes[...]))
        return jnp.exp(self.log_scale[...]) * cosine


HEADS = {"linear": LinearHead, "cosine": CosinePrototypes}
