"""The loss of encoded images, and the validation line of the log."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from simjax import evaluate
from simjax.similarity import Measure
from simjax.train._collapse import collapse_statistics
from simjax.train._learner import Encoded
from simjax.train._objective import LossFunction, LossInputs, Objective


def validation_scores(
    encoded: Encoded, objective: Objective, labels: np.ndarray, measure: Measure, *, known_classes: bool
) -> dict[str, float | None]:
    """Compute the validation line of the log: loss, accuracy, and the statistics that show a collapse.

    With `known_classes`, training images have the classes of these images. Otherwise there is no loss, and the accuracy
    is that of the nearest neighbour.
    """
    scores = collapse_statistics(encoded.embeddings)
    if known_classes and (losses := batch_losses(encoded, objective, labels)):
        scores["validation_loss"] = float(np.mean(losses))
    if known_classes and encoded.logits is not None:
        scores["validation_accuracy"] = float(np.mean(encoded.logits.argmax(1) == labels))
    else:
        accuracy = evaluate.knn_accuracy(encoded.embeddings, labels, k=1, measure=measure)
        scores["validation_accuracy"] = accuracy or 0.0
    return scores


def batch_losses(encoded: Encoded, objective: Objective, labels: np.ndarray) -> list[float]:
    """Compute the loss of each batch of the size of training batches; the last, incomplete batch is left out.

    A miner has the settings of the last step and the same random key for every batch. There are no losses of two views,
    because images without augmentation are a single view, and none of ensembles.
    """
    if objective.has_views or encoded.loss_arguments is None:
        return []
    size = min(objective.images_per_step, len(labels))
    losses = []
    for i in range(len(labels) // size):
        rows = slice(i * size, (i + 1) * size)
        inputs = LossInputs(
            embeddings=jnp.asarray(encoded.embeddings[rows]),
            labels=jnp.asarray(labels[rows]),
            logits=None if encoded.logits is None else jnp.asarray(encoded.logits[rows]),
            loss_arguments=encoded.loss_arguments,
            key=jax.random.key(0),
            step=jnp.int32(objective.steps),
        )
        losses.append(float(_loss(objective.loss, inputs)))
    return losses


@jax.jit(static_argnums=0)
def _loss(loss: LossFunction, inputs: LossInputs) -> Array:
    return loss(inputs)[0]
