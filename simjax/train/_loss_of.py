"""The loss of a step, made of settings: a function of what the step sees."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from simjax import losses, mining
from simjax.similarity import Measure, measure, unit_vectors
from simjax.train._batches import with_views
from simjax.train._miner_of import Compared, Miner, miner_of
from simjax.train._objectives import OBJECTIVES
from simjax.train._settings import Settings
from simjax.train._takes import given, parameters


class Seen(NamedTuple):
    """What a loss may read.

    Attributes:
        embeddings: [b, e].
        labels: int32 [b].
        logits: [b, classes], of a classifier, or None.
        learned: what the loss learns, by the names that it has for them.
        key: of the step, for miners that draw.
        step: which one, for a curriculum.
        memory: of earlier batches and this one, or None.
    """

    embeddings: Array
    labels: Array
    logits: Array | None
    learned: dict[str, Array]
    key: Array
    step: Array
    memory: mining.CrossBatchMemory | None = None


LossOf = Callable[[Seen], tuple[Array, Array]]
"""Gives the loss, and how many images were classified rightly."""


def loss_of(settings: Settings, steps: int) -> LossOf:
    """The loss that completed settings describe.

    Args:
        settings: completed.
        steps: of the whole training.

    Raises:
        InputError: for a fraction where the loss needs a whole number.
    """
    needs = OBJECTIVES[settings.objective]
    if needs.loss is None:
        return partial(_cross_entropy, settings.loss.label_smoothing)
    if settings.loss.pairs == "random":
        return partial(_of_random_pairs, settings)
    loss = partial(needs.loss, **_arguments(settings))
    if needs.learns == "predictor":
        return partial(_of_predictions, loss)
    if needs.batch == "views":
        return partial(_of_views, loss)
    return partial(_of_rows, loss, miner_of(settings, steps), with_views(settings))


def compared_by(settings: Settings) -> Measure:
    """The measure by which the embeddings are meant to be compared."""
    loss = settings.loss
    if loss.measure is not None:
        return measure(loss.measure)
    if not loss.normalise:
        return measure("signal_to_noise" if settings.objective == "signal_to_noise_contrastive" else "euclidean")
    return measure(OBJECTIVES[settings.objective].measure)


def _arguments(settings: Settings) -> dict[str, Any]:
    loss = OBJECTIVES[settings.objective].loss
    assert loss is not None
    found = given(settings.loss, loss)
    by_length = not settings.loss.normalise and "normalise" not in parameters(loss)
    if settings.loss.reducer is not None:
        found["reducer"] = settings.loss.reducer
    return found | ({"measure": "euclidean"} if by_length else {})


def _cross_entropy(smoothing: float, seen: Seen) -> tuple[Array, Array]:
    assert seen.logits is not None
    targets = optax.smooth_labels(jnp.eye(seen.logits.shape[1])[seen.labels], smoothing)
    right = jnp.sum(jnp.argmax(seen.logits, -1) == seen.labels)
    return optax.softmax_cross_entropy(seen.logits, targets).mean(), right


def _of_rows(loss: Callable[..., Array], mine: Miner | None, views: bool, seen: Seen) -> tuple[Array, Array]:
    """A loss of pairs, triplets, ranks or class vectors."""
    labels = jnp.tile(jnp.arange(len(seen.labels) // 2, dtype=jnp.int32), 2) if views else seen.labels
    compared: Compared = seen.embeddings, labels, {}
    if seen.memory is not None:
        others = {"ref_embeddings": seen.memory.embeddings}
        compared = seen.embeddings, mining.against(seen.memory, labels), others
    rows, related, others = compared if mine is None else mine(compared, seen.key, seen.step)
    return loss(rows, related, **others, **seen.learned), jnp.zeros(())


def _of_views(loss: Callable[..., Array], seen: Seen) -> tuple[Array, Array]:
    return loss(*jnp.split(seen.embeddings, 2), **seen.learned), jnp.zeros(())


def _of_predictions(loss: Callable[..., Array], seen: Seen) -> tuple[Array, Array]:
    """SimSiam: of each view, what the predictor makes of the other."""
    (x, y), (from_x, from_y) = jnp.split(seen.embeddings, 2), jnp.split(seen.learned["prediction"], 2)
    return loss(from_x, y, other_prediction=from_y, other_projection=x), jnp.zeros(())


def _of_random_pairs(settings: Settings, seen: Seen) -> tuple[Array, Array]:
    """Contrastive, the first half of the batch with the second."""
    loss, y = settings.loss, seen.labels
    e = unit_vectors(seen.embeddings) if loss.normalise and loss.measure is None else seen.embeddings
    half = len(y) // 2
    distance = measure(loss.measure or "euclidean")(e[:half], e[half : 2 * half])
    options = {name: value for name, value in given(loss, losses.contrastive_loss).items() if name != "measure"}
    same = y[:half] == y[half : 2 * half]
    return losses.contrastive_terms(distance, same, **options).mean(), jnp.zeros(())
