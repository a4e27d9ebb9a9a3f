"""The training loop: compiled steps, a log, checkpoints, and safe places to stop."""

import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from simjax.core import InputError
from simjax.data import epoch_order
from simjax.train._checkpoint import Checkpoints
from simjax.train._encode import Encoder
from simjax.train._learner import Learner
from simjax.train._objective import Objective
from simjax.train._progress import ProgressDisplay, say
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings
from simjax.train._sources import Sources
from simjax.train._step import (
    Metrics,
    Pixels,
    build_augmentation,
    build_optimizer,
    build_steps,
    fresh_metrics,
    fresh_state,
)

LOG_LINES = 50
LOG_STEPS = 100  # at most this many steps between two lines: a long run should show that it lives
VALIDATIONS = 10
CALL_SECONDS = 3.0  # about so long a call of several steps takes: who presses Ctrl-C waits for it


class Interrupted(Exception):
    """Training was stopped from outside after saving a checkpoint; the message says how to go on."""


class Training(NamedTuple):
    """What is to be trained, on what.

    Attributes:
        settings: completed.
        sources: all images.
        learner: with the parameters that it begins with.
        objective: what it is trained for.
        pixels: how images are scaled.
        name: of the folder of its checkpoints among those of the run.
        before: steps that the run took before, in other trainings; the log counts on from there.
    """

    settings: Settings
    sources: Sources
    learner: Learner
    objective: Objective
    pixels: Pixels
    name: str = ""
    before: int = 0


class Fitted(NamedTuple):
    """What training leaves: the learner, the same for use, and how long it took."""

    learner: Learner
    encoder: Encoder
    steps: int
    seconds: float
    images_per_second: float | None


def fit(training: Training, folder: RunFolder, *, resume: bool) -> Fitted:
    """Take all steps, from the newest checkpoint if there is one to resume.

    Raises:
        InputError: if a loss or gradient is not finite, or the disk is full; the last good checkpoint is kept.
        Interrupted: on Ctrl-C or SIGTERM, when the state is saved.
    """
    settings, sources, learner, objective, pixels, name, before = training
    steps = objective.steps
    optimizer, schedule = build_optimizer(settings, steps)
    structure, state = fresh_state(learner, optimizer, settings.seed)
    take = build_steps(structure, optimizer, objective, build_augmentation(settings), settings.dtype)
    checkpoints = Checkpoints(folder.checkpoints / name)
    earlier = 0.0
    if resume and (found := checkpoints.restore(state)) is not None:
        state, earlier = found
        say(f"resumed at step {int(state.step):,} of {steps:,}")
    at = begun = int(state.step)
    if at < steps:
        folder.keep_metrics_until(before + at)

    images, labels = jnp.asarray(sources.train.images), jnp.asarray(sources.train.labels)
    order_key = jax.random.key(settings.seed + 1)

    def order_of(epoch: int) -> jax.Array:
        return epoch_order(jax.random.fold_in(order_key, epoch), len(sources.train.labels))

    order = order_of(at // objective.steps_per_epoch)
    log_every = max(1, min(steps // LOG_LINES, LOG_STEPS))
    validate_every = log_every * max(1, steps // VALIDATIONS // log_every)
    clock, pace = _Clock(earlier), Pace()
    saved = time.perf_counter()
    with closing(checkpoints), _StopSignal() as stop, ProgressDisplay(steps, at) as display:
        while at < steps:
            if at % objective.steps_per_epoch == 0:
                order = order_of(at // objective.steps_per_epoch)
            ends = (objective.steps_per_epoch - at % objective.steps_per_epoch, log_every - at % log_every, steps - at)
            count = min(pace.steps, *ends)
            with pace.measured(count):
                state = jax.block_until_ready(take(state, count, images, labels, order, pixels))
            at += count
            due = at % log_every == 0 or at == steps
            if not due and not stop.requested:
                continue
            metrics: Metrics = jax.device_get(state.metrics)  # waits for the device: everything before is done
            if metrics.first_bad_step >= 0:
                raise InputError(
                    f"loss or gradient is not finite at step {metrics.first_bad_step + 1}; the last good checkpoint "
                    f"is kept in {folder.checkpoints}; a lower --optimizer.learning-rate may help"
                )
            if due:
                state = state._replace(metrics=fresh_metrics())
                time_of = clock.lap(at - begun, objective.images)
                line = (
                    {"step": before + at, "epoch": at / objective.steps_per_epoch} | metrics.means(objective) | time_of
                )
                line["learning_rate"] = np.asarray(schedule(at - 1)).item()
                folder.log(line)
                display.training(line | {"step": at}, clock.left(at - begun, steps - at))
            if due and (at % validate_every == 0 or at == steps) and len(sources.validation.labels) > 1:
                encoder = Encoder(structure, state.params, state.statistics, pixels)
                line = {"step": before + at} | encoder(sources.validation.images).scores(
                    objective, sources.validation.labels, known_classes=sources.known_validation_classes
                )
                folder.log(line)
                display.validation(line | {"step": at})
            if at == steps or stop.requested or time.perf_counter() - saved >= settings.checkpoint_seconds:
                checkpoints.save(state, clock.seconds())
                saved = time.perf_counter()
            clock.skip()
            if stop.requested and at < steps:
                again = shlex.join(["python", "train.py", "--resume", "--out", str(folder.path)])
                raise Interrupted(f"stopped at step {before + at:,}; go on with: {again}")
    learner = nnx.merge(structure, state.params, state.statistics)
    encoder = Encoder(structure, state.params, state.statistics, pixels)
    return Fitted(learner, encoder, steps, clock.seconds(), folder.images_per_second(before, before + steps))


class _Clock:
    """Training time in all, and the time of steps without logging, validation and checkpoints."""

    def __init__(self, earlier: float):
        self._earlier = earlier
        self._start = self._mark = time.perf_counter()
        self._taken = 0

    def seconds(self) -> float:
        """Since the run's first step, including what came before a resumption."""
        return self._earlier + time.perf_counter() - self._start

    def lap(self, taken: int, images: int) -> dict[str, float]:
        """The part of a log line that is about time, after `taken` steps in all."""
        each = (time.perf_counter() - self._mark) / (taken - self._taken)
        self._taken = taken
        return {"images_per_second": images / each, "seconds": self.seconds()}

    def skip(self) -> None:
        """Leave out what has passed since the last lap."""
        self._mark = time.perf_counter()

    def left(self, taken: int, missing: int) -> float:
        """Seconds that the missing steps will take."""
        return (time.perf_counter() - self._start) / max(taken, 1) * missing


class Pace:
    """How many steps a call takes: about as many as `CALL_SECONDS` have room for."""

    def __init__(self) -> None:
        self.steps = 1

    @contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Around a call of so many steps; the first one, which compiles, takes so long that the next has one too."""
        start = time.perf_counter()
        yield
        self.steps = max(1, int(CALL_SECONDS * count / (time.perf_counter() - start)))


class _StopSignal:
    """Turns Ctrl-C and SIGTERM into a flag that the loop reads at a safe place; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Any] = {}

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._former:
            signal.signal(*self._former.popitem())

    def __enter__(self) -> "_StopSignal":
        if threading.current_thread() is threading.main_thread():  # no other thread may set a handler
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
