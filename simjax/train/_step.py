"""The training step: a pure function of the state. It is compiled once; a call takes several steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from simjax.data import Augmentation, augment, normalize
from simjax.train._data import Normalization
from simjax.train._objective import LossInputs, Objective
from simjax.train._settings import Settings


class Metrics(NamedTuple):
    """Sums over the steps since the last log line. They stay on the device until the next log line is written."""

    loss: Array  # sum of the losses, float32 []
    correct_count: Array  # number of correctly classified images, float32 []
    steps: Array  # number of steps, int32 []
    first_nonfinite_step: Array  # first step whose loss or gradient was not finite, or -1, int32 []

    @classmethod
    def zeros(cls) -> "Metrics":
        """Return the metrics before the first step."""
        return cls(*jax.device_put((np.float32(0), np.float32(0), np.int32(0), np.int32(-1))))

    def means(self, objective: Objective) -> dict[str, float | None]:
        """Return the mean loss and accuracy; without a classifier the accuracy is None."""
        per_step = self.correct_count / self.steps
        accuracy = float(per_step / objective.images_per_step) if objective.is_classifier else None
        return {"loss": float(self.loss / self.steps), "accuracy": accuracy}


class State(NamedTuple):
    """The whole training state, as a checkpoint contains it."""

    params: Any  # parameters of the learner
    statistics: Any  # variables of the learner without a gradient: batch statistics and cross-batch memory
    optimizer: Any  # state of the optimizer
    step: Array  # number of steps taken, int32 []
    key: Array  # PRNG key of the training; the key of a step is `fold_in(key, step)`
    metrics: Metrics


StepsFunction = Callable[[State, int, Array, Array, Array, Normalization], State]
"""Takes the state, the number of steps, all training images uint8 [n, h, w, c], their labels [n], the image indices of
the epoch in random order [n], and the normalization. Returns the state after the steps. The buffers of the given state
are donated, so the given state must not be used again."""


def initial_state(learner: nnx.Module, optimizer: optax.GradientTransformation, seed: int) -> tuple[Any, State]:
    """Return the module definition of the learner (`nnx.GraphDef`) and the state before the first step."""
    graphdef, params, statistics = nnx.split(learner, nnx.Param, ...)

    @jax.jit
    def build(params: Any, statistics: Any) -> State:
        # Copied, because a step donates the buffers of its state, and the learner still uses its own.
        params, statistics = jax.tree.map(jnp.copy, (params, statistics))
        return State(params, statistics, optimizer.init(params), jnp.int32(0), jax.random.key(seed), Metrics.zeros())

    return graphdef, build(params, statistics)


def build_steps(
    graphdef: Any,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    augmentation: Augmentation,
    dtype: str,
) -> StepsFunction:
    """Return a compiled function of several training steps.

    On CPU all steps of a call are one compiled loop, because every call of a compiled function allocates its memory
    again, which can take as long as a step (docs/performance.md). On GPU and TPU each step is one compiled call,
    because a loop on the device would synchronize with the host after every step.

    Args:
        graphdef: Module definition of the learner (`nnx.GraphDef`), as `initial_state` returns it.
        optimizer: See `build_optimizer`.
        objective: Computes the loss and samples the batches.
        augmentation: Random changes of the images.
        dtype: Dtype in which the encoder computes. Parameters, head, loss and optimizer are always float32.
    """

    def loss(
        params: Any, statistics: Any, images: Array, labels: Array, key: Array, step: Array
    ) -> tuple[Array, tuple[Array, Any]]:
        """Return the loss of a batch of normalized images, the number of correctly classified ones, new statistics."""
        encoder = jax.tree.map(lambda a: a.astype(dtype), params.get("encoder", {}))
        learner = nnx.merge(graphdef, nnx.State({**params, "encoder": encoder}), statistics, copy=True)
        embeddings, logits = learner(images.astype(dtype))
        embeddings = embeddings.astype(jnp.float32)
        memory = learner.remember(embeddings, labels)
        inputs = LossInputs(embeddings, labels, logits, learner.loss_arguments(embeddings), key, step, memory)
        value, correct_count = objective.loss(inputs)
        return value, (correct_count, nnx.split(learner, nnx.Param, ...)[2])

    def take_step(state: State, images: Array, labels: Array, order: Array, normalization: Normalization) -> State:
        """Sample a batch, augment it and update the parameters; see `StepsFunction` for the arguments."""
        sample_key, augment_key, loss_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        indices = objective.sample(sample_key, state.step, order)  # the images of the batch
        batch = augment(augment_key, images[indices].astype(jnp.float32), augmentation)
        batch = normalize(batch, *normalization)

        inputs = (batch, labels[indices], loss_key, state.step)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (value, (correct_count, statistics)), grads = value_and_grad(state.params, state.statistics, *inputs)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)

        m = state.metrics
        is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        first_nonfinite_step = jnp.where((m.first_nonfinite_step < 0) & ~is_finite, state.step, m.first_nonfinite_step)
        metrics = Metrics(m.loss + value, m.correct_count + correct_count, m.steps + 1, first_nonfinite_step)
        return State(params, statistics, optimizer_state, state.step + 1, state.key, metrics)

    if jax.default_backend() == "cpu":

        def take_steps(state: State, count: int, *data: Any) -> State:
            return jax.lax.fori_loop(0, count, lambda _, state: take_step(state, *data), state)

        return jax.jit(take_steps, donate_argnums=0)

    compiled = jax.jit(take_step, donate_argnums=0)

    def take_steps_one_by_one(state: State, count: int, *data: Any) -> State:
        for _ in range(count):
            state = compiled(state, *data)
        return state

    return take_steps_one_by_one


def build_optimizer(settings: Settings, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return AdamW and its learning rate schedule for `steps` training steps."""
    o = settings.optimizer
    peak = o.learning_rate or 0.0
    warmup = warmup_steps(settings, steps)
    initial = 0.0 if warmup else peak
    if o.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(initial, peak, warmup, max(steps, warmup + 1))
    else:
        schedule = optax.warmup_constant_schedule(initial, peak, warmup)
    optimizer = optax.adamw(schedule, weight_decay=o.weight_decay or 0.0, mask=decay_mask)
    if settings.loss.parameters_rate != 1:
        # The updates are scaled after Adam, because Adam ignores the scale of the gradient.
        scaled = optax.masked(optax.scale(settings.loss.parameters_rate), lambda params: _is_within(params, "learned"))
        optimizer = optax.chain(optimizer, scaled)
    return (optax.chain(optax.clip_by_global_norm(o.clip_norm), optimizer) if o.clip_norm else optimizer), schedule


def warmup_steps(settings: Settings, steps: int) -> int:
    """Return the number of warm-up steps in `steps` training steps."""
    return int(settings.optimizer.warmup * steps + 1e-9)  # 1e-9: a warm-up of k / steps is k steps despite rounding


def build_augmentation(settings: Settings) -> Augmentation:
    """Return the augmentation of the training images."""
    a = settings.augment
    return Augmentation(a.shift or 0.0, a.rotation or 0.0, a.scale or 0.0, a.flip or False, a.cutout or 0.0)


def decay_mask(params: Any) -> Any:
    """Return a mask of the parameters with weight decay: kernels, but no biases, norms, positions or prototypes."""
    return _is_within(params, "kernel")


def _is_within(params: Any, name: str) -> Any:
    """Return a mask of the parameters whose path contains the name."""
    return jax.tree.map_with_path(lambda path, _: any(getattr(part, "key", None) == name for part in path), params)
