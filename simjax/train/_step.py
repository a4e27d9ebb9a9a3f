"""The training step: one pure function of one state, compiled once, and called for several steps at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from simjax.data import Augmentation, augment, normalise
from simjax.train._loss_of import Seen
from simjax.train._objective import Objective
from simjax.train._settings import Settings


class Metrics(NamedTuple):
    """Sums since the last line of the log; they stay on the device until it is written."""

    loss: Array
    correct: Array
    steps: Array
    first_bad_step: Array
    """-1 while every loss was finite"""

    def means(self, objective: Objective) -> dict[str, float | None]:
        """Loss and accuracy over the steps summed, for the log."""
        correct = float(self.correct / self.steps / objective.images)
        return {"loss": float(self.loss / self.steps), "accuracy": correct if objective.classifies else None}


class State(NamedTuple):
    """All that a step changes; a checkpoint is exactly this."""

    params: Any
    statistics: Any
    """batch statistics"""
    optimizer: Any
    step: Array
    key: Array
    metrics: Metrics


class Pixels(NamedTuple):
    """How uint8 images become the network's input: (image / 255 - mean) / std for each channel."""

    mean: Array
    std: Array

    @classmethod
    def of(cls, mean: ArrayLike, std: ArrayLike) -> "Pixels":
        """Pixels with mean 0 and deviation 1, given the mean and deviation [c] of image / 255."""
        return cls(jnp.asarray(mean), jnp.asarray(std))

    @classmethod
    def unit(cls, channels: int) -> "Pixels":
        """Pixels in [0, 1]."""
        return cls(jnp.zeros(channels), jnp.ones(channels))


def fresh_metrics() -> Metrics:
    """Metrics before the first step."""
    return Metrics(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))


def build_optimizer(settings: Settings, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with warm-up and cosine decay, from completed settings; and its learning rate at each step."""
    o = settings.optimizer
    peak = o.learning_rate or 0.0
    warmup = warmup_steps(settings, steps)
    if o.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(steps, warmup + 1))
    else:
        schedule = optax.warmup_constant_schedule(0.0 if warmup else peak, peak, warmup)
    adam = optax.adamw(schedule, weight_decay=o.weight_decay or 0.0, mask=_decayed)
    if settings.loss.parameters_rate != 1:  # after Adam, which takes no notice of the size of a gradient
        adam = optax.chain(adam, optax.masked(optax.scale(settings.loss.parameters_rate), _of_the_loss))
    return (optax.chain(optax.clip_by_global_norm(o.clip_norm), adam) if o.clip_norm else adam), schedule


def warmup_steps(settings: Settings, steps: int) -> int:
    """Return how many of so many steps belong to the warm-up."""
    return int(settings.optimizer.warmup * steps + 1e-9)  # a share that was made of a whole number gives that number


def build_augmentation(settings: Settings) -> Augmentation:
    """How completed settings change the images."""
    a = settings.augment
    return Augmentation(a.shift or 0.0, a.rotation or 0.0, a.scale or 0.0, a.flip or False)


def _decayed(params: Any) -> Any:
    """True for kernels only: a bias, a norm's scale, a position or a prototype has no reason to be small."""
    return jax.tree.map_with_path(lambda path, _: any(getattr(k, "key", None) == "kernel" for k in path), params)


def _of_the_loss(params: Any) -> Any:
    """True for what the loss itself learns."""
    return jax.tree.map_with_path(lambda path, _: any(getattr(k, "key", None) == "learned" for k in path), params)


def fresh_state(learner: nnx.Module, optimizer: optax.GradientTransformation, seed: int) -> tuple[Any, State]:
    """The learner's structure and the state before the first step."""
    structure, params, statistics = nnx.split(learner, nnx.Param, ...)
    key = jax.random.key(seed)
    state = State(params, statistics, optimizer.init(params), jnp.zeros((), jnp.int32), key, fresh_metrics())
    # A fresh copy of everything: the step gives its argument's memory away, and the learner still points at it.
    return structure, jax.tree.map(lambda a: a.copy(), state)


def build_steps(
    structure: Any,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    augmentation: Augmentation,
    dtype: str,
) -> Callable[[State, int, Array, Array, Array, Pixels], State]:
    """A function of several training steps.

    It takes (state, how many steps, images uint8 [n, h, w, c], labels [n], the epoch's order [n], pixels) and gives the
    state after them. Choosing the images, normalising and augmenting them all happen inside, from a key of each step's
    own.

    On a CPU all steps of a call are one compiled program: there a program takes its memory from the system anew at each
    call, which can cost as much as the step itself (docs/performance.md). Elsewhere each step is a program, so that
    the device never asks the host whether it was the last one.

    The encoder computes in `dtype`; its parameters, which are converted at each step, the head, the loss and the
    optimiser stay float32.
    """

    def loss(
        params: Any, statistics: Any, x: Array, y: Array, key: Array, at: Array
    ) -> tuple[Array, tuple[Array, Any]]:
        encoder = jax.tree.map(lambda a: a.astype(dtype), params["encoder"])
        learner = nnx.merge(structure, nnx.State({**params, "encoder": encoder}), statistics, copy=True)
        embeddings, logits = learner(x.astype(dtype))
        embeddings = embeddings.astype(jnp.float32)
        memory = learner.remember(embeddings, y)
        value, correct = objective.loss(Seen(embeddings, y, logits, learner.arguments(embeddings), key, at, memory))
        return value, (correct, nnx.split(learner, nnx.Param, ...)[2])

    def step(state: State, images: Array, labels: Array, order: Array, pixels: Pixels) -> State:
        sample_key, augment_key, loss_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        chosen = objective.sample(sample_key, state.step, order)
        x = augment(augment_key, images[chosen].astype(jnp.float32), augmentation)
        x = normalise(x, pixels.mean, pixels.std)
        gradient = jax.value_and_grad(loss, has_aux=True)
        inputs = (x, labels[chosen], loss_key, state.step)
        (value, (correct, statistics)), grads = gradient(state.params, state.statistics, *inputs)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        m = state.metrics
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        metrics = Metrics(
            m.loss + value,
            m.correct + correct,
            m.steps + 1,
            jnp.where((m.first_bad_step < 0) & ~finite, state.step, m.first_bad_step),
        )
        params = optax.apply_updates(state.params, updates)
        return State(params, statistics, optimizer_state, state.step + 1, state.key, metrics)

    def steps(state: State, count: int, images: Array, labels: Array, order: Array, pixels: Pixels) -> State:
        return jax.lax.fori_loop(0, count, lambda _, state: step(state, images, labels, order, pixels), state)

    if jax.default_backend() == "cpu":
        return jax.jit(steps, donate_argnums=0)
    compiled = jax.jit(step, donate_argnums=0)

    def one_by_one(state: State, count: int, *inputs: Any) -> State:
        for _ in range(count):
            state = compiled(state, *inputs)
        return state

    return one_by_one
