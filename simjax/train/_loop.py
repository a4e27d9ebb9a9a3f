"""The training loop: compiled steps, a log, checkpoints, and safe places to stop."""

import shlex
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    State,
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


class Fitted(NamedTuple):
    """What training leaves: the learner's structure and state, and how long it took."""

    structure: Any
    state: State
    seconds: float
    step_milliseconds: float


def fit(
    settings: Settings,
    folder: RunFolder,
    sources: Sources,
    learner: Learner,
    objective: Objective,
    pixels: Pixels,
    steps: int,
    *,
    resume: bool,
) -> Fitted:
    """Take all steps, from the newest checkpoint if there is one to resume.

    Raises:
        InputError: if a loss or gradient is not finite, or the disk is full; the last good checkpoint is kept.
        Interrupted: on Ctrl-C or SIGTERM, when the state is saved.
    """
    optimizer, schedule = build_optimizer(settings, steps)
    structure, state = fresh_state(learner, optimizer, settings.seed)
    take = build_steps(structure, optimizer, objective, build_augmentation(settings), settings.dtype)
    checkpoints = Checkpoints(folder.checkpoints)
    earlier = 0.0
    if resume and (found := checkpoints.restore(state)) is not None:
        state, earlier = found
        say(f"resumed at step {int(state.step):,} of {steps:,}")
    at = begun = int(state.step)
    folder.keep_metrics_until(at)

    images, labels = jnp.asarray(sources.train.images), jnp.asarray(sources.train.labels)
    order_key = jax.random.key(settings.seed + 1)

    def order_of(epoch: int) -> jax.Array:
        return epoch_order(jax.random.fold_in(order_key, epoch), len(sources.train.labels))

    order = order_of(at // objective.steps_per_epoch)
    log_every = max(1, min(steps // LOG_LINES, LOG_STEPS))
    validate_every = log_every * max(1, steps // VALIDATIONS // log_every)
    clock, pace = _Clock(earlier), Pace()
    saved = time.perf_counter()
    with _StopSignal() as stop, ProgressDisplay(steps, at) as display:
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
                line = {"step": at, "epoch": at / objective.steps_per_epoch} | metrics.means(objective) | time_of
                line["learning_rate"] = np.asarray(schedule(at - 1)).item()
                folder.log(line)
                display.training(line, clock.left(at - begun, steps - at))
            if due and (at % validate_every == 0 or at == steps) and len(sources.validation.labels) > 1:
                encoder = Encoder(structure, state.params, state.statistics, pixels)
                line = {"step": at} | encoder(sources.validation.images).scores(objective, sources.validation.labels)
                folder.log(line)
                display.validation(line)
            if at == steps or stop.requested or time.perf_counter() - saved >= settings.checkpoint_seconds:
                checkpoints.save(state, clock.seconds())
                saved = time.perf_counter()
            clock.skip()
            if stop.requested and at < steps:
                again = shlex.join(["python", "train.py", "--resume", "--out", str(folder.path)])
                raise Interrupted(f"stopped at step {at:,}; go on with: {again}")
    checkpoints.close()
    return Fitted(structure, state, clock.seconds(), clock.step_milliseconds())


class _Clock:
    """Training time in all, and the time of a step without logging, validation, checkpoints and compilation."""

    def __init__(self, earlier: float):
        self._earlier = earlier
        self._start = self._mark = time.perf_counter()
        self._taken = 0
        self._step_seconds: list[float] = []

    def seconds(self) -> float:
        """Since the run's first step, including what came before a resumption."""
        return self._earlier + time.perf_counter() - self._start

    def lap(self, taken: int, images: int) -> dict[str, float]:
        """The part of a log line that is about time, after `taken` steps in all."""
        each = (time.perf_counter() - self._mark) / (taken - self._taken)
        self._taken = taken
        self._step_seconds.append(each)
        return {"images_per_second": images / each, "seconds": self.seconds()}

    def skip(self) -> None:
        """Leave out what has passed since the last lap."""
        self._mark = time.perf_counter()

    def left(self, taken: int, missing: int) -> float:
        """Seconds that the missing steps will take."""
        return (time.perf_counter() - self._start) / max(taken, 1) * missing

    def step_milliseconds(self) -> float:
        """The median over the laps; the first one held the compilation."""
        laps = self._step_seconds[1:] or self._step_seconds or [0.0]
        return 1000 * statistics.median(laps)


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
