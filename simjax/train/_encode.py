"""Encoding many images with a trained state: embeddings, logits, attention."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from simjax.data import normalise
from simjax.evaluate import knn_accuracy
from simjax.similarity import combine_embeddings
from simjax.train._loss_of import LossOf, Seen
from simjax.train._objective import Objective
from simjax.train._step import Pixels

BATCH = 256  # always: whatever the number of images, the program is compiled once


class Encoded(NamedTuple):
    """What the learner makes of images: embeddings [n, e], logits [n, classes] or None, and what its loss learned.

    Of an ensemble there are embeddings alone.
    """

    embeddings: np.ndarray
    logits: np.ndarray | None = None
    learned: dict[str, Array] | None = None

    def scores(self, objective: Objective, labels: np.ndarray, *, known_classes: bool = True) -> dict[str, float]:
        """Return the validation part of a log line.

        Args:
            objective: of the training.
            labels: of the images.
            known_classes: whether training images have these classes. Without them there is no loss, and the
                accuracy is that of the nearest neighbour.
        """
        if not known_classes:
            return {"validation_accuracy": self._replace(logits=None).accuracy(objective, labels)}
        loss = self.loss(objective, labels)
        accuracy = {"validation_accuracy": self.accuracy(objective, labels)}
        return accuracy if loss is None else {"validation_loss": loss} | accuracy

    def loss(self, objective: Objective, labels: np.ndarray) -> float | None:
        """The objective's loss, in batches as large as those of the training, averaged over the images.

        A miner mines as in the last step, and always draws the same. None for losses of two views: images as they are,
        without random changes, are but one. None for an ensemble, whose encoders have a loss each.
        """
        if objective.views or self.learned is None:
            return None
        size = min(objective.images, len(labels))
        batches = len(labels) // size
        total = 0.0
        for i in range(batches):
            part = slice(i * size, (i + 1) * size)
            logits = None if self.logits is None else jnp.asarray(self.logits[part])
            rows = jnp.asarray(self.embeddings[part]), jnp.asarray(labels[part])
            last = jnp.int32(objective.steps)
            total += float(_loss(objective.loss, Seen(*rows, logits, self.learned, jax.random.key(0), last)))
        return total / batches

    def accuracy(self, objective: Objective, labels: np.ndarray) -> float:
        """The classifier's accuracy, or without one that of the nearest neighbour among the same images."""
        if self.logits is not None:
            return float(np.mean(self.logits.argmax(1) == labels))
        return knn_accuracy(self.embeddings, labels, k=1, measure=objective.measure) or 0.0


@partial(jax.jit, static_argnums=0)
def _loss(loss: LossOf, seen: Seen) -> Array:
    return loss(seen)[0]


class Encoder:
    """A trained learner, for use."""

    def __init__(self, structure: Any, params: Any, statistics: Any, pixels: Pixels):
        self._structure = structure
        self._state = (params, statistics, pixels)

    def __call__(self, images: np.ndarray) -> Encoded:
        """Images uint8 [n, h, w, c] to embeddings and logits."""
        parts = [_encode(self._structure, *self._state, batch) for batch in _batches(images)]
        embeddings = np.concatenate([np.asarray(e) for e, _ in parts])[: len(images)]
        learned = _learner(self._structure, *self._state[:2]).arguments()
        if parts[0][1] is None:
            return Encoded(embeddings, None, learned)
        logits = np.concatenate([np.asarray(logits) for _, logits in parts])[: len(images)]
        return Encoded(embeddings, logits, learned)

    def attention(self, images: np.ndarray) -> np.ndarray:
        """How much each patch is looked at in a vision transformer's last block.

        Returns:
            [n, heads, grid rows, grid columns], the mean over the tokens that look (with a class token: what it looks
            at).
        """
        weights = np.asarray(_attention(self._structure, *self._state, jnp.asarray(images)))
        encoder = nnx.merge(self._structure, *self._state[:2]).encoder
        looked = weights[:, :, 0, 1:] if encoder.class_token is not None else weights.mean(axis=2)
        return looked.reshape(*looked.shape[:2], *encoder.grid)


class Together:
    """The encoders of an ensemble, used as one."""

    def __init__(self, encoders: Sequence[Encoder], combine: str):
        self._encoders, self._combine = encoders, combine

    def __call__(self, images: np.ndarray) -> Encoded:
        """Images uint8 [n, h, w, c] to embeddings."""
        each = [encoder(images).embeddings for encoder in self._encoders]
        return Encoded(np.asarray(combine_embeddings(each, self._combine)))

    def attention(self, images: np.ndarray) -> np.ndarray:
        """Of the first encoder."""
        return self._encoders[0].attention(images)


def _batches(images: np.ndarray) -> list[Array]:
    """Batches of one size; the last one is filled up with copies of the first image."""
    fill = -len(images) % BATCH
    whole = np.concatenate([images, np.repeat(images[:1], fill, axis=0)]) if fill else images
    return [jnp.asarray(whole[i : i + BATCH]) for i in range(0, len(whole), BATCH)]


def _learner(structure: Any, params: Any, statistics: Any) -> Any:
    learner = nnx.merge(structure, params, statistics, copy=True)
    return nnx.view(learner, use_running_average=True, raise_if_not_found=False)


@partial(jax.jit, static_argnums=0)
def _encode(structure: Any, params: Any, statistics: Any, pixels: Pixels, images: Array) -> tuple[Array, Array | None]:
    return _learner(structure, params, statistics)(normalise(images, pixels.mean, pixels.std))


@partial(jax.jit, static_argnums=0)
def _attention(structure: Any, params: Any, statistics: Any, pixels: Pixels, images: Array) -> Array:
    encoder = _learner(structure, params, statistics).encoder
    return encoder(normalise(images, pixels.mean, pixels.std), return_attention=True)[1]
